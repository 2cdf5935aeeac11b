"""The benchmark: exact in virtual time, fair in real time, resumable, and honest about noise."""

from __future__ import annotations

import asyncio
import dataclasses
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentlab import engines, lab
from agentlab.bench import compare, experiment, measure, report, results
from agentlab.commands.main import main
from agentlab.errors import ConfigError
from agentlab.settings import DATA

REFERENCE = DATA / "results"
SMALL = "about: Two agents.\nworkloads: [{agents: 2}]\n"


def written(folder: Path, text: str, name: str = "small") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def measured(folder: Path, text: str, **options: Any) -> results.Results:
    chosen = experiment.load(written(folder, text))
    return measure.run(chosen, folder / "out" / "small.json", **options)


def test_the_article_s_table_is_exact(fresh_lab, tmp_path):
    """1, 2, 4, 8, 16 tasks of 2 s: 0.0, 50.0, 75.0, 87.5 and 93.8% saved, to the last digit."""
    r = measure.run(experiment.load("article"), tmp_path / "article.json")
    for engine in ("asyncio", "langgraph"):
        cases = [c for c in r.experiment.cases() if c.engine == engine]
        assert [r.of(case)[0].elapsed_s for case in cases] == [2.0] * 5
        assert [report.saved(r, case) for case in cases] == [0, 0.5, 0.75, 0.875, 0.9375]
    last = "| 16 agents | asyncio | 2.0 | 2.0 | 1.000 | 93.8% | 2.0 | 2.0 | 16 | 16 |"
    assert last in report.markdown(r)


