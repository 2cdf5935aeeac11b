"""Content for one topic or many: each answer is paid for once, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import msgspec

from agentlab import engines, lab
from agentlab.content.journal import Journal
from agentlab.content.publish import Article, publish
from agentlab.content.settings import Settings
from agentlab.errors import (
    AgentLabError,
    ClusterLost,
    ConfigError,
    JournalError,
    StepError,
    Stopped,
)
from agentlab.progress import bar
from agentlab.resilience.breaker import Breaker
from agentlab.resilience.guard import Guard
from agentlab.resilience.monitor import Monitor
from agentlab.resilience.pace import Pace
from agentlab.resilience.retry import Retry
from agentlab.resilience.stream import stream
from agentlab.resilience.verdict import judge
from agentlab.workflow import Workflow

if TYPE_CHECKING:
    from agentlab.engines.dask import Cluster

CONTENT_TYPES = ("blog", "comprehensive")
Status = Literal["done", "failed", "quarantined", "left"]


class Metrics(NamedTuple):
    """What one topic took.

    Attributes:
        duration_s: Model seconds in this run.
        requests: Requests sent in this run; 0 where all answers were there.
        attempts: The most requests that one answer took, over all runs.
        peak: The most of its requests in flight at once, in this run.
        prompt_tokens, answer_tokens: Of its answers, over all runs.
        cost: The same in dollars; None without prices.
    """

    duration_s: float
    requests: int
    attempts: int
    peak: int
    prompt_tokens: int
    answer_tokens: int
    cost: float | None


class Content(NamedTuple):
    """What became of a topic.

    Attributes:
        status: "done"; "failed"; "quarantined", where it failed too often to be tried again; or
            "left", where the system was stopped before.
        article: What was written; None unless done.
        files: Where it was published.
        error: Why it is not done.
    """

    topic: str
    content_type: str
    status: Status
    metrics: Metrics
    article: Article | None = None
    files: tuple[Path, ...] = ()
    error: str | None = None


class _Job(NamedTuple):
    topic: str
    content_type: str

    @property
    def key(self) -> str:
        return f"{self.content_type}: {self.topic}"


@dataclass
class _Tally:
    """What one topic sends in this run."""

    began_s: float | None = None
    requests: int = 0
    in_flight: int = 0
    peak: int = 0
    sending: set[asyncio.Task[str]] = field(default_factory=set)

    @contextmanager
    def one_more(self) -> Iterator[None]:
        self.requests += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1


class ContentSystem:
    """Four kinds of agents, research, writer, editor and publisher, in two workflows.

    "blog" has them one after the other; "comprehensive" has three of the first two at once. Both
    are files of `data/workflows/`.

    Args:
        out: A folder for the files, and for the journal that lets another run go on; without it
            nothing is written to the disk.
        journal: A file or URL for the journal instead; see `agentlab.content.journal`.

    Raises:
        ConfigError: If another process works there.

    Example:
        with ContentSystem(Settings(max_concurrent_agents=4), out="content") as system:
            content = await system.generate_content("Why tides?", content_type="comprehensive")
            print(content.status, content.metrics.cost)
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        out: str | Path | None = None,
        journal: str | Path | None = None,
    ):
        self.settings = settings or Settings()
        self.monitor = Monitor()
        self._out = None if out is None else Path(out)
        if journal is None and self._out is not None:
            journal = self._out / "journal.sqlite"
        self.journal = Journal(journal)
        self._workflows = {name: Workflow.load(name) for name in CONTENT_TYPES}
        self._stopped: str | None = None
        self._guard: Guard | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._one_at_a_time: dict[_Job, asyncio.Lock] = {}
        self._answered = 0
        self._nobody_answers = False
        self._reply = lab.reply
        self._waiting: set[asyncio.Task[Any]] = set()  # for a slot, a pace, another attempt
        self._called_off: set[asyncio.Task[Any]] = set()

    async def generate_content(
        self, topic: str, content_type: Literal["blog", "comprehensive"] = "blog"
    ) -> Content:
        """Write about one topic. What was answered in an earlier run is not asked again.

        A failure is a status, not an exception.

        Raises:
            ConfigError: If there is no such type, or the topic is empty.
        """
        self._begin()
        return await self._generate(_job(topic, content_type))

    async def batch_generate(
        self,
        topics: Iterable[str],
        content_type: Literal["blog", "comprehensive"] = "blog",
        *,
        progress: bool = False,
        cluster: str | Cluster | None = None,
    ) -> list[Content]:
        """Write about many topics, each once; one that fails is tried again after all others.

        Args:
            progress: Whether to show a bar that counts the topics.
            cluster: Where the requests are sent from: a `Cluster`, a scheduler's address, or
                "local" for processes that are started here; None sends from this one. Limits,
                retries and the journal stay here, so they are one for all.

        Returns:
            For each different topic, in their order, what became of it.

        Raises:
            ConfigError: If there is no such type, or a topic is empty.
        """
        self._begin()
        jobs = list(dict.fromkeys(_job(topic, content_type) for topic in topics))
        async with AsyncExitStack() as stack:
            if isinstance(cluster, str):
                from agentlab.engines.dask import Cluster  # takes a second to import

                address = None if cluster == "local" else cluster
                cluster = await stack.enter_async_context(Cluster(address))
            self._reply = lab.reply if cluster is None else cluster.reply
            stack.callback(setattr, self, "_reply", lab.reply)
            return await self._all(jobs, content_type if progress else None)

    async def _all(self, jobs: list[_Job], name: str | None) -> list[Content]:
        contents: dict[_Job, Content] = {}
        waiting = jobs
        with nullcontext() if name is None else bar(total=len(jobs), name=name) as shown:
            while waiting:
                answered, self._nobody_answers = self._answered, False
                async for job, content, error in stream(
                    self._generate,
                    waiting,
                    at_once=self.settings.max_concurrent_agents,
                    max_memory_mb=self.settings.max_memory_mb,
                ):
                    if content is None:
                        raise error or AssertionError("an outcome is a result or an error")
                    contents[job] = content
                    if content.status != "failed" and shown is not None:
                        shown.update()
                waiting = [job for job in waiting if contents[job].status == "failed"]
                if self._nobody_answers and self._answered == answered:
                    self.stop("nothing is answered")
                    contents |= {job: contents[job]._replace(status="left") for job in waiting}
                    break
        return [contents[job] for job in jobs]

    def stop(self, reason: str = "stopped") -> None:
        """Send nothing more. What is in flight is waited for and recorded, the rest is left."""
        self._stopped = self._stopped or reason
        for task in self._waiting - self._called_off:
            self._called_off.add(task)
            task.cancel()

    def so_far(
        self, topics: Iterable[str], content_type: Literal["blog", "comprehensive"] = "blog"
    ) -> list[Content]:
        """What the journal says of topics, each once; nothing is asked, and no file is written."""
        jobs = dict.fromkeys(_job(topic, content_type) for topic in topics)
        known = ((job, *self.journal.status(job.key)) for job in jobs)
        statuses: dict[str, Status] = {"done": "done", "quarantined": "quarantined"}
        return [
            self._content(job, _Tally(), statuses.get(status, "left"), error=error)
            for job, status, _, error in known
        ]

    @property
    def stopped(self) -> str | None:
        """Why nothing more is sent; None while work goes on."""
        return self._stopped

    def close(self) -> None:
        """Let another process go on with the journal."""
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self) -> None:
        self._stopped = None
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # a guard counts in one loop's time
            chosen = self.settings
            self._loop, self._one_at_a_time = loop, {}
            self._guard = Guard(
                retry=Retry(attempts=chosen.retry_attempts),
                deadline_s=None,
                attempt_s=chosen.timeout_seconds,
                at_once=chosen.max_concurrent_agents,
                pace=Pace(requests_per_minute=chosen.requests_per_minute),
                breaker=Breaker(),
                monitor=self.monitor,
            )

    async def _generate(self, job: _Job) -> Content:
        async with self._one_at_a_time.setdefault(job, asyncio.Lock()):
            tally = _Tally(lab.now_s())
            try:
                status, failures, error = self.journal.status(job.key)
                if status == "quarantined":
                    return self._content(job, tally, "quarantined", error=error)
                if self._stopped is not None and status != "done":
                    return self._content(job, tally, "left", error=f"stopped: {self._stopped}")
                return await self._made(job, tally)
            except StepError as failed:
                return await self._failed(job, tally, failed, failures)
            except (JournalError, OSError) as cannot:
                self.stop(str(cannot))
                return self._content(job, tally, "left", error=str(cannot))

    async def _made(self, job: _Job, tally: _Tally) -> Content:
        workflow = self._workflows[job.content_type]

        async def ask(prompt: str, *, agent: str, **options: Any) -> str:
            return await self._answer(job, tally, prompt, agent, options)

        try:
            answers = await engines.run(
                workflow, {"topic": job.topic}, engine=self.settings.engine, ask=ask
            )
        except asyncio.CancelledError:
            for task in tally.sending:
                task.cancel()
            raise
        finally:
            # A step that fails cancels its siblings; what they sent is paid for, so it is kept.
            await asyncio.gather(*tally.sending, return_exceptions=True)
        article = Article(
            title=job.topic,
            description=" ".join(answers["publisher"].split()),
            text=answers["editor"],
            content_type=job.content_type,
        )
        done = self.journal.status(job.key)[0] == "done"
        files = () if self._out is None else publish(self._out, article, again=not done)
        if not done:
            self.journal.note(job.key, "done")
        return self._content(job, tally, "done", article=article, files=files)

    async def _answer(
        self, job: _Job, tally: _Tally, prompt: str, step: str, options: dict[str, Any]
    ) -> str:
        asked = _digest(prompt, options)
        kept = self.journal.answer(job.key, step, asked)
        if kept is not None:
            return kept.text
        sending = asyncio.create_task(self._send(job, tally, prompt, step, asked, options))
        tally.sending.add(sending)
        return await asyncio.shield(sending)

    async def _send(
        self,
        job: _Job,
        tally: _Tally,
        prompt: str,
        step: str,
        asked: str,
        options: dict[str, Any],
    ) -> str:
        async def send() -> lab.Reply:
            self.journal.sending(job.key, step, asked)
            if self.journal.full:
                self.stop("the disk is full; make room, and go on")
                raise self._nothing_more()
            with tally.one_more():
                return await self._reply(prompt, agent=f"{step}: {job.topic}", **options)

        reply = await self._guarded(send, step)
        self.journal.record(job.key, step, asked, reply)
        if self.journal.full:
            self.stop("the disk is full; make room, and go on")
        self._answered += 1
        return reply.text

    async def _failed(self, job: _Job, tally: _Tally, error: StepError, failures: int) -> Content:
        cause = error.__cause__ or error
        if isinstance(cause, JournalError):
            self.stop(str(cause))
        elif _hopeless(cause):
            self.stop(f"no topic can succeed: {cause}")
        stopped = isinstance(cause, Stopped) or self._stopped is not None
        down = not stopped and _outage(cause) and await self._is_down()
        if down and not self._answered:
            self.stop(f"nothing is answered: {cause}")
        if stopped or self._stopped is not None:
            return self._content(job, tally, "left", error=str(cause))
        if down:  # not the topic's fault, so it is not counted
            self._nobody_answers = True
            return self._content(job, tally, "failed", error=str(cause))
        failures += 1
        enough = failures >= self.settings.quarantine_after
        status: Status = "quarantined" if enough else "failed"
        try:
            noted = "quarantined" if enough else "open"
            self.journal.note(job.key, noted, failures=failures, error=str(cause))
        except JournalError as full:
            self.stop(str(full))
            return self._content(job, tally, "left", error=str(full))
        return self._content(job, tally, status, error=str(cause))

    async def _is_down(self) -> bool:
        """Does the endpoint fail everybody, or one topic only? A question of one token tells."""
        probe = partial(self._reply, "Are you there?", agent="probe", max_tokens=1)
        try:
            await self._guarded(probe, "probe")
        except (AgentLabError, OSError) as error:
            return _outage(error)
        self._answered += 1
        return False

    async def _guarded(self, send: Callable[[], Awaitable[lab.Reply]], step: str) -> lab.Reply:
        """What `send` brings, in time and in turn. A stop calls it off wherever it waits to send,
        and leaves it alone once it has sent.
        """
        task = asyncio.current_task()
        assert task is not None and self._guard is not None  # made by whoever called

        async def attempt() -> lab.Reply:
            if self._stopped is not None:
                raise self._nothing_more()
            self._waiting.discard(task)
            try:
                return await send()
            finally:
                self._waiting.add(task)

        self._waiting.add(task)
        try:
            return await self._guard.run(attempt, agent=step)
        except asyncio.CancelledError:
            if task not in self._called_off:
                raise
            task.uncancel()
            raise self._nothing_more() from None
        finally:
            self._waiting.discard(task)
            self._called_off.discard(task)

    def _nothing_more(self) -> Stopped:
        return Stopped(f"nothing more is sent: {self._stopped}")

    def _content(self, job: _Job, tally: _Tally, status: Status, **more: Any) -> Content:
        try:
            steps = self.journal.steps(job.key)
        except JournalError:  # the status says what happened; figures are not worth losing it
            steps = []
        prompt_tokens = sum(step.prompt_tokens for step in steps)
        answer_tokens = sum(step.answer_tokens for step in steps)
        metrics = Metrics(
            duration_s=0.0 if tally.began_s is None else round(lab.now_s() - tally.began_s, 9),
            requests=tally.requests,
            attempts=max((step.requests for step in steps), default=0),
            peak=tally.peak,
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            cost=self.settings.dollars(prompt_tokens, answer_tokens),
        )
        return Content(job.topic, job.content_type, status, metrics, **more)


