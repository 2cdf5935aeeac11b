"""All remedies around one call, nested in the one order that works.

deadline              nothing holds longer than this, a drip of bytes included
  retry               the only owner of retries; nobody below repeats anything
    hedge             a second request if the first is late
      slot            at most so many in flight, a number or a limit that adapts; not held
                      during back-off
        rate limit    sends what it allows
          breaker     waits while the endpoint is down; the last to decide before sending
            attempt   and no attempt takes longer than this
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar

import anyio

from agentlab import lab
from agentlab._support.asyncio_tools import Attempt, raise_if_cancelled_elsewhere
from agentlab._support.fields import checked
from agentlab.errors import ConfigError, RetriesExhausted, Stopped
from agentlab.lab import on_headers
from agentlab.resilience._breaker import Breaker
from agentlab.resilience._classify import classify, words
from agentlab.resilience._hedge import Hedge
from agentlab.resilience._monitor import Monitor
from agentlab.resilience._rate_limit import RateLimit, size_tokens
from agentlab.resilience._retry import Retry
from agentlab.resilience.limiters import Limiter, Slots

T = TypeVar("T")


@dataclass
class Guard:
    """Makes calls that fail, wait and cost no more than they must. One guard per event loop.

    Times are model seconds. None sets no limit, or leaves a remedy out.

    Attributes:
        deadline_s: For a call with all its attempts.
        longest_wait_s: A call fails if it is to wait for longer, or beyond its deadline.
        max_concurrency: The most requests in flight.
        limit: Finds out how many requests in flight the endpoint serves well, instead.

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

    def __post_init__(self) -> None:
        checked("deadline_s", self.deadline_s, above=True, optional=True)
        checked("attempt_timeout_s", self.attempt_timeout_s, above=True, optional=True)
        checked("longest_wait_s", self.longest_wait_s, optional=True)
        checked("max_concurrency", self.max_concurrency, least=1, whole=True, optional=True)
        if self.limit is not None and self.max_concurrency is not None:
            both = f"max_concurrency={self.max_concurrency} and a limit exclude each other"
            raise ConfigError(f"{both}; give one of them, such as Adaptive(most=...)")
        self._slot: Callable[[], Any] = nullcontext
        if self.limit is not None:
            self._slot = Slots(self.limit).taken
        elif self.max_concurrency is not None:
            slots = asyncio.Semaphore(self.max_concurrency)
            self._slot = lambda: slots
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: str | None = None
        self._waiting: set[anyio.CancelScope] = set()

    async def ask(self, prompt: str, *, agent: str = "agent", **options: Any) -> str:
        """Ask as `lab.ask` does, guarded; an engine takes this method as its `ask`."""
        return await self.around(lab.ask)(prompt, agent=agent, **options)

    def around(self, send: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
        """Guard any function that is called as `lab.ask` is, such as `lab.reply`."""

        async def guarded(prompt: str, *, agent: str = "agent", **options: Any) -> T:
            tokens = size_tokens(prompt, **options) if self.rate_limit else 0
            call = partial(send, prompt, agent=agent, **options)
            return await self.run(call, agent=agent, tokens=tokens)

        return guarded

    async def run(self, call: Attempt[T], *, agent: str = "agent", tokens: float = 0) -> T:
        """Return the result of `call`, which is called for each attempt and must not retry itself.

        `tokens` is what it may count for in a limit of tokens: its prompt, and its answer.

        Raises:
            RetriesExhausted: If attempts, budget or time ran out; `__cause__` is the last error.
            Stopped: If the guard was stopped before the call was sent, or sent again.
            Exception: As it is, if another attempt would not help: a wrong key, your own mistake.
        """
        if self._loop not in (None, asyncio.get_running_loop()):
            raise ConfigError("this guard was used in another event loop; make a new Guard for it")
        self._loop = asyncio.get_running_loop()
        checked("tokens", tokens)
        me: Any = asyncio.current_task()
        made = _Call(call, agent, tokens, lab.now_s() + (self.deadline_s or inf), me.cancelling())
        with self.monitor.call(agent):
            try:
                async with lab.timeout(self.deadline_s) as deadline:
                    wait = partial(self._back_off, made)
                    return await self.retry(partial(self._attempt, made), sleep=wait)
            except Exception as error:
                if isinstance(error, TimeoutError) and deadline.expired():
                    why = f"the deadline of {self.deadline_s} model seconds passed"
                elif classify(error).retry:
                    why = words(error)
                else:
                    raise  # as it is: another attempt would not help
                raise made.gave_up(why) from error

    def stop(self, reason: str = "the guard was stopped") -> None:
        """Send nothing more; calls that wait to send, and later ones, raise `Stopped`.

        A request in flight finishes, and is not repeated if it fails. The first reason stays.
        """
        if self._stopped is None:
            self._stopped = reason
            for scope in self._waiting:
                scope.cancel()

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """End what waits in this block, by `Stopped`, once the guard is stopped."""
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

    async def _back_off(self, made: _Call[Any], wait_s: float) -> None:
        me: Any = asyncio.current_task()
        if me.cancelling() > made.cancelled_before:
            raise asyncio.CancelledError  # the attempt hid it, and it comes only once
        with self.stoppable():
            await lab.sleep(wait_s)

    async def _attempt(self, made: _Call[T]) -> T:
        sent = asyncio.Event()  # what waits for a slot or for the rate limit is not late
        send = partial(self._send, made, sent)
        hedged = self.hedge(send, sent=sent) if self.hedge else send()
        try:
            result = await raise_if_cancelled_elsewhere(hedged)
        except Exception as error:
            if not isinstance(error, RetriesExhausted | Stopped):
                self._note(error, made)
            raise
        self.monitor.attempt(made.agent, None)
        return result

    async def _send(self, made: _Call[T], sent: asyncio.Event) -> T:
        with self.stoppable():
            async with self._slot() as slot:
                if self.rate_limit is not None:
                    self._refuse_to_wait(self.rate_limit.paused_s, made)
                    await self.rate_limit.wait(made.tokens)
                async with self.breaker.admitted() if self.breaker else nullcontext():
                    self._refuse_if_stopped()  # its turn may have come in the instant of the stop
                    if slot is not None:
                        slot.sent()
                    sent.set()
                    with anyio.CancelScope(shield=True):  # a stop leaves alone what is sent
                        answer = await self._in_time(made)
                    if slot is not None:
                        slot.answered(answer)
        return answer

    async def _in_time(self, made: _Call[T]) -> T:
        listening = on_headers.set(self.rate_limit.learn if self.rate_limit else on_headers.get())
        try:
            async with lab.timeout(self.attempt_timeout_s) as patience:
                return await made.call()
        except TimeoutError as error:
            if not patience.expired():
                raise
            said = f"no answer within {self.attempt_timeout_s:g} model seconds"
            raise TimeoutError(said) from error
        finally:
            on_headers.reset(listening)

    def _note(self, error: Exception, made: _Call[Any]) -> None:
        """Let monitor and rate limit know, and give up if the endpoint asks for too long a wait."""
        made.errors.append(error)
        self.monitor.attempt(made.agent, error)
        verdict = classify(error)
        if self.rate_limit is not None and verdict.limited:
            self.rate_limit.refused()
        if verdict.retry and verdict.wait_s is not None:
            if self.rate_limit is not None:
                self.rate_limit.pause(verdict.wait_s)
            self._refuse_to_wait(verdict.wait_s, made)

    def _refuse_to_wait(self, wait_s: float, made: _Call[Any]) -> None:
        """Give a call up now instead of after a wait that would outlast its time."""
        left_s = made.deadline_s - lab.now_s()
        most_s = left_s if self.longest_wait_s is None else min(left_s, self.longest_wait_s)
        if wait_s > most_s:
            error = made.errors[-1] if made.errors else None
            said = f"; it said: {words(error)}" if error is not None else ""
            asks = f"the endpoint asks to wait {wait_s:,.0f} model seconds"
            left = f"deadline_s and longest_wait_s leave {most_s:.3g}"
            raise made.gave_up(f"{asks}, and {left}{said}") from error


@dataclass
class _Call(Generic[T]):
    """A call on its way through the remedies; `deadline_s` is a time of the loop's clock."""

    call: Attempt[T]
    agent: str
    tokens: float
    deadline_s: float
    cancelled_before: int  # how often its task was, when it began
    errors: list[Exception] = field(default_factory=list)

    def gave_up(self, why: str) -> RetriesExhausted:
        failed = len(self.errors)
        says = f"{self.agent!r} gave up after {failed} failed attempts: {why}"
        return RetriesExhausted(says, attempts=failed, errors=self.errors)