def test_the_same_experiment_twice_gives_the_same_file(fresh_lab, tmp_path):
    """In virtual time, to the byte; nothing of the clock or the calendar is in it."""
    for run in ("a", "b"):
        assert main(["bench", "article", "--out", str(tmp_path / run)]) == 0
    first, second = (tmp_path / run / "article.json" for run in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", experiment.names())
def test_what_comes_with_the_course_can_be_read(name):
    """Every experiment is valid and has cases."""
    assert list(experiment.load(name).cases())


def test_a_limit_on_what_is_in_flight_holds(fresh_lab, tmp_path):
    """Eight agents of 2 s, three at once: the endpoint saw three, and it took three rounds."""
    text = "about: x\nworkloads: [{agents: 8}]\nengines: [asyncio]\nmax_concurrency: [3]\n"
    (m,) = measured(tmp_path, text).measurements
    assert (m.peak, m.elapsed_s, m.bound_s) == (3, 6.0, pytest.approx(16 / 3))


def test_in_real_time_all_do_equal_work(fresh_lab, tmp_path):
    """Warm-ups are not recorded, cases come in turn, and answers and requests are equal."""
    text = SMALL + "clock: real\nrepeats: 2\nengines: [sequential, asyncio, langgraph]\n"
    r = measured(tmp_path, text + "settings: {time_scale: 100}\n")
    assert [m.case.engine for m in r.measurements] == ["sequential", "asyncio", "langgraph"] * 2
    assert results.unequal(r.measurements) == []
    assert all(m.cpu_ms is not None and m.elapsed_s >= m.bound_s for m in r.measurements)


def test_unequal_work_is_named(fresh_lab, tmp_path):
    """Another answer, another number of requests, and a failure each forbid comparing."""
    r = measured(tmp_path, SMALL + "engines: [sequential, asyncio, langgraph]\n")
    first, second, third = r.measurements
    changed = [
        first,
        msgspec.structs.replace(second, answers="other", requests=3),
        msgspec.structs.replace(third, error="it failed"),
    ]
    assert results.unequal(changed) == [
        "asyncio: its answers are not those of sequential",
        "asyncio: 3 requests for 2 steps",
        "langgraph: it failed",
    ]


def test_a_failure_is_a_measurement_without_a_result(fresh_lab, tmp_path, capsys):
    """The others are measured all the same; the table says why, and the exit code is 1."""
    faults = "settings: {faults: [{kind: error, status: 400, agent: agent_1, probability: 1}]}\n"
    path = written(tmp_path, SMALL + faults)
    assert main(["bench", str(path), "--out", str(tmp_path)]) == 1
    assert "**not comparable**: sequential: step" in capsys.readouterr().out


def test_an_interrupt_keeps_what_is_done(fresh_lab, tmp_path, monkeypatch):
    """Interrupted in the third of six, refused without --resume, and then only four are run."""
    path = written(tmp_path, SMALL + "seeds: [1, 2]\nengines: [sequential, asyncio, langgraph]\n")
    arguments = ["bench", str(path), "--out", str(tmp_path)]
    run, calls = engines.run, []

    async def interrupted(*given: Any, **options: Any) -> Any:
        calls.append(options["engine"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return await run(*given, **options)

    monkeypatch.setattr(engines, "run", interrupted)
    assert main(arguments) == 130
    assert len(results.load(tmp_path / "small.json").measurements) == 2
    assert main(arguments) == 2  # an unfinished file is not overwritten
    assert main([*arguments, "--resume"]) == 0
    assert len(calls) == 7
    whole = (tmp_path / "small.json").read_bytes()
    monkeypatch.undo()
    assert main(arguments) == 0
    assert (tmp_path / "small.json").read_bytes() == whole


def test_results_of_another_experiment_are_not_gone_on_with(fresh_lab, tmp_path):
    """The file is left as it is."""
    measured(tmp_path, SMALL)
    with pytest.raises(ConfigError, match="another experiment"):
        measured(tmp_path, SMALL + "seeds: [8]\n", resume=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("about: x\nworkloads: [{}]\n", "one of agents, workflow and random"),
        (SMALL + "engines: [crewai]\n", "keep real time; take them out"),
        (SMALL + "engine: [asyncio]\n", "engine"),
        (SMALL + "engines: [autogen]\n", r"engines\[0\]"),
        (SMALL + "settings: {seed: 3}\n", "seed has a list of its own"),
        ("about: x\nworkloads: [{agents: 2, tokens: 9}, {agents: 2, tokens: 9}]\n", "one name"),
        ("about: x\nworkloads: [{workflow: nothing}]\n", "no workflow 'nothing'"),
        ("about: x\nworkloads: [{workflow: report}]\n", "takes the inputs"),
    ],
)
def test_a_wrong_experiment_is_refused(tmp_path, text, words):
    """Before anything runs, with the file and the field."""
    with pytest.raises(ConfigError, match=words):
        experiment.load(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            SMALL + "seeds: [2026-13-45]\n",
            ":3:9: cannot read YAML in UTF-8: month must be in 1..12",
        ),
        (
            SMALL + "seeds: [7, 010]\n",
            ":3:12: cannot read YAML in UTF-8: 010 is octal or of base 60",
        ),
        (SMALL + "seeds: [1:30]\n", ":3:9: cannot read YAML in UTF-8: 1:30 is octal or of base 60"),
        (
            SMALL + "slo: {ttft_s: 1:30.5}\n",
            ":3:15: cannot read YAML in UTF-8: 1:30.5 is octal or of",
        ),
        (SMALL + "seeds: [0x1F, 0, 1_000]\nrepeats: 0\n", ":4:10: repeats: should be greater"),
        (SMALL + "repeats: 0\n", ":3:10: repeats: should be greater than or equal to 1; got 0"),
        (
            "about: x\nworkloads:\n  - agents: 2\n  - workflow: nothing\n",
            ":4:5: workloads[1]: no workflow 'nothing'; choose one of",
        ),
    ],
)
def test_a_wrong_experiment_is_refused_with_the_place(tmp_path, capsys, text, says):
    """Line and column, and the field."""
    path = written(tmp_path, text)
    assert main(["bench", str(path), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"agentlab: experiment {path}{says}")


def test_a_run_that_took_its_time_is_kept(fresh_lab, tmp_path):
    """The second one on the real clock leaves the first beside it, to be compared with."""
    text = SMALL + "clock: real\nengines: [asyncio]\npresets: [instant]\n"
    first = measured(tmp_path, text)
    measured(tmp_path, text)
    assert results.load(tmp_path / "out" / "small.before.json") == first


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("engines: [asyncio, asyncio]\n", "engines: 'asyncio' is there twice"),
        ("seeds: [7, 7]\n", "seeds: 7 is there twice"),
        ("presets: [course, nowhere]\n", "nowhere"),
    ],
)
def test_a_wrong_list_is_found_before_anything_is_measured(tmp_path, more, words):
    """What is there twice would be a row twice; a preset that is not there, half a result."""
    with pytest.raises(ConfigError, match=words):
        measured(tmp_path, SMALL + more)
    assert not list(tmp_path.glob("out/*.json"))


