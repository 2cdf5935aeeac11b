"""Comparisons: what two results show, what they cannot exclude, and how often that is wrong."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from math import exp, log, sqrt
from pathlib import Path
from random import Random
from shutil import copytree, which
from statistics import median
from typing import Any

import msgspec
import numpy as np
import pytest

from agentlab.bench import against, compare, results
from agentlab.bench.experiment import Case, Experiment, Workload
from agentlab.bench.results import Measurement, Results
from agentlab.commands.main import COMMANDS, main
from agentlab.errors import ConfigError
from agentlab.settings import DATA, Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import calibrate_compare

ONE = Experiment(about="x", workloads=[Workload(agents=2)], engines=["asyncio"], clock="real")
CASE = Case("2 agents", "asyncio", "course", None, 7)
IN_TURN = {compare.IN_TURN: "python=other, run 1"}


def result(times_s: list[float], case: Case = CASE, **more: Any) -> Results:
    """A result of one case, a run for each time."""
    shape: dict[str, Any] = dict.fromkeys(("steps", "requests", "answered", "peak"), 2)
    shape |= {"bound_s": 1.0, "tokens": 9, "answers": "a"}
    asked = dataclasses.replace(ONE, repeats=len(times_s), engines=[case.engine])
    runs = [
        Measurement(case=case, repeat=n, elapsed_s=time_s, **shape)
        for n, time_s in enumerate(times_s)
    ]
    made: dict[str, Any] = {"name": "x", "experiment": asked, "machine": {}, "measurements": runs}
    return Results(**made | more)


def in_turn(before: list[float], after: list[float], **options: Any) -> str:
    """What is said of one case that was measured in turn; the line above the footnote."""
    both = (result(times_s, machine=IN_TURN) for times_s in (before, after))
    return compare.compared(*both, **options).splitlines()[0]


# The interval


def p_value(logs: list[float], shift: float) -> float:
    """Wilcoxon's signed-rank test by counting every sign: an oracle that knows no distribution."""
    apart = [one - shift for one in logs]
    ranks = {
        n: rank for rank, n in enumerate(sorted(range(len(apart)), key=lambda n: abs(apart[n])), 1)
    }
    seen = sum(rank for n, rank in ranks.items() if apart[n] > 0)
    middle = sum(ranks.values()) / 2
    signs = product((0, 1), repeat=len(apart))
    sums = [sum(rank * sign for rank, sign in zip(ranks.values(), of, strict=True)) for of in signs]
    return sum(abs(one - middle) >= abs(seen - middle) for one in sums) / len(sums)


@pytest.mark.parametrize(("rounds", "lines"), [(6, 1), (9, 1), (10, 1), (9, 6), (12, 20)])
def test_the_interval_ends_where_the_signed_rank_test_begins_to_reject(rounds: int, lines: int):
    """Just inside of each end its p value is above the level, just outside it is not."""
    draw = Random(rounds)
    logs = [draw.gauss(0.05, 0.03) for _ in range(rounds)]
    found = compare.ratio([1.0] * rounds, [exp(one) for one in logs], lines=lines)
    level = 0.05 / lines
    for end, outwards in ((found.low, -1e-9), (found.high, 1e-9)):
        assert p_value(logs, log(end) - outwards) > level
        assert p_value(logs, log(end) + outwards) <= level


