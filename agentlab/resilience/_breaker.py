"""A circuit breaker: an endpoint that is down is left alone, but for one probe at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from agentlab import lab
from agentlab._support.numbers import checked
from agentlab.resilience._classify import classify

_NOW_S = 1e-9
"""A wait that is shorter is over: adding it to a time in doubles may not move that at all."""


class Breaker:
    """Opens after so many outages in a row; then one call at a time probes, every `open_s`.

    Calls that come while it is open wait for the probe's result. Only outages count: a broken
    connection, a time-out, a status of 500 or more. A rate limit is none, and a bug in the caller's
    own code changes nothing.

    Args:
        failures: How many outages in a row open it.
        open_s: Model seconds between probes.

    Example:
        async with breaker.admitted():
            answer = await lab.ask("Name three rivers.")
    """

    def __init__(self, failures: int = 5, open_s: float = 1.0):
        checked("failures", failures, least=1, whole=True)
        checked("open_s", open_s, above=True)
        self._most = failures
        self._open_s = open_s
        self._failures = 0
        self._probe_at_s: float | None = None  # None while it is closed
        self._probing = False
        self._changed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """True while only probes are let through."""
        return self._probe_at_s is not None

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Wait until one call may be sent, and learn from how it ends."""
        probe = await self._admit()
        try:
            yield
            self._learn(ok=True, probe=probe)
        except BaseException as error:
            verdict = classify(error)
            if verdict.outage or verdict.answered:
                self._learn(ok=not verdict.outage, probe=probe)
            raise
        finally:  # cancelled, or a bug of the caller's: nothing is learned, and another one probes
            if probe:
                self._probing = False
            self._changed.set()
            self._changed = asyncio.Event()

    async def _admit(self) -> bool:
        """Wait for admission; returns whether the call is a probe."""
        while self._probe_at_s is not None:
            wait_s = self._probe_at_s - lab.now_s()
            if wait_s <= _NOW_S and not self._probing:
                self._probing = True
                return True
            with suppress(TimeoutError):
                async with lab.timeout(None if self._probing else wait_s):
                    await self._changed.wait()
        return False

    def _learn(self, *, ok: bool, probe: bool) -> None:
        if ok:
            self._failures = 0
            self._probe_at_s = None
            return
        self._failures += 1
        if probe or (self._probe_at_s is None and self._failures >= self._most):
            self._probe_at_s = lab.now_s() + self._open_s