def test_what_else_differs_is_said(tmp_path):
    """Versions, settings and the model stand first; other work under the same name is left out."""
    one = measured(tmp_path, SMALL)
    other = SMALL.replace("agents: 2", "agents: 2, tokens: 5")
    two = msgspec.structs.replace(
        measured(tmp_path, other), machine={**one.machine, "python": "3.99"}
    )
    said = compare.compared(one, two)
    assert f"python: {one.machine['python']} -> 3.99" in said
    assert "not the same work: 2 cases" in said


def test_a_run_by_another_model_is_not_gone_on_with(tmp_path, monkeypatch):
    """Nor one under another limit: what the environment changes is in the file."""
    text = SMALL + "repeats: 2\n"
    r = measured(tmp_path, text)
    assert r.machine["model"] == "local"
    monkeypatch.setenv("AGENTLAB_REQUESTS_PER_MINUTE", "60")
    with pytest.raises(ConfigError, match="measured with another requests_per_minute"):
        measured(tmp_path, text, resume=True)


def test_strategies_under_a_limit(fresh_lab, tmp_path):
    """180 of 120 a minute: all answer all; who paces is refused nothing and reaches the bound."""
    text = (
        "about: x\nworkloads: [{agents: 180, tokens: 1}]\nengines: [asyncio]\n"
        "strategies: [insist, retry, pace]\nsettings: {requests_per_minute: 120}\n"
    )
    r = measured(tmp_path, text)
    insist, retry, pace = r.measurements
    assert results.unequal(r.measurements) == []
    assert min(insist.requests, retry.requests) > 2 * pace.requests == 360
    assert {m.bound_s for m in r.measurements} == {31.0}
    assert pace.elapsed_s <= 31.0 / 0.97
    assert "| pace | 31.0 | 31.0 | 1.000 |" in report.markdown(r)
    assert measured(tmp_path, text).measurements == r.measurements  # jitter is drawn alike again


def test_two_files_are_compared(fresh_lab, tmp_path, capsys):
    """From the command line; in virtual time equal is equal."""
    measured(tmp_path, SMALL)
    file = str(tmp_path / "out" / "small.json")
    assert main(["bench", "--compare", file, file]) == 0
    assert capsys.readouterr().out.count("x 1.000, the same") == 2


def test_the_model_s_seconds_are_known(fresh_lab):
    """Ten to a real one here, one to one in virtual time."""

    async def virtual() -> float:
        return lab.model_seconds_a_second()

    assert lab.simulate(virtual())[0] == 1.0
    with lab.configure(time_scale=10):
        assert lab.model_seconds_a_second() == 10.0


def test_nothing_is_paid_for_unasked(fresh_lab, tmp_path, monkeypatch, capsys):
    """With a real model, the cost is said first, and without --yes nothing is sent or written.

    Two agents, two engines, a warm-up and three repeats, and the one question before them.
    """
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    path = written(tmp_path, SMALL + "clock: real\nrepeats: 3\n")
    assert main(["bench", str(path), "--out", str(tmp_path / "out")]) == 2
    bill = "17 requests with some 238 tokens of prompts and up to 187 of answers"
    assert bill in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", experiment.names())