@pytest.mark.parametrize(
    ("rounds", "critical"),
    [(6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (12, 13), (15, 25), (20, 52), (25, 89)],
)
def test_the_ranks_are_those_of_the_tables(rounds: int, critical: int):
    """Critical values for 0.05, two-sided, as printed since Wilcoxon (1964)."""
    assert np.sum(compare._signed_ranks(rounds) <= 0.025) == critical + 1


@pytest.mark.parametrize("lines", [1, 2, 6, 16, 20, 100])
def test_the_fewest_rounds_are_those_of_the_arithmetic(lines: int):
    """With them an interval has ends; with one round less it has none, however plain the change."""
    rounds = compare.least_rounds(lines)
    for number, bounded in ((rounds, True), (rounds - 1, False)):
        found = compare.ratio([1.0] * number, [10.0] * number, lines=lines)
        assert (found.low > 0) is bounded
        assert found.estimate == pytest.approx(10)


def test_the_ratio_of_the_other_way_round_is_its_inverse():
    """A over B is one over B over A, and so are the ends."""
    draw = Random(3)
    a, b = [[exp(draw.gauss(0, 0.1)) for _ in range(9)] for _ in "ab"]
    there, back = compare.ratio(a, b), compare.ratio(b, a)
    assert [1 / back.estimate, 1 / back.high, 1 / back.low] == pytest.approx(list(there))


@pytest.mark.parametrize("cases", [1, 3])
def test_whatever_the_noise_at_most_one_order_in_twenty_raises_an_alarm(cases: int):
    """Drift, a step and a spike, the same ones under every order that can be drawn: all 512.

    So it is the draw that keeps the promise, and not a likeness of the noise to any distribution.
    """
    rounds, passes = 9, 18
    noise = np.random.default_rng(5).normal(0, 0.02, (passes, cases))
    noise += np.linspace(0, 0.1, passes)[:, None] + 0.2 * (np.arange(passes) > 11)[:, None]
    noise[4] += 0.5
    pairs = np.exp(noise).reshape(rounds, 2, cases)
    alarms = 0
    for order in product((0, 1), repeat=rounds):
        which = np.arange(rounds), np.array(order)
        a, b = pairs[which], pairs[which[0], 1 - which[1]]
        found = [compare.ratio(a[:, n], b[:, n], lines=cases) for n in range(cases)]
        alarms += any(one.low > 1 or one.high < 1 for one in found)
    assert 0 < alarms <= 0.05 * 2**rounds


@pytest.mark.parametrize("name", calibrate_compare.NOISES)
def test_false_alarms_are_rare_and_changes_are_seen(name: str):
    """Of 300 comparisons of equals some 5% at most; a change of 10% is seen nine times in ten.

    Not where one time in twenty has a spike of half as much: there the power is told, not promised.
    """
    for cases in (1, 6):
        size = {"rounds": against.ROUNDS, "cases": cases, "comparisons": 300}
        alarms, power = calibrate_compare.shares(calibrate_compare.NOISES[name], seed=22, **size)
        assert alarms <= 0.05 + 3 * sqrt(0.05 * 0.95 / 300)
        assert power >= (0.3 if "spikes" in name else 0.9)


# Two that were measured in turn


STEADY = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01, 0.99]


@pytest.mark.parametrize(
    ("times", "word"),
    [
        ([1.5, 1.52, 1.49, 1.51, 1.5, 1.48, 1.5, 1.51], "slower"),
        ([0.5, 0.52, 0.49, 0.51, 0.5, 0.48, 0.5, 0.51], "faster"),
        (
            [1.0, 1.01, 0.99, 1.01, 0.99, 1.0, 1.01, 0.99],
            "cannot tell, and 5.0% or more is excluded",
        ),
        ([0.8, 1.3, 0.9, 1.2, 1.1, 0.9, 1.2, 1.0], "cannot tell (would need about "),
    ],
)
def test_each_line_has_one_verdict(times: list[float], word: str):
    """With the ratio and its interval before it."""
    after = [a * b for a, b in zip(STEADY, times, strict=True)]
    said = in_turn(STEADY, after)
    assert said.startswith("2 agents, asyncio: 1.00 -> ")
    found = compare.ratio(STEADY, after)
    shown = f"x {found.estimate:.3f} ({found.low:.3f} to {found.high:.3f}): {word}"
    assert shown in said
    assert sum(one in said for one in ("slower", "faster", "cannot tell")) == 1


def test_too_few_rounds_say_how_many_are_enough():
    """Ten times as slow in five rounds of one case cannot be told; in six it can."""
    assert in_turn([1.0] * 5, [10.0] * 5).endswith(
        "x 10.000: cannot tell (would need about 6 rounds)"
    )
    assert in_turn([1.0] * 6, [10.0] * 6).endswith("x 10.000 (10.000 to 10.000): slower")


def test_the_rounds_that_it_would_need_are_enough():
    """Twelve rounds of noise of 20% cannot see 10%; as many as they ask for mostly can.

    `smallest` is so large that only the estimate counts.
    """
    draw, decided, asked = Random(7), 0, []

    def rounds(number: int) -> str:
        a, b = ([draw.gauss(0, 0.2) for _ in range(number)] for _ in "ab")
        return in_turn([exp(one) for one in a], [1.1 * exp(one) for one in b], smallest=0.1)

    for _ in range(40):
        said = rounds(12)
        if "would need about" in said:
            number = int(said.split("about ")[1].split(" ")[0].replace(",", ""))
            asked.append(number)
            decided += "would need" not in rounds(number)
    assert len(asked) > 20
    assert 12 < median(asked) < 300
    assert decided >= 0.6 * len(asked)


