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
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from math import inf
from typing import Any, Generic, TypeVar

import anyio

from agentlab import lab
from agentlab._support.numbers import checked
from agentlab.cancelling import never_cancelled_from_within
from agentlab.clock import is_virtual
from agentlab.endpoint.tokens import count_tokens
from agentlab.errors import ConfigError, GaveUp, Stopped
from agentlab.notices import log
from agentlab.resilience.breaker import Breaker
from agentlab.resilience.hedge import Hedge
from agentlab.resilience.limiters import Limiter
from agentlab.resilience.monitor import Monitor
from agentlab.resilience.pace import Pace
from agentlab.resilience.retry import Retry
from agentlab.resilience.seats import Seat, Seats
from agentlab.resilience.verdict import judge, words
from agentlab.transport import on_headers

T = TypeVar("T")

TOLD_FROM_S = 5.0
"""A wait of so many real seconds is told, because it looks like a program that hangs."""


@dataclass
class Guard:
    """Makes calls that fail, wait and cost no more than they must. One event loop, one guard.

    Attributes:
        retry: How often to repeat what may succeed later.
        deadline_s: Model seconds for a call with all its attempts; None sets no limit.
        attempt_s: Model seconds for one attempt; None sets no limit.
        longest_wait_s: If the endpoint asks for a longer wait, the call fails instead; so it does
            if the wait would outlast its deadline. None sets no limit of its own.
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
    longest_wait_s: float | None = None
    at_once: int | None = None
    limit: Limiter | None = None
    pace: Pace | None = None
    breaker: Breaker | None = None
    hedge: Hedge | None = None
    monitor: Monitor = field(default_factory=Monitor)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False, repr=False)
    _slots: asyncio.Semaphore | None = field(default=None, init=False, repr=False)
    _seats: Seats | None = field(default=None, init=False, repr=False)
    _told_until_s: float = field(default=0.0, init=False, repr=False)
    _stopped: str | None = field(default=None, init=False, repr=False)
    _waiting: set[anyio.CancelScope] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("deadline_s", "attempt_s"):
            checked(name, getattr(self, name), above=True, optional=True)
        checked("longest_wait_s", self.longest_wait_s, optional=True)
        checked("at_once", self.at_once, least=1, whole=True, optional=True)
        if self.limit is not None:
            if self.at_once is not None:
                raise ConfigError(
                    f"at_once={self.at_once} and a limit that adapts are two answers to one "
                    "question; give one of them, or the limit a ceiling: Adaptive(most=...)"
                )
            self._seats = Seats(self.limit)
        if self.at_once is not None:
            self._slots = asyncio.Semaphore(self.at_once)

    def stop(self, reason: str = "the guard was stopped") -> None:
        """Send nothing more, and leave alone what has been sent.

        Calls that wait to send (for a slot, the pace, the breaker, another attempt) and later calls
        raise `Stopped`. A request in flight finishes, and its call returns the answer. If it fails,
        it is not repeated. A guard stays stopped; the reason that is given first stays, too.
        """
        if self._stopped is None:
            self._stopped = reason
            for scope in self._waiting:
                scope.cancel()

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """End whatever waits in this block as soon as the guard is stopped.

        Raises:
            Stopped: If the guard was stopped before the block, or during it.
        """
        self._refuse_if_stopped()
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                yield
            finally:
                self._waiting.discard(scope)
        if scope.cancelled_caught:
            self._refuse_if_stopped()

    def _refuse_if_stopped(self) -> None:
        if self._stopped is not None:
            raise Stopped(f"nothing more is sent: {self._stopped}")

    async def ask(self, prompt: str, *, agent: str = "agent", **options: Any) -> str:
        """`lab.ask`, guarded; an engine takes it as its `ask`."""
        return await self.around(lab.ask)(prompt, agent=agent, **options)

    def around(self, send: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[str]]:
        """Any other that is called as `lab.ask` is, guarded in the same way.

        Example:
            results = await engines.run(workflow, inputs, ask=guard.around(cluster.ask))
        """

        async def guarded(prompt: str, *, agent: str = "agent", **options: Any) -> str:
            return await self.run(
                lambda: send(prompt, agent=agent, **options),
                agent=agent,
                tokens=size_tokens(prompt, **options) if self.pace is not None else 0,
            )

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
            Stopped: If the guard was stopped before the call was sent, or sent again.
            Exception: As it is, if another attempt would not help: a wrong key, your own mistake.
            ConfigError: If this guard was used in another event loop before, `call` is no function,
                or makes nothing that can be awaited, or the same each time.
        """
        self._stay_in_one_loop()
        if not callable(call):
            raise ConfigError(
                f"guard.run takes a function that makes the call anew for each attempt, such as "
                f"lambda: lab.ask(...); got something of type {type(call).__name__}"
            )
        checked("tokens", tokens)
        deadline_s = inf if self.deadline_s is None else lab.now_s() + self.deadline_s
        made = _Call(call, agent, tokens, deadline_s)
        with self.monitor.call(agent):
            try:
                async with lab.timeout(self.deadline_s) as deadline:
                    return await self._repeat(made)
            except (GaveUp, Stopped):
                raise
            except Exception as error:
                if made.errors and error is made.errors[-1]:
                    if not judge(error).retry:
                        raise  # not worth another attempt, so nobody gave up
                    raise made.gave_up(words(error)) from error
                # No attempt ended with it, so it is the deadline's own, or a fault in here.
                if isinstance(error, TimeoutError) and deadline.expired():
                    passed = f"the deadline of {self.deadline_s} model seconds passed"
                    raise made.gave_up(passed) from error
                raise

    async def _repeat(self, made: _Call[T]) -> T:
        cancelled_before = _times_cancelled()

        async def attempt() -> T:
            try:
                result = await never_cancelled_from_within(self._hedged(made))
            except (GaveUp, Stopped):
                raise
            except Exception as error:
                self._note(error, made)
                if judge(error).retry and _times_cancelled() > cancelled_before:
                    # The call made another error of the deadline's or the caller's cancellation,
                    # which comes only once: another attempt would not be ended by anybody.
                    raise asyncio.CancelledError from error
                raise
            self.monitor.attempt(made.agent, None)
            return result

        async def back_off(seconds: float) -> None:
            with self.stoppable():
                await lab.sleep(seconds)

        loop = self.retry.attempting(before_wait=self._tell).copy(sleep=back_off)
        return await loop(attempt)

    async def _hedged(self, made: _Call[T]) -> T:
        if self.hedge is None:
            return await self._send(made)
        sent = asyncio.Event()  # what waits for a slot or for the pace is not late
        return await self.hedge(lambda: self._send(made, sent), sent=sent)

    async def _send(self, made: _Call[T], sent: asyncio.Event | None = None) -> T:
        with self.stoppable():
            async with self._slots or (
                self._seats.taken() if self._seats else nullcontext()
            ) as seat:
                if self.pace is None:
                    return await self._attempt(made, seat, sent)
                self._refuse_to_wait(self.pace.paused_s, made)
                await self.pace.wait(made.tokens)
                listening = on_headers.set(self.pace.learn)
                try:
                    return await self._attempt(made, seat, sent)
                finally:
                    on_headers.reset(listening)

    async def _attempt(self, made: _Call[T], seat: Seat | None, sent: asyncio.Event | None) -> T:
        async with self.breaker.admitted() if self.breaker else nullcontext():
            self._refuse_if_stopped()  # its turn may have come in the instant of the stop
            if seat is not None:
                seat.sent()
            if sent is not None:
                sent.set()
            try:
                with anyio.CancelScope(shield=True):  # from here on, a stop leaves it alone
                    async with lab.timeout(self.attempt_s) as patience:
                        return await made.asked()
            except TimeoutError as error:
                if not patience.expired():
                    raise
                raise TimeoutError(f"no answer within {self.attempt_s:g} model seconds") from error

    def _note(self, error: Exception, made: _Call[Any]) -> None:
        made.errors.append(error)
        self.monitor.attempt(made.agent, error)
        verdict = judge(error)
        if self.pace is not None and verdict.limited:
            self.pace.refused()
        if not verdict.retry or verdict.wait_s is None:
            return
        if self.pace is not None:
            self.pace.pause(verdict.wait_s)
        self._refuse_to_wait(verdict.wait_s, made, error)

    def _refuse_to_wait(
        self, wait_s: float, made: _Call[Any], error: Exception | None = None
    ) -> None:
        """Give a call up now instead of after a wait that would outlast its time.

        Raises:
            GaveUp: In that case.
        """
        left_s = made.deadline_s - lab.now_s()
        longest_s = inf if self.longest_wait_s is None else self.longest_wait_s
        if wait_s > min(left_s, longest_s):
            said = f"; it said: {words(error)}" if error is not None else ""
            most = f"the deadline comes in {left_s:.3g}"
            if longest_s < left_s:
                most = f"longest_wait_s is {longest_s:g}"
            raise made.gave_up(
                f"the endpoint asks to wait {wait_s:,.0f} model seconds, and {most}{said}"
            ) from error

    def _tell(self, wait_s: float, error: BaseException) -> None:
        """Tell whoever watches why nothing happens, once for each wait of some seconds."""
        real_s = wait_s / lab.model_seconds_a_second()
        until_s = lab.now_s() + wait_s
        if real_s < TOLD_FROM_S or is_virtual() or until_s <= self._told_until_s:
            return
        self._told_until_s = until_s + wait_s / 2  # those refused at the same time are not told
        log.warning("the next attempt follows in %.0f s: %s", real_s, words(error))

    def _stay_in_one_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise ConfigError(
                "this guard was used in another event loop, whose time is not this one's; make a "
                "new Guard for each run"
            )
        self._loop = loop


