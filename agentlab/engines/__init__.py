"""The engines: one Workflow, run by different means. Results are equal; only time differs.

    sequential   one step after the other: the baseline
    asyncio      each step as soon as its inputs are there, as tasks of one event loop
    langgraph    the same as native LangGraph; also the plain graph, which runs in supersteps
    crewai       the same as a native CrewAI Flow; on the real clock only
    dask         each call on some other process, here or on another host; on the real clock only
    dask_processes   scheduler and workers here, ending with the process that they serve
    asking       what they share: how a step is asked, and who watches a run

Each has `run(workflow, inputs, ask=...)`; this one picks it by name. A framework is imported by
its own engine only.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from agentlab.engines.asking import Ask
from agentlab.errors import ConfigError
from agentlab.workflow import Workflow

ENGINES = ("sequential", "asyncio", "langgraph", "crewai", "dask")


async def run(
    workflow: Workflow,
    inputs: Mapping[str, str] | None = None,
    *,
    engine: str = "asyncio",
    ask: Ask | None = None,
    progress: bool = False,
) -> dict[str, str]:
    """Run a workflow; return step -> answer, in the workflow's order.

    Args:
        inputs: The text for each of the workflow's inputs.
        engine: One of `ENGINES`.
        ask: Who answers a step; `lab.ask`, unless given.
        progress: Whether to show a bar that counts the steps.

    Raises:
        ConfigError: If there is no such engine, or an input is missing or unknown.
        StepError: If a step fails. It carries the answers that there were by then.

    Example:
        results = await engines.run(Workflow.load("report"), {"topic": "tides", "data": "heights"})
        results["summary"]
    """
    if engine not in ENGINES:
        raise ConfigError(f"no engine {engine!r}; choose one of {', '.join(ENGINES)}")
    chosen = import_module(f"agentlab.engines.{engine}")
    results: dict[str, str] = await chosen.run(workflow, inputs, ask=ask, progress=progress)
    return results
