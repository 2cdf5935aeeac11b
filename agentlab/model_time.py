"""Model time: the seconds in which the model lives, on whichever clock this program runs.

One of this machine's seconds is ten of the course's model's, and one of virtual time's or of a
real model's. What waits, or counts, in model seconds means the same everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from agentlab import running
from agentlab.clock import is_virtual


def model_seconds_a_second() -> float:
    """How fast the model's time runs here: 1 in virtual time and with a real model.

    Where another lab's endpoint answers, such as a classroom's, it is that one's.
    """
    if is_virtual():
        return 1.0
    chosen = running.current()
    return running.endpoint().time_scale if chosen.real else chosen.time_scale


def now_s() -> float:
    """The running event loop's time, in model seconds."""
    return asyncio.get_running_loop().time() * model_seconds_a_second()


async def sleep(seconds: float) -> None:
    """Wait for so many model seconds."""
    await asyncio.sleep(seconds / model_seconds_a_second())


def timeout(seconds: float | None) -> asyncio.Timeout:
    """`asyncio.timeout` in model seconds: the whole block must end by then, whatever it awaits."""
    return asyncio.timeout(seconds and seconds / model_seconds_a_second())


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long an answer's headers ask to wait, in model seconds; None if they do not say.

    Its `retry-after-ms`, or else `retry-after` in seconds, counted on the client's own clock.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return float(headers[name]) * unit_s * model_seconds_a_second()
        except (KeyError, ValueError):  # absent, or a date, which no endpoint of this kind sends
            continue
    return None
