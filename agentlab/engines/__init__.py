"""The engines: one Workflow, run by different means. Results are equal; only time differs.

    sequential   one step after the other: the baseline
    asyncio      each step as soon as its inputs are there, as tasks of one event loop
    langgraph    likewise, in native LangGraph; also the plain graph, which runs in supersteps
    crewai       likewise, as a native CrewAI Flow; on the real clock only
    dask         each call in another process, here or on another host; on the real clock only
    _dask_processes  the scheduler and the workers here, which end with the process they serve
    asking       what they share: how a step is asked

Each has `run(workflow, values, ask=...)`, which `run` here picks by its name. Only its own engine
imports a framework.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from functools import partial
from importlib import import_module

from agentlab import lab
from agentlab._support.extras import extras
from agentlab._support.progress_bar import bar
from agentlab.engines.asking import Ask
from agentlab.errors import ConfigError
from agentlab.workflow import Run, Workflow

__all__ = ["ENGINES", "Ask", "bar", "run", "watched"]

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
        ask: What answers a step, by default `lab.ask`; with `dask`, a `Cluster`'s `ask`, or else
            workers are started for this run alone.
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
    with extras():
        chosen = import_module(f"agentlab.engines.{engine}")
    values = workflow.given(inputs)
    if engine == "dask" and ask is None:
        async with chosen.Cluster() as cluster:
            return await run(workflow, inputs, engine=engine, ask=cluster.ask, progress=progress)
    return await watched(
        workflow, partial(chosen.run, workflow, values), ask=ask, progress=progress
    )


async def watched(
    workflow: Workflow,
    how: Callable[..., Awaitable[dict[str, str]]],
    *,
    ask: Ask | None = None,
    progress: bool = False,
) -> dict[str, str]:
    """Await `how(ask=...)`, any way to run the steps, and report a failure as `run` does.

    Raises:
        StepError: If a step fails. It carries the answers that there were by then.
    """
    shown = bar(total=len(workflow.steps), name=workflow.name) if progress else None
    steps = Run(
        workflow.needs, node="step", where=f" of workflow {workflow.name!r}", result="answer"
    )

    async def counted(prompt: str, *, agent: str, **options: object) -> str:
        text: str = await steps.call(agent, ask or lab.ask, prompt, agent=agent, **options)
        if shown is not None:
            shown.update()
        return text

    with shown or nullcontext(), steps.reported():
        return await how(ask=counted)
