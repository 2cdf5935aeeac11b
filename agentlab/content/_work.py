"""One topic's work in one run: its questions, what they took, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from agentlab import engines, lab
from agentlab.clock import is_virtual
from agentlab.content import _failures
from agentlab.content._journal import Journal, Unrecordable
from agentlab.content._publish import Article, digest, publish
from agentlab.content._sending import Sender
from agentlab.content._settings import Settings
from agentlab.content._topics import Job, without_halves
from agentlab.errors import (
    AnswerEmpty,
    AnswerTruncated,
    ConfigError,
    IncompleteAnswer,
    JournalError,
    ReasoningExhausted,
    StepError,
    Stopped,
)
from agentlab.lab import connection
from agentlab.resilience import size_tokens
from agentlab.workflow import Workflow

Status = Literal["done", "failed", "quarantined", "left"]


class Metrics(NamedTuple):
    """What one topic took.

    Attributes:
        duration_s: Model seconds in this run.
        requests: Requests sent in this run; 0 where all answers were there.
        attempts: The most requests that one answer took, over all runs.
        peak: The most of its requests in flight at the same time, in this run.
        prompt_tokens, answer_tokens: Of its answers, whole or not, over all runs.
        cost: Dollars for these tokens; None without prices.
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


@dataclass(eq=False)
class Work:
    """A topic on its way. Every question passes the journal first, and then the sender."""

    job: Job
    workflow: Workflow
    journal: Journal
    sender: Sender
    settings: Settings
    out: Path | None
    began_s: float | None = None
    requests: int = 0
    in_flight: int = 0
    peak: int = 0
    sending: set[asyncio.Task[str]] = field(default_factory=set)

    async def run(self) -> Content:
        """Write about the topic; a failure is a status, not an exception."""
        self.began_s, count = lab.now_s(), 0
        try:
            status, count, error = self.journal.status(self.job.key)
            if status == "quarantined":
                return self.content("quarantined", error=error)
            if self.sender.stopped is not None and status != "done":
                return self.content("left", error=f"stopped: {self.sender.stopped}")
            return self._publish(await self._answers())
        except OSError as cannot:  # a page has a name of its own, so no other can be written
            self.sender.stop(str(cannot))
            return self.content("left", error=str(cannot))
        except StepError as failed:
            return await self._failed(failed.__cause__ or failed, failed.step, count)
        except Exception as odd:
            return await self._failed(odd, "publisher", count)

    async def first_question(self) -> bool:
        """Ask the first step's question if it has no answer yet; return whether it was asked.

        A failure is dealt with as in any run: what every topic would meet stops the sender.
        """
        step = self.workflow.steps[0]
        prompt = step.asked({"topic": self.job.topic})
        options = {
            "system": step.system,
            "max_tokens": step.max_tokens,
            "temperature": step.temperature,
        }
        if self.journal.status(self.job.key)[0] == "quarantined":
            return False
        if self.journal.answer(self.job.key, step.name, question(prompt, options)) is not None:
            return False
        try:
            await self._answer(prompt, step.name, options)
        except Exception as error:
            if isinstance(_failures.last(error), ReasoningExhausted):
                said = _failures.in_words(error, step.name, self.job.content_type)
                self.sender.stop(f"no topic can succeed: {said}")
            await self._failed(error, step.name, 0)
        return True

    async def _answers(self) -> Mapping[str, str]:
        async def ask(prompt: str, *, agent: str, **options: Any) -> str:
            return await self._answer(prompt, agent, options)

        try:
            return await engines.run(
                self.workflow, {"topic": self.job.topic}, engine=self.settings.engine, ask=ask
            )
        except asyncio.CancelledError:
            for task in self.sending:
                task.cancel()
            raise
        finally:
            # A step that fails cancels its siblings; what they sent is paid for, so it is kept.
            await asyncio.gather(*self.sending, return_exceptions=True)

    async def _answer(self, prompt: str, step: str, options: dict[str, Any]) -> str:
        asked = question(prompt, options)
        kept = self.journal.answer(self.job.key, step, asked)
        if kept is not None:
            return kept.text
        sending = asyncio.create_task(self._send(prompt, step, asked, options))
        self.sending.add(sending)
        return await asyncio.shield(sending)

    async def _send(self, prompt: str, step: str, asked: str, options: dict[str, Any]) -> str:
        key = self.job.key, step, asked

        async def send() -> lab.Reply:
            self.journal.sending(*key)
            if self._disk_is_full():
                raise Stopped(f"nothing more is sent: {self.sender.stopped}")
            self.requests += 1
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            try:
                return await self._whole(prompt, f"{step}: {self.job.topic}"[:200], options)
            except IncompleteAnswer as part:
                self.journal.record(*key, part)
                raise
            finally:
                self.in_flight -= 1

        reply = await self.sender.send(send, step, size_tokens(prompt, **options))
        self.journal.record(*key, reply)
        self._disk_is_full()
        self.sender.recorded += 1
        return reply.text

    def _disk_is_full(self) -> bool:
        if self.journal.full:
            self.sender.stop("the disk is full; make room, and go on")
        return self.journal.full

    async def _whole(self, prompt: str, agent: str, options: dict[str, Any]) -> lab.Reply:
        """Return a reply with a text that its own limit has not cut off: half helps nobody."""
        patience_s = max(self.settings.timeout_seconds, 600.0)  # the guard has the shorter one
        reply = await self.sender.reply(prompt, agent=agent, timeout_s=patience_s, **options)
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

    def _publish(self, answers: Mapping[str, str]) -> Content:
        article = Article.of(self.job.topic, self.job.content_type, answers)
        pages = dict(before := self.journal.pages(self.job.key))
        files = () if self.out is None else publish(self.out, article, pages)
        if pages != before or self.journal.status(self.job.key)[0] != "done":
            self.journal.note(self.job.key, "done", pages=pages)
        new = article.files(files[0].stem) if files else {}
        kept = tuple(file for file in files if pages[file.name] != digest(new[file.name]))
        return self.content("done", article=article, files=files, kept=kept)

    async def _failed(self, error: BaseException, step: str, count: int) -> Content:
        """Decide what a failure means for the topic, and note it.

        Args:
            count: How often the topic has failed before.
        """
        said = _failures.in_words(error, step, self.job.content_type)
        poison = isinstance(error, Unrecordable)  # it may be paid for, so it is noted in any case
        if isinstance(error, JournalError) and not poison:
            self.sender.stop(said)
        if not poison:
            stopped = isinstance(error, Stopped) or self.sender.stopped is not None
            everybodys = not stopped and await self.sender.is_everybodys(error, said)
            if stopped or self.sender.stopped is not None:
                return self.content("left", error=said)
            if everybodys:  # not the topic's fault, so it is not counted
                self.sender.nobody_answers = said
                return self.content("failed", error=said)
        count += 1
        final = poison or _failures.is_final(error) or count >= self.settings.quarantine_after
        try:
            with suppress(Unrecordable):  # its name is the poison; nothing was sent for it
                status = "quarantined" if final else "open"
                self.journal.note(self.job.key, status, failures=count, error=said)
        except JournalError as full:
            self.sender.stop(str(full))
            return self.content("left", error=str(full))
        return self.content("quarantined" if final else "failed", error=said)

    def content(self, status: Status, **more: Any) -> Content:
        """Say what became of the topic, with what it took."""
        try:
            bills = self.journal.bills(self.job.key)
        except JournalError:  # the status says what happened; figures are not worth losing it
            bills = []
        prompt_tokens = sum(bill.prompt_tokens for bill in bills)
        answer_tokens = sum(bill.answer_tokens for bill in bills)
        metrics = Metrics(
            duration_s=0.0 if self.began_s is None else round(lab.now_s() - self.began_s, 9),
            requests=self.requests,
            attempts=max((bill.requests for bill in bills), default=0),
            peak=self.peak,
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            cost=self.settings.dollars(prompt_tokens, answer_tokens),
        )
        return Content(*self.job, status, metrics, **more)


def question(prompt: str, options: Mapping[str, Any]) -> str:
    """Return a digest of what makes two questions the same: model, prompt, and what goes with it.

    Not the limit on tokens, because an answer that was whole under one is whole under another:
    to raise it for those that were cut off asks nothing else again. Nor the address, because one
    model may be reached at several.

    Raises:
        ConfigError: If the model's name cannot be sent.
    """
    model = connection.current()
    local = is_virtual() or not model.real
    rest = {name: value for name, value in options.items() if name != "max_tokens"}
    asked = [model.model, "local" if local else "real", prompt, rest]
    try:
        return blake2b(msgspec.json.encode(asked, order="sorted"), digest_size=16).hexdigest()
    except UnicodeEncodeError as error:  # of the rest, all is whole characters
        raise ConfigError(f"model {model.model!r}: {error}; give its name") from None