def test_only_rounds_that_both_have_are_compared():
    """A run that failed has no time, so its round says nothing."""
    before, after = (result([1.0, 5.0, *STEADY[2:]], machine=IN_TURN) for _ in "ab")
    after.measurements[1] = msgspec.structs.replace(after.measurements[1], error="cut off")
    said = compare.compared(before, after)
    assert "x 1.000 (1.000 to 1.000): cannot tell, and 5.0% or more is excluded" in said


def test_the_case_that_was_changed_is_the_same_case():
    """`engine=langgraph`: asyncio's row before stands against LangGraph's after."""
    machine = {compare.IN_TURN: "engine=langgraph, run 1"}
    other = msgspec.structs.replace(CASE, engine="langgraph")
    slow = result([2 * one for one in STEADY], other, machine=machine)
    said = compare.compared(result(STEADY, machine=machine), slow)
    assert said.splitlines()[0] == (
        "2 agents, asyncio: 1.00 -> 2.00 s, x 2.000 (2.000 to 2.000): slower"
    )
    assert said.splitlines()[-1] == "All intervals hold together in 95% of such comparisons."


def test_two_runs_that_only_look_alike_are_not_of_one_run():
    """Measured in turn, but each with another: nothing of one round belongs to the other's."""
    other = {compare.IN_TURN: "python=other, run 2"}
    said = compare.compared(result(STEADY, machine=IN_TURN), result(STEADY, machine=other))
    assert "within the runs" in said
    assert "cannot tell" not in said


# Two files


def test_one_case_of_sixteen_that_takes_ten_times_as_long_is_never_noise():
    """The figures of frameworks.json, five runs each: the ratio stands there, with its spread."""
    stored = results.load(DATA / "results" / "frameworks.json")
    chosen = next(iter(stored.measured))
    slower = msgspec.structs.replace(
        stored,
        measurements=[
            msgspec.structs.replace(m, elapsed_s=m.elapsed_s * 10) if m.case == chosen else m
            for m in stored.measurements
        ],
    )
    *lines, below = compare.compared(stored, slower).splitlines()
    times_s = [m.elapsed_s for m in stored.of(chosen)]
    low, high = 10 * min(times_s) / max(times_s), 10 * max(times_s) / min(times_s)
    assert len(lines) == 24
    assert f"x 10.000 ({low:.3f} to {high:.3f} within the runs)" in lines[0]
    assert not [word for word in ("noise", "too few", "slower", "faster") if word in "".join(lines)]
    assert below.startswith("That the machine differed cannot be excluded")


def test_the_rounds_of_random_workflows_are_added_up():
    """Two of two workflows each: 1 + 3 and 2 + 4 s; a round without one of them counts for none."""
    asked = dataclasses.replace(ONE, workloads=[Workload(random=2)], repeats=3, clock="virtual")
    case = msgspec.structs.replace(CASE, workload="2 random workflows")
    some = result([1.0, 3.0, 2.0, 4.0, 9.0], case, experiment=asked)
    assert compare._rounds(some, case) == {0: {"": 4.0}, 1: {"": 6.0}}


# Measuring in turn


