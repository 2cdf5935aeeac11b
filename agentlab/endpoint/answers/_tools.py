"""Which of the tools it was offered the model calls in this turn, and with what arguments.

Left to choose, it calls those that the task names ("What is the weather in Seoul?" names
`get_weather`), once for each thing that the task names for them, as soon as the arguments are
known. No call is made again, so every loop ends. docs/local_model.md states the rule.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from agentlab.endpoint.answers._patterns import RE, SETS
from agentlab.endpoint.answers._prompt import glance, unframe
from agentlab.endpoint.answers._rounds import Named, Rounds, asked, coworkers, named, snake
from agentlab.endpoint.answers._schema import build
from agentlab.endpoint.answers._things import things
from agentlab.endpoint.answers.replies import Writer
from agentlab.endpoint.contract.json_schema import Budget, CannotFill, admits
from agentlab.endpoint.contract.request import ChatRequest, Custom, Function

Call = tuple[str, str]  # the name of a function, and its arguments as JSON; or a tool, and a text
Due = Sequence[tuple[Function, Sequence[dict[str, Any]]]]  # the calls of each tool


class Conversation(NamedTuple):
    """The task, and (tool, result) of each call made since the user set it, oldest first."""

    task: str
    made: list[tuple[str, str]]
    results: list[tuple[str, str]]  # without those that found nothing, or hand over


def conversation(request: ChatRequest) -> Conversation:
    """Return what was asked and found; some clients hand results back as the user's words."""
    task, made, names, before = "", list[tuple[str, str]](), dict[str | None, str](), ""
    offered = {tool.function.name for tool in request.tools or []}
    for message in request.messages:
        text = message.text
        names |= {call.id: call.function.name for call in message.tool_calls or []}
        observed = RE.observed.match(text) if offered and before else None
        if message.role == "tool":
            made.append((names[message.tool_call_id], text))
        elif message.role == "user" and observed:  # one for each call that the model's words name
            called = [word for word in re.findall(r"[\w-]+", before) if word in offered]
            made += [(name, text[observed.end() :].strip()) for name in called or [""]]
        elif message.role == "user":
            task, made = text, []
        before = text if message.role == "assistant" else ""
    told = [r for r in made if not (RE.hands_over.match(r[0]) or RE.nothing.match(r[1].strip()))]
    return Conversation(glance(task), made, told)


def calls(request: ChatRequest, said: Conversation, writer: Writer) -> list[Call]:
    """Return what the model calls in this turn, or raise CannotFill; nothing if it speaks."""
    offered, task, as_form = request.offered, unframe(said.task).task, request.must_call_this
    if as_form:  # as structured output uses tools
        due: Due = [(offered[0], [{}])]
    else:
        ends = [tool for tool in offered if request.must_call and RE.ending.fullmatch(tool.name)]
        useful = [tool for tool in offered if tool not in ends]
        due = Rounds(useful, task, said.made, said.results).due(_needs(request, useful, task))
        if request.must_call and not due:
            due = _forced(ends, useful, said, writer)
    called = fill_in(due, said.task, writer, as_form=as_form)
    return called[:1] if request.parallel_tool_calls is False else called


def _needs(request: ChatRequest, tools: Sequence[Function], task: str) -> list[Named]:
    """Return the tools that the task names; of CrewAI's manager, the one that hands it on."""
    team = [tool for tool in tools if coworkers(tool)]
    manages = any(text.startswith("You are Crew Manager") for _, text in request.turns)
    if team and (manages or "delegate" in task.lower()):
        return [Named(team[0], task, 0)]
    return named([tool for tool in tools if tool not in team], task)


def _forced(
    ending: Sequence[Function], useful: Sequence[Function], said: Conversation, writer: Writer
) -> Due:
    """Return the calls of a turn that has to have one: the answer, or tools not called yet."""
    for tool in ending:
        answer = writer.from_results(said.results) or writer.write()
        strings = [each.name for each in asked(tool) if each.type == "string" and not each.many]
        return [(tool, [dict.fromkeys(strings[:1], answer)])]
    left = [tool for tool in useful if tool.name not in dict(said.made)] or useful
    chosen = [each.tool for each in named(left, unframe(said.task).task)]
    return [(tool, [{}]) for tool in chosen or left[:1]]


def fill_in(due: Due, prompt: str, writer: Writer, *, as_form: bool = False) -> list[Call]:
    """Return the calls that are due, with all arguments; CannotFill if a schema forbids it."""
    called, to_build, to_check = list[Call](), Budget(), Budget()
    for tool, plan in due:
        if isinstance(tool, Custom):
            called += [(tool.name, unframe(prompt).task) for _ in plan]
            continue
        schema = {"type": "object", "properties": {}, **(tool.parameters or {})}
        filler = _FromPrompt(prompt, writer, as_form=as_form, given=any(plan))
        made = build(schema, filler, draw=writer.draw, optional=as_form, budget=to_build)
        for given in plan:
            value = made
            with suppress(CannotFill):  # too much to check
                value = made | given if admits(schema, made | given, to_check) else made
            called.append((tool.name, json.dumps(value, ensure_ascii=False)))
    return called


class _FromPrompt:
    """Fills a call's arguments with what the prompt says, and a form's with new words, too."""

    def __init__(self, prompt: str, writer: Writer, *, as_form: bool, given: bool):
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
        if words & SETS["whole"] and not self._as_form:
            return self._task
        said = next(self._names, None)
        return said or (self._writer.text(name, schema) if self._as_form else self._writer.topic)

    def choose(self, name: str, options: Sequence[Any]) -> Any:
        return next((each for each in options if str(each).lower() in self._said), options[0])

    def number(self, name: str, least: float, most: float, whole: bool) -> float:
        number = next((n for n in self._numbers if least <= n <= most), None)
        return self._writer.number(name, least, most, whole) if number is None else number
