"""Requests in time and in turn, until a stop; and what a failure means and says."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from agentlab import errors, lab
from agentlab.clock import is_virtual
from agentlab.content._journal import Journal
from agentlab.content._settings import Settings
from agentlab.content._topics import Job, clean, one_line
from agentlab.errors import AgentLabError, ConfigError, IncompleteAnswer, RetriesExhausted, Stopped
from agentlab.lab.connection import log
from agentlab.resilience import Breaker, Guard, Monitor, RateLimit, Retry, classify


class Sender(ExitStack[None]):
    """Keeps the settings' limits over all that it sends, and the journal until it is closed.

    Attributes:
        stopped: Why nothing more is sent; None while work goes on.
        recorded: How many answers the journal was given.
        nobody_answers: What was met last that is no topic's fault.
    """

    def __init__(self, settings: Settings, journal: Journal, out: Path | None):
        super().__init__()
        self.settings, self.journal, self.out = settings, self.enter_context(journal), out
        self.monitor = Monitor()
        self.reply = lab.reply  # or a cluster's
        self.stopped: str | None = None
        self.recorded = 0
        self.nobody_answers: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._answered = self._outages = 0

    def begin(self) -> None:
        """Send again after a stop, or in another event loop, whose time a guard counts in."""
        loop, chosen = asyncio.get_running_loop(), self.settings
        another = loop is not self._loop
        if another:
            self._loop, self._probing = loop, asyncio.Lock()
            self.turns = defaultdict[Job, asyncio.Lock](asyncio.Lock)
            self._pace = RateLimit(requests_per_minute=chosen.requests_per_minute)
            self._breaker = Breaker()
        if another or self.stopped is not None:
            self.stopped = None
            self._guard = Guard(
                retry=Retry(attempts=chosen.retry_attempts),
                deadline_s=None,
                attempt_timeout_s=chosen.timeout_seconds,
                longest_wait_s=chosen.longest_wait_seconds,
                max_concurrency=chosen.max_concurrent_agents,
                rate_limit=self._pace,
                breaker=self._breaker,
                monitor=self.monitor,
            )

    def stop(self, reason: str = "stopped") -> None:
        """Send nothing more. What is in flight is waited for; the first reason stays."""
        if self.stopped is None:
            self.stopped = reason
            if self._loop is not None:
                self._guard.stop(reason)

    async def send(
        self, call: Callable[[], Awaitable[lab.Reply]], step: str, tokens: float = 0
    ) -> lab.Reply:
        """Return what `call` brings; raise `Stopped` if a stop came before it was sent."""
        reply = await self._guard.run(call, agent=step, tokens=tokens)
        self._answered += 1
        return reply

    async def is_everybodys(self, error: BaseException, said: str) -> bool:
        """Find out whether a failure, in words `said`, is no topic's; stop where that is no use."""
        longest_s = self.settings.longest_wait_seconds
        wasted = isinstance(_last(error), errors.ReasoningExhausted) and not self._answered
        if _is_everybodys(error) or wasted:
            self.stop(f"no topic can succeed: {said}")
            return True
        if (asked_s := self._pace.paused_s) > longest_s:
            asks = f"the endpoint asks to wait {asked_s:,.0f} model seconds"
            self.stop(f"{asks}, and longest_wait_seconds is {longest_s:g}")
            return True
        passing, outages = _passes(error), self._outages
        if not passing and (self._answered or is_final(error)):
            return False
        async with self._probing:
            if self._outages != outages or self.stopped is not None:
                return True  # somebody else has asked, and waited
            limited = classify(_last(error)).limited  # which is never a topic's fault
            met = error if limited else await self._probe()
            if met is None or _passes(met) != passing:
                return False
            why = "nothing is answered" if passing else "no topic can succeed"
            gone = getattr(_last(met), "code", None) == "upstream_unreachable"
            says_later = getattr(_last(met), "status", 0) >= 400 and not gone
            if _passes(met) and (self._answered or says_later):
                self._outages += 1
                why += f" within {longest_s:g} model seconds"
                met = await self._outlast(met)
            if met is not None:
                self.stop(f"{why}: {said}")
        return True

    async def _outlast(self, met: BaseException | None) -> BaseException | None:
        """Ask again, alone, until something is answered or patience ends; return the last error."""
        longest_s, wait_s = self.settings.longest_wait_seconds, 1.0
        if not is_virtual():
            log.warning("nothing is answered; trying again for %g s: %s", longest_s, met)
        with suppress(Stopped, TimeoutError):
            async with lab.timeout(longest_s):
                while met is not None and _passes(met):
                    with self._guard.stoppable():
                        await lab.sleep(wait_s)
                    met, wait_s = await self._probe(), min(2 * wait_s, 30.0)
        return met

    async def _probe(self) -> BaseException | None:
        """Ask what no topic is to blame for; return the error that everybody meets, or None."""

        ask = partial(self.reply, "Are you there?", agent="probe", max_tokens=16, temperature=0)
        try:
            await self.send(ask, "probe")
        except Exception as error:
            if not is_final(error):
                return error
            self._answered += 1
        return None


def _last(error: BaseException) -> BaseException:
    """Return the error of the last attempt, where there were several."""
    return (error.__cause__ or error) if isinstance(error, RetriesExhausted) else error


def _passes(error: BaseException) -> bool:
    """Return True for what may be gone later, and for a wait that was not begun."""
    met = _last(error)
    return isinstance(met, RetriesExhausted) or classify(met).retry


def _is_everybodys(error: BaseException) -> bool:
    """Return True for what every topic would meet: a wrong key, no credit, a refused parameter."""
    met = _last(error)
    if isinstance(met, errors.ClusterLost | ConfigError):
        return True
    said = classify(met)
    if said.exhausted or said.retry:
        return said.exhausted
    status, param = getattr(met, "status", None), getattr(met, "param", None) or ""
    if status in (400, 422):
        of_the_prompt = getattr(met, "code", None) == "context_length_exceeded"
        return bool(param) and not (of_the_prompt or param.startswith(("messages", "prompt")))
    return status in (401, 402, 403, 404, 410)


def is_final(error: BaseException) -> bool:
    """Return True where asking again would bring the same: cut off, filtered or refused."""
    met = _last(error)
    return isinstance(met, IncompleteAnswer) and not classify(met).retry


def in_words(error: BaseException, step: str, content_type: str) -> str:
    """Say a failure in a line that can be recorded and shown, with the way out if there is one."""
    met, said = _last(error), clean(one_line(str(error))) or type(error).__name__
    said = said if len(said) <= 2000 else f"{said[:1000]} ... {said[-900:]}"  # a whole page
    if isinstance(met, TimeoutError):
        return f"{said}; raise timeout_seconds"
    if isinstance(met, errors.ReasoningExhausted | errors.AnswerTruncated):
        return f"{step!r}: {said} (in data/workflows/{content_type}.yaml)"
    if isinstance(error, IncompleteAnswer) or not isinstance(error, AgentLabError | OSError):
        return f"{step!r}: {said}"
    return said  # what was given up is named already