def test_reference_results_are_of_the_experiment_as_it_is(name):
    """Each experiment has its results in data/results/: whole, comparable, with table and plot."""
    kept = results.load(REFERENCE / f"{name}.json")
    assert kept.experiment == experiment.load(name)
    assert kept.missing == 0
    assert results.unequal(kept.measurements) == []
    assert (REFERENCE / f"{name}.md").read_text(encoding="utf-8") == report.markdown(kept)
    assert (REFERENCE / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "most"), [("article", [None]), ("knee", [1, 32, 256]), ("million", [256])]
)
def test_reference_results_come_out_again(fresh_lab, tmp_path, name, most):
    """What was measured in virtual time is measured again, to the last digit."""
    some = dataclasses.replace(experiment.load(name), max_concurrency=most)
    some = dataclasses.replace(some, presets=some.presets[-1:], workloads=some.workloads[:2])
    again = measure.run(some, tmp_path / f"{name}.json")
    stored = results.load(REFERENCE / f"{name}.json").measurements
    cases = list(some.cases())
    assert again.measurements == [m for m in stored if m.case in cases]


def test_a_crowd_is_an_engine(fresh_lab, tmp_path):
    """Without a client it takes as long as with one, where the client takes no time."""
    text = (
        "about: x\npresets: [nim-8b]\nworkloads: [{agents: 99, tokens: 20}]\nmax_concurrency: [7]\n"
    )
    (alone,) = measured(tmp_path, text + "engines: [crowd]\n").measurements
    (whole,) = measured(tmp_path, text + "engines: [asyncio]\n").measurements
    assert alone.elapsed_s == pytest.approx(whole.elapsed_s, rel=0.02)
    assert alone.bound_s == pytest.approx(whole.bound_s, rel=0.02)
    assert (alone.requests, alone.peak, alone.answers) == (99, 7, None)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("workloads: [{agents: 2}]\n", "numbers in max_concurrency"),
        ("workloads: [{agents: 2}]\nmax_concurrency: [2]\nclock: real\n", "clock: virtual"),
        ("workloads: [{agents: 2}]\nmax_concurrency: [2]\nsettings: {time_scale: 3}\n", "settings"),
        ("workloads: [{agents: 2}]\nmax_concurrency: [2]\nstrategies: [pace]\n", "strategies"),
    ],
)
def test_what_a_crowd_cannot_do_is_refused(tmp_path, more, words):
    """It has no client: no clock, and no limits."""
    with pytest.raises(ConfigError, match=words):
        experiment.load(written(tmp_path, f"about: x\nengines: [crowd]\n{more}"))


@pytest.mark.parametrize("preset", ["hosted-small", "laptop-ollama"])
def test_a_crowd_meets_no_limit_and_no_queue(fresh_lab, tmp_path, preset):
    """On a preset with a rate limit, or with too few slots, it is refused."""
    text = f"about: x\npresets: [{preset}]\nworkloads: [{{agents: 2}}]\nmax_concurrency: [2]\n"
    with pytest.raises(ConfigError, match="needs no rate limit and no queue"):
        measured(tmp_path, text + "engines: [crowd]\n")


def point(n: int, elapsed_s: float, **changed: Any) -> Any:
    case = experiment.Case(f"{n} agents", "asyncio", "course", None, 7)
    counts = dict.fromkeys(("steps", "requests", "answered", "peak", "tokens"), n)
    times = {"elapsed_s": elapsed_s, "bound_s": 1.0, "cpu_ms": 0.5}
    m = results.Measurement(case=case, repeat=0, answers="x", **counts, **(times | changed))
    return report.Point(n, [m])


@pytest.mark.parametrize(
    ("busy", "words"),
    [
        (0.9, "x: 0.50 of the bound at 64 agents, 0.8 or better up to 8; this processor, 0.50 ms"),
        (None, "x: 0.50 of the bound at 64 agents, 0.8 or better up to 8"),
    ],
)
def test_what_ends_a_curve_is_named(busy, words):
    """The processor is to blame only if its time is most of what the bound leaves."""
    points = [point(1, 1.0), point(8, 1.1), point(64, 2.0, busy=busy)]
    assert words in report.sentences([report.Curve("x", "agents", points)])[0]


def test_the_scalability_law_is_read_off(fresh_lab, tmp_path):
    """A curve over what is in flight has it, and tells where the most comes out."""
    text = "about: x\npresets: [nim-8b]\nengines: [asyncio]\nworkloads: [{agents: 64}]\n"
    r = measured(tmp_path, text + "max_concurrency: [1, 2, 4, 8, 16]\n")
    (curve,) = report.curves(r)
    assert curve.usl is not None
    assert [curve.usl.law.throughput(p.n) for p in curve.points] == pytest.approx(
        [p.throughput for p in curve.points], rel=0.05
    )
    assert report.readings(r)[0].startswith("asyncio: most at 16 in flight")


