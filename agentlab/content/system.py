"""Content for one topic or many: each answer is paid for once, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from agentlab import engines, lab
from agentlab.clock import is_virtual
from agentlab.content import earlier, failures
from agentlab.content.journal import Journal, Unrecordable
from agentlab.content.publish import Article, digest, publish
from agentlab.content.questions import digest as digest_of
from agentlab.content.questions import options_of, question
from agentlab.content.sending import Sender
from agentlab.content.settings import Settings
from agentlab.content.topics import CONTENT_TYPES, Job, without_halves
from agentlab.content.topics import job as job_of
from agentlab.errors import (
    AnswerEmpty,
    AnswerTruncated,
    IncompleteAnswer,
    JournalError,
    ReasoningExhausted,
    StepError,
    Stopped,
)
from agentlab.progress import bar
from agentlab.resilience.guard import size_tokens
from agentlab.resilience.monitor import Monitor
from agentlab.resilience.stream import stream
from agentlab.resilience.verdict import judge
from agentlab.running import log
from agentlab.workflow import Step, Workflow

if TYPE_CHECKING:
    from agentlab.engines.dask import Cluster


Status = Literal["done", "failed", "quarantined", "left"]


class Metrics(NamedTuple):
    """What one topic took.

    Attributes:
        duration_s: Model seconds in this run.
        requests: Requests sent in this run; 0 where all answers were there.
        attempts: The most requests that one answer took, over all runs.
        peak: The most of its requests in flight at once, in this run.
        prompt_tokens, answer_tokens: Of its answers, whole or not, over all runs.
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
        status: "done"; "failed"; "quarantined", where it failed too often to be tried again, or
            in a way that would not change; or "left", where the system was stopped before.
        article: What was written; None unless done.
        files: Where it was published.
        error: Why it is not done.
        kept: Those of the files that hold something else, because somebody had edited them.
    """

    topic: str
    content_type: str
    status: Status
    metrics: Metrics
    article: Article | None = None
    files: tuple[Path, ...] = ()
    error: str | None = None
    kept: tuple[Path, ...] = ()


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
        self._sender = Sender(self.settings, self.monitor)
        self._one_at_a_time: dict[Job, asyncio.Lock] = {}
        self._answered = 0  # by the endpoint, in this system's life: probes, too
        self._recorded = 0
        self._outages = 0
        self._nobody_answers: str | None = None  # why
        self._reply = lab.reply
        try:
            earlier.adopt(self.journal, self._workflows, question, self._out)
        except BaseException:
            self.close()
            raise

    async def generate_content(
        self, topic: str, content_type: Literal["blog", "comprehensive"] = "blog"
    ) -> Content:
        """Write about one topic. What was answered in an earlier run is not asked again.

        A failure is a status, not an exception.

        Raises:
            ConfigError: If there is no such type, or the topic is empty.
        """
        job = job_of(topic, content_type)
        self._begin()
        async with self._sender.watched():
            return await self._generate(job)

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
        jobs = list(dict.fromkeys(job_of(topic, content_type) for topic in topics))
        self._begin()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._sender.watched())
            if isinstance(cluster, str):
                from agentlab.engines.dask import Cluster  # takes a second to import

                address = None if cluster == "local" else cluster
                cluster = await stack.enter_async_context(Cluster(address))
            self._reply = lab.reply if cluster is None else cluster.reply
            stack.callback(setattr, self, "_reply", lab.reply)
            return await self._all(jobs, content_type if progress else None)

    async def first_question(
        self, topics: Iterable[str], content_type: Literal["blog", "comprehensive"] = "blog"
    ) -> None:
        """Ask one question of a batch alone, and stop if every topic would meet what it meets.

        It is one that has to be asked anyway, so it costs nothing: its answer is recorded.
        """
        jobs = list(dict.fromkeys(job_of(topic, content_type) for topic in topics))
        self._begin()
        for job in jobs:
            values = {"topic": job.topic}
            for step in self._workflows[job.content_type].steps:
                status = self.journal.status(job.key)[0]
                if status == "quarantined" or set(step.mentions) - set(values):
                    continue
                if self.journal.answer(job.key, step.name, question(step, values)) is None:
                    async with self._sender.watched():
                        await self._try(job, step, step.asked(values))
                    return

    async def _try(self, job: Job, step: Step, prompt: str) -> None:
        tally = _Tally()
        try:
            await self._answer(job, tally, prompt, step.name, options_of(step))
        except Exception as error:
            said = failures.in_words(error, step.name, job.content_type)
            if isinstance(failures.last(error), ReasoningExhausted):
                self.stop(f"no topic can succeed: {said}")
            await self._failed(job, tally, error, said, 0)

    async def _all(self, jobs: list[Job], name: str | None) -> list[Content]:
        contents: dict[Job, Content] = {}
        waiting, idle = jobs, 0
        with nullcontext() if name is None else bar(total=len(jobs), name=name) as shown:
            while waiting:
                recorded, self._nobody_answers = self._recorded, None
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
                idle = 0 if self._recorded > recorded else idle + 1
                if self._nobody_answers and idle == self.settings.quarantine_after:
                    self.stop(f"nothing is answered: {self._nobody_answers}")
                    contents |= {job: contents[job]._replace(status="left") for job in waiting}
                    break
        return [contents[job] for job in jobs]

    def stop(self, reason: str = "stopped") -> None:
        """Send nothing more. What is in flight is waited for and recorded, the rest is left."""
        self._sender.stop(reason)

    def so_far(
        self, topics: Iterable[str], content_type: Literal["blog", "comprehensive"] = "blog"
    ) -> list[Content]:
        """What the journal says of topics, each once; nothing is asked, and no file is written."""
        jobs = dict.fromkeys(job_of(topic, content_type) for topic in topics)
        known = ((job, *self.journal.status(job.key)) for job in jobs)
        statuses: dict[str, Status] = {"done": "done", "quarantined": "quarantined"}
        return [
            self._content(job, _Tally(), statuses.get(status, "left"), error=error)
            for job, status, _, error in known
        ]

    @property
    def stopped(self) -> str | None:
        """Why nothing more is sent; None while work goes on."""
        return self._sender.stopped

    def close(self) -> None:
        """Let another process go on with the journal."""
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        if self._sender.begin():
            self._one_at_a_time, self._probing = {}, asyncio.Lock()

    async def _generate(self, job: Job) -> Content:
        async with self._one_at_a_time.setdefault(job, asyncio.Lock()):
            tally, count = _Tally(lab.now_s()), 0
            try:
                status, count, error = self.journal.status(job.key)
                if status == "quarantined":
                    return self._content(job, tally, "quarantined", error=error)
                if self.stopped is not None and status != "done":
                    return self._content(job, tally, "left", error=f"stopped: {self.stopped}")
                return await self._made(job, tally)
            except StepError as failed:
                cause = failed.__cause__ or failed
                said = failures.in_words(cause, failed.step, job.content_type)
                return await self._failed(job, tally, cause, said, count)
            except OSError as cannot:  # a page has a name of its own, so no other can be written
                self.stop(str(cannot))
                return self._content(job, tally, "left", error=str(cannot))
            except Exception as odd:
                said = failures.in_words(odd, "publisher", job.content_type)
                return await self._failed(job, tally, odd, said, count)

    async def _made(self, job: Job, tally: _Tally) -> Content:
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
        article = Article.of(job.topic, job.content_type, answers)
        pages = dict(before := self.journal.pages(job.key))
        files = () if self._out is None else publish(self._out, article, pages)
        if pages != before or self.journal.status(job.key)[0] != "done":
            self.journal.note(job.key, "done", pages=pages)
        new = {
            name: digest(text) for file in files for name, text in article.files(file.stem).items()
        }
        kept = tuple(file for file in files if pages[file.name] != new[file.name])
        return self._content(job, tally, "done", article=article, files=files, kept=kept)

    async def _answer(
        self, job: Job, tally: _Tally, prompt: str, step: str, options: dict[str, Any]
    ) -> str:
        asked = digest_of(prompt, options)
        kept = self.journal.answer(job.key, step, asked)
        if kept is not None:
            return kept.text
        sending = asyncio.create_task(self._send(job, tally, prompt, step, asked, options))
        tally.sending.add(sending)
        return await asyncio.shield(sending)

    async def _send(
        self,
        job: Job,
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
                raise self._sender.nothing_more()
            with tally.one_more():
                try:
                    return await self._whole(prompt, f"{step}: {job.topic}"[:200], options)
                except IncompleteAnswer as part:
                    self.journal.record(job.key, step, asked, part)
                    raise

        reply = await self._sender.send(send, step, size_tokens(prompt, **options))
        self.journal.record(job.key, step, asked, reply)
        if self.journal.full:
            self.stop("the disk is full; make room, and go on")
        self._answered += 1
        self._recorded += 1
        return reply.text

    async def _whole(self, prompt: str, agent: str, options: dict[str, Any]) -> lab.Reply:
        """A reply with a text that its own limit has not cut off: half of one helps nobody."""
        patience_s = max(self.settings.timeout_seconds, 600.0)  # the guard has the shorter one
        reply = await self._reply(prompt, agent=agent, timeout_s=patience_s, **options)
        reply = reply._replace(text=without_halves(reply.text))
        if reply.finish_reason == "length":
            raise AnswerTruncated(
                f"the answer was cut off at its limit of {options['max_tokens']} tokens, and ends "
                f"in {reply.text[-40:]!r}; raise max_tokens, or ask for a shorter answer",
                **reply._asdict(),
            )
        if not reply.text.strip():
            raise AnswerEmpty("the answer has no text; ask again", **reply._asdict())
        return reply

    async def _failed(
        self, job: Job, tally: _Tally, error: BaseException, said: str, count: int
    ) -> Content:
        poison = isinstance(error, Unrecordable)  # it may be paid for, so it is noted in any case
        if isinstance(error, JournalError) and not poison:
            self.stop(said)
        stopped = isinstance(error, Stopped) or self.stopped is not None
        if not poison:
            everybodys = not stopped and await self._is_everybodys(error, said)
            if stopped or self.stopped is not None:
                return self._content(job, tally, "left", error=said)
            if everybodys:  # not the topic's fault, so it is not counted
                self._nobody_answers = said
                return self._content(job, tally, "failed", error=said)
        count += 1
        enough = poison or count >= self.settings.quarantine_after or failures.is_final(error)
        status: Status = "quarantined" if enough else "failed"
        try:
            noted = "quarantined" if enough else "open"
            with suppress(Unrecordable):  # its name is the poison; nothing was sent for it
                self.journal.note(job.key, noted, failures=count, error=said)
        except JournalError as full:
            self.stop(str(full))
            return self._content(job, tally, "left", error=str(full))
        return self._content(job, tally, status, error=said)

    async def _is_everybodys(self, error: BaseException, said: str) -> bool:
        """Is a failure no topic's fault? It stops the batch if there is no use in going on."""
        longest_s = self.settings.longest_wait_seconds
        if failures.is_everybodys(error):
            self.stop(f"no topic can succeed: {said}")
            return True
        if (asked_s := self._sender.pace.paused_s) > longest_s:
            self.stop(
                f"the endpoint asks to wait {asked_s:,.0f} model seconds, and longest_wait_seconds "
                f"is {longest_s:g}"
            )
            return True
        passing, outages = failures.passes(error), self._outages
        if not passing and (self._answered or failures.is_final(error)):
            return False
        async with self._probing:
            if self._outages != outages or self.stopped is not None:
                return True  # somebody else has asked, and waited
            limited = judge(failures.last(error)).limited  # which is never a topic's fault
            met = error if limited else await self._probe()
            if met is None or failures.passes(met) != passing:
                return False
            why = "nothing is answered" if passing else "no topic can succeed"
            if failures.may_end_soon(met, was_there=self._answered > 0):
                self._outages += 1
                why += f" within {longest_s:g} model seconds"
                met = await self._outlast(met)
            if met is not None:
                self.stop(f"{why}: {said}")
        return True

    async def _outlast(self, met: BaseException | None) -> BaseException | None:
        """Ask again, alone, until something is answered or patience ends; what is met at last."""
        longest_s, wait_s = self.settings.longest_wait_seconds, 1.0
        if not is_virtual():
            log.warning("nothing is answered; trying again for %g s: %s", longest_s, met)
        with suppress(Stopped, TimeoutError):
            async with lab.timeout(longest_s):
                while met is not None and failures.passes(met):
                    with self._sender.called_off_by_a_stop():
                        await lab.sleep(wait_s)
                    met, wait_s = await self._probe(), min(2 * wait_s, 30.0)
        return met

    async def _probe(self) -> BaseException | None:
        """Ask what no topic is to blame for: the error that everybody meets, or None."""
        probe = partial(self._reply, "Are you there?", agent="probe", max_tokens=16, temperature=0)
        try:
            await self._sender.send(probe, "probe")
        except Exception as error:
            if not failures.is_final(error):
                return error
        self._answered += 1
        return None

    def _content(self, job: Job, tally: _Tally, status: Status, **more: Any) -> Content:
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
    lines += [f"quarantined: {c.topic}: {c.error}" for c in contents if c.status == "quarantined"]
    lines += [
        f"{file} was edited, so the new text is not published there; move it, and use --resume"
        for content in contents
        for file in content.kept
    ]
    return "\n".join(lines)


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
