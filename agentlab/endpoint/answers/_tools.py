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
from functools import partial
from itertools import islice
from typing import Any

from agentlab.endpoint.answers._arguments import WHOLE as _WHOLE
from agentlab.endpoint.answers._arguments import (
    Values,
    asked,
    from_results,
    from_task,
    sets_of,
    snake,
)
from agentlab.endpoint.answers._conversation import Conversation
from agentlab.endpoint.answers._naming import Named, ends_the_task, named, words
from agentlab.endpoint.answers._naming import suitable as suitable
from agentlab.endpoint.answers._prompt import unframe
from agentlab.endpoint.answers._rounds import Rounds
from agentlab.endpoint.answers._schema import build
from agentlab.endpoint.answers._things import things
from agentlab.endpoint.answers.replies import Writer
from agentlab.endpoint.contract.json_schema import Budget, CannotFill, Schema, admits
from agentlab.endpoint.contract.request import ChatRequest, Custom, Function

Call = tuple[str, str]  # the name of a function, and its arguments as JSON in a string

_MOST_PEOPLE = 100
_COWORKERS = re.compile(r"following coworkers?: (.+?)\n")
_MEMBER = re.compile(r"\bid=[\"']([^\"'\n]{1,100})[\"']([^\n]{0,200}(?:\n[^\n<]{0,200}){0,2})")
_PEOPLE = frozenset("coworker member agent assignee specialist worker teammate".split())
_ANSWER = frozenset("answer result response output text message content summary reply".split())


def calls(
    request: ChatRequest, said: Conversation, writer: Writer, draw: random.Random
) -> list[Call]:
    """Return what the model calls in this turn, or raise CannotFill; nothing if it speaks."""
    offered, task = request.offered, unframe(said.task).task
    if request.must_call_this:  # as structured output uses tools
        form = _Filling(said.task, writer, draw, as_form=True)
        return form.calls(offered[0], [_from_found(offered[0], said, ids=True)])
    filling, found = _Filling(said.task, writer, draw), writer.from_results(said.results)
    ending = [tool for tool in offered if request.must_call and ends_the_task(tool, offered)]
    useful = [tool for tool in offered if tool not in ending]
    people = partial(_people, task=task, system=said.system)
    team = [tool for tool in useful if people(tool)]
    needs = named([tool for tool in useful if tool not in team], task)
    if team and _manages(task, said.system):
        needs = [Named(team[0], task, 0)]
    due = Rounds(useful, needs, said, task, people).due()
    called = [call for tool, plan in due for call in filling.calls(tool, plan, found)]
    if not called and request.must_call:
        called = _forced(filling, ending, useful, said, found)
    return called[:1] if request.parallel_tool_calls is False else called


def fill_in(
    tools: Sequence[Function], prompt: str, writer: Writer, draw: random.Random, *, as_form: bool
) -> list[Call]:
    """Return a call of each tool, with its arguments filled; CannotFill if a schema forbids it."""
    filling, task = _Filling(prompt, writer, draw, as_form=as_form), unframe(prompt).task
    called = []
    for tool in tools:
        given = {} if as_form else from_task(tool, task) | _people(tool, task)
        called += filling.calls(tool, sets_of(tool, given)[:1])
    return called


def _forced(
    filling: _Filling,
    ending: Sequence[Function],
    useful: Sequence[Function],
    said: Conversation,
    answer: str,
) -> list[Call]:
    """Return the calls of a turn that has to have one: the answer, or else tools not called yet."""
    for tool in ending:
        strings = [each for each in asked(tool) if each.type == "string" and not each.many]
        said_in = [each for each in strings if _ANSWER & {*each.words}] or strings
        named = {name: known[0] for name, known in from_task(tool, filling.task).items()}
        given = (
            named
            | _from_found(tool, said, ids=False)
            | {each.name: answer or filling.writer.write() for each in said_in[:1]}
        )
        return filling.calls(tool, [given])
    called = {each.name for each in said.found}
    left = [tool for tool in useful if tool.name not in called] or useful
    chosen = suitable(left, filling.task) or left[:1]
    return [call for tool in chosen for call in filling.calls(tool, [{}])]


def _from_found(tool: Function, said: Conversation, *, ids: bool) -> dict[str, Any]:
    """Return the arguments that results hold: the `ids`, or those by their own names."""
    texts = [each.text for each in said.found]
    wanted = [each for each in asked(tool) if not ids or each.kind == "id"]
    held = {each.name: from_results(tool, each, texts, ids) for each in wanted}
    return {name: values[0] for name, values in held.items() if values}


