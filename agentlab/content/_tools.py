"""Tools whose calls pass the journal, so that an effect is not had twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from agentlab.content._failures import Unfinished
from agentlab.content._search import titles
from agentlab.content._topics import clean
from agentlab.errors import JournalError, Stopped
from agentlab.workflow import Tool

if TYPE_CHECKING:
    from agentlab.content._work import Work

turn: ContextVar[tuple[Work, tuple[str, str, str], Counter[tuple[str, str]]]] = ContextVar("turn")
"""Whose answer calls tools here, its key in the journal, and how often each call was made."""


class KeptTool(Tool):
    """A function as a tool: a recorded call gives its result, and one with an `effect` runs once.

    Where that cannot be told, the whole topic fails: the model would only call it again.
    """

    def __init__(self, name: str, function: Callable[..., Any], *, effect: bool):
        super().__init__(name, function)
        self._name, self._effect = name, effect

    async def run(self, arguments: str) -> str:
        work, question, made = turn.get()
        call = self._name, clean(arguments)
        made[call] += 1
        try:
            text = await work.finish(self._kept(work, (*question, *call, made[call]), arguments))
        except (JournalError, Stopped, Unfinished) as error:
            work.fault = work.fault or error
            raise
        work.returned |= titles(text)
        return text

    async def _kept(self, work: Work, key: tuple[Any, ...], arguments: str) -> str:
        journal, stopped = work.system.journal, work.system.stopped
        number, text = journal.call(*key)
        if text is not None:
            return text
        if stopped is not None:
            raise Stopped(f"nothing more is called: {stopped}")
        if self._effect and number is not None:
            begun = f"{self._name}({arguments[:300]}) was begun, and may have happened; look, and call"
            settle = f"journal.settle({number}, result), or journal.settle({number}) if it did not"
            raise Unfinished(f"{begun} {settle}, and then journal.release()")
        if self._effect:
            journal.note_call(*key)
        try:
            text = clean(await super().run(arguments))
        except Exception as error:  # a result, too, told as the loop of an agent tells it
            text = clean(f"{type(error).__name__}: {error}")
        journal.note_call(*key, result=text)
        work.disk_is_full()
        return text
