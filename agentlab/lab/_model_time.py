"""Model time: the seconds in which the model lives, on whichever clock this program runs.

One of this machine's seconds is ten of the course's model's, and one of a real model's.
"""

import asyncio
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from agentlab.clock import is_virtual
from agentlab.lab import connection


def model_seconds_a_second() -> float:
    """Return how fast the model's time runs here: 1 in virtual time and with a real model."""
    if is_virtual():
        return 1.0
    chosen = connection.current()  # behind the endpoint may be a class, whose time counts
    return connection.endpoint().time_scale if chosen.real else chosen.time_scale


def now_s() -> float:
    """Return the running event loop's time, in model seconds."""
    return asyncio.get_running_loop().time() * model_seconds_a_second()


async def sleep(seconds: float) -> None:
    """Wait for so many model seconds."""
    await asyncio.sleep(seconds / model_seconds_a_second())


def timeout(seconds: float | None) -> asyncio.Timeout:
    """Limit a block, as `asyncio.timeout` does, to so many model seconds; None sets no limit."""
    return asyncio.timeout(seconds and seconds / model_seconds_a_second())


async def sleep_until(at_s: float) -> None:
    """Wait until the running event loop's clock, as `now_s` reads it, shows `at_s`."""
    # One timer for that instant: what is left of a wait can be too little to move a virtual clock.
    over = asyncio.Event()
    timer = asyncio.get_running_loop().call_at(at_s / model_seconds_a_second(), over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read how long an answer's headers ask to wait, in model seconds; None if they do not say.

    They say so in `retry-after-ms`, or else in `retry-after`, as a number or as a date (RFC 9110).
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        wait_s = finite_number(headers.get(name, ""))
        if wait_s is not None:
            return wait_s * unit_s * model_seconds_a_second()
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, OverflowError):
        return None
    until = until.replace(tzinfo=until.tzinfo or UTC)
    wait_s = max((until - datetime.now(UTC)).total_seconds(), 0.0)
    return wait_s * model_seconds_a_second()


def finite_number(text: str) -> float | None:
    """Read a number from a header; None if it is not one, negative or not finite."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


_UNITS_S = {"": 1.0, "ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli|[dhms])?[a-z]*\s*", re.IGNORECASE)


def duration_s(text: str) -> float | None:
    """Read a time such as "6m0s", "1h2.5s" or "120ms", in seconds; None if it is not one."""
    text = text.strip()
    if not re.fullmatch(f"(?>{_SPAN.pattern})++", text, re.IGNORECASE):
        return None
    total_s = sum(float(number) * _UNITS_S[unit.lower()] for number, unit in _SPAN.findall(text))
    return round(total_s, 9) if math.isfinite(total_s) else None
