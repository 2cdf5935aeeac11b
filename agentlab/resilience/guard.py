"""All remedies around one call, nested in the one order that works.

deadline              nothing holds longer than this, a drip of bytes included
  retry               the only owner of retries; nobody below repeats anything
    hedge             a second request if the first is late
      slot            at most so many in flight, a number or a limit that adapts; not held
                      during back-off
        pace          sends what the limit allows
          breaker     waits while the endpoint is down; the last to decide before sending
            attempt   and no attempt takes longer than this
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agentlab import lab
from agentlab.errors import ConfigError, GaveUp
from agentlab.resilience.breaker import Breaker
from agentlab.resilience.hedge import Hedge
from agentlab.resilience.limiters import Limiter
from agentlab.resilience.monitor import Monitor
from agentlab.resilience.pace import Pace
from agentlab.resilience.retry import Retry
from agentlab.resilience.seats import Seat, Seats
from agentlab.resilience.verdict import judge
from agentlab.transport import on_headers

T = TypeVar("T")


@dataclass
class Guard:
    """Makes calls that fail, wait and cost no more than they must. One event loop, one guard.

    Attributes:
        retry: How often to repeat what may succeed later.
        deadline_s: Model seconds for a call with all its attempts; None sets no limit.
        attempt_s: Model seconds for one attempt; None sets no limit.
        at_once: The most requests in flight; None sets no limit.
        limit: The same, found out: how many the endpoint serves well, and as that changes.
        pace: The rate limit that is kept; None sends at will.
        breaker: Leaves an endpoint alone that is down; None goes on asking.
        hedge: Sends a second request if the first is late; None does not.
        monitor: What happened.

    Example:
        guard = Guard(at_once=20, pace=Pace(requests_per_minute=500))
        answer = await guard.ask("Name three rivers.", agent="geographer")
        reply = await guard.run(lambda: model.ainvoke("Name three rivers."))
    """

    retry: Retry = field(default_factory=Retry)
    deadline_s: float | None = 600.0
    attempt_s: float | None = None
    at_once: int | None = None
    limit: Limiter | None = None
    pace: Pace | None = None
    breaker: Breaker | None = None
    hedge: Hedge | None = None
    monitor: Monitor = field(default_factory=Monitor)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False, repr=False)
    _slots: asyncio.Semaphore | None = field(default=None, init=False, repr=False)
    _seats: Seats | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.limit is not None:
            if self.at_once is not None:
                raise ConfigError(
                    f"at_once={self.at_once} and a limit that adapts are two answers to one "
                    "question; give one of them, or the limit a ceiling: Adaptive(most=...)"
                )
            self._seats = Seats(self.limit)
        if self.at_once is not None:
            if self.at_once < 1:
                raise ConfigError(f"at_once must be at least 1; got {self.at_once}")
            self._slots = asyncio.Semaphore(self.at_once)

    async def ask(self, prompt: str, *, agent: str = "agent", **options: Any) -> str:
        """`lab.ask`, guarded; an engine takes it as its `ask`."""
        return await self.around(lab.ask)(prompt, agent=agent, **options)

    def around(self, send: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[str]]:
        """Any other that is called as `lab.ask` is, guarded in the same way.

        Example:
            results = await engines.run(workflow, inputs, ask=guard.around(cluster.ask))
        """

        async def guarded(prompt: str, *, agent: str = "agent", **options: Any) -> str:
            return await self.run(lambda: send(prompt, agent=agent, **options), agent=agent)

        return guarded

    async def run(
        self, call: Callable[[], Awaitable[T]], *, agent: str = "agent", tokens: float = 0
    ) -> T:
        """The result of `call`, which is called anew for each attempt.

        Args:
            call: Makes an awaitable; it must not retry by itself.
            agent: The name under which the monitor counts it.
            tokens: What the call may count for in a limit of tokens: its prompt, and its answer.

        Raises:
            GaveUp: If attempts, budget or time ran out; the last error is the `__cause__`.
            Exception: As it is, if another attempt would not help: a wrong key, your own mistake.
            ConfigError: If this guard was used in another event loop before.
        """
        self._stay_in_one_loop()
        errors: list[Exception] = []
        with self.monitor.call(agent):
            try:
                async with lab.timeout(self.deadline_s):
                    return await self._repeat(call, agent, tokens, errors)
            except Exception as error:
                if errors and error is errors[-1] and not judge(error).retry:
                    raise  # not worth another attempt, so nobody gave up
                raise _gave_up(agent, errors, error, self.deadline_s) from error

    async def _repeat(
        self, call: Callable[[], Awaitable[T]], agent: str, tokens: float, errors: list[Exception]
    ) -> T:
        async for attempt in self.retry.attempting():
            with attempt:
                try:
                    result = await self._hedged(call, tokens)
                except Exception as error:
                    self._note(error, agent, errors)
                    raise
                self.monitor.attempt(agent, None)
                return result
        raise AssertionError("tenacity ends with a result or an error")

    async def _hedged(self, call: Callable[[], Awaitable[T]], tokens: float) -> T:
        if self.hedge is None:
            return await self._send(call, tokens)
        sent = asyncio.Event()  # what waits for a slot or for the pace is not late
        return await self.hedge(lambda: self._send(call, tokens, sent), sent=sent)

    async def _send(
        self, call: Callable[[], Awaitable[T]], tokens: float, sent: asyncio.Event | None = None
    ) -> T:
        async with self._slots or (self._seats.taken() if self._seats else nullcontext()) as seat:
            if self.pace is None:
                return await self._attempt(call, seat, sent)
            await self.pace.wait(tokens)
            listening = on_headers.set(self.pace.learn)
            try:
                return await self._attempt(call, seat, sent)
            finally:
                on_headers.reset(listening)

    async def _attempt(
        self, call: Callable[[], Awaitable[T]], seat: Seat | None, sent: asyncio.Event | None
    ) -> T:
        async with (
            self.breaker.admitted() if self.breaker else nullcontext(),
            lab.timeout(self.attempt_s),
        ):
            if seat is not None:
                seat.sent()
            if sent is not None:
                sent.set()
            return await call()

    def _note(self, error: Exception, agent: str, errors: list[Exception]) -> None:
        errors.append(error)
        self.monitor.attempt(agent, error)
        wait_s = judge(error).wait_s
        if self.pace is not None and wait_s is not None:
            self.pace.pause(wait_s)

    def _stay_in_one_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise ConfigError(
                "this guard was used in another event loop, whose time is not this one's; make a "
                "new Guard for each run"
            )
        self._loop = loop


def _gave_up(
    agent: str, errors: list[Exception], last: Exception, deadline_s: float | None
) -> GaveUp:
    # The deadline's own error is not among those that the attempts ended with.
    late = not errors or errors[-1] is not last
    why = f"the deadline of {deadline_s} model seconds passed" if late else f"{last}"
    return GaveUp(
        f"{agent!r} gave up after {len(errors)} failed attempts: {why}",
        attempts=len(errors),
        errors=errors,
    )
