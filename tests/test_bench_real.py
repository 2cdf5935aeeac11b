"""The benchmark of a real model: comparable by what answers cost, and told before it is paid."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from matplotlib.figure import Figure

from agentlab.bench import compare, experiment, measure, plots, report
from agentlab.bench import results as stored
from agentlab.bench.experiment import Case, Experiment, Workload
from agentlab.bench.requests import Said
from agentlab.bench.results import Measurement, Results
from agentlab.commands.main import main
from agentlab.errors import StepError
from agentlab.trace import Span, Trace

Answering = Callable[[int, dict[str, Any]], web.Response]
REAL = "clock: real\nrepeats: 2\n"
SMALL = "about: Two agents.\nworkloads: [{agents: 2}]\n"


def completion(number: int, **changed: Any) -> web.Response:
    """Words of its own each time; `tokens` None for no usage."""
    told = {"text": f"Answer {number}.", "reason": "length", "tokens": 11} | changed
    message = {"role": "assistant", "content": told["text"], **told.get("more", {})}
    body: dict[str, Any] = {"choices": [{"message": message, "finish_reason": told["reason"]}]}
    if told["tokens"] is not None:
        body["usage"] = {"prompt_tokens": 14, "completion_tokens": told["tokens"]}
    return web.json_response(body)


def refusal(status: int, **error: Any) -> web.Response:
    return web.json_response({"error": {"message": "No.", **error}}, status=status)


class Upstream:
    """A real model on loopback; `answer` says how, by the number of the request and its body."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: Answering = lambda number, _: completion(number)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(60)
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    async def _chat(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        number = len(self.asked) - 1
        await asyncio.sleep(0.02)
        return self.answer(number, self.asked[number])

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def upstream(fresh_lab: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    model = Upstream()
    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("OPENAI_MODEL", "m")
    monkeypatch.setattr(plots, "figure", lambda _: Figure())  # drawn in test_bench.py, and slow
    monkeypatch.setattr(measure.gc, "collect", lambda: 0)  # no time is looked at here
    yield model
    fresh_lab.stop()
    model.stop()


def bench(folder: Path, text: str) -> int:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return main(["bench", str(path), "--yes", "--out", str(folder / "out")])


def test_a_model_that_words_each_answer_anew_is_comparable(upstream, tmp_path, capsys):
    """No complaint, exit code 0, and nothing in what is written belongs to the local model."""
    assert bench(tmp_path, SMALL + REAL) == 0
    table = (tmp_path / "out" / "mine.md").read_text(encoding="utf-8")
    said = capsys.readouterr()
    assert said.out.strip() == table.strip()
    for word in ("not comparable", "course", "seed", "model s"):
        assert word not in said.out + said.err
    assert "Times are seconds. Real time" in table
    assert "differ by at most 0.0% in tokens per answer" in table
    assert (tmp_path / "out" / "mine.png").stat().st_size > 1000


def test_the_estimate_is_what_is_asked(upstream, tmp_path, capsys):
    """The one question that comes first is counted, and asked as all of the run are."""
    assert bench(tmp_path, SMALL + REAL) == 0
    assert f"asks m at {upstream.url}" in capsys.readouterr().err
    assert (
        len(upstream.asked) == measure.cost(experiment.load(tmp_path / "mine.yaml")).requests == 13
    )
    assert upstream.asked[0] in upstream.asked[1:]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda *_: refusal(401, code="invalid_api_key"), "answered 401: No."),
        (lambda *_: refusal(400, param="temperature"), "answered 400: No."),
        (lambda number, _: completion(number, text="", more={"reasoning": "x"}), "raise max_tok"),
    ],
)
def test_what_every_run_would_meet_is_said_first(upstream, tmp_path, capsys, answer, says):
    """Exit code 1, and nothing is measured; what was measured before stays where it is."""
    out = tmp_path / "out" / "mine.json"
    assert bench(tmp_path, SMALL + REAL) == 0
    before = out.read_bytes()
    upstream.asked.clear()
    upstream.answer = answer
    assert bench(tmp_path, SMALL + REAL) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("agentlab: the first question failed, as every run would: ")
    assert says in error
    assert {request["messages"][0]["content"] for request in upstream.asked} == {
        "Describe river 0 in ten paragraphs."
    }
    assert out.read_bytes() == before