def summary(contents: Iterable[Content], journal: Journal, settings: Settings) -> str:
    """A batch in a few lines: what became of the topics, and what all of it cost so far."""
    contents = list(contents)
    counts = Counter(content.status for content in contents)
    retried = sum(content.metrics.attempts > 1 for content in contents)
    lines = [
        f"{counts['done']} done, {retried} with a request sent again, "
        f"{counts['quarantined']} quarantined, {counts['left'] + counts['failed']} left",
        _bill(journal, settings),
    ]
    errors = [c for c in contents if c.status == "quarantined"]
    return "\n".join([*lines, *(f"quarantined: {c.topic}: {c.error}" for c in errors)])


def _bill(journal: Journal, settings: Settings) -> str:
    try:
        bill = journal.bill()
    except JournalError as error:
        return str(error)
    cost = settings.dollars(bill.prompt_tokens, bill.answer_tokens)
    return (
        f"{bill.requests:,} requests for {bill.answers:,} answers, {bill.prompt_tokens:,} tokens "
        f"of prompts and {bill.answer_tokens:,} of answers"
        + ("" if cost is None else f", ${cost:,.4f}")
    )


def _job(topic: str, content_type: str) -> _Job:
    if content_type not in CONTENT_TYPES:
        raise ConfigError(
            f"no content type {content_type!r}; choose one of {', '.join(CONTENT_TYPES)}"
        )
    title = " ".join(topic.split())
    if not title:
        raise ConfigError("a topic is empty; give each a few words")
    return _Job(title, content_type)


def _digest(prompt: str, options: dict[str, Any]) -> str:
    """What makes two questions the same: the prompt and everything else that is sent."""
    return blake2b(
        msgspec.json.encode([prompt, options], order="sorted"), digest_size=16
    ).hexdigest()


def _outage(error: BaseException) -> bool:
    """True if the endpoint seems to be down: the error, or the last of its attempts, says so."""
    return judge(error.__cause__ or error).outage


def _hopeless(error: BaseException) -> bool:
    """True for what every topic would meet: a wrong key, no such model, no quota, no cluster."""
    if isinstance(error, ClusterLost | ConfigError):
        return True
    status, code = getattr(error, "status", None), getattr(error, "code", None)
    return not judge(error).retry and (status in (401, 403, 404) or code == "insufficient_quota")
