"""Which of the tools it was offered the model calls, in which round, and with what arguments.

Left to choose, it calls those that the task names ("What is the weather in Seoul?" names
`get_weather`), once for each thing that the task names for them, as soon as the arguments are
known. No call is made again, so every loop ends. docs/local_model.md states the rule.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from agentlab.endpoint.answers._arguments import (
    WHOLE,
    asked,
    coworkers,
    from_results,
    from_task,
    sets_of,
    snake,
)
from agentlab.endpoint.answers._prompt import glance, unframe
from agentlab.endpoint.answers._rounds import Named, Rounds, named
from agentlab.endpoint.answers._rounds import suitable as suitable
from agentlab.endpoint.answers._schema import build
from agentlab.endpoint.answers._things import things
from agentlab.endpoint.answers.replies import Writer
from agentlab.endpoint.contract.json_schema import Budget, CannotFill, admits
from agentlab.endpoint.contract.request import ChatRequest, Custom, Function, Message

Call = tuple[str, str]  # the name of a function, and its arguments as JSON; or a tool, and a text

_ENDING = re.compile(
    r"final_.+|(?:submit|finish|complete|end|done|terminate|exit)"
    r"(?:_(?:the|final|answer|result|response|task|run|conversation)s?)*"
)
_ANSWER = frozenset("answer result response output text message content summary reply".split())
_OBSERVED = re.compile(
    r"\s*(?:<tool_response>|(?:observations?|(?:tool|function)[ _](?:results?|outputs?|responses?))"
    r"(?: (?:from|of|for) [\w-]{1,64}| ?[\d(#][\w#-]{0,64}\)?)?[ \t]*[:\n])\s*",
    re.IGNORECASE,
)
_HANDS_OVER = re.compile(r"transfer_(?:back_)?to_|hand_?off|hand_over", re.IGNORECASE)
_NOTHING = re.compile(
    r"(?:no(?!\.)|nothing|none|not any)\b[^\n]{0,80}?\b(?:found|match(?:es|ed|ing)?|available"
    r"|results?)\b[^\n]{0,40}$|(?:none|null|nothing|n/a|\[\s*\]|\{\s*\}|\"\")?[.!]?$"
    r"|[^\n]{0,80}(?:찾을 수 없|찾지 못|(?:결과|기록|자료|정보)[가이]? 없)",
    re.IGNORECASE,
)


class Conversation(NamedTuple):
    """The task, and (tool, result) of each call made since the user set it, oldest first."""

    task: str
    made: list[tuple[str, str]]

    @property
    def results(self) -> list[tuple[str, str]]:
        """Those that say something, and not that nothing was found, or who speaks now."""
        told = [(name, text) for name, text in self.made if not _HANDS_OVER.match(name)]
        return [(name, text) for name, text in told if not _NOTHING.match(text.strip())]


def conversation(request: ChatRequest) -> Conversation:
    """Return what was asked and found; some clients hand results back as the user's words."""
    task, made, names = "", list[tuple[str, str]](), dict[str | None, str]()
    before: Message | None = None
    for message in request.messages:
        names |= {call.id: call.function.name for call in message.tool_calls or []}
        if message.role == "tool":
            made.append((names[message.tool_call_id], message.text))
        elif message.role == "user" and (observed := _observed(request, before, message)):
            made += observed
        elif message.role == "user":
            task, made = message.text, []
        before = message
    return Conversation(glance(task), made)


def _observed(request: ChatRequest, before: Message | None, said: Message) -> list[tuple[str, str]]:
    """Return the results in a user's words, one for each call that the model's words name."""
    heading = _OBSERVED.match(said.text) if request.tools else None
    if not (heading and before and before.role == "assistant"):
        return []
    offered = {tool.function.name for tool in request.tools or []}
    called = [word for word in re.findall(r"[\w-]+", before.text) if word in offered]
    return [(name, said.text[heading.end() :].strip()) for name in called or [""]]


def calls(
    request: ChatRequest, said: Conversation, writer: Writer, draw: random.Random
) -> list[Call]:
    """Return what the model calls in this turn, or raise CannotFill; nothing if it speaks."""
    offered, task = request.offered, unframe(said.task).task
    filling = _Filling(said.task, writer, draw, as_form=request.must_call_this)
    if request.must_call_this:  # as structured output uses tools
        return filling.calls(offered[0], [_found(offered[0], said)])
    ending = [tool for tool in offered if request.must_call and _ends(tool, offered)]
    useful = [tool for tool in offered if tool not in ending]
    team = [tool for tool in useful if coworkers(tool)]
    needs = named([tool for tool in useful if tool not in team], task)
    manages = any(text.startswith("You are Crew Manager") for _, text in request.turns)
    if team and (manages or "delegate" in task.lower()):
        needs = [Named(team[0], task, 0)]
    due = Rounds(useful, task, said.made, said.results).due(needs)
    called = [call for tool, plan in due for call in filling.calls(tool, plan)]
    if request.must_call and not called and ending:
        answer = writer.from_results(said.results) or writer.write()
        called = filling.calls(ending[0], [_found(ending[0], said) | _answer(ending[0], answer)])
    elif request.must_call and not called:
        made = {name for name, _ in said.made}
        left = [tool for tool in useful if tool.name not in made] or useful
        chosen = suitable(left, task) or left[:1]
        called = [call for tool in chosen for call in filling.calls(tool, [{}])]
    return called[:1] if request.parallel_tool_calls is False else called


