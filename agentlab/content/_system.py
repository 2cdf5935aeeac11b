"""Content for one topic or many: each answer is paid for once, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Template

from agentlab import errors, lab
from agentlab._support.asyncio_tools import Attempt
from agentlab._support.progress_bar import bar
from agentlab.content import _failures as failures
from agentlab.content._journal import Journal
from agentlab.content._search import search
from agentlab.content._settings import Settings
from agentlab.content._topics import Job, jobs
from agentlab.content._work import Content, KeptTool, Work
from agentlab.errors import JournalError, Stopped
from agentlab.lab import is_virtual
from agentlab.lab.connection import log
from agentlab.resilience import Breaker, Guard, Monitor, RateLimit, Retry, amap, classify
from agentlab.workflow import Workflow

TYPES = ("blog", "comprehensive", "sourced")
_SUMMARY = Template(Path(__file__).with_name("summary.jinja").read_text(encoding="utf-8"))


class ContentSystem(ExitStack[bool | None]):
    """Agents that research, write, edit and publish: a workflow, such as "blog" (see `TYPES`).

    It keeps the settings' limits over all that it sends, until it is stopped.

    Args:
        out: A folder for the files, and for the journal that lets another run go on; without it
            nothing is written to the disk.
        journal: A file for the journal instead; see `Journal`.
        tools: Functions that steps name as their tools, beside `search`, which searches
            `data/corpus`. After a crash a call is made again, unless its result was recorded.
        effects: The same for functions that change something: a call that was begun is not made
            again. If nobody knows how it ended, its topic fails, and the error says what to do.
        workflows: Content types of your own, with the input "topic", and steps "editor", whose
            answer is published, and "publisher", whose answer is the description.

    Raises:
        ConfigError: If a workflow has other inputs, or lacks a step.

    Attributes:
        stopped: Why nothing more is sent; None while work goes on.
        recorded: How many answers the journal was given.
        nobody_answers: What was met last that is no topic's fault.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        out: str | Path | None = None,
        journal: str | Path | None = None,
        tools: Mapping[str, Callable[..., Any]] | None = None,
        effects: Mapping[str, Callable[..., Any]] | None = None,
        workflows: Mapping[str, Workflow] | None = None,
    ):
        super().__init__()
        self.settings, self.out = settings or Settings(), None if out is None else Path(out)
        if journal is None and self.out is not None:
            journal = self.out / "journal.sqlite"
        self._workflows = {name: Workflow.load(name) for name in TYPES} | dict(workflows or {})
        for workflow in self._workflows.values():  # each of these may refuse it
            workflow.given({"topic": ""})
            [workflow.step(name) for name in ("editor", "publisher")]
        given = {"search": search, **(tools or {}), **(effects or {})}
        self.tools = {n: KeptTool(n, f, effect=n in (effects or ())) for n, f in given.items()}
        self.journal = self.enter_context(Journal(journal))
        self.monitor = Monitor()
        self.reply = lab.reply  # or a cluster's
        self.stopped: str | None = None
        self.nobody_answers: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.recorded = self._answered = self._outages = 0

    async def generate_content(self, topic: str, content_type: str = "blog") -> Content:
        """Write about one topic; a failure is a status. What was answered is not asked again."""
        (content,) = await self.batch_generate([topic], content_type)
        return content

    async def batch_generate(
        self, topics: Iterable[str], content_type: str = "blog",
        *, progress: bool = False, cluster: Any = None,
    ) -> list[Content]:  # fmt: skip
        """Write about many topics, each once; one that fails is tried again after all others.

        Args:
            cluster: Where the requests are sent from: a `Cluster`, a scheduler's address, or
                "local" for processes that are started here; None sends from this one.
        """
        given = jobs(topics, content_type, [*self._workflows])
        self.begin()
        async with AsyncExitStack() as stack:
            if isinstance(cluster, str):
                from agentlab.engines.dask import Cluster  # takes a second to import

                address = None if cluster == "local" else cluster
                cluster = await stack.enter_async_context(Cluster(address))
            if cluster is not None:
                stack.callback(setattr, self, "reply", self.reply)
                self.reply = cluster.reply
            with bar(total=len(given), name=content_type, shown=progress) as shown:
                return await self._all(given, shown.update)

    async def _all(self, given: list[Job], ended: Callable[[], object]) -> list[Content]:
        contents: dict[Job, Content] = {}
        waiting, idle = given, 0
        while waiting:
            recorded, self.nobody_answers = self.recorded, None
            async for job, content, error in amap(
                self._generate,
                waiting,
                max_concurrency=self.settings.max_concurrent_agents,
                max_memory_mb=self.settings.max_memory_mb,
            ):
                if content is None:
                    raise error or AssertionError("an outcome is a result or an error")
                contents[job] = content
                if content.status != "failed":
                    ended()
            waiting = [job for job in waiting if contents[job].status == "failed"]
            idle = 0 if self.recorded > recorded else idle + 1
            if self.nobody_answers and idle == self.settings.quarantine_after:
                self.stop(f"nothing is answered: {self.nobody_answers}")
                contents |= {job: contents[job]._replace(status="left") for job in waiting}
                break
        return [contents[job] for job in given]

    async def _generate(self, job: Job) -> Content:
        async with self.turns[job]:  # one batch at a time
            return await Work(job, self._workflows[job.content_type], self).run()

    def begin(self) -> None:
        """Send again after a stop, or in another event loop, whose time a guard counts in."""
        loop, chosen = asyncio.get_running_loop(), self.settings
        another = loop is not self._loop
        if another:
            self._loop, self._probing = loop, asyncio.Lock()
            self.turns = defaultdict[Job, asyncio.Lock](asyncio.Lock)
            self._rate_limit = RateLimit(requests_per_minute=chosen.requests_per_minute)
            self._breaker = Breaker()
        if another or self.stopped is not None:
            self.stopped = None
            self._guard = Guard(
                retry=Retry(attempts=chosen.retry_attempts),
                deadline_s=None,
                attempt_timeout_s=chosen.timeout_seconds,
                longest_wait_s=chosen.longest_wait_seconds,
                max_concurrency=chosen.max_concurrent_agents,
                rate_limit=self._rate_limit,
                breaker=self._breaker,
                monitor=self.monitor,
            )

    def stop(self, reason: str = "stopped") -> None:
        """Send nothing more. What is in flight is waited for; the first reason stays."""
        if self.stopped is None:
            self.stopped = reason
            if self._loop is not None:
                self._guard.stop(reason)

    async def send(self, call: Attempt[lab.Reply], step: str, tokens: float = 0) -> lab.Reply:
        """Return what `call` brings; raise `Stopped` if a stop came before it was sent."""
        reply = await self._guard.run(call, agent=step, tokens=tokens)
        self._answered += 1
        return reply

    async def is_everybodys(self, error: BaseException, said: str) -> bool:
        """Find out whether a failure, in words `said`, is no topic's; stop where that is no use."""
        longest_s, meaning = self.settings.longest_wait_seconds, failures.meaning(error)
        wasted = isinstance(failures.last(error), errors.ReasoningExhausted) and not self._answered
        if meaning == "everybody's" or wasted:
            self.stop(f"no topic can succeed: {said}")
            return True
        if (asked_s := self._rate_limit.paused_s) > longest_s:
            asks = f"the endpoint asks to wait {asked_s:,.0f} model seconds"
            self.stop(f"{asks}, and longest_wait_seconds is {longest_s:g}")
            return True
        passing, outages = meaning == "passes", self._outages
        if not passing and (self._answered or meaning == "final"):
            return False
        async with self._probing:
            if self._outages != outages or self.stopped is not None:
                return True  # somebody else has asked, and waited
            limited = classify(failures.last(error)).limited  # which is never a topic's fault
            met = error if limited else await self._probe()
            if met is None or (failures.meaning(met) == "passes") != passing:
                return False
            why = "nothing is answered" if passing else "no topic can succeed"
            gone = getattr(failures.last(met), "code", None) == "upstream_unreachable"
            says_later = getattr(failures.last(met), "status", 0) >= 400 and not gone
            if passing and (self._answered or says_later):
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
                while met is not None and failures.meaning(met) == "passes":
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
            if failures.meaning(error) != "final":
                return error
            self._answered += 1
        return None


def summary(contents: Iterable[Content], journal: Journal, settings: Settings) -> str:
    """Say in a few lines what became of a batch's topics, and what all of it cost so far."""
    facts: dict[str, Any] = {"contents": [*contents], "settings": settings}
    try:
        facts["bill"] = journal.bill()
    except JournalError as error:
        facts["unread"] = error
    return str(_SUMMARY.render(facts))
