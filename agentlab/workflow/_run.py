"""Run a graph's nodes: each as soon as its needs are there, or one after the other."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from agentlab._support.asyncio_tools import called, raise_if_cancelled_elsewhere
from agentlab.errors import StepError, reason
from agentlab.workflow._graph import Needs

Call = Callable[[str, dict[str, Any]], Awaitable[Any]]
"""Runs a node: it takes the node's name and the results of its needs, by name."""

Start = Callable[[str, Callable[[], Coroutine[Any, Any, Any]]], asyncio.Future[Any]]
"""Begins a node: it takes the node's name and its work, and makes a task of `work()`."""


async def in_order(needs: Needs, call: Call) -> dict[str, Any]:
    """Run one node after the other. It takes the work of the graph."""
    results: dict[str, Any] = {}
    for name, needed in needs.items():
        results[name] = await call(name, {need: results[need] for need in needed})
    return results


async def as_ready(needs: Needs, call: Call) -> dict[str, Any]:
    """Run each node as soon as its needs are there, which takes the span; a failure ends all."""
    async with asyncio.TaskGroup() as group:
        tasks = begin(needs, call, lambda name, work: group.create_task(work(), name=name))
    return {name: task.result() for name, task in tasks.items()}


def begin(needs: Needs, call: Call, start: Start) -> dict[str, asyncio.Future[Any]]:
    """Begin all nodes now, in order."""
    tasks: dict[str, asyncio.Future[Any]] = {}
    for node in needs:

        async def when_ready(name: str = node) -> Any:  # a function per node: LangGraph renames it
            return await call(name, {need: await tasks[need] for need in needs[name]})

        tasks[node] = start(node, when_ready)
    return tasks


class Run:
    """One run of a graph: its results, and its first failure, told as that of `node` `where`."""

    def __init__(self, names: Iterable[str], *, node: str, where: str = "") -> None:
        self._names = list(names)
        self._node, self._where = node, where
        self._done: dict[str, Any] = {}
        self._failed: tuple[str, Exception] | None = None
        self._in_flight: set[asyncio.Task[Any]] = set()

    @property
    def results(self) -> dict[str, Any]:
        """Name -> result, of the nodes that have ended."""
        return {name: self._done[name] for name in self._names if name in self._done}

    async def call(self, name: str, work: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        """Call `work`, async or not, and keep what it returns as the result of the node."""
        task: Any = asyncio.current_task()
        self._in_flight.add(task)
        try:
            # If it ends as cancelled by itself, that is a failure: its result would be missing.
            self._done[name] = result = await raise_if_cancelled_elsewhere(
                called(work, *args, **named)
            )
        except Exception as error:
            self._failed = self._failed or (name, error)
            raise
        finally:
            self._in_flight.discard(task)
        return result

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Turn whatever a framework makes of a failure into a StepError, around the whole run.

        What is in flight then is cancelled; CrewAI would let it go on, and the user would pay.
        """
        me: Any = asyncio.current_task()
        asked = me.cancelling()
        try:
            yield
        except Exception:
            while me.cancelling() > asked:  # a TaskGroup leaves one behind, until Python 3.13
                me.uncancel()
            for task in self._in_flight:
                task.cancel()
            if self._failed is None:
                raise
            name, error = self._failed
            said = reason(error)
            failed = f"{self._node} {name!r}{self._where} failed ({type(said).__name__}: {said})"
            has = f"this error has {len(self._done)} of {len(self._names)} results"
            raise StepError(f"{failed}; {has}", step=name, results=self.results) from error
