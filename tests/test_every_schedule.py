"""What the module promises holds under every schedule that is tried: 10,000 in all.

Each promise takes a few seconds; `AGENTLAB_SCHEDULES` sets how many there are for each.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from lessons import NOTEBOOKS, Lesson

from agentlab import engines, lab
from agentlab.classroom._fair import FairQueue
from agentlab.clock import run_virtual
from agentlab.content import ContentSystem, Settings
from agentlab.endpoint.physics.batch import Job
from agentlab.endpoint.physics.formulas import Physics
from agentlab.endpoint.physics.live import LiveBatch
from agentlab.errors import ClusterLost, RaceError, RetriesExhausted, StepError
from agentlab.explore import Run, explore
from agentlab.learning import parallel
from agentlab.resilience import Breaker, Guard, Hedge, RateLimit, Retry, RetryBudget, amap
from agentlab.workflow import Step, Workflow

RUNS = int(os.environ.get("AGENTLAB_SCHEDULES", 0))
ROUGH = [
    {"kind": "error", "status": 503, "probability": 0.2},
    {"kind": "error", "status": 429, "probability": 0.1, "retry_after_s": 1},
    {"kind": "reset", "probability": 0.1},
    {"kind": "stall", "probability": 0.05},
]
DIAMOND = Workflow(
    [
        Step("left", "Describe {topic}, first.", max_tokens=3),
        Step("right", "Describe {topic}, second.", max_tokens=3),
        Step("after_left", "Shorten {left}", max_tokens=2),
        Step("report", "Join {after_left} and {right}", max_tokens=4),
    ],
    inputs=["topic"],
)
PARALLEL = [("asyncio", 400), ("langgraph", 400), ("openai-agents", 60), ("pydantic-ai", 30)]
"""Engines, and how many schedules of theirs take a second or two."""


@pytest.fixture(autouse=True)
def local_model():
    lab.configure(upstream=None)


def holds(program: Any, runs: int, **options: Any) -> None:
    """Fail with the seed if any schedule fails."""
    assert explore(program, runs=RUNS or runs, **options).runs == (RUNS or runs) + 1


async def rivers(ask: Callable[..., Awaitable[str]], many: int = 6) -> list[Any]:
    calls = (ask(f"Describe river {n}.", max_tokens=3) for n in range(many))
    return await asyncio.gather(*calls, return_exceptions=True)


def texts(answers: list[Any]) -> int:
    return sum(isinstance(answer, str) for answer in answers)


def test_a_guard_loses_nothing_and_counts_right():
    """With enough tries every question is answered, and the monitor has each request."""

    def program(run: Run) -> None:
        guard = Guard(retry=Retry(attempts=30), attempt_timeout_s=20, max_concurrency=3)
        answers, t = run(rivers(guard.ask))
        health = guard.monitor.health()
        assert texts(answers) == health["calls"] == 6
        assert health["attempts"] == t.requests and health["in_flight"] == 0
        assert t.peak <= 3

    holds(program, 300, faults=ROUGH)


def test_a_guard_gives_up_and_leaves_nothing_behind():
    """With too few tries some are lost, each with a reason, and no slot is."""

    def program(run: Run) -> None:
        guard = Guard(retry=Retry(attempts=2), attempt_timeout_s=5, max_concurrency=2)

        async def twice() -> list[Any]:
            return [*await rivers(guard.ask), *await rivers(guard.ask)]

        answers, t = run(twice())
        assert all(isinstance(answer, str | RetriesExhausted) for answer in answers)
        assert t.peak <= 2 and guard.monitor.health()["in_flight"] == 0

    holds(program, 300, faults=ROUGH)


def test_a_deadline_is_kept():
    """Whatever is late, each call ends within its deadline."""

    def program(run: Run) -> None:
        guard = Guard(retry=Retry(attempts=30), deadline_s=4)

        async def timed() -> list[float]:
            async def one(number: int) -> float:
                began_s = lab.now_s()
                await asyncio.gather(guard.ask(f"River {number}?"), return_exceptions=True)
                return lab.now_s() - began_s

            return await asyncio.gather(*(one(n) for n in range(6)))

        times_s, _ = run(timed())
        assert max(times_s) <= 4 + 1e-6

    holds(program, 400, faults=ROUGH)


def test_a_rate_limit_is_never_overrun():
    """Paced calls are never refused."""

    def program(run: Run) -> None:
        limit = RateLimit(requests_per_minute=120)

        async def paced(prompt: str, **options: Any) -> str:
            await limit.wait()
            return await lab.ask(prompt, **options)

        with lab.configure(requests_per_minute=120):
            answers, t = run(rivers(paced, 130))
        assert texts(answers) == t.requests == 130

    holds(program, 30)


def test_a_hedge_answers_once_and_leaves_nothing_in_flight():
    """Each call has one answer, and all requests have ended."""

    def program(run: Run) -> None:
        guard = Guard(hedge=Hedge(1.2, share=0.9), retry=Retry(attempts=30))
        answers, t = run(rivers(guard.ask))
        assert texts(answers) == 6
        assert all(span.end_s is not None for span in t.spans)

    holds(program, 300, faults=ROUGH[:3])


def test_a_breaker_lets_one_probe_through_at_a_time():
    """While the endpoint is down and the breaker open, no two requests are in flight."""
    down = [{"kind": "error", "status": 503, "between_s": [0, 6]}]

    def program(run: Run) -> None:
        breaker = Breaker(failures=3)
        guard = Guard(retry=Retry(attempts=50), breaker=breaker, deadline_s=None)
        answers, t = run(rivers(guard.ask))
        assert texts(answers) == 6 and not breaker.is_open
        probes = [span for span in t.spans if 1 <= span.arrived_s < 6]
        for one, following in pairwise(probes):  # a refusal takes no time
            assert one.end_s is not None and one.end_s <= following.arrived_s
            assert one.arrived_s < following.arrived_s

    holds(program, 250, faults=down)


def test_a_budget_of_retries_is_not_overdrawn():
    """Of the answered calls a tenth may be retried, and ten more."""

    def program(run: Run) -> None:
        budget = RetryBudget()
        guard = Guard(retry=Retry(attempts=9, budget=budget))
        _, t = run(rivers(guard.ask, 20))
        assert t.requests <= 20 + 10 + 20 * 0.1

    holds(program, 200, faults=[{"kind": "error", "status": 503, "probability": 0.9}])


def test_amap_calls_each_item_once():
    """No item is lost or doubled, and no more than the limit are in flight."""

    def program(run: Run) -> None:
        async def main() -> list[int]:
            async def ask(number: int) -> str:
                return await lab.ask(f"Describe river {number}.", max_tokens=number % 3 + 1)

            return [outcome.item async for outcome in amap(ask, range(7), max_concurrency=3)]

        items, t = run(main())
        assert sorted(items) == list(range(7)) and t.peak <= 3

    holds(program, 1000)


@pytest.mark.parametrize(("engine", "runs"), [("sequential", 400), *PARALLEL])
def test_engines_agree_and_keep_to_the_span(engine: str, runs: int):
    """The same answers, from each parallel engine in the time of the longest chain."""
    sequential = engines.run(DIAMOND, {"topic": "tides"}, engine="sequential")
    expected, _ = lab.simulate(sequential)

    def program(run: Run) -> None:
        answers, t = run(engines.run(DIAMOND, {"topic": "tides"}, engine=engine))
        assert answers == expected
        bound_s = DIAMOND.plan(t.seconds).bound_s(1 if engine == "sequential" else None)
        assert abs(t.makespan_s - bound_s) < 1e-6
        assert t.requests == 4

    holds(program, runs)


@pytest.mark.parametrize(("engine", "runs"), PARALLEL)
def test_a_failing_step_is_reported_with_what_there_is(engine: str, runs: int):
    """The first failure is the one that is told, with results that are the model's."""
    faults = [{"kind": "error", "status": 400, "calls": [2]}]

    def program(run: Run) -> None:
        async def main() -> StepError:
            with pytest.raises(StepError) as caught:
                await engines.run(DIAMOND, {"topic": "tides"}, engine=engine)
            return caught.value

        error, t = run(main())
        assert error.step in ("left", "right") and error.step not in error.results
        assert t.requests <= 3

    holds(program, runs, faults=faults)


