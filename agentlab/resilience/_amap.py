"""Any number of calls, a few at the same time, results as they come, and memory bounded."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

import psutil

from agentlab._support.asyncio_tools import raise_if_cancelled_elsewhere
from agentlab._support.fields import checked

A = TypeVar("A")
B = TypeVar("B")


class Outcome(NamedTuple, Generic[A, B]):
    """What became of one item."""

    item: A
    result: B | None
    error: Exception | None


async def amap(
    function: Callable[[A], Awaitable[B]], items: Iterable[A],
    *, max_concurrency: int, max_memory_mb: float | None = None,
) -> AsyncIterator[Outcome[A, B]]:  # fmt: skip
    """Call `function` on every item, and yield each outcome as it comes.

    Items are taken only when there is room for them, so they may be an endless generator; while
    this process holds more than `max_memory_mb`, there is room for one. An error is an outcome like
    any other; one of the items themselves is raised at the end. Close the iterator
    (`contextlib.aclosing`) to cancel what is in flight.

    Example:
        async for prompt, answer, error in amap(lab.ask, prompts, max_concurrency=50):
            print(prompt, error or answer)
    """
    checked("max_concurrency", max_concurrency, least=1, whole=True)
    checked("max_memory_mb", max_memory_mb, above=True, optional=True)
    running: list[asyncio.Task[Outcome[A, B]]] = []  # in order of beginning
    process = psutil.Process()

    def room() -> bool:
        full = max_memory_mb and process.memory_info().rss >= max_memory_mb * 1e6
        return len(running) < (1 if full else max_concurrency)

    async def call(item: A) -> Outcome[A, B]:
        try:
            return Outcome(item, await raise_if_cancelled_elsewhere(function(item)), None)
        except Exception as error:
            return Outcome(item, None, error)

    waiting = iter(items)
    ended: Exception | None = None  # why there are no more items
    try:
        while running or ended is None:
            while ended is None and room():
                try:
                    running.append(asyncio.create_task(call(next(waiting))))
                except Exception as end:
                    ended = end
            if running:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in running if task in done]:
                    running.remove(task)
                    yield task.result()
        if ended and not isinstance(ended, StopIteration):
            raise ended
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