def fill_in(tool: Function, prompt: str, writer: Writer, draw: random.Random) -> Call:
    """Return a call of a tool, with its arguments filled; CannotFill if a schema forbids it."""
    given = sets_of(tool, from_task(tool, unframe(prompt).task))[:1]
    return _Filling(prompt, writer, draw).calls(tool, given)[0]


def _ends(tool: Function, others: Sequence[Function]) -> bool:
    """Return True if a call is the answer: of `final_answer`, or of a class beside functions."""
    a_class = tool.name[:1].isupper() and any(other.name[:1].islower() for other in others)
    return a_class or bool(_ENDING.fullmatch("_".join(snake(tool.name))))


def _answer(tool: Function, answer: str) -> dict[str, Any]:
    strings = [each for each in asked(tool) if each.type == "string" and not each.many]
    said_in = [each for each in strings if _ANSWER & {*each.words}] or strings
    return {each.name: answer for each in said_in[:1]}


def _found(tool: Function, said: Conversation) -> dict[str, Any]:
    """Return the arguments that results hold by their names; ids are their own."""
    texts = [text for _, text in said.made]
    held = {each.name: from_results(each, texts, each.kind == "id") for each in asked(tool)}
    return {name: values[0] for name, values in held.items() if values}


class _Filling:
    """Fills the arguments of the calls of one turn."""

    def __init__(self, prompt: str, writer: Writer, draw: random.Random, *, as_form: bool = False):
        self._prompt, self._writer, self._draw, self._as_form = prompt, writer, draw, as_form
        self._to_build, self._to_check = Budget(), Budget()

    def calls(self, tool: Function, plan: Sequence[Mapping[str, Any]]) -> list[Call]:
        """Return the calls of a plan; what it gives is there as far as the schema admits it."""
        if isinstance(tool, Custom):
            return [(tool.name, unframe(self._prompt).task) for _ in plan]
        if not plan:
            return []
        schema = {"type": "object", "properties": {}, **(tool.parameters or {})}
        filler = _FromPrompt(self._prompt, self._writer, as_form=self._as_form, given=plan[0])
        made = build(schema, filler, draw=self._draw, optional=self._as_form, budget=self._to_build)
        values = [self._with(schema, made, given) for given in plan]
        return [(tool.name, json.dumps(value, ensure_ascii=False)) for value in values]

    def _with(self, schema: Mapping[str, Any], made: Any, given: Mapping[str, Any]) -> Any:
        for some in (given, *({name: value} for name, value in given.items())):
            value = made | some
            try:
                made = value if admits(schema, value, self._to_check) else made
            except CannotFill:  # too much to check
                break
        return made


class _FromPrompt:
    """Fills a call's arguments with what the prompt says, and a form's with new words, too."""

    def __init__(self, prompt: str, writer: Writer, *, as_form: bool, given: Collection[str] = ()):
        self._writer, self._as_form = writer, as_form
        framed = unframe(prompt)
        self._said, self._task = prompt.lower(), framed.task.strip()
        self._context = framed.context or self._task
        said = things(self._task)
        self._numbers = (float(n.replace(",", "")) for g in said.numbers for n in g.values)
        left = said.names if as_form or not given else []  # what is given was taken from them
        self._names = (name for group in left for name in group.values)

    def text(self, name: str, schema: Mapping[str, Any]) -> str:
        words = {*snake(name)}
        if "context" in words:
            return self._context
        if words & WHOLE and not self._as_form:
            return self._task
        said = next(self._names, None)
        return said or (self._writer.text(name, schema) if self._as_form else self._writer.topic)

    def choose(self, name: str, options: Sequence[Any]) -> Any:
        return next((each for each in options if str(each).lower() in self._said), options[0])

    def number(self, name: str, least: float, most: float, whole: bool) -> float:
        fitting = (number for number in self._numbers if least <= number <= most)
        number = next(fitting, None)
        return self._writer.number(name, least, most, whole) if number is None else number