def _people(tool: Function, task: str, system: str = "") -> Values:
    """Return whom a tool may hand a task to: those whom the task names, or who suits best."""
    wanted = [each.name for each in asked(tool) if _PEOPLE & {*each.words}]
    listed = _COWORKERS.search((tool.description or "") + "\n") if wanted else None
    about = {who.strip(): who for who in listed[1].split(",")} if listed else {}
    if wanted and not listed:
        about = {found[1]: found[0] for found in _MEMBER.finditer(system)}
    about = dict(islice(about.items(), _MOST_PEOPLE))
    if not about:
        return {}
    best = max(about, key=lambda who: len(words(about[who]) & words(task)))
    by_name = [who for who in about if not listed and re.search(rf"\b{re.escape(who)}\b", task)]
    return dict.fromkeys(wanted, by_name or [best])


def _manages(task: str, system: str) -> bool:
    """Return True if CrewAI or agno tells the model that it leads a team, or the task does."""
    told = system if _MEMBER.search(system) else ""
    return system.startswith("You are Crew Manager") or "delegate" in f"{task} {told}".lower()


class _Filling:
    """Fills the arguments of the calls of one turn."""

    def __init__(self, prompt: str, writer: Writer, draw: random.Random, *, as_form: bool = False):
        self._prompt, self.writer, self._draw, self._as_form = prompt, writer, draw, as_form
        self.task = unframe(prompt).task
        self._to_build, self._to_check = Budget(), Budget()

    def calls(
        self, tool: Function, plan: Sequence[Mapping[str, Any]], found: str = ""
    ) -> list[Call]:
        """Return the calls of a plan; what it gives is there as far as the schema admits it.

        The text of a custom tool is what was found, or the task.
        """
        if isinstance(tool, Custom):
            return [(tool.name, self._text(tool, found or self.task)) for _ in plan]
        if not plan:
            return []
        schema = {"type": "object", "properties": {}, **(tool.parameters or {})}
        filler = _FromPrompt(self._prompt, self.writer, as_form=self._as_form, given=plan[0])
        made = build(schema, filler, draw=self._draw, optional=self._as_form, budget=self._to_build)
        values = [self._with(schema, made, given) for given in plan]
        return [(tool.name, json.dumps(value, ensure_ascii=False)) for value in values]

    def _with(self, schema: Schema, made: Any, given: Mapping[str, Any]) -> Any:
        whole = [given, *({name: value} for name, value in given.items())]
        for some in whole:
            value = made | some
            if value == made or self._admits(schema, value):
                made = value
        return made

    def _admits(self, schema: Schema, value: Any) -> bool:
        try:
            return admits(schema, value, self._to_check)
        except CannotFill:  # too much to check
            return False

    def _text(self, tool: Custom, text: str) -> str:
        """Return a text that the grammar of a tool admits, if that is a regular expression."""
        grammar = tool.format.get("grammar", tool.format)
        if not isinstance(grammar, dict) or grammar.get("syntax") != "regex":
            return text
        schema = {"type": "string", "pattern": f"^(?:{grammar.get('definition')})$"}
        named = things(self.task)
        values = [value for group in (*named.names, *named.numbers) for value in group.values]
        fitting = (value for value in (text, *values) if self._admits(schema, value))
        made = next(fitting, None)
        return made or build(schema, self.writer, draw=self._draw, budget=self._to_build)


class _FromPrompt:
    """Fills a call's arguments with what the prompt says, and a form's with new words, too."""

    def __init__(self, prompt: str, writer: Writer, *, as_form: bool, given: Collection[str] = ()):
        self.writer, self._as_form = writer, as_form
        framed = unframe(prompt)
        self._said, self._task = prompt.lower(), framed.task.strip()
        self._context = framed.context or self._task
        named = things(self._task)
        self._numbers = (float(n.replace(",", "")) for g in named.numbers for n in g.values)
        left = named.names if as_form or not given else []  # what is given was taken from them
        self._names = (name for group in left for name in group.values)

    def text(self, name: str, schema: Schema) -> str:
        said = {*snake(name).split("_")}
        if "context" in said:
            return self._context
        if said & _WHOLE and not self._as_form:
            return self._task
        known = next(self._names, None)
        return known or (self.writer.text(name, schema) if self._as_form else self.writer.topic)

    def choose(self, name: str, options: Sequence[Any]) -> Any:
        return next((each for each in options if str(each).lower() in self._said), options[0])

    def number(self, name: str, least: float, most: float, whole: bool) -> float:
        fitting = (number for number in self._numbers if least <= number <= most)
        number = next(fitting, None)
        return self.writer.number(name, least, most, whole) if number is None else number