def test_what_passes_does_not_stop_it(upstream, tmp_path):
    """The first question is refused once, as under a rate limit, and then answered."""
    upstream.answer = lambda number, _: completion(number) if number else refusal(429)
    assert bench(tmp_path, SMALL + REAL) == 0
    assert len(upstream.asked) == 14


def test_where_all_runs_fail_there_is_no_table(upstream, tmp_path, capsys):
    """What failed is said, the exit code is 1, and no picture of an earlier run is left."""
    assert bench(tmp_path, SMALL + REAL) == 0
    capsys.readouterr()
    upstream.answer = lambda number, _: refusal(400) if number > 13 else completion(number)
    assert bench(tmp_path, SMALL + REAL) == 1
    said = capsys.readouterr().out
    assert "**not comparable**: sequential: step 'agent_0' of workflow '2 agents' failed" in said
    assert "No run has a result" in said and "|" not in said
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "mine.before.json",
        "mine.before.proof.json",
        "mine.before.requests.csv.gz",
        "mine.json",
        "mine.md",
        "mine.proof.json",
        "mine.requests.csv.gz",
    ]


@pytest.mark.parametrize(
    ("tokens", "code", "says"),
    [
        (40, 0, "the endpoint did not keep the limit of 11 tokens: up to 40 came; set AGENTLAB_"),
        (None, 0, "the endpoint counts no tokens for 8 of 8 answers"),
    ],
)
def test_a_limit_is_checked_against_what_came(upstream, tmp_path, capsys, tokens, code, says):
    """A warning where all answers are as long; without a count it cannot be checked."""
    upstream.answer = lambda number, _: completion(number, tokens=tokens)
    assert bench(tmp_path, SMALL + REAL) == code
    assert says in capsys.readouterr().out


def test_presets_and_seeds_are_not_paid_for_twice(upstream, tmp_path):
    """A real model has neither, so of each the first is asked."""
    text = SMALL + REAL + "presets: [course, nim-8b]\nseeds: [7, 8]\n"
    assert bench(tmp_path, text) == 0
    assert len(upstream.asked) == 13


def test_in_virtual_time_no_real_model_answers(upstream, tmp_path):
    """The results name the model that answered, whatever the environment says."""
    measured = measure.run(
        Experiment(about="x", workloads=[Workload(agents=2)]), tmp_path / "virtual.json"
    )
    assert measured.machine["model"] == "local"
    assert not measured.real and not upstream.asked


def answers(tokens: int, reason: str = "length", limit: int | None = 11) -> list[Said]:
    return [Said(reason, tokens, limit)] * 4


def measurement(engine: str, **changed: Any) -> Measurement:
    case = Case("4 agents", engine, "course", None, 7)
    shape: dict[str, Any] = dict.fromkeys(("steps", "requests", "answered"), 4)
    shape |= {"repeat": 0, "elapsed_s": 2.0, "bound_s": 1.0, "peak": 4, "tokens": 100}
    shape |= {"case": case, "answers": None, "real": answers(11)}
    return Measurement(**(shape | changed))


def result(*measurements: Measurement, **changed: Any) -> Results:
    asked: dict[str, Any] = {"about": "x", "workloads": [Workload(agents=4)], "clock": "real"}
    asked["engines"] = list(dict.fromkeys(m.case.engine for m in measurements))
    return Results(
        name="x",
        experiment=Experiment(**(asked | changed)),
        machine={"model": "m at localhost"},
        measurements=list(measurements),
    )


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (answers(12), None),
        (answers(13), "asyncio: +18.2% tokens per answer; up to 10% is equal work"),
        (answers(9), "asyncio: -18.2% tokens per answer; up to 10% is equal work"),
    ],
)
def test_beyond_the_tolerance_work_is_not_comparable(other, problem):
    """Of tokens per answer a tenth may differ."""
    problems = stored.unequal([measurement("sequential"), measurement("asyncio", real=other)])
    assert len(problems) == (problem is not None)
    assert problem is None or problems[0].startswith(problem)


def test_a_case_counts_by_the_median_of_its_runs():
    """One long answer of three runs does not forbid comparing, two do."""
    reference = measurement("sequential")
    runs = [measurement("asyncio", repeat=n, real=answers(t)) for n, t in enumerate([11, 30, 11])]
    assert stored.unequal([reference, *runs]) == []
    runs[0] = measurement("asyncio", real=answers(30))
    assert len(stored.unequal([reference, *runs])) == 1


