"""What asyncio leaves to its users: the running loop, cancellation from inside, many sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from agentlab.errors import ConfigError, EndpointError

T = TypeVar("T")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, as one does in a notebook, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def none_may_run(function: str) -> None:
    """Raise a ConfigError inside an event loop, for functions that start one of their own."""
    if running_loop() is not None:
        raise ConfigError(
            f"{function} starts an event loop of its own, and one is running here, as in a "
            f"notebook; write: await asyncio.to_thread({function}, ...)"
        )


async def raise_if_cancelled_elsewhere(asked: Awaitable[T]) -> T:
    """Await `asked`; raise an EndpointError if it is cancelled although this task is not.

    A task group takes such an end for a quiet one: there would be no answer, and no error either.
    """
    try:
        return await asked
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise EndpointError("the call was cancelled by its own maker; ask again") from None


def allow_many_connections() -> None:
    """Raise this process's limit on open files to what the system allows: sockets count."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 65_536)
    with suppress(OSError, ValueError):  # macOS refuses what its kernel cannot do
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
