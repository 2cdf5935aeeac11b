"""What asyncio leaves to its users: the running loop, and cancellation from inside."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from agentlab.errors import EndpointError

T = TypeVar("T")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, as one does in a notebook, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


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
