"""Many random workflows on an endpoint that fails, by every engine: are the results equal bytes?

Each call goes through one guard, which owns the retries; an engine knows nothing of it. What must
come out is what the sequential engine gives on an endpoint without faults.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from functools import cache
from typing import Any

import msgspec

from agentlab import engines, lab
from agentlab._support.asyncio_tools import none_may_run
from agentlab.clock import run_virtual
from agentlab.engines.asking import Ask
from agentlab.errors import ConfigError
from agentlab.resilience.guard import Guard
from agentlab.resilience.retry import Retry
from agentlab.settings import DATA
from agentlab.trace import Span, trace
from agentlab.workflow import Workflow, random_workflow

FAULTS = str(DATA / "faults" / "every-kind.yaml")
VIRTUAL = ("sequential", "asyncio", "langgraph", "langgraph-graph")
"""In virtual time; `langgraph-graph` is the plain graph, which runs in supersteps."""
REAL = ("crewai", "dask")
"""On the real clock, with a model that takes no time."""

_ATTEMPTS = 12  # with a chance of .3 to fail, one call in two million does so twelve times
_ATTEMPT_S = 60.0  # no answer takes a fifth of it, but those that stall or drip
_TIME_SCALE = 50.0
_AT_ONCE = 10  # workflows, on the real clock, where most of the time is waiting for what stalls
_LOCAL: dict[str, Any] = {"upstream": None, "replay": None, "record": None}


class Tally(msgspec.Struct, frozen=True):
    """What an engine made of the workflows.

    Attributes:
        engine: Which one.
        workflows: How many it ran.
        equal: How many gave the bytes that they must give.
        steps: How many steps these have together.
        requests: How many requests the endpoint saw.
        faults: Kind -> how many of the requests it befell.
    """

    engine: str
    workflows: int
    equal: int
    steps: int
    requests: int
    faults: dict[str, int]


def tally(
    engine: str,
    seeds: Iterable[int] = range(100),
    *,
    faults: str | list[dict[str, object]] = FAULTS,
) -> Tally:
    """Run the random workflows of these seeds by an engine, and compare.

    In virtual time the tally is the same on every run and every machine.

    Args:
        engine: One of `VIRTUAL` or `REAL`.
        faults: The plan, as `lab.configure` takes it.

    Raises:
        ConfigError: If there is no such engine, or it is of `REAL` and an event loop is running.
        StepError: If a call failed more often than a guard repeats it.

    Example:
        >>> t = tally("langgraph", range(3))
        >>> t.equal, t.workflows, t.requests > t.steps
        (3, 3, True)
    """
    if engine not in VIRTUAL + REAL:
        raise ConfigError(f"no engine {engine!r}; choose one of {', '.join(VIRTUAL + REAL)}")
    if engine in REAL:
        none_may_run("portable.tally")
    workflows = {seed: random_workflow(seed) for seed in seeds}
    run = _on_the_real_clock if engine in REAL else _in_virtual_time
    results, seen = run(engine, workflows, faults)
    expected = {seed: _expected(seed) for seed in workflows}
    return Tally(
        engine=engine,
        workflows=len(workflows),
        equal=sum(results[seed] == expected[seed] for seed in workflows),
        steps=sum(len(workflow.steps) for workflow in workflows.values()),
        requests=len(seen),
        faults=dict(sorted(Counter(span.fault for span in seen if span.fault).items())),
    )


def markdown(tallies: Iterable[Tally]) -> str:
    """A table, a row an engine.

    Example:
        >>> print(markdown([Tally("asyncio", 100, 100, 800, 1100, {"reset": 40, "error": 260})]))
        | Engine | Equal | Steps | Requests | Faults |
        |---|---|---|---|---|
        | asyncio | 100 of 100 | 800 | 1,100 | 300 |
    """
    rows = [
        f"| {t.engine} | {t.equal} of {t.workflows} | {t.steps:,} | {t.requests:,} "
        f"| {sum(t.faults.values()):,} |"
        for t in tallies
    ]
    head = ["| Engine | Equal | Steps | Requests | Faults |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


@cache
def _expected(seed: int) -> bytes:
    with lab.configure(preset="course", faults=[], **_LOCAL):
        program = engines.run(random_workflow(seed), engine="sequential")
        return _bytes(run_virtual(program).result)


def _in_virtual_time(
    engine: str, workflows: Mapping[int, Workflow], faults: object
) -> tuple[dict[int, bytes], list[Span]]:
    results: dict[int, bytes] = {}
    seen: list[Span] = []
    with lab.configure(preset="course", faults=faults, **_LOCAL):
        for seed, workflow in workflows.items():
            answers, t = lab.simulate(_run(engine, workflow, _guard().ask))
            results[seed] = _bytes(answers)
            seen += t.spans
    return results, seen


def _on_the_real_clock(
    engine: str, workflows: Mapping[int, Workflow], faults: object
) -> tuple[dict[int, bytes], list[Span]]:
    async def all_of_them() -> dict[int, bytes]:
        slots = asyncio.Semaphore(_AT_ONCE)
        async with AsyncExitStack() as stack:
            ask = _guard().around(await _send(engine, stack))

            async def one(workflow: Workflow) -> bytes:
                async with slots:
                    return _bytes(await _run(engine, workflow, ask))

            answers = await asyncio.gather(*map(one, workflows.values()))
        return dict(zip(workflows, answers, strict=True))

    with lab.configure(preset="instant", time_scale=_TIME_SCALE, faults=faults, **_LOCAL):
        with trace() as seen:
            results = asyncio.run(all_of_them())
        return results, seen.spans


async def _send(engine: str, stack: AsyncExitStack) -> Ask:
    if engine != "dask":
        return lab.ask
    from agentlab.engines.dask import Cluster  # takes a second or two

    cluster = await stack.enter_async_context(Cluster())
    return cluster.ask


async def _run(engine: str, workflow: Workflow, ask: Ask) -> dict[str, str]:
    if engine == "langgraph-graph":
        from agentlab.engines.langgraph import graph

        app = graph(workflow, ask=ask).compile()
        state = await app.ainvoke({"inputs": {}, "results": {}})
        return {step.name: state["results"][step.name] for step in workflow.steps}
    return await engines.run(workflow, engine=engine, ask=ask)


def _guard() -> Guard:
    return Guard(retry=Retry(attempts=_ATTEMPTS), attempt_s=_ATTEMPT_S, deadline_s=None)


def _bytes(results: Mapping[str, str]) -> bytes:
    return msgspec.json.encode(results)
