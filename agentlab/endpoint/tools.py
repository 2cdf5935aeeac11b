"""Which of the tools it was offered the model calls, and with what arguments.

A stand-in cannot judge what a tool is good for, but it can act as a model that does:

- told to call one ("required", or by name), it does;
- left to choose, it calls those that the prompt names: "What is the weather in Seoul?" names
  `get_weather`. It calls each once and then answers from the results, so every loop ends;
- a manager of CrewAI's hands its task to the coworker that suits it best.

Arguments are taken from the prompt: proper names and quotations, numbers, or the task itself.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from agentlab.endpoint import schema as schemas
from agentlab.endpoint.asked import unframe
from agentlab.endpoint.replies import Writer
from agentlab.endpoint.request import ChatRequest, Function, NamedTool

Call = tuple[str, str]
"""The name of a function, and its arguments as JSON in a string."""

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
    """What the model calls in this turn; nothing if it speaks instead.

    Raises:
        CannotFill: If a tool's parameters ask for what cannot be built.
    """
    chosen = _chosen(request, prompt)
    if request.parallel_tool_calls is False:
        chosen = chosen[:1]
    as_form = isinstance(request.tool_choice, NamedTool)  # as structured output uses tools
    said, budget = Prompt(prompt), schemas.Budget()
    return [call(tool, said, writer, draw, as_form=as_form, budget=budget) for tool in chosen]


def call(
    tool: Function,
    prompt: Prompt,
    writer: Writer,
    draw: random.Random,
    *,
    as_form: bool = False,
    budget: schemas.Budget | None = None,
) -> Call:
    """A call of `tool` with what the prompt says.

    Args:
        as_form: Fill it as a form that the answer is to have, optional fields too.
        budget: What all calls of one turn may take.

    Raises:
        CannotFill: If its parameters ask for what cannot be built.
    """
    filler = _FromPrompt(tool, prompt, writer, as_form)
    value = schemas.build(tool.schema, filler, draw=draw, optional=as_form, budget=budget)
    return tool.name, json.dumps(value, ensure_ascii=False)


def _chosen(request: ChatRequest, prompt: str) -> list[Function]:
    offered, choice = request.offered, request.tool_choice
    if isinstance(choice, NamedTool):
        return [tool for tool in offered if tool.name == choice.function.name]
    called = {name for name, _ in request.results}
    if choice == "required":
        left = [tool for tool in offered if tool.name not in called] or offered
        return suitable(left, prompt) or left[:1]
    if called or not offered:
        return []
    if handing_on := [tool for tool in offered if _coworkers(tool)]:
        return handing_on[:1] if _is_manager(request, prompt) else []
    return suitable(offered, prompt)


def suitable(tools: Sequence[Function], prompt: str) -> list[Function]:
    """Those whose name shares a word with the prompt, or else the one whose description does."""
    words = _words(prompt)
    if by_name := [tool for tool in tools if words & _words(tool.name.replace("_", " "))]:
        return by_name
    shared = [len(words & _words((tool.description or "")[:_DESCRIBED])) for tool in tools]
    return [tools[shared.index(max(shared))]] if any(shared) else []


def _words(text: str) -> set[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return {word.lower().rstrip("s")[:7] for word in _WORD.findall(spaced)} - _IDLE


def _is_manager(request: ChatRequest, prompt: str) -> bool:
    system = next((text for role, text in request.turns if role in ("system", "developer")), "")
    return system.startswith("You are Crew Manager") or "delegate" in prompt.lower()


def _coworkers(tool: Function) -> list[str]:
    found = _COWORKERS.search((tool.description or "") + "\n")
    return [name.strip() for name in found[1].split(",")[:_MOST_COWORKERS]] if found else []


class Prompt:
    """What a prompt says, read once for all calls."""

    def __init__(self, text: str):
        self.lower = text.lower()
        self.framed = unframe(text)
        self.task = self.framed.task.strip()
        self.words = _words(self.task)
        self.numbers = [float(number) for number in _NUMBER.findall(self.task)]

    @cached_property
    def names(self) -> list[str]:
        """Quotations and proper names; where nothing is in Latin letters, nouns."""
        names = [*_QUOTED.findall(self.task), *_PROPER.findall(self.task)]
        if not re.search("[A-Za-z]", self.task):
            names += _KOREAN_NOUN.findall(self.task)
        return names


class _FromPrompt:
    """Fills arguments with what the prompt says; a form, where that is silent, with new words."""

    def __init__(self, tool: Function, prompt: Prompt, writer: Writer, as_form: bool):
        self._prompt, self._writer, self._as_form = prompt, writer, as_form
        self._people = _coworkers(tool)
        self._names, self._numbers = iter(prompt.names), iter(prompt.numbers)

    def text(self, name: str, schema: schemas.Schema) -> str:
        words = _words(name.replace("_", " ")) | {name.lower()}
        if self._people and "coworker" in words:
            return max(self._people, key=lambda who: len(_words(who) & self._prompt.words))
        if "context" in words:
            return self._prompt.framed.context or self._prompt.task
        if words & _WHOLE and not self._as_form:
            return self._prompt.task
        said = next(self._names, None)
        return said or (self._writer.text(name, schema) if self._as_form else self._writer.topic)

    def choose(self, name: str, options: Sequence[Any]) -> Any:
        said = self._prompt.lower
        return next((each for each in options if str(each).lower() in said), options[0])

    def number(self, name: str, least: float, most: float, whole: bool) -> float:
        fitting = (number for number in self._numbers if least <= number <= most)
        number = next(fitting, None)
        return self._writer.number(name, least, most, whole) if number is None else number
