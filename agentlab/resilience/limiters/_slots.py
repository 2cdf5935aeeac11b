"""A limit that changes as it learns, and slots for calls in flight that keep to it."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol

import anyio

from agentlab import lab
from agentlab.errors import ConfigError
from agentlab.resilience import classify


class Sample(NamedTuple):
    """One call that ended, well or refused; times are model seconds."""

    number: int  # how many were sent before it
    ended_s: float
    took_s: float
    in_flight: int  # when it was sent, itself included
    refused: bool = False  # the endpoint was asked too much (`RetryDecision.overload`)

    @property
    def sent_s(self) -> float:
        """When it was sent."""
        return self.ended_s - self.took_s


class Limiter(Protocol):
    """Says how many calls may be in flight: `limit`, at least 1."""

    @property
    def limit(self) -> int: ...

    def update(self, sample: Sample) -> int:
        """Learn from a call that ended, and return the limit from now on."""


class Slots:
    """As many slots as a limiter says, first come, first served. One event loop, one object.

    A lower limit only delays new calls. A slot that was refused stays empty for as long as the
    endpoint asked to wait. A call that fails otherwise teaches the limiter nothing.
    """

    def __init__(self, limiter: Limiter):
        if isinstance(limiter, type) or not hasattr(limiter, "update"):
            cure = "give Adaptive(), or Guard(max_concurrency=...) for a fixed number"
            raise ConfigError(f"limit must be a limiter; got {limiter!r}; {cure}")
        self.limiter = limiter
        self._tokens = anyio.CapacityLimiter(limiter.limit)
        self._held = self._resting = 0  # slots, and those of them that are kept empty
        self._numbers = itertools.count()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[Callable[[], None]]:
        """Hold a slot around one call. Call what is yielded when it is sent, if that is later."""
        call, rest_s = object(), None
        self._admit_one()
        try:
            self._tokens.acquire_on_behalf_of_nowait(call)
        except anyio.WouldBlock:
            await self._tokens.acquire_on_behalf_of(call)
        self._held += 1
        number, in_flight = next(self._numbers), self._tokens.borrowed_tokens - self._resting
        self._admit_one()
        sent_s = lab.now_s()

        def sent() -> None:
            nonlocal sent_s
            sent_s = lab.now_s()

        def learn(*, refused: bool) -> None:
            now_s = lab.now_s()
            self.limiter.update(Sample(number, now_s, now_s - sent_s, in_flight, refused))

        try:
            yield sent
            learn(refused=False)
        except Exception as error:
            verdict = classify(error)
            if verdict.overload:
                learn(refused=True)
                rest_s = verdict.wait_s
            raise
        finally:
            if rest_s:
                self._resting += 1
                real_s = rest_s / lab.model_seconds_a_second()
                asyncio.get_running_loop().call_later(real_s, self._release, call, 1)
            else:
                self._release(call, 0)

    def _admit_one(self) -> None:
        """Let one more in, unless one is just coming in, which does it then: each has its place."""
        if self._tokens.borrowed_tokens == self._held:
            self._tokens.total_tokens = min(self.limiter.limit, self._held + 1)

    def _release(self, call: object, rested: int) -> None:
        self._resting -= rested
        self._held -= 1
        self._tokens.total_tokens = min(self.limiter.limit, self._tokens.borrowed_tokens)
        self._tokens.release_on_behalf_of(call)
