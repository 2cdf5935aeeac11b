"""Plain functions, run in parallel by their parameters: a parameter's name is its source.

A function needs the results of the functions that its parameters name, and nothing else declares
that. So a script of calls in a row becomes a graph without being rewritten.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from agentlab.errors import ConfigError
from agentlab.workflow._graph import Graph
from agentlab.workflow._run import Run, as_ready, in_order

Function = Callable[..., Any]
"""Async or not; its parameters name other functions, or inputs, and its result may be anything."""


async def run(functions: Iterable[Function], /, **inputs: Any) -> dict[str, Any]:
    """Run each function as soon as its parameters are there; return name -> result, in order.

    It takes the span of the graph. A function that fails cancels those in flight, and those still
    to come never start. A function that is not async blocks the event loop: if it takes long, call
    it by `asyncio.to_thread` in an async function.

    Args:
        functions: In any order.
        inputs: The values of the parameters that name no function.

    Raises:
        ConfigError: If the functions make no graph (see `graph`); nothing was called then.
        StepError: If a function fails. It carries the results that there were by then.

    Example:
        async def research(topic):
            return await lab.ask(f"What is known about {topic}?", agent="research")

        async def costs(topic):
            return await lab.ask(f"What does {topic} cost?", agent="costs")

        async def summary(research, costs):
            return await lab.ask(f"Make one report of {research} and {costs}", agent="summary")

        results = await parallel.run([research, costs, summary], topic="tides")
        results["summary"]
    """
    return await _run(as_ready, functions, inputs)


async def run_sequential(functions: Iterable[Function], /, **inputs: Any) -> dict[str, Any]:
    """Run the functions one after the other, as the baseline of `run`. It takes their work."""
    return await _run(in_order, functions, inputs)


def graph(functions: Iterable[Function], *, inputs: Sequence[str] = ()) -> Graph:
    """Return which function needs which; with the time of each, its `plan` has work and span.

    Args:
        inputs: The names of what will be given. A parameter that has a default value, and names
            neither a function nor an input, keeps its default.

    Raises:
        ConfigError: If two functions have the same name, a parameter names neither a function nor
            an input, an input is never used, functions need each other in a circle, or a function
            has no name, or a parameter without one (`*args`).

    Example:
        >>> def draft(topic): ...
        >>> def check(topic): ...
        >>> def final(draft, check): ...
        >>> plan = graph([draft, check, final], inputs=["topic"]).plan(
        ...     {"draft": 10, "check": 15, "final": 12}
        ... )
        >>> plan.work_s, plan.span_s, plan.critical_path
        (37, 27.0, ['check', 'final'])
    """
    read = [(_name(function), _parameters(function)) for function in functions]
    known = {*inputs, *(name for name, _ in read)}
    mentions = [
        (name, [p.name for p in parameters if p.name in known or p.default is p.empty])
        for name, parameters in read
    ]
    return Graph(mentions, inputs=inputs, node="function", where="signature")


async def _run(how: Any, functions: Iterable[Function], inputs: dict[str, Any]) -> dict[str, Any]:
    functions = list(functions)
    needs = graph(functions, inputs=list(inputs)).needs
    by_name = {_name(function): function for function in functions}
    run = Run(needs, node="function")

    async def call(name: str, given: dict[str, Any]) -> Any:
        taken = [each.name for each in _parameters(by_name[name])]
        given |= {need: inputs[need] for need in taken if need in inputs}
        return await run.call(name, by_name[name], **given)

    with run.reported():
        await how(needs, call)
    return run.results


def _parameters(function: Function) -> list[inspect.Parameter]:
    name = _name(function)
    try:
        parameters = [*inspect.signature(function).parameters.values()]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name!r}: {error}; wrap it in a function of your own") from None
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(
                f"function {name!r} takes {str(parameter)!r} without a name to give it by; "
                "name each thing that it needs"
            )
    return parameters


def _name(function: Function) -> str:
    name = getattr(function, "__name__", "")
    if not (callable(function) and name.isidentifier()):
        raise ConfigError(
            f"{function!r} is no function with a name that a parameter can have; define it with def"
        )
    return str(name)
