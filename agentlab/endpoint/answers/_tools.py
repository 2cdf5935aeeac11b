"""Which of the tools it was offered the model calls, and with what of the prompt as arguments.

Left to choose, it calls those that the prompt names ("What is the weather in Seoul?" names
`get_weather`), each once, so that every loop ends.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

from agentlab.endpoint.answers._prompt import unframe
from agentlab.endpoint.answers._schema import build
from agentlab.endpoint.answers.replies import Writer
from agentlab.endpoint.contract.json_schema import Budget, Schema
from agentlab.endpoint.contract.request import ChatRequest, Custom, Function

Call = tuple[str, str]  # the name of a function, and its arguments as JSON; or a tool, and a text

_WORD = re.compile(r"[A-Za-z]{3,}|[\uac00-\ud7a3]{2,}")
_IDLE = frozenset(
    "the and for with from that this what which who how are was were you your all any can get "
    "set use used using tool tools function return returns given about into one its our will "
    "should must does name value input output data call text string".split()
)
_QUOTED = re.compile(r"[\"“'‘]([^\"”'’\n]{2,60})[\"”'’]")
_PROPER = re.compile(r"(?<![.?!:\n] )(?<!^)\b([A-Z][\w-]+(?: [A-Z][\w-]+)*)", re.MULTILINE)
_KOREAN_NOUN = re.compile(r"([\uac00-\ud7a3]{2,12})(?:의|에서|은|는|이|가|을|를)?(?=\s|$)")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")
_DESCRIBED = 1000  # characters of a description in which a word may be shared
_MOST_COWORKERS = 100
_COWORKERS = re.compile(r"following coworkers?: (.+?)\n")
_WHOLE = frozenset("task question query input prompt request instruction message content".split())


def calls(request: ChatRequest, prompt: str, writer: Writer, draw: random.Random) -> list[Call]:
    """Return what the model calls in this turn, or raise CannotFill; nothing if it speaks."""
    chosen = _chosen(request, prompt)
    if request.parallel_tool_calls is False:
        chosen = chosen[:1]
    as_form = request.must_call_this  # as structured output uses tools
    return fill_in(chosen, prompt, writer, draw, as_form=as_form)


def fill_in(
    tools: list[Function], prompt: str, writer: Writer, draw: random.Random, *, as_form: bool
) -> list[Call]:
    """Return a call of each tool, with its arguments filled; CannotFill if a schema forbids it."""
    budget, called = Budget(), []
    for tool in tools:
        if isinstance(tool, Custom):
            called.append((tool.name, unframe(prompt).task))
            continue
        filler = _FromPrompt(prompt, writer, _coworkers(tool), as_form=as_form)
        schema = {"type": "object", "properties": {}, **(tool.parameters or {})}
        value = build(schema, filler, draw=draw, optional=as_form, budget=budget)
        called.append((tool.name, json.dumps(value, ensure_ascii=False)))
    return called


def _chosen(request: ChatRequest, prompt: str) -> list[Function]:
    offered = request.offered
    if request.must_call_this:
        return offered
    called = {name for name, _ in request.results}
    if request.must_call:
        left = [tool for tool in offered if tool.name not in called] or offered
        return suitable(left, prompt) or left[:1]
    if called or not offered:
        return []
    if handing_on := [tool for tool in offered if _coworkers(tool)]:
        turns = request.turns
        system = next((text for role, text in turns if role in ("system", "developer")), "")
        manages = system.startswith("You are Crew Manager") or "delegate" in prompt.lower()
        return handing_on[:1] if manages else []
    return suitable(offered, prompt)


def suitable(tools: Sequence[Function], prompt: str) -> list[Function]:
    """Return those whose name shares a word with the prompt, or else the best described one."""
    words = _words(prompt)
    if by_name := [tool for tool in tools if words & _words(tool.name.replace("_", " "))]:
        return by_name
    shared = [len(words & _words((tool.description or "")[:_DESCRIBED])) for tool in tools]
    return [tools[shared.index(max(shared))]] if any(shared) else []


def _words(text: str) -> set[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return {word.lower().rstrip("s")[:7] for word in _WORD.findall(spaced)} - _IDLE


def _coworkers(tool: Function) -> list[str]:
    found = _COWORKERS.search((tool.description or "") + "\n")
    return [name.strip() for name in found[1].split(",")[:_MOST_COWORKERS]] if found else []


class _FromPrompt:
    """Fills a call's arguments with what the prompt says, and a form's with new words, too."""

    def __init__(self, prompt: str, writer: Writer, people: list[str], *, as_form: bool):
        self._writer, self._people, self._as_form = writer, people, as_form
        framed = unframe(prompt)
        self._said, self._task = prompt.lower(), framed.task.strip()
        self._context, self._words = framed.context or self._task, _words(self._task)
        self._numbers = iter([float(number) for number in _NUMBER.findall(self._task)])
        names = [*_QUOTED.findall(self._task), *_PROPER.findall(self._task)]
        if not re.search("[A-Za-z]", self._task):
            names += _KOREAN_NOUN.findall(self._task)
        self._names = iter(names)

    def text(self, name: str, schema: Schema) -> str:
        words = _words(name.replace("_", " ")) | {name.lower()}
        if self._people and "coworker" in words:
            return max(self._people, key=lambda who: len(_words(who) & self._words))
        if "context" in words:
            return self._context
        if words & _WHOLE and not self._as_form:
            return self._task
        said = next(self._names, None)
        return said or (self._writer.text(name, schema) if self._as_form else self._writer.topic)

    def choose(self, name: str, options: Sequence[Any]) -> Any:
        return next((each for each in options if str(each).lower() in self._said), options[0])

    def number(self, name: str, least: float, most: float, whole: bool) -> float:
        fitting = (number for number in self._numbers if least <= number <= most)
        number = next(fitting, None)
        return self._writer.number(name, least, most, whole) if number is None else number