def test_percentiles_are_of_what_was_answered(fresh_lab, tmp_path):
    """Nearest rank: of 2, 4, ..., 40 s in a queue of one slot, half take at most 20, 95% 38."""
    text = "about: x\npresets: [laptop-ollama]\nengines: [asyncio]\nworkloads: [{agents: 20}]\n"
    (m,) = measured(tmp_path, text).measurements
    assert m.p50_s is not None and m.p95_s is not None
    assert m.p50_s / m.elapsed_s == pytest.approx(10 / 20, rel=0.02)
    assert m.p95_s / m.elapsed_s == pytest.approx(19 / 20, rel=0.02)


def test_the_bill_is_what_is_then_asked(fresh_lab, tmp_path):
    """Requests and prompts to the token; answers at most; unlimited ones are counted as such."""
    text = "clock: real\nrepeats: 1\nwarmups: 0\npresets: [instant]\n"
    agents = written(tmp_path, f"{SMALL}{text}engines: [asyncio]\n", "agents")
    bill = measure.cost(experiment.load(agents))
    (m,) = measure.run(experiment.load(agents), tmp_path / "agents.json").measurements
    assert bill.requests == m.requests == 2
    assert bill.prompt_tokens + bill.answer_tokens == m.tokens
    free = "about: x\nworkloads: [{workflow: report, inputs: {topic: tides, data: heights}}]\n"
    assert measure.cost(experiment.load(written(tmp_path, free + text, "free"))).unlimited > 0


def test_the_price_is_said_before_it_is_paid(fresh_lab, tmp_path, monkeypatch, capsys):
    """With --price, in dollars; a plot and a table are written beside the raw data otherwise."""
    path = written(tmp_path, SMALL)
    assert main(["bench", str(path), "--out", str(tmp_path)]) == 0
    assert {p.suffix for p in tmp_path.glob("small.*")} == {
        ".yaml",
        ".json",
        ".md",
        ".png",
        ".gz",
        ".html",
    }
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    path = written(tmp_path, SMALL + "clock: real\n", "paid")
    assert main(["bench", str(path), "--price", "1000000", "0"]) == 2
    assert "$126.0000 at most" in capsys.readouterr().err


def test_results_of_another_kind_are_not_compared(capsys):
    """The study of what tunes itself is exact, so any tool compares its tables."""
    tuned, other = str(REFERENCE / "tuning.json"), str(REFERENCE / "article.json")
    assert main(["bench", "--compare", other, tuned]) == 2
    assert "tuning.json" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["afile", "afile/folder"])
def test_a_folder_that_cannot_be_written_is_refused_first(tmp_path, capsys, where):
    """Before anything is measured, in one line with the way out."""
    (tmp_path / "afile").write_text("")
    assert main(["bench", "article", "--out", str(tmp_path / where)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"agentlab: results {tmp_path / where}: ")
    assert line.endswith("; choose another folder with --out")


def test_in_a_running_loop_the_way_out_is_said(tmp_path):
    """On the real clock it starts a loop of its own; the message says how to call it there."""
    real = experiment.load(written(tmp_path, SMALL + "clock: real\n"))

    async def inside() -> None:
        measure.run(real, tmp_path / "real.json")

    with pytest.raises(ConfigError, match=r"await asyncio\.to_thread\(measure\.run, \.\.\.\)"):
        asyncio.run(inside())


def test_a_framework_that_is_not_installed_is_no_error(monkeypatch):
    """Results name the versions that are there: an install without CrewAI measures the rest."""
    monkeypatch.setattr(
        results, "_PACKAGES", ("openai", "a-framework-of-nobody", "langchain-openai")
    )
    noted = results.machine()
    assert [name for name in noted if name not in ("python", "system", "cores", "agentlab")] == [
        "openai",
        "langchain-openai",
    ]
    assert noted["openai"] == version("openai")
