"""The engines: one Workflow, run by different means. Results are equal; only time differs.

`sequential` asks one step after the other: the baseline. `asyncio` asks each step as soon as its
inputs are there, and so do the frameworks, which only their own files import.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from agentlab import lab
from agentlab._support.asyncio_tools import called
from agentlab._support.progress_bar import bar
from agentlab._support.system import extras
from agentlab.errors import ConfigError
from agentlab.workflow import Run, Step, Tools, Workflow, as_ready, in_order, listed, with_tools

__all__ = ["ENGINES", "Ask", "answer", "bar", "run", "watched"]

_NATIVE = ("langgraph", "crewai")  # the framework runs the graph
_AGENTS = ("openai-agents", "pydantic-ai")  # the framework runs a step, as an agent
ENGINES = ("sequential", "asyncio", *_NATIVE, "dask", *_AGENTS)

Ask = Callable[..., Awaitable[str]]
"""What answers a step: `lab.ask`, or anything that is called like it."""


async def answer(step: Step, values: Mapping[str, str], ask: Ask) -> str:
    """Ask a step's question, with the `values` filled in."""
    names = ["system", "max_tokens", "temperature", *(["tools", "max_turns"] if step.tools else [])]
    return await ask(step.asked(values), agent=step.name, **{n: getattr(step, n) for n in names})


async def run(
    workflow: Workflow, inputs: Mapping[str, str] | None = None,
    *, engine: str = "asyncio", tools: Tools | None = None,
    ask: Ask | Callable[..., Awaitable[lab.Reply]] | None = None, progress: bool = False,
) -> dict[str, str]:  # fmt: skip
    """Run a workflow; return step -> answer, in the workflow's order.

    Args:
        tools: The functions that steps name as their tools. They run here, in this process.
        ask: What answers a step: `lab.ask`, or with `dask` a `Cluster`'s, by default a new one's.
            For steps with tools, `lab.reply`, a `Cluster`'s, or `guard.around(lab.reply)`.

    Raises:
        ConfigError: If there is no such engine, an input is missing or unknown, or a tool missing.
        StepError: If a step fails. It carries the answers that there were by then.
    """
    if engine not in ENGINES:
        raise ConfigError(f"no engine {engine!r}; choose one of {', '.join(ENGINES)}")
    if not isinstance(workflow, Workflow):
        raise ConfigError(f"{workflow!r:.200} is no Workflow; give Workflow.load('report'), say")
    values = workflow.given(inputs)
    if missing := {name for step in workflow.steps for name in step.tools} - set(tools or {}):
        lacks = f"no functions for the tools {listed(sorted(missing))} of {workflow.name!r}"
        raise ConfigError(f"{lacks}; pass run(..., tools={{'name': function}})")
    if engine == "dask" and ask is None:
        async with _framework(engine).Cluster() as cluster:
            asking = partial(run, workflow, inputs, engine=engine, tools=tools, progress=progress)
            return await asking(ask=cluster.reply)
    asked: Any = with_tools(ask or lab.reply, tools) if tools else partial(_text, ask or lab.ask)
    how = _framework(engine).run if engine in _NATIVE else partial(_scheduled, engine)
    if engine in _AGENTS:
        asked = partial(_framework(engine).ask, asked)
    return await watched(workflow, partial(how, workflow, values), ask=asked, progress=progress)


async def _text(ask: Callable[..., Any], prompt: str, **options: Any) -> str:
    """Return what `ask`, async or not, answers; a ConfigError if that is no text."""
    said = await called(ask, prompt, **options)
    said = said.text if isinstance(said, lab.Reply) else said
    if not isinstance(said, str):
        raise ConfigError(f"`ask` returned {said!r:.200}; return a text, as lab.ask does")
    return said


def _framework(engine: str) -> Any:
    """Return the file of an engine, which imports what only its extra brings."""
    with extras(engine):
        return import_module(f"agentlab.engines.{engine.replace('-', '_')}")


async def _scheduled(engine: str, workflow: Workflow, values: dict[str, str], *, ask: Ask) -> Any:
    async def call(name: str, given: dict[str, str]) -> str:
        return await answer(workflow.step(name), values | given, ask)

    schedule = in_order if engine == "sequential" else as_ready
    return await schedule(workflow.needs, call)


async def watched(
    workflow: Workflow, how: Callable[..., Awaitable[Any]], *, ask: Ask, progress: bool = False
) -> dict[str, str]:
    """Await `how(ask=...)`, any way to run the steps; report progress and failure as `run` does."""
    shown = bar(total=len(workflow.steps), name=workflow.name, shown=progress)
    steps = Run(workflow.needs, node="step", where=f" of workflow {workflow.name!r}")

    async def counted(prompt: str, *, agent: str, **options: object) -> str:
        text: str = await steps.call(agent, ask, prompt, agent=agent, **options)
        shown.update()
        return text

    with shown, steps.reported():
        return dict(await how(ask=counted))
