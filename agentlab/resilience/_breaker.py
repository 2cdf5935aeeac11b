"""A circuit breaker: an endpoint that is down is left alone, but for one probe at a time."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from agentlab import lab
from agentlab._support.fields import checked
from agentlab.resilience._classify import classify


class Breaker:
    """Opens after so many outages in a row; then one call at a time probes, every `open_s`.

    Calls that come while it is open wait for the probe's result. Only outages count: a broken
    connection, a time-out, a status of 500 or more.
    """

    def __init__(self, failures: int = 5, open_s: float = 1.0):
        checked("failures", failures, least=1, whole=True)
        checked("open_s", open_s, above=True)
        self._most = failures
        self._open_s = open_s
        self._failures = 0
        self._probe_at_s: float | None = None  # None while it is closed
        self._probe = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """True while only probes are let through."""
        return self._probe_at_s is not None

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Wait until one call may be sent, and learn from how it ends."""
        if self._probe_at_s is not None:
            async with self._probe:
                if self._probe_at_s is not None:  # else the probe before this one was answered
                    await lab.sleep_until(self._probe_at_s)
                    with self._learning(probe=True):
                        yield
                    return
        with self._learning(probe=False):
            yield

    @contextmanager
    def _learning(self, *, probe: bool) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            verdict = classify(error)
            if verdict.outage:
                self._failures += 1
                if probe or (not self.is_open and self._failures >= self._most):
                    self._probe_at_s = lab.now_s() + self._open_s
            elif verdict.answered:
                self._close()
            raise
        self._close()

    def _close(self) -> None:
        self._failures, self._probe_at_s = 0, None
