"""Requests in time and in turn, until a stop: whatever has not been sent is called off then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from agentlab import lab
from agentlab.clock import is_virtual
from agentlab.content.settings import Settings
from agentlab.errors import Stopped
from agentlab.resilience.breaker import Breaker
from agentlab.resilience.guard import Guard
from agentlab.resilience.monitor import Monitor
from agentlab.resilience.pace import Pace
from agentlab.resilience.retry import Retry
from agentlab.running import log

_TOLD_FROM_S = 30.0
"""So many real seconds without a request are told, because they look like a program that hangs."""


class Sender:
    """Keeps the settings' limits over all that it sends.

    Args:
        settings: What is kept.
        monitor: What is told of each request.
    """

    def __init__(self, settings: Settings, monitor: Monitor):
        self.stopped: str | None = None
        self._settings, self._monitor = settings, monitor
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Task[Any]] = set()  # for a slot, a pace, another attempt
        self._called_off: set[asyncio.Task[Any]] = set()
        self._in_flight, self._sent_s = 0, 0.0

    def begin(self) -> bool:
        """Send again after a stop; True if this is another event loop than before.

        A guard counts in one loop's time, so each has its own.
        """
        self.stopped = None
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return False
        chosen = self._settings
        self._loop = loop
        self.pace = Pace(requests_per_minute=chosen.requests_per_minute)
        self._guard = Guard(
            retry=Retry(attempts=chosen.retry_attempts),
            deadline_s=None,
            attempt_s=chosen.timeout_seconds,
            longest_wait_s=chosen.longest_wait_seconds,
            at_once=chosen.max_concurrent_agents,
            pace=self.pace,
            breaker=Breaker(),
            monitor=self._monitor,
        )
        return True

    def stop(self, reason: str) -> None:
        """Send nothing more, and call off what has not been sent; the first reason stays."""
        self.stopped = self.stopped or reason
        for task in self._waiting - self._called_off:
            self._called_off.add(task)
            task.cancel()

    async def send(
        self, call: Callable[[], Awaitable[lab.Reply]], step: str, tokens: float = 0
    ) -> lab.Reply:
        """What `call` brings. A stop calls it off wherever it waits to send, and leaves it alone
        once it has sent.

        Raises:
            Stopped: If it was called off.
        """
        with self.called_off_by_a_stop() as task:

            async def attempt() -> lab.Reply:
                if self.stopped is not None:
                    raise self.nothing_more()
                self._waiting.discard(task)
                self._in_flight += 1
                try:
                    return await call()
                finally:
                    self._in_flight -= 1
                    self._sent_s = lab.now_s()
                    self._waiting.add(task)

            return await self._guard.run(attempt, agent=step, tokens=tokens)

    @contextmanager
    def called_off_by_a_stop(self) -> Iterator[asyncio.Task[Any]]:
        """What waits in here ends with a stop, as `Stopped`."""
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        try:
            yield task
        except asyncio.CancelledError:
            if task not in self._called_off:
                raise
            task.uncancel()
            raise self.nothing_more() from None
        finally:
            self._waiting.discard(task)
            self._called_off.discard(task)

    def nothing_more(self) -> Stopped:
        """The error of what is not sent any more."""
        return Stopped(f"nothing more is sent: {self.stopped}")

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Tell of a time in which nothing is sent, and stop if it is longer than any wait may be.

        The limits that an endpoint tells may be such that the next request is never sent.
        """
        self._sent_s = lab.now_s()
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        told_s = _TOLD_FROM_S * lab.model_seconds_a_second()
        # What an endpoint may ask for, back-off on top, and the turn at a rate of our own.
        longest_s = self._settings.longest_wait_seconds + Retry().most_s
        longest_s += 60 / (self._settings.requests_per_minute or 60)
        since_s, told = lab.now_s(), False
        while True:
            await lab.sleep_until(since_s + (longest_s if told else min(told_s, longest_s)))
            last_s = lab.now_s() if self._in_flight else self._sent_s
            if last_s > since_s:
                since_s, told = last_s, False
            elif told:
                self.stop(
                    f"nothing was sent for {longest_s:g} model seconds, because the endpoint's "
                    "limits allow nothing sooner; longest_wait_seconds is "
                    f"{self._settings.longest_wait_seconds:g}"
                )
                return
            else:
                told = True
                if not is_virtual():
                    log.warning(
                        "nothing was sent for %.0f s, because of limits or waits that the "
                        "endpoint tells; after %g model seconds the batch stops",
                        _TOLD_FROM_S,
                        longest_s,
                    )
