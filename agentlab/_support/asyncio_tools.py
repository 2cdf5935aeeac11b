"""What asyncio leaves to its users: who runs, where a task waits, cancellation from inside."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

from agentlab.errors import EndpointError

T = TypeVar("T")

Attempt = Callable[[], Awaitable[T]]
"""A function that sends the same call once more each time it is called."""

running_loop: Callable[[], asyncio.AbstractEventLoop | None] = asyncio._get_running_loop
"""Return the event loop that runs in this thread, as one does in a notebook, or None."""


def frames(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """Yield the frames in which a task waits, the innermost last."""
    inner: Any = task.get_coro()
    while (frame := getattr(inner, "cr_frame", None)) is not None:
        yield frame
        inner = inner.cr_await


async def called(work: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
    """Call `work`, async or not, and return its result."""
    result = work(*args, **named)
    return await result if inspect.isawaitable(result) else result


async def raise_if_cancelled_elsewhere(asked: Awaitable[T]) -> T:
    """Await `asked`; if it is cancelled, and this task is not, raise an EndpointError.

    A task group would take such an end for a quiet one, and the answer would be lost.
    """
    try:
        return await asked
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise EndpointError("the call was cancelled by its own maker; ask again") from None