@pytest.fixture
def drifting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine that takes 2% longer with each pass, and 10% longer for B; the order of passes."""
    passes: list[str] = []

    def measured(side: Any, folder: Path, name: str) -> Results:
        passes.append(folder.name)
        slower = 1.1 if side.code is None else 1.0
        return result([slower * 1.02 ** len(passes)], experiment=side.experiment)

    monkeypatch.setattr(against, "_measured", measured)
    return passes


def test_each_round_has_both_sides_in_an_order_that_is_drawn(drifting: list[str], tmp_path: Path):
    """Both orders occur, and the drift of 2% a pass does not hide the 10%."""
    a, b = against.run(ONE, "python=other", tmp_path / "x.json", rounds=40)
    rounds = [drifting[n : n + 2] for n in range(0, 80, 2)]
    assert [sorted(one) for one in rounds] == [[f"{n}a", f"{n}b"] for n in range(40)]
    assert {one[0][-1] for one in rounds} == {"a", "b"}
    order = " ".join(one[0][-1] + one[1][-1] for one in rounds)
    assert a.machine[compare.IN_TURN] == b.machine[compare.IN_TURN]
    assert a.machine[compare.IN_TURN].endswith(f"in the order {order}")
    assert compare.compared(a, b).splitlines()[0].endswith(": slower")


def test_both_files_say_later_what_was_said_at_once(drifting: list[str], tmp_path: Path, capsys):
    """They are results like others, with a repeat for each round; --compare knows them."""
    a, b = against.run(ONE, "python=other", tmp_path / "x.json", rounds=7)
    files = [str(tmp_path / f"x.{name}.json") for name in "ab"]
    assert [results.load(file) for file in files] == [a, b]
    assert a.experiment.repeats == 7 and not a.missing
    assert main(["bench", "--compare", *files]) == 0
    assert capsys.readouterr().out.strip() == compare.compared(a, b)


def test_what_was_measured_before_ctrl_c_is_kept(
    drifting: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Three rounds of twelve; the files hold them, and can be compared."""
    go_on: Callable[..., Results] = against._measured

    def interrupted(*args: Any) -> Results:
        if len(drifting) == 6:
            raise KeyboardInterrupt
        return go_on(*args)

    monkeypatch.setattr(against, "_measured", interrupted)
    with pytest.raises(KeyboardInterrupt):
        against.run(ONE, "python=other", tmp_path / "x.json")
    kept = [results.load(tmp_path / f"x.{name}.json") for name in "ab"]
    assert [len(one.measurements) for one in kept] == [3, 3]
    assert "cannot tell (would need about 6 rounds)" in compare.compared(*kept)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ("langgraph", "give KIND=VALUE, a kind of commit, python, engine, preset"),
        ("colour=red", "give KIND=VALUE"),
        ("engine=", "give KIND=VALUE"),
        ("engine=asyncio", "nothing would change; choose another engine"),
        ("max_concurrency=none", "nothing would change"),
        ("engine=nothing", "engines"),
        ("max_concurrency=0", "max_concurrency"),
        ("python=/no/such/python", "/no/such/python"),
        ("commit=--output=elsewhere", "failed"),
        ("commit=no-such-commit", "no-such-commit"),
    ],
)
def test_what_changes_nothing_or_is_not_there_is_refused(other: str, says: str, tmp_path: Path):
    """In one error, and no file is left."""
    with pytest.raises(ConfigError, match=says):
        against.run(ONE, other, tmp_path / "x.json", rounds=1)
    assert not list(tmp_path.iterdir())


def test_in_virtual_time_one_round_is_exact(tmp_path: Path, capsys):
    """Two processes, no interval: as fast with any engine; twice the time one at a time."""
    path = tmp_path / "two.yaml"
    path.write_text("about: x\nworkloads: [{agents: 2}]\nengines: [asyncio]\n")
    command = ["bench", str(path), "--out", str(tmp_path), "--against"]
    assert main([*command, "engine=langgraph"]) == 0
    assert capsys.readouterr().out == "2 agents, asyncio: 2.00 -> 2.00 s, x 1.000, the same\n"
    assert main([*command, "max_concurrency=1"]) == 0
    assert capsys.readouterr().out == "2 agents, asyncio: 2.00 -> 4.00 s, x 2.000, changed\n"


@pytest.mark.skipif("arrivals" not in Workload.__annotations__, reason="no agents arrive yet")
def test_where_agents_arrive_their_responses_are_compared(tmp_path: Path, capsys):
    """Six agents, one per half second, 1.4 s each: in a row, the last waits from 2.5 to 8.4 s."""
    path = tmp_path / "open.yaml"
    path.write_text(
        "about: x\nengines: [asyncio]\n"
        "workloads: [{agents: 6, tokens: 5, arrivals: {constant: {per_s: 2}}}]\n"
    )
    command = ["bench", str(path), "--out", str(tmp_path), "--against", "max_concurrency=1"]
    assert main(command) == 0
    elapsed, response = capsys.readouterr().out.splitlines()
    assert elapsed.endswith("asyncio: 3.90 -> 8.40 s, x 2.154, changed")
    assert response.endswith("asyncio: response p99 1.40 -> 5.90 s, x 4.214, changed")