def test_the_deviation_is_told_inside_the_tolerance_too():
    """And so is what was lost or asked twice, which is never within one."""
    near = result(measurement("sequential"), measurement("asyncio", real=answers(12)))
    assert "at most 9.1% in tokens per answer; up to" in report.markdown(near)
    assert "not comparable" not in report.markdown(near)
    twice = measurement("asyncio", requests=5)
    assert stored.unequal([measurement("sequential"), twice]) == ["asyncio: 5 requests for 4 steps"]


def test_of_a_case_that_fails_in_other_words_one_is_told():
    """A real model's errors may quote its answers, which are others each time."""
    runs = [measurement("asyncio", repeat=n, error=f"cut off in {n}") for n in range(3)]
    assert stored.unequal([measurement("sequential"), *runs]) == ["asyncio: cut off in 0"]


def test_two_files_of_a_real_model_are_compared_by_tokens():
    """Other words are no difference, other lengths are."""
    before, same = result(measurement("asyncio")), result(measurement("asyncio"))
    longer = result(measurement("asyncio", real=answers(22)))
    assert "tokens" not in compare.compared(before, same)
    assert "; +100.0% tokens per answer" in compare.compared(before, longer)


def test_what_a_real_model_said_is_kept(tmp_path):
    """It comes back from the file; a run of the local model leaves no trace of it there."""
    real = result(measurement("asyncio", real=answers(40), endpoint_busy=0.5))
    stored.write(tmp_path / "real.json", real)
    assert stored.load(tmp_path / "real.json") == real
    local = result(measurement("asyncio", real=msgspec.UNSET))
    stored.write(tmp_path / "local.json", local)
    assert not {"real", "endpoint_busy", "endpoint_cpu_ms", "late"} & set(
        msgspec.json.decode((tmp_path / "local.json").read_bytes())["measurements"][0]
    )


def test_an_endpoint_that_is_busy_is_named():
    """Beside the bound, in the readings and in the picture, from some 80% on."""
    busy = result(measurement("asyncio", endpoint_cpu_ms=2.5, endpoint_busy=0.93))
    table = report.markdown(busy)
    assert "| asyncio | 2.00 | 1.00 | 0.500 | 2.50 | 93% |" in table
    warning = "the lab's own endpoint was 93% busy (asyncio); from some 80% on it"
    assert warning in table
    assert warning in plots.figure(busy)._supxlabel.get_text()
    quiet = result(measurement("asyncio", endpoint_cpu_ms=2.5, endpoint_busy=0.79))
    assert "busy (" not in report.markdown(quiet)


def test_how_late_the_endpoint_was_is_told():
    """The median and the most."""
    late = result(measurement("asyncio", late=(0.31, 2.04)))
    said = "- the lab's own endpoint was late by 0.3 ms, and by 2.0 ms at most\n"
    assert said in report.markdown(late)
    assert "late by" not in report.markdown(result(measurement("asyncio")))


def test_the_endpoint_s_share_is_measured(fresh_lab, tmp_path):
    """On the real clock, with the local model as with a real one; in virtual time there is none."""
    asked = Experiment(
        about="x", workloads=[Workload(agents=2)], clock="real", settings={"time_scale": 20}
    )
    for m in measure.run(asked, tmp_path / "x.json").measurements:
        assert m.endpoint_cpu_ms > 0 and m.endpoint_busy > 0
        median_ms, most_ms = m.late
        assert 0 <= median_ms <= most_ms


@pytest.mark.parametrize(
    ("elapsed_s", "bound_s", "cells"),
    [
        (0.0312, 0.0301, "| 0.031 | 0.030 | 0.965 |"),
        (0.0042, 0.00418, "| 0.0042 | 0.0042 | 0.995 |"),
        (1.234, 0.52, "| 1.23 | 0.52 | 0.421 |"),
        (0.0999, 0.0996, "| 0.100 | 0.100 | 0.997 |"),
    ],
)
def test_what_is_short_has_digits(elapsed_s, bound_s, cells):
    """Two of them at least, so that no endpoint's time is shown as 0.0."""
    assert cells in report.table(
        result(measurement("asyncio", elapsed_s=elapsed_s, bound_s=bound_s))
    )


