"""A second request when the first is late; whichever is answered first wins.

After Dean and Barroso, The Tail at Scale (2013): https://doi.org/10.1145/2408776.2408794
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from agentlab import lab
from agentlab._support.asyncio_tools import never_cancelled_from_within
from agentlab._support.numbers import checked

T = TypeVar("T")


class Hedge:
    """Sends a call again when it has taken longer than most calls do.

    Args:
        after_s: Model seconds after which to hedge; None learns it from `quantile`. In a `Guard`
            they count from when the request is sent: the client's own queue is no lateness.
        quantile: Hedge what is slower than this share of the latest calls.
        share: Hedges a call at most; a slow endpoint must not be sent everything twice.

    Example:
        answer = await Hedge(after_s=4)(lambda: lab.ask("Name three rivers."))
    """

    KEPT = 200  # latencies that the quantile is taken from
    LEAST = 20  # before so many there is no quantile, and no hedge

    def __init__(self, after_s: float | None = None, *, quantile: float = 0.95, share: float = 0.1):
        checked("after_s", after_s, above=True, optional=True)
        checked("quantile", quantile, above=True, most=1, below=True)
        checked("share", share, above=True, most=1)
        self._after_s = after_s
        self._quantile = quantile
        self._share = share
        self._latest_s: deque[float] = deque(maxlen=self.KEPT)
        self.calls = 0
        self.hedges = 0

    async def __call__(
        self, call: Callable[[], Awaitable[T]], *, sent: asyncio.Event | None = None
    ) -> T:
        """The call's result, or its error if every request that was sent for it failed.

        Args:
            sent: Set by `call` when its request is really sent; None counts from now.
        """
        self.calls += 1
        running: set[asyncio.Task[T]] = {_begin(call)}
        try:
            if sent is not None:
                await _sent_or_over(sent, running)
            began_s = lab.now_s()
            done = await _any_of(running, self.after_s())
            if not done and self.hedges < self._share * self.calls:
                self.hedges += 1
                running |= {_begin(call)}
            result = await _first_success(running)
        finally:
            await _cancel(running)
        self._latest_s.append(lab.now_s() - began_s)
        return result

    def after_s(self) -> float | None:
        """How long it waits at present; None while it knows too few calls."""
        if self._after_s is not None or len(self._latest_s) < self.LEAST:
            return self._after_s
        ordered = sorted(self._latest_s)
        return ordered[int(self._quantile * len(ordered))]


def _begin(call: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
    async def one() -> T:
        return await call()

    return asyncio.create_task(never_cancelled_from_within(one()))


async def _sent_or_over(sent: asyncio.Event, running: set[asyncio.Task[T]]) -> None:
    waiting = asyncio.create_task(sent.wait())
    try:
        await asyncio.wait({waiting, *running}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancel({waiting})


async def _any_of(running: set[asyncio.Task[T]], seconds: float | None) -> set[asyncio.Task[T]]:
    try:
        async with lab.timeout(seconds):
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            return done
    except TimeoutError:
        return set()


async def _first_success(running: set[asyncio.Task[T]]) -> T:
    left = set(running)
    while True:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None:
                return task.result()
        if not left:
            return done.pop().result()  # raises


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
