"""A limit that changes as it learns, and slots for calls in flight that keep to it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, Protocol

import anyio

from agentlab import lab
from agentlab.endpoint.contract.tokens import count_tokens
from agentlab.errors import ConfigError
from agentlab.resilience import classify

_MOST_TOKENS = 1e9  # that are believed of an answer


class Sample(NamedTuple):
    """One call that ended, well or refused; times are model seconds."""

    ended_s: float
    took_s: float
    in_flight: int  # when it was sent, itself included
    refused: bool = False  # the endpoint was asked too much (`RetryDecision.overload`)
    tokens: float | None = None  # of the answer, if anybody knows

    @property
    def sent_s(self) -> float:
        """When it was sent."""
        return self.ended_s - self.took_s


class Held:
    """A slot that is held around one call."""

    def __init__(self, in_flight: int):
        self.in_flight, self.sent_s = in_flight, lab.now_s()
        self.tokens: float | None = None

    def sent(self) -> None:
        """Note that the call is sent now, and not when the slot was given."""
        self.sent_s = lab.now_s()

    def answered(self, answer: Any) -> None:
        """Note how many tokens the answer has, as its usage or else its text says."""
        known: list[Any] = [count_tokens(answer)] if isinstance(answer, str) else []
        with suppress(Exception):  # an answer of any kind is there, and must not be lost for this
            usage = getattr(answer, "usage_metadata", None) or getattr(answer, "usage", answer)
            read = usage.get if isinstance(usage, Mapping) else partial(getattr, usage)
            known += [read(name, None) for name in ("completion_tokens", "output_tokens")]
        numbers = (n for n in known if isinstance(n, int | float) and 1 <= n < _MOST_TOKENS)
        self.tokens = next(map(float, numbers), None)


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

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[Held]:
        """Hold a slot around one call; tell what is yielded of the call."""
        call, rest_s = object(), None
        self._admit_one()
        try:
            self._tokens.acquire_on_behalf_of_nowait(call)
        except anyio.WouldBlock:
            await self._tokens.acquire_on_behalf_of(call)
        self._held += 1
        held = Held(self._tokens.borrowed_tokens - self._resting)
        self._admit_one()

        def learn(*, refused: bool) -> None:
            now_s = lab.now_s()
            took_s = now_s - held.sent_s
            self.limiter.update(Sample(now_s, took_s, held.in_flight, refused, held.tokens))

        try:
            yield held
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
