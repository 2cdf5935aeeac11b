"""Plain functions, run in parallel by their parameters: a parameter's name is its source."""

from collections.abc import Callable, Iterable, Sequence
from inspect import Parameter, Signature, signature
from typing import Any

from agentlab.errors import ConfigError
from agentlab.workflow import Graph, Run, as_ready, in_order

Function = Callable[..., Any]
"""Async or not; its parameters name other functions, or inputs, and its result may be anything."""


async def run(functions: Iterable[Function], /, **inputs: Any) -> dict[str, Any]:
    """Run each function as soon as its parameters are there; return name -> result, in order.

    `inputs` are the values of the parameters that name no function. A function that fails cancels
    those in flight, and those still to come never start. One that is not async blocks the event
    loop: if it takes long, call it by `asyncio.to_thread` in an async function.

    Raises:
        ConfigError: If the functions make no graph (see `graph`); nothing was called then.
        StepError: If a function fails. It carries the results that there were by then.
    """
    return await _run(as_ready, functions, inputs)


async def run_sequential(functions: Iterable[Function], /, **inputs: Any) -> dict[str, Any]:
    """Run the functions one after the other, as the baseline of `run`."""
    return await _run(in_order, functions, inputs)


def graph(functions: Iterable[Function], *, inputs: Sequence[str] = ()) -> Graph:
    """Return which function needs which; with the time of each, its `plan` has work and span.

    A parameter that has a default value, and names neither a function nor an input, keeps it.
    A function without a name, or names that make no graph (see `Graph`), are a ConfigError.

    Example:
        >>> def draft(topic): ...
        >>> def final(draft, topic): ...
        >>> graph([final, draft], inputs=["topic"]).needs
        {'draft': (), 'final': ('draft',)}
    """
    read = [_read(function) for function in functions]
    known = {*inputs, *(name for name, _ in read)}
    mentions = [
        (name, [p.name for p in taken if p.name in known or p.default is p.empty])
        for name, taken in read
    ]
    return Graph(mentions, inputs=inputs, node="function")


async def _run(how: Any, functions: Iterable[Function], inputs: dict[str, Any]) -> dict[str, Any]:
    functions = list(functions)
    needs = graph(functions, inputs=list(inputs)).needs
    by_name = {function.__name__: function for function in functions}
    run = Run(needs, node="function")

    async def call(name: str, given: dict[str, Any]) -> Any:
        _, taken = _read(by_name[name])
        given |= {p.name: inputs[p.name] for p in taken if p.name in inputs}
        return await run.call(name, by_name[name], **given)

    with run.reported():
        await how(needs, call)
    return run.results


def with_parameters(function: Function, name: str, parameters: Iterable[str]) -> Function:
    """Return the function under this name, with these parameters for `run` to read."""
    function.__name__ = name
    given = [Parameter(parameter, Parameter.KEYWORD_ONLY) for parameter in parameters]
    function.__signature__ = Signature(given)  # type: ignore[attr-defined]
    return function


def _read(function: Function) -> tuple[str, list[Parameter]]:
    name = getattr(function, "__name__", "")
    if not (callable(function) and name.isidentifier()):
        what = f"{function!r} is no function with a name that a parameter can have"
        raise ConfigError(f"{what}; define it with def")
    return name, [*signature(function).parameters.values()]
