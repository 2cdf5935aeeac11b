"""One topic's work in one run: questions, calls of tools, what they took, what became of it."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from agentlab import engines, errors, lab
from agentlab.content._failures import Unfinished, in_words, meaning
from agentlab.content._journal import Bill
from agentlab.content._publish import Article, Published, publish
from agentlab.content._topics import Job, clean
from agentlab.errors import IncompleteAnswer, JournalError, StepError, Stopped
from agentlab.lab import connection, is_virtual
from agentlab.resilience import size_tokens
from agentlab.trace import max_overlap
from agentlab.workflow import Tool, Workflow

if TYPE_CHECKING:
    from agentlab.content._system import ContentSystem

_SOURCE = re.compile(r"(?:\A|\n\n)\[([^][\n]+)\] (\S.*)\n(?=.)")  # id and title above a passage
Status = Literal["done", "failed", "quarantined", "left"]


class Metrics(NamedTuple):
    """What one topic took: time in model seconds, requests and peak in this run, else in all runs.

    `attempts` is the most requests that one answer took; `cost` is in dollars, None without prices.
    """

    duration_s: float
    requests: int
    attempts: int
    peak: int
    prompt_tokens: int
    answer_tokens: int
    cost: float | None


class Content(NamedTuple):
    """What became of a topic, which is "left" where the system was stopped before.

    `kept` are those of the files that hold something else, because somebody had edited them.
    """

    topic: str
    content_type: str
    status: Status
    metrics: Metrics
    article: Article | None = None
    files: tuple[Path, ...] = ()
    error: str | None = None
    kept: tuple[Path, ...] = ()


_turn: ContextVar[tuple[Work, tuple[str, str, str], Counter[tuple[str, str]]]] = ContextVar("turn")
"""Whose answer calls tools here, its key in the journal, and how often each call was made."""


@dataclass(eq=False)
class Work:
    """A topic on its way. Every question passes the journal first, and then the guard."""

    job: Job
    workflow: Workflow
    system: ContentSystem
    began_s: float = field(default_factory=lab.now_s)
    sent_s: list[tuple[float, float]] = field(default_factory=list)  # from when to when
    sending: set[asyncio.Task[Any]] = field(default_factory=set)
    returned: dict[str, str] = field(default_factory=dict)  # by tools: id -> title
    fault: Exception | None = None  # of a tool, which the topic cannot go on with

    async def run(self) -> Content:
        """Write about the topic; a failure is a status, not an exception."""
        count = 0
        try:
            status, count, error, _ = self.system.journal.standing(self.job.key)
            if status == "quarantined":
                return self._content("quarantined", error=error)
            if self.system.stopped is not None and status != "done":
                return self._content("left", error=f"stopped: {self.system.stopped}")
            return self._publish(await self._answers())
        except OSError as cannot:  # a page has a name of its own, so no other can be written
            self.system.stop(str(cannot))
            return self._content("left", error=str(cannot))
        except StepError as failed:
            return await self._failed(self.fault or failed.__cause__ or failed, failed.step, count)
        except Exception as odd:
            return await self._failed(odd, "publisher", count)

    async def _answers(self) -> Mapping[str, str]:
        named = {name for step in self.workflow.steps for name in step.tools}
        tools = {name: tool for name, tool in self.system.tools.items() if name in named}
        how: Any = {"engine": self.system.settings.engine, "tools": tools, "ask": self._answer}
        try:
            return await engines.run(self.workflow, {"topic": self.job.topic}, **how)
        except asyncio.CancelledError:
            for task in self.sending:
                task.cancel()
            raise
        finally:
            # A step that fails cancels its siblings; what they sent is paid for, so it is kept.
            await asyncio.gather(*self.sending, return_exceptions=True)

    async def finish(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Await what goes on, and is recorded, though a failure elsewhere ends who waits here."""
        task = asyncio.create_task(work)
        self.sending.add(task)
        return await asyncio.shield(task)

    async def _answer(self, prompt: str, *, agent: str, **options: Any) -> lab.Reply | str:
        if self.fault is not None:
            raise self.fault
        key = self.job.key, agent, question(prompt, options)
        reply = self.system.journal.answer(*key)
        if reply is None:
            reply = await self.finish(self._send(prompt, key, options))
        _turn.set((self, key, Counter()))
        return reply if "tools" in options else reply.text

    async def _send(self, prompt: str, key: tuple[str, str, str], options: Any) -> lab.Reply:
        step, settings = key[1], self.system.settings
        patience_s = max(settings.timeout_seconds, 600.0)  # the guard has the shorter one
        asking = options | {"agent": f"{step}: {self.job.topic}"[:200], "timeout_s": patience_s}

        async def send() -> lab.Reply:
            self.system.journal.sending(*key)
            if self._disk_is_full():
                raise Stopped(f"nothing more is sent: {self.system.stopped}")
            began_s = lab.now_s()
            try:
                reply = await self.system.reply(prompt, **asking)
                reply = reply._replace(text=clean(reply.text))
                if reply.finish_reason == "length":
                    cut = f"the answer was cut off at its limit of {options['max_tokens']} tokens"
                    cure = "raise max_tokens, or ask for a shorter answer"
                    raise errors.AnswerTruncated(f"{cut}; {cure}", **reply._asdict())
                if not (reply.text.strip() or reply.tool_calls):
                    raise errors.AnswerEmpty("the answer has no text; ask again", **reply._asdict())
                return reply
            except IncompleteAnswer as part:
                self.system.journal.record(*key, part)
                raise
            finally:
                self.sent_s.append((began_s, lab.now_s()))

        reply = await self.system.send(send, step, size_tokens(prompt, **options))
        self.system.journal.record(*key, reply)
        self._disk_is_full()
        self.system.recorded += 1
        return reply

    def _disk_is_full(self) -> bool:
        if self.system.journal.full:
            self.system.stop("the disk is full; make room, and go on")
        return self.system.journal.full

    def _publish(self, answers: Mapping[str, str]) -> Content:
        about = " ".join(answers["publisher"].split())
        said = "\n".join(answers.values())
        named = {said.find(f"[{id}]"): (id, title) for id, title in self.returned.items()}
        sources = tuple(one for place, one in sorted(named.items()) if place >= 0)
        article = Article(self.job.topic, about, answers["editor"], self.job.content_type, sources)
        status, _, _, pages = self.system.journal.standing(self.job.key)
        published = publish(self.system.out, article, pages) if self.system.out else Published()
        if published.pages != pages or status != "done":
            self.system.journal.note(self.job.key, "done", pages=published.pages)
        return self._content("done", article=article, files=published.files, kept=published.kept)

    async def _failed(self, error: BaseException, step: str, count: int) -> Content:
        """Decide what a failure means for the topic, which has failed `count` times before."""
        said = in_words(error, step, self.job.content_type)
        if isinstance(error, JournalError):
            self.system.stop(said)
        stopped = isinstance(error, Stopped) or self.system.stopped is not None
        everybodys = not stopped and await self.system.is_everybodys(error, said)
        if stopped or self.system.stopped is not None:
            return self._content("left", error=said)
        if everybodys:  # not the topic's fault, so it is not counted
            self.system.nobody_answers = said
            return self._content("failed", error=said)
        count += 1
        final = meaning(error) == "final" or count >= self.system.settings.quarantine_after
        try:
            status = "quarantined" if final else "open"
            self.system.journal.note(self.job.key, status, failures=count, error=said)
        except JournalError as full:
            return await self._failed(full, step, count)
        return self._content("quarantined" if final else "failed", error=said)

    def _content(self, status: Status, **more: Any) -> Content:
        try:
            bill = self.system.journal.bill(self.job.key)
        except JournalError:  # the status says what happened; figures are not worth losing it
            bill = Bill()
        duration_s, peak = round(lab.now_s() - self.began_s, 9), max_overlap(self.sent_s)
        tokens, cost = (bill.prompt_tokens, bill.answer_tokens), self.system.settings.dollars(bill)
        metrics = Metrics(duration_s, len(self.sent_s), bill.attempts, peak, *tokens, cost)
        return Content(*self.job, status, metrics, **more)


