"""A circuit breaker: an endpoint that is down is left alone, but for one probe at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentlab import lab
from agentlab._support.numbers import checked
from agentlab.errors import CircuitOpen
from agentlab.resilience.verdict import judge

_NOW_S = 1e-9
"""A wait that is shorter is over: adding it to a time in doubles may not move that at all."""


class Breaker:
    """Opens after so many outages in a row; then one call at a time probes, every `open_s`.

    Those who come while it is open wait for the probe's result, or are refused if `patient` is
    False. Only outages count: a broken connection, a time-out, a status of 500 or more. A rate
    limit is no outage; whoever slows down for it is served. An error that says nothing about the
    endpoint, such as a bug in the caller's own code, changes nothing.

    Args:
        failures: How many outages in a row open it.
        open_s: Model seconds between probes.

    Example:
        async with breaker.admitted():
            answer = await lab.ask("Name three rivers.")
    """

    def __init__(self, failures: int = 5, open_s: float = 1.0, *, patient: bool = True):
        checked("failures", failures, least=1, whole=True)
        checked("open_s", open_s, above=True)
        self._most = failures
        self._open_s = open_s
        self._patient = patient
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
        """Around one call: enter when it may be sent, and learn from how it ends.

        Raises:
            CircuitOpen: If it may not, and the breaker is not patient.
        """
        probe = await self._admit()
        try:
            yield
        except BaseException as error:
            verdict = judge(error)
            if verdict.outage or verdict.answered:
                self._learn(ok=not verdict.outage, probe=probe)
            else:  # cancelled, or the caller's own bug: nothing learned, and another one may probe
                self._release(probe)
            raise
        self._learn(ok=True, probe=probe)

    async def _admit(self) -> bool:
        while self._probe_at_s is not None:
            wait_s = self._probe_at_s - lab.now_s()
            if wait_s <= _NOW_S and not self._probing:
                self._probing = True
                return True
            if not self._patient:
                raise CircuitOpen(
                    f"the endpoint failed {self._failures} times in a row; the next attempt is "
                    f"let through in {max(wait_s, 0):g} model seconds",
                    retry_after_s=max(wait_s, 0),
                )
            changed = self._changed
            try:
                async with lab.timeout(None if self._probing else wait_s):
                    await changed.wait()
            except TimeoutError:
                continue
        return False

    def _learn(self, *, ok: bool, probe: bool) -> None:
        if ok:
            self._failures = 0
            self._probe_at_s = None
        else:
            self._failures += 1
            if probe or (self._probe_at_s is None and self._failures >= self._most):
                self._probe_at_s = lab.now_s() + self._open_s
        self._release(probe)

    def _release(self, probe: bool) -> None:
        if probe:
            self._probing = False
        self._changed.set()
        self._changed = asyncio.Event()
