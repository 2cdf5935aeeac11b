"""Requests that meet at the endpoint, however slowly a busy machine sends them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from agentlab import lab
from agentlab.trace import Trace, trace

PATIENCE_S = 120.0


async def in_flight(t: Trace, many: int, program: asyncio.Future[Any] | None = None) -> None:
    """Until the endpoint has so many in flight, or the program that sends them has ended."""
    async with asyncio.timeout(PATIENCE_S):
        while sum(span.end_s is None for span in t.spans) < many:
            if program is not None and program.done():
                return
            await asyncio.sleep(0.02)


async def hung_up(program: Awaitable[Any], many: int) -> Trace:
    """Run a program until so many of its requests are in flight, then hang up; what was seen.

    A model second is one of this machine's, so no answer is there before.
    """
    with lab.configure(time_scale=1), trace() as t:
        running = asyncio.ensure_future(program)
        await in_flight(t, many, running)
        running.cancel()
        (ended,) = await asyncio.gather(running, return_exceptions=True)
    if isinstance(ended, Exception):
        raise ended
    return t
