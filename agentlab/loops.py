"""Whether an event loop is running here, as it is in a notebook."""

from __future__ import annotations

import asyncio

from agentlab.errors import ConfigError


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread; None if none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def none_may_run(function: str) -> None:
    """At the beginning of a function that starts an event loop of its own.

    Raises:
        ConfigError: If a loop is running here, with the way to call the function all the same.

    Example:
        >>> none_may_run("measure.run")
    """
    if running_loop() is not None:
        raise ConfigError(
            f"{function} starts an event loop of its own, and one is running here, as in a "
            f"notebook; write: await asyncio.to_thread({function}, ...)"
        )