def test_parallel_functions_see_what_they_need():
    """Each gets its arguments, whatever comes first."""

    def program(run: Run) -> None:
        async def left(topic: str) -> str:
            return await lab.ask(f"Describe {topic}.", max_tokens=2)

        async def right(topic: str) -> str:
            return await lab.ask(f"Measure {topic}.", max_tokens=2)

        async def both(left: str, right: str) -> tuple[str, str]:
            return left, right

        results, t = run(parallel.run([left, right, both], topic="tides"))
        assert results["both"] == (results["left"], results["right"]) and t.peak == 2

    holds(program, 1500)


def test_a_fair_queue_is_fair_to_the_job():
    """Of two learners who both wait, none is ever more than one answer ahead."""

    def program(run: Run) -> None:
        async def main() -> None:
            physics = Physics(prefill_base_s=1.0, itl_base_s=0.1, slots=1)
            live, served = LiveBatch(physics, queue=FairQueue()), Counter[str]()

            async def ask(learner: str) -> None:
                job = Job(0, 1, learner=learner)
                live.submit(job)
                await live.finished(job)
                served[learner] += 1
                if served.total() < 10:  # until one of them has no more
                    assert abs(served["a"] - served["b"]) <= 1, served

            await asyncio.gather(*(ask(learner) for learner in "aaaaabbbbb"))

        run(main())

    holds(program, 4000)