def test_no_row_shows_a_bound_above_its_time():
    """Bound and time are rounded to different decimals, the bound never past the time."""
    for thousandths in range(1, 3000):
        elapsed_s = thousandths / 1000
        runs = [
            measurement(
                "asyncio",
                repeat=n,
                real=real,
                elapsed_s=elapsed_s,
                bound_s=0.999 * elapsed_s,
            )
            for real in (msgspec.UNSET, answers(11))
            for n in range(2)
        ]
        for one in (runs[:1], runs[:2], runs[2:]):
            row = report.table(result(*one)).splitlines()[2].split(" | ")
            assert float(row[2]) <= float(row[1].split(" (")[0])


def spans(*stretches: tuple[str, float, float, int]) -> Trace:
    return Trace(
        Span(
            request_id=str(number),
            agent=agent,
            arrived_s=began_s,
            started_s=began_s,
            end_s=end_s,
            status=status,
        )
        for number, (agent, began_s, end_s, status) in enumerate(stretches)
    )


def of_spans(t: Trace, elapsed_s: float, **changed: Any) -> Measurement:
    asked = Experiment(about="x", workloads=[Workload(agents=2)], **changed)
    task = measure._Task(asked, next(asked.cases()))
    return measure._measurement(task, {"agent_0": "x", "agent_1": "y"}, t, elapsed_s, [])


def test_the_bound_is_of_the_answers_that_count():
    """An attempt that a real endpoint refuses takes time, which no schedule needs."""
    t = spans(("agent_0", 0, 4, 503), ("agent_1", 0, 2, 200), ("agent_0", 5, 6, 200))
    assert of_spans(t, 6.0).bound_s == 2.0
    assert of_spans(t, 6.0, max_concurrency=[1]).bound_s == 3.0


def test_a_bound_is_what_was_taken_but_for_rounding():
    """What is further above is not hidden."""
    t = spans(("agent_0", 0, 2, 200), ("agent_1", 0, 2, 200))
    assert of_spans(t, 2.0 - 1e-9).bound_s == 2.0 - 1e-9
    assert of_spans(t, 1.9).bound_s == 2.0


def test_a_preset_s_rate_limit_is_not_a_real_model_s(monkeypatch):
    """Nor does a limit count that the environment lifts: the bound would be of another endpoint."""
    limited = {"presets": ["hosted-small"], "workloads": [Workload(agents=2)], "clock": "real"}
    asked = Experiment(about="x", **limited)
    case = next(asked.cases())
    assert measure._Task(asked, case).limit is not None
    monkeypatch.setenv("AGENTLAB_REQUESTS_PER_MINUTE", "0")
    assert measure._Task(asked, case).limit is None
    monkeypatch.delenv("AGENTLAB_REQUESTS_PER_MINUTE")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert measure._Task(asked, case).limit is None


def test_a_failed_run_is_waited_for():
    """What it has left in flight ends before the next run begins."""
    looks = itertools.count()

    def seen() -> list[Span]:
        ended = next(looks) >= 2
        return [Span(request_id="a", agent="a", arrived_s=0.0, end_s=1.0 if ended else None)]

    asyncio.run(measure._all_ended(Trace(seen)))
    assert next(looks) == 3


def test_lengths_tell_workloads_apart():
    """The name has the tokens only where it needs them; an equal workload is still refused."""
    lengths = [Workload(agents=3, tokens=44), Workload(agents=3, tokens=109), Workload(agents=1)]
    asked = Experiment(about="x", workloads=lengths)
    assert [*asked.by_name] == ["3 agents, 44 tokens", "3 agents, 109 tokens", "1 agent"]
    assert measure.cost(asked).answer_tokens == 4 * (3 * 44 + 3 * 109 + 11)
    with pytest.raises(ValueError, match="two workloads have one name: 3 agents, 3 agents"):
        Experiment(about="x", workloads=[*lengths, lengths[0]])


def test_agents_with_two_lengths_make_no_curve(fresh_lab, tmp_path):
    """A bar each: on a line, the length would look like something that the number does."""
    asked = Experiment(
        about="x", workloads=[Workload(agents=n, tokens=t) for t in (11, 41) for n in (1, 2, 4)]
    )
    assert report.curves(measure.run(asked, tmp_path / "x.json")) == []


def test_a_first_question_that_fails_raises(upstream, tmp_path):
    """In a notebook, too; it names the step, and no file is begun."""
    upstream.answer = lambda *_: refusal(404)
    with pytest.raises(StepError, match="nothing was measured") as raised:
        measure.run(
            Experiment(about="x", workloads=[Workload(agents=2)], clock="real"),
            tmp_path / "x.json",
        )
    assert raised.value.step == "agent_0"
    assert not (tmp_path / "x.json").exists()
