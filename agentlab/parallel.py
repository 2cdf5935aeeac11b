"""Plain functions, run in parallel by their parameters: a parameter's name is its source.

A function needs the results of the functions that its parameters name, and nothing else declares
that. So a script of calls that stand in a row becomes a graph without being written anew.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

from agentlab._support.asyncio_tools import never_cancelled_from_within
from agentlab.errors import ConfigError, StepError
from agentlab.graph import Graph

Function = Callable[..., Any]
"""Async or not; its parameters name other functions, or inputs, and its result may be anything."""


async def run(functions: Iterable[Function], /, **inputs: Any) -> dict[str, Any]:
    """Run each function as soon as its parameters are there; return name -> result, in order.

    It takes the span of the graph. A function that fails cancels those in flight, and those that
    were yet to come never start. A function that is not async runs in the event loop, which stands
    meanwhile; for one that takes long there is `in_thread`.

    Args:
        functions: In any order.
        inputs: What is given, by the names that the parameters have.

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
    program = _Program(functions, inputs)
    tasks: dict[str, asyncio.Task[None]] = {}

    async def when_ready(name: str) -> None:
        for need in program.graph.needs[name]:
            await tasks[need]
        await program.call(name)

    with program.reported():
        async with asyncio.TaskGroup() as group:
            for name in program.graph.needs:  # each after those that it needs
                tasks[name] = group.create_task(when_ready(name), name=name)
    return program.results


async def run_sequential(functions: Iterable[Function], /, **inputs: Any) -> dict[str, Any]:
    """The baseline: the same functions, one after the other; see `run`. It takes their work."""
    program = _Program(functions, inputs)
    with program.reported():
        for name in program.graph.needs:
            await program.call(name)
    return program.results


def graph(functions: Iterable[Function], *, inputs: Sequence[str] = ()) -> Graph:
    """Who needs whom; with the time of each, its `plan` has work, span and critical path.

    Args:
        inputs: The names of what will be given. A parameter that has a default value, and names
            neither a function nor an input, keeps its default.

    Raises:
        ConfigError: If two functions have one name, a parameter names nothing that there is, an
            input is never used, functions need each other in a circle, or a function has no name,
            or a parameter without one (`*args`).

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
    return _graph([_read(function) for function in functions], inputs)


def in_thread(function: Function) -> Function:
    """The same function, run in a thread: for one that blocks, so that the others go on meanwhile.

    A thread cannot be cancelled: if another function fails, this one still runs to its end.

    Raises:
        ConfigError: If it is async, for then it needs no thread.

    Example:
        await parallel.run([fetch, in_thread(parse), report], url="...")
    """
    if inspect.iscoroutinefunction(function):
        raise ConfigError(f"{_name(function)!r} is async and needs no thread; pass it as it is")

    @wraps(function)
    async def threaded(*args: Any, **named: Any) -> Any:
        return await asyncio.to_thread(function, *args, **named)

    return threaded


class _Call(NamedTuple):
    name: str
    function: Function
    parameters: dict[str, bool]  # -> whether it must be given, having no default

    def mentions(self, known: Collection[str]) -> list[str]:
        return [name for name, must in self.parameters.items() if must or name in known]


class _Program:
    """One run of some functions, whichever way they are run."""

    def __init__(self, functions: Iterable[Function], inputs: dict[str, Any]):
        calls = [_read(function) for function in functions]
        self.graph = _graph(calls, list(inputs))
        self._calls = {call.name: call for call in calls}
        self._values = dict(inputs)  # and the results, as they come
        self._failed: tuple[str, Exception] | None = None

    async def call(self, name: str) -> None:
        """Call a function whose parameters are all there, and keep its result."""
        call = self._calls[name]
        given = {need: self._values[need] for need in call.parameters if need in self._values}
        try:
            # To end as cancelled by itself is a failure: else its result would only be missing.
            result = await never_cancelled_from_within(_called(call.function, given))
        except Exception as error:
            self._failed = self._failed or (name, error)
            raise
        self._values[name] = result

    @property
    def results(self) -> dict[str, Any]:
        """Name -> result, of the functions that have ended, in the graph's order."""
        return {name: self._values[name] for name in self.graph.needs if name in self._values}

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Around the whole run: say which function failed, and keep what the others gave."""
        try:
            yield
        except Exception:
            if self._failed is None:
                raise
            name, error = self._failed
            raise StepError(
                f"function {name!r} failed ({type(error).__name__}: {error}); "
                f"{len(self.results)} of {len(self._calls)} results are in this error's results",
                step=name,
                results=self.results,
            ) from error


async def _called(function: Function, given: dict[str, Any]) -> Any:
    result = function(**given)
    return await result if inspect.isawaitable(result) else result


def _graph(calls: Sequence[_Call], inputs: Sequence[str]) -> Graph:
    known = {*inputs, *(call.name for call in calls)}
    mentions = [(call.name, call.mentions(known)) for call in calls]
    return Graph(mentions, inputs=inputs, node="function", where="signature")


def _read(function: Function) -> _Call:
    name = _name(function)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name!r}: {error}; wrap it in a function of your own") from None
    parameters: dict[str, bool] = {}
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(
                f"function {name!r} takes {str(parameter)!r} without a name to give it by; "
                "name each thing that it needs"
            )
        parameters[parameter.name] = parameter.default is parameter.empty
    return _Call(name, function, parameters)


def _name(function: Function) -> str:
    name = getattr(function, "__name__", "")
    if not (callable(function) and name.isidentifier()):
        raise ConfigError(
            f"{function!r} is no function with a name that a parameter can have; define it with def"
        )
    return str(name)