@pytest.mark.skipif(which("git") is None, reason="there is no git")
def test_a_commit_is_measured_by_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One whose model gives its first token a second later; the checkout here stays as it is."""
    code = tmp_path / "code"
    copytree(Path(against.__file__).parents[1], code / "agentlab")
    copytree(DATA, code / "data")
    preset = code / "data" / "endpoints" / "course.yaml"
    text = preset.read_text()
    preset.write_text(
        text.replace("prefill_base_ms: {value: 1000", "prefill_base_ms: {value: 2000")
    )
    git = ["git", "-C", str(code), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "slower"]):
        subprocess.run([*git, *command], check=True)
    preset.write_text(text)  # what lies there now is not the commit
    monkeypatch.setattr(against, "_CODE", code)
    asked = dataclasses.replace(ONE, clock="virtual")
    both = against.run(asked, "commit=HEAD", tmp_path / "x.json")
    assert [one.measurements[0].elapsed_s for one in both] == [2.0, 3.0]
    assert preset.read_text() == text


def test_on_the_real_clock_both_sides_are_processes(tmp_path: Path, capsys):
    """One round cannot tell anything, and says so; the answers are equal, so the code is 0."""
    path = tmp_path / "two.yaml"
    path.write_text(
        "about: x\nclock: real\nwarmups: 0\npresets: [instant]\n"
        "workloads: [{agents: 2}]\nengines: [asyncio]\n"
    )
    command = ["bench", str(path), "--out", str(tmp_path), "--against", "max_concurrency=1"]
    assert main([*command, "--rounds", "1"]) == 0
    line, below = capsys.readouterr().out.splitlines()
    assert line.endswith(": cannot tell (would need about 6 rounds)")
    assert below == "All intervals hold together in 95% of such comparisons."


def test_a_real_model_is_not_asked_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """The bill is that of all rounds of both sides: 2 x 3 x (1 + 2 x (1 + 1)) requests."""
    path = tmp_path / "two.yaml"
    path.write_text("about: x\nclock: real\nworkloads: [{agents: 2}]\nengines: [asyncio]\n")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-nobodys")
    command = ["bench", str(path), "--out", str(tmp_path / "out"), "--against"]
    assert main([*command, "engine=langgraph", "--rounds", "3"]) == 2
    assert "30 requests with some" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_smallest_change_is_chosen(tmp_path: Path, capsys):
    """20% is more than what the interval leaves open, 5% is not."""
    files = [str(tmp_path / f"{name}.json") for name in "ab"]
    for file, by in zip(
        files, ([1.0] * 8, [0.9, 1.1, 0.95, 1.05, 0.92, 1.08, 1.0, 1.0]), strict=True
    ):
        results.write(
            Path(file), result([a * b for a, b in zip(STEADY, by, strict=True)], machine=IN_TURN)
        )
    for smallest, word in (("0.2", "20.0% or more is excluded"), ("0.05", "would need about")):
        assert main(["bench", "--compare", *files, "--smallest", smallest]) == 0
        assert word in capsys.readouterr().out


def test_what_was_measured_in_turn_is_not_gone_on_with(tmp_path: Path, capsys):
    """It says so before it measures."""
    command = ["bench", "article", "--out", str(tmp_path), "--against", "engine=langgraph"]
    assert main([*command, "--resume"]) == 2
    assert "--against" in capsys.readouterr().err


def test_the_command_line_tells_what_the_code_has():
    """Defaults and choices stand in a file of their own, which imports nothing."""
    options = COMMANDS["bench"]["options"]
    assert options["--rounds"]["default"] == against.ROUNDS
    assert options["--smallest"]["default"] == compare.SMALLEST
    assert options["--against"]["help"].endswith(f"one of {', '.join(against.KINDS)}")
    for name in ("time_scale", "seed"):
        told = COMMANDS["serve"]["options"][f"--{name.replace('_', '-')}"]["help"]
        assert told.endswith(f"(default: {getattr(Settings(), name):g})")


@pytest.mark.parametrize(
    ("option", "value"), [("--rounds", "0"), ("--smallest", "0"), ("--smallest", "nan")]
)
def test_numbers_are_checked_first(option: str, value: str, capsys):
    """Before a file is read."""
    assert main(["bench", "--compare", "a", "b", option, value]) == 2
    assert option in capsys.readouterr().err


def test_a_reader_who_has_read_enough_ends_it_quietly():
    """`agentlab bench --compare A B | head`: no traceback."""
    file = str(DATA / "results" / "article.json")
    ours, theirs = os.pipe()
    os.close(ours)  # who reads has gone before the first line
    command = [sys.executable, "-m", "agentlab", "bench", "--compare", file, file]
    with os.fdopen(theirs, "wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
def test_a_full_disk_is_said_in_one_line():
    """`agentlab bench --list > FILE`: what the system says, and no traceback."""
    command = [sys.executable, "-m", "agentlab", "bench", "--list"]
    with open("/dev/full", "wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "agentlab: [Errno 28] No space left on device\n"
