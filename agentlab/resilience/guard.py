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
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar

import anyio

from agentlab import lab
from agentlab._support.asyncio_tools import raise_if_cancelled_elsewhere
from agentlab._support.numbers import checked
from agentlab.clock import is_virtual
from agentlab.endpoint.contract.tokens import count_tokens
from agentlab.errors import ConfigError, RetriesExhausted, Stopped
from agentlab.lab import on_headers
from agentlab.lab.connection import log
from agentlab.resilience._breaker import Breaker
from agentlab.resilience._classify import classify, words
from agentlab.resilience._hedge import Hedge
from agentlab.resilience._monitor import Monitor
from agentlab.resilience._rate_limit import RateLimit
from agentlab.resilience._retry import Retry
from agentlab.resilience.limiters import Limiter, Slots

T = TypeVar("T")

TOLD_FROM_S = 5.0
"""A wait of so many real seconds is logged, because it looks like a program that hangs."""


@dataclass
class Guard:
    """Makes calls that fail, wait and cost no more than they must. One guard per event loop.

    Attributes:
        retry: How often to repeat what may succeed later.
        deadline_s: Model seconds for a call with all its attempts; None sets no limit.
        attempt_timeout_s: Model seconds for one attempt; None sets no limit.
        longest_wait_s: If the endpoint asks for a longer wait, the call fails instead. It also
            fails if the wait would outlast its deadline. None sets no limit of its own.
        max_concurrency: The most requests in flight; None sets no limit.
        limit: Finds out how many requests in flight the endpoint serves well, instead of
            `max_concurrency`.
        rate_limit: The rate limit that is kept; None sends at will.
        breaker: Leaves an endpoint alone that is down; None keeps asking.
        hedge: Sends a second request if the first is late; None does not.
        monitor: What happened.

    Example:
        guard = Guard(max_concurrency=20, rate_limit=RateLimit(requests_per_minute=500))
        answer = await guard.ask("Name three rivers.", agent="geographer")
        reply = await guard.run(lambda: model.ainvoke("Name three rivers."))
    """

    retry: Retry = field(default_factory=Retry)
    deadline_s: float | None = 600.0
    attempt_timeout_s: float | None = None
    longest_wait_s: float | None = None
    max_concurrency: int | None = None
    limit: Limiter | None = None
    rate_limit: RateLimit | None = None
    breaker: Breaker | None = None
    hedge: Hedge | None = None
    monitor: Monitor = field(default_factory=Monitor)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False, repr=False)
    _told_until_s: float = field(default=0.0, init=False, repr=False)
    _stopped: str | None = field(default=None, init=False, repr=False)
    _waiting: set[anyio.CancelScope] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("deadline_s", "attempt_timeout_s"):
            checked(name, getattr(self, name), above=True, optional=True)
        checked("longest_wait_s", self.longest_wait_s, optional=True)
        checked("max_concurrency", self.max_concurrency, least=1, whole=True, optional=True)
        self._slot: Callable[[], AbstractAsyncContextManager[Callable[[], None] | None]]
        self._slot = nullcontext
        if self.limit is not None:
            if self.max_concurrency is not None:
                raise ConfigError(
                    f"max_concurrency={self.max_concurrency} and a limit that adapts exclude each "
                    "other; give one of them, or give the limit a maximum: Adaptive(most=...)"
                )
            self._slot = Slots(self.limit).taken
        elif self.max_concurrency is not None:
            slots = asyncio.Semaphore(self.max_concurrency)
            self._slot = lambda: slots

    async def ask(self, prompt: str, *, agent: str = "agent", **options: Any) -> str:
        """Ask as `lab.ask` does, guarded; an engine takes this method as its `ask`."""
        return await self.around(lab.ask)(prompt, agent=agent, **options)

    def around(self, send: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[str]]:
        """Guard any function that is called as `lab.ask` is.

        Example:
            results = await engines.run(workflow, inputs, ask=guard.around(cluster.ask))
        """

        async def guarded(prompt: str, *, agent: str = "agent", **options: Any) -> str:
            return await self.run(
                lambda: send(prompt, agent=agent, **options),
                agent=agent,
                tokens=size_tokens(prompt, **options) if self.rate_limit is not None else 0,
            )

        return guarded

    async def run(
        self, call: Callable[[], Awaitable[T]], *, agent: str = "agent", tokens: float = 0
    ) -> T:
        """Return the result of `call`, which is called again for each attempt.

        `call` must not retry by itself. The monitor counts it under the name of `agent`. `tokens`
        is what it may count for in a limit of tokens: its prompt, and its answer.

        Raises:
            RetriesExhausted: If attempts, budget or time ran out; `__cause__` is the last error.
            Stopped: If the guard was stopped before the call was sent, or sent again.
            Exception: As it is, if another attempt would not help: a wrong key, your own mistake.
            ConfigError: If this guard was used in another event loop before, or `call` is not a
                function, or makes nothing that can be awaited, or the same awaitable each time.
        """
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise ConfigError(
                "this guard was used in another event loop, which has its own clock; make a new "
                "Guard for each run"
            )
        self._loop = loop
        if not callable(call):
            raise ConfigError(
                f"guard.run takes a function that makes the call again for each attempt, such as "
                f"lambda: lab.ask(...); got something of type {type(call).__name__}"
            )
        checked("tokens", tokens)
        deadline_s = inf if self.deadline_s is None else lab.now_s() + self.deadline_s
        made = _Call(call, agent, tokens, deadline_s)
        with self.monitor.call(agent):
            try:
                async with lab.timeout(self.deadline_s) as deadline:
                    return await self._repeat(made)
            except Exception as error:
                if made.errors and error is made.errors[-1]:
                    if not classify(error).retry:
                        raise  # not worth another attempt, so nobody gave up
                    raise made.gave_up(words(error)) from error
                # It is not an attempt's, so it is the deadline's own, or a fault in here.
                if isinstance(error, TimeoutError) and deadline.expired():
                    passed = f"the deadline of {self.deadline_s} model seconds passed"
                    raise made.gave_up(passed) from error
                raise

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

    async def _repeat(self, made: _Call[T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        cancelled_before = task.cancelling()

        async def attempt() -> T:
            sent = asyncio.Event()  # what waits for a slot or for the pace is not late
            send = partial(self._send, made, sent)
            hedged = send() if self.hedge is None else self.hedge(send, sent=sent)
            try:
                result = await raise_if_cancelled_elsewhere(hedged)
            except (RetriesExhausted, Stopped):
                raise
            except Exception as error:
                self._note(error, made)
                if classify(error).retry and task.cancelling() > cancelled_before:
                    # The call hid the deadline's or the caller's cancellation, which comes only
                    # once: nobody would end another attempt.
                    raise asyncio.CancelledError from error
                raise
            self.monitor.attempt(made.agent, None)
            return result

        async def back_off(seconds: float) -> None:
            self._tell(seconds, made.errors[-1])
            with self.stoppable():
                await lab.sleep(seconds)

        return await self.retry(attempt, sleep=back_off)

    async def _send(self, made: _Call[T], sent: asyncio.Event) -> T:
        with self.stoppable():
            async with self._slot() as leaves:
                if self.rate_limit is not None:
                    self._refuse_to_wait(self.rate_limit.paused_s, made)
                    await self.rate_limit.wait(made.tokens)
                async with self.breaker.admitted() if self.breaker else nullcontext():
                    self._refuse_if_stopped()  # its turn may have come in the instant of the stop
                    if leaves is not None:
                        leaves()
                    sent.set()
                    with anyio.CancelScope(shield=True):  # a stop leaves alone what is sent
                        answer = await self._attempt(made)
        return answer

    async def _attempt(self, made: _Call[T]) -> T:
        listening = on_headers.set(self.rate_limit.learn if self.rate_limit else on_headers.get())
        try:
            async with lab.timeout(self.attempt_timeout_s) as patience:
                return await made.asked()
        except TimeoutError as error:
            if not patience.expired():
                raise
            raise TimeoutError(
                f"no answer within {self.attempt_timeout_s:g} model seconds"
            ) from error
        finally:
            on_headers.reset(listening)

    def _note(self, error: Exception, made: _Call[Any]) -> None:
        made.errors.append(error)
        self.monitor.attempt(made.agent, error)
        verdict = classify(error)
        if self.rate_limit is not None and verdict.limited:
            self.rate_limit.refused()
        if not verdict.retry or verdict.wait_s is None:
            return
        if self.rate_limit is not None:
            self.rate_limit.pause(verdict.wait_s)
        self._refuse_to_wait(verdict.wait_s, made, error)

    def _refuse_to_wait(
        self, wait_s: float, made: _Call[Any], error: Exception | None = None
    ) -> None:
        """Give a call up now instead of after a wait that would outlast its time."""
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
        """Log why nothing happens, once for each wait of some seconds."""
        real_s = wait_s / lab.model_seconds_a_second()
        until_s = lab.now_s() + wait_s
        if real_s < TOLD_FROM_S or is_virtual() or until_s <= self._told_until_s:
            return
        self._told_until_s = until_s + wait_s / 2  # those refused at the same time are not logged
        log.warning("the next attempt follows in %.0f s: %s", real_s, words(error))


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

    def gave_up(self, why: str) -> RetriesExhausted:
        return RetriesExhausted(
            f"{self.agent!r} gave up after {len(self.errors)} failed attempts: {why}",
            attempts=len(self.errors),
            errors=self.errors,
        )


def size_tokens(
    prompt: str, *, system: str | None = None, max_tokens: int | None = None, **_: Any
) -> float:
    """Estimate what a question counts for in a limit of tokens: its texts, and its longest answer.

    Example:
        >>> size_tokens("Name three rivers.", max_tokens=10)
        14
    """
    return max(1, count_tokens(prompt) + count_tokens(system or "") + (max_tokens or 0))