def test_a_killed_batch_pays_for_nothing_recorded(tmp_path: Path):
    """At whatever await it is killed: recorded answers are not asked for again, and all end."""
    number = 0

    def program(run: Run) -> None:
        nonlocal number
        number += 1
        journal = tmp_path / f"{number}.sqlite"
        topics = ["Tides", "Rivers"]
        settings = Settings(max_concurrent_agents=2)
        with ContentSystem(settings, journal=journal) as system:
            killed = run.until_killed(system.batch_generate(topics))
            before = system.journal.bill()
        in_flight = before.requests - before.answers
        with ContentSystem(settings, journal=journal) as system:
            contents, t = run(system.batch_generate(topics))
            after = system.journal.bill()
        assert [content.status for content in contents] == ["done", "done"]
        assert (in_flight <= 4) if killed else (in_flight == 0 == t.requests)
        assert t.requests == after.answers - before.answers == 8 - before.answers
        for file in tmp_path.glob(f"{number}.*"):
            file.unlink()

    holds(program, 40)


class LostAfter:
    """Stands for a cluster of other processes whose scheduler dies after so many calls."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    async def reply(self, prompt: str, **options: Any) -> lab.Reply:
        self.left -= 1
        if self.left < 0:
            raise ClusterLost("the scheduler was lost")
        return await lab.reply(prompt, **options)


@pytest.mark.parametrize("calls", [0, 3, 6])
def test_a_batch_whose_cluster_is_lost_goes_on_without_it(calls: int, tmp_path: Path):
    """What was recorded before is not asked for again, and all topics end."""
    number = 0

    def program(run: Run) -> None:
        nonlocal number
        number += 1
        journal, lossy = tmp_path / f"{number}.sqlite", LostAfter(calls)
        with ContentSystem(Settings(max_concurrent_agents=2), journal=journal) as system:
            cluster: Any = lossy
            with suppress(ClusterLost):
                run(system.batch_generate(["Tides", "Rivers"], cluster=cluster))
            before = system.journal.bill()
        with ContentSystem(Settings(max_concurrent_agents=2), journal=journal) as system:
            contents, t = run(system.batch_generate(["Tides", "Rivers"]))
        assert before.answers <= calls
        assert [content.status for content in contents] == ["done", "done"]
        assert t.requests == 8 - before.answers
        for file in tmp_path.glob(f"{number}.*"):
            file.unlink()

    holds(program, 25)


class ArticlesMonitor:
    """The article's: one start and one end for all workflows."""

    def __init__(self) -> None:
        self.start_s = self.end_s = 0.0

    async def watch(self, workflow: Awaitable[Any]) -> float:
        self.start_s = lab.now_s()
        await workflow
        self.end_s = lab.now_s()
        return self.end_s - self.start_s


def test_the_articles_monitor_has_a_race():
    """One workflow begins as another ends: in some order, the first one took no time."""

    async def two_in_a_row() -> None:
        monitor = ArticlesMonitor()

        async def second() -> float:
            await lab.ask("Describe hills.", max_tokens=11)
            return await monitor.watch(lab.ask("Describe tides.", max_tokens=31))

        first = monitor.watch(lab.ask("Describe rivers.", max_tokens=11))
        assert await asyncio.gather(first, second()) == pytest.approx([2.0, 4.0])

    with pytest.raises(RaceError) as caught:
        explore(two_in_a_row)
    assert caught.value.seed is not None and len(caught.value.late) == 1


def cell(source: str, names: dict[str, Any]) -> None:
    """Run a notebook's cell, with its top-level await."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    made = eval(compile(source, "<cell>", "exec", flags=flags, dont_inherit=True), names)
    if inspect.iscoroutine(made):
        asyncio.run(made)


@pytest.mark.parametrize(
    "lesson", ["02b_langgraph_failures", "04b_reliability", "08b_choices", "09_tools"]
)
def test_solutions_hold_under_other_schedules(
    lesson: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Of an exercise that runs in virtual time, the check says "Solved." in any order of events."""
    found = Lesson.load(NOTEBOOKS / f"{lesson}.ipynb")
    names: dict[str, Any] = {"display": lambda *_, **__: None}
    for source in found.needed([exercise.solution for exercise in found.exercises]):
        cell(source, names)
    for seed, exercise in product(range(RUNS or 4), found.exercises):
        monkeypatch.setattr("agentlab.lab._ask.run_virtual", partial(run_virtual, schedule=seed))
        capsys.readouterr()
        for source in (exercise.stub, *exercise.between, exercise.solution, exercise.check):
            cell(source, names)
        assert capsys.readouterr().out.strip().endswith("Solved."), (seed, exercise.number)
