"""A second request when the first is late; whichever is answered first wins.

After Dean and Barroso, The Tail at Scale (2013): https://doi.org/10.1145/2408776.2408794
"""

import asyncio
from collections import deque
from typing import TypeVar

from agentlab import lab
from agentlab._support.asyncio_tools import Attempt, raise_if_cancelled_elsewhere
from agentlab._support.fields import checked

T = TypeVar("T")


class Hedge:
    """Sends a call again when it has taken longer than most calls do.

    Args:
        after_s: Model seconds from when it is sent; None learns them from `quantile`.
        quantile: Hedge what is slower than this share of the latest calls.
        share: Hedges per call at most; a slow endpoint must not be sent everything twice.
    """

    KEPT = 200  # latencies that the quantile is taken from
    LEAST = 20  # before so many there is no quantile, and no hedge

    def __init__(self, after_s: float | None = None, *, quantile: float = 0.95, share: float = 0.1):
        checked("after_s", after_s, above=True, optional=True)
        checked("quantile", quantile, above=True, most=0.999)
        checked("share", share, above=True, most=1)
        self._after_s = after_s
        self._quantile = quantile
        self._share = share
        self._latest_s: deque[float] = deque(maxlen=self.KEPT)
        self.calls = 0
        self.hedges = 0

    async def __call__(self, call: Attempt[T], *, sent: asyncio.Event | None = None) -> T:
        """Return the call's result, or its error if each request failed; `call` sets `sent`."""
        self.calls += 1
        running = [_begin(call)]
        try:
            if sent is not None:
                running[0].add_done_callback(lambda _: sent.set())
                await sent.wait()
            began_s, after_s = lab.now_s(), self.after_s()
            real_s = after_s and after_s / lab.model_seconds_a_second()
            done, left = await asyncio.wait(running, timeout=real_s)
            if not done and self.hedges < self._share * self.calls:
                self.hedges += 1
                running.append(_begin(call))
                left = set(running)
            while left and all(task.exception() is not None for task in done):
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            result = min(done, key=lambda task: task.exception() is not None).result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        self._latest_s.append(lab.now_s() - began_s)
        return result

    def after_s(self) -> float | None:
        """Return how long it waits at present; None while it knows too few calls."""
        if self._after_s is not None or len(self._latest_s) < self.LEAST:
            return self._after_s
        ordered = sorted(self._latest_s)
        return ordered[int(self._quantile * len(ordered))]


def _begin(call: Attempt[T]) -> asyncio.Task[T]:
    return asyncio.create_task(raise_if_cancelled_elsewhere(call()))