@dataclass
class _Call(Generic[T]):
    """A call on its way through the remedies; `deadline_s` is a time of the loop's clock."""

    call: Callable[[], Awaitable[T]]
    agent: str
    tokens: float
    deadline_s: float
    errors: list[Exception] = field(default_factory=list)
    _before: object = None

    def asked(self) -> Awaitable[T]:
        """Make the call, for one attempt."""
        made = self.call()
        if not inspect.isawaitable(made):
            raise ConfigError(
                f"the call of {self.agent!r} makes something of type {type(made).__name__}, which "
                "cannot be awaited; give an async function, or a lambda that calls one"
            )
        if made is self._before:
            raise ConfigError(
                f"the call of {self.agent!r} makes the same awaitable for each attempt, which can "
                "be awaited once; call the async function inside of the lambda"
            ) from (self.errors[-1] if self.errors else None)
        self._before = made
        return made

    def gave_up(self, why: str) -> GaveUp:
        return GaveUp(
            f"{self.agent!r} gave up after {len(self.errors)} failed attempts: {why}",
            attempts=len(self.errors),
            errors=self.errors,
        )


def _times_cancelled() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def size_tokens(
    prompt: str, *, system: str | None = None, max_tokens: int | None = None, **_: Any
) -> float:
    """Estimate what a question counts for in a limit of tokens: its texts, and its longest answer.

    Example:
        >>> size_tokens("Name three rivers.", max_tokens=10)
        14
    """
    return max(1, count_tokens(prompt) + count_tokens(system or "") + (max_tokens or 0))