def question(prompt: str, options: Mapping[str, Any]) -> str:
    """Return a digest of what makes two questions the same: not the limit, nor the address."""
    model = connection.current()
    local = is_virtual() or not model.real
    rest = {name: value for name, value in options.items() if name != "max_tokens"}
    asked = [model.model, "local" if local else "real", prompt, rest]
    return blake2b(msgspec.json.encode(asked, order="sorted"), digest_size=16).hexdigest()


class KeptTool(Tool):
    """A function as a tool: a recorded call gives its result, and one with an `effect` runs once.

    Where that cannot be told, the whole topic fails: the model would only call it again.
    """

    def __init__(self, name: str, function: Callable[..., Any], *, effect: bool):
        super().__init__(name, function)
        self._name, self._effect = name, effect

    async def run(self, arguments: str) -> str:
        work, question, made = _turn.get()
        call = self._name, clean(arguments)
        made[call] += 1
        try:
            text: str = await work.finish(self._kept(work, arguments, *question, *call, made[call]))
        except Exception as error:
            work.fault = work.fault or error
            raise
        work.returned |= dict(_SOURCE.findall(text))
        return text

    async def _kept(self, work: Work, arguments: str, *call: str | int) -> str:
        number, text = work.system.journal.calling(*call)
        if text is not None:
            return text
        if number is not None and self._effect:
            begun = f"{self._name}({arguments[:300]}) was begun, and may have happened"
            settle = f"journal.settle({number}, result), or journal.settle({number}) if it did not"
            raise Unfinished(f"{begun}; look, and call {settle}, and then journal.release()")
        try:
            text = clean(await super().run(arguments))
        except Exception as error:  # a result, too, told as the loop of an agent tells it
            text = clean(f"{type(error).__name__}: {error}")
        work.system.journal.called(text, *call)
        return text
