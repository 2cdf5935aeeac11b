"""Which of the tools it was offered the model calls in this turn, and with what arguments.

Left to choose, it calls those that the task names ("What is the weather in Seoul?" names
`get_weather`), once for each thing that the task names for them, as soon as the arguments are
known. No call is made again, so every loop ends. docs/local_model.md states the rule.

Tools that a prompt describes in words are called in lines after ReAct (Yao et al., 2022), or in
code: each that suits the task once.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from agentlab.endpoint.answers import _rounds
from agentlab.endpoint.answers._form import Form, read_object, schema_of, typed
from agentlab.endpoint.answers._patterns import RE, SETS
from agentlab.endpoint.answers._prompt import glance, unframe
from agentlab.endpoint.answers._rounds import Named, Rounds, Tools, asked, coworkers, named, sets_of
from agentlab.endpoint.answers._schema import build
from agentlab.endpoint.answers.replies import Writer
from agentlab.endpoint.contract.json_schema import Budget, CannotFill, admits, problem
from agentlab.endpoint.contract.request import ChatRequest, Custom, Function

Call = tuple[str, str]  # the name of a function, and its arguments as JSON; or a tool, and a text
Due = Sequence[tuple[Function, Sequence[dict[str, Any]]]]  # the calls of each tool
Turns = Sequence[tuple[str, str]]  # (role, text), oldest first


class Conversation(NamedTuple):
    """The task, and the calls made since the user set it, oldest first."""

    task: str
    made: _rounds.Made
    results: _rounds.Results  # without those that found nothing, or hand over
    before: set[str]  # tools called for the task before, of which "And in Paris?" goes on


def conversation(request: ChatRequest) -> Conversation:
    """Return what was asked and found; some clients hand results back as the user's words."""
    task, made, calls, before = "", list[tuple[str, str, Any]](), dict[str | None, Any](), ""
    earlier = set[str]()
    offered = {tool.function.name for tool in request.tools or ()}
    for message in request.messages:
        text = message.text
        if message.tool_calls:
            calls |= {call.id: call.function for call in message.tool_calls}
        observed = RE.observed.match(text) if offered and before else None
        if message.role == "tool":
            call = calls[message.tool_call_id]
            made.append((call.name, text, _rounds.data(call.arguments)))
        elif message.role == "user" and observed:  # one for each call that the model's words name
            called = [word for word in re.findall(r"[\w-]+", before) if word in offered]
            made += [(name, text[observed.end() :].strip(), None) for name in called or [""]]
        elif message.role == "user":
            earlier = {name for name, *_ in made} if RE.goes_on.match(text) else set()
            task, made = text, []
            if "tool_name_" in text:
                said = zip(*(step.findall(text) for step in RE.each("steps")), strict=False)
                made = [(*each, None) for each in said]
        before = text if message.role == "assistant" else ""
    told = [r for r in made if not (RE.hands_over.match(r[0]) or RE.nothing.match(r[1].strip()))]
    return Conversation(glance(task), made, [each[:2] for each in told], earlier)


def calls(request: ChatRequest, said: Conversation, told: str, writer: Writer) -> list[Call]:
    """Return what the model calls in this turn, or raise CannotFill; nothing if it speaks."""
    offered, task, as_form = request.offered, unframe(said.task).task, request.must_call_this
    if as_form:  # as structured output uses tools
        due: Due = [(offered[0], sets_of(offered[0], _rounds.from_task(offered[0], task))[:1])]
    else:
        ends = [tool for tool in offered if request.must_call and RE.ending.fullmatch(tool.name)]
        useful = [tool for tool in offered if tool not in ends]
        needs = _needs(request, useful, task, said.before)
        due = Rounds(useful, task, said.made, said.results, told).due(needs)
        if request.must_call and not due:
            due = _forced(ends, useful, said, writer)
    called = fill_in(due, said.task, writer, as_form=as_form)
    return called[:1] if request.parallel_tool_calls is False else called


def _needs(request: ChatRequest, tools: Tools, task: str, before: set[str]) -> list[Named]:
    """Return the tools that the task names; of CrewAI's manager, the one that hands it on."""
    team = [tool for tool in tools if coworkers(tool)]
    manages = any(text.startswith("You are Crew Manager") for _, text in request.turns)
    if team and (manages or "delegate" in task.lower()):
        return [Named(team[0], task, 0)]
    again = [Named(tool, task, 0) for tool in tools if tool.name in before]
    again = again if any(_rounds.from_task(each.tool, task) for each in again) else []
    return named([tool for tool in tools if tool not in team], task) or again


def _forced(ending: Tools, useful: Tools, said: Conversation, writer: Writer) -> Due:
    """Return the calls of a turn that has to have one: the answer, or tools not called yet."""
    for tool in ending:
        answer = writer.found or writer.write()
        strings = [each.name for each in asked(tool) if each.type == "string" and not each.many]
        return [(tool, [dict.fromkeys(strings[:1], answer)])]
    left = [t for t in useful if t.name not in {name for name, _, _ in said.made}] or useful
    chosen = [each.tool for each in named(left, unframe(said.task).task)]
    return [(tool, [{}]) for tool in chosen or left[:1]]


def fill_in(due: Due, prompt: str, writer: Writer, *, as_form: bool = False) -> list[Call]:
    """Return the calls that are due, with all arguments; CannotFill if a schema forbids it."""
    called, to_build, to_check = list[Call](), Budget(), Budget()
    for tool, plan in due:
        if isinstance(tool, Custom):
            called += [(tool.name, unframe(prompt).task) for _ in plan]
            continue
        schema = {"properties": {}, **(tool.parameters or {}), "type": "object"}
        filler = _FromPrompt(prompt, writer, as_form=as_form, given=any(plan))
        made = build(schema, filler, optional=as_form, budget=to_build)
        for given in plan:
            value = made
            with suppress(CannotFill):  # too much to check
                value = made | given if admits(schema, made | given, to_check) else made
            called.append((tool.name, json.dumps(value, ensure_ascii=False)))
    return called


class _FromPrompt:
    """Fills a call's arguments with what the prompt says, and a form's with new words, too."""

    def __init__(self, prompt: str, writer: Writer, *, as_form: bool, given: bool):
        self._writer, self._as_form, self.draw = writer, as_form, writer.draw
        framed = unframe(prompt)
        self._said, self._task = prompt.lower(), framed.task.strip()
        self._context = framed.context or self._task
        said = _rounds.things(self._task)
        self._numbers = (float(n.replace(",", "")) for g in said.numbers for n in g.values)
        left = said.names if as_form or not given else []  # what is given was taken from them
        names = (name for group in left for name in group.values)
        self._names = (n for n in names if not (as_form and RE.formatted.fullmatch(n)))

    def text(self, name: str, schema: Mapping[str, Any]) -> str:
        words = {*_rounds.snake(name)}
        if "context" in words:
            return self._context
        if words & SETS["whole"] and not self._as_form:
            return self._task
        if "format" in schema:
            return self._writer.text(name, schema)
        quoted = (each["quoted"] for each in RE.thing.finditer(self._task) if words & SETS["told"])
        said = next(filter(None, quoted), None) or next(self._names, None)
        return said or (self._writer.text(name, schema) if self._as_form else self._writer.topic)

    def choose(self, name: str, options: Sequence[Any]) -> Any:
        if options[0] is True:
            return not RE.turned_off.search(self._said)
        return next(iter(_rounds.chosen(options, self._said)), options[0])

    def number(self, name: str, least: float, most: float, whole: bool) -> float:
        fits = (n for n in self._numbers if least <= n <= most and not (whole and n % 1))
        number = next(fits, None)
        return self._writer.number(name, least, most, whole) if number is None else number


def describes_tools(turns: Turns) -> bool:
    """Return True if a conversation wants tools called in lines or code that it describes."""
    return any(
        0 <= text.find("Action Input:") < text.rfind("Answer:") or RE.fences_of_code.search(text)
        for role, text in turns
        if role != "assistant"
    )


def speak(turns: Turns, writer: Writer) -> str:
    """Return what asks for one tool, or answers after its result; or raise CannotFill."""
    guide = _guide(turns)
    task, pad, later = split(turns)
    done = "\n".join([pad, *(text for _, text in later)])
    results = [RE.logs.sub("", text).strip() for text in RE.observation.findall(done)]
    called = [name or also for name, also in RE.called.findall(RE.observation.sub("", done))]
    due = _due(guide, task, [*zip(called, results, strict=False)])
    call = next(iter(fill_in(due, task, writer)), None)
    said = "" if call else writer.from_results([("", text) for text in results]) or writer.write()
    if marks := RE.fences_of_code.search(guide):
        name, arguments = call or ("final_answer", json.dumps({"answer": said}))
        told = ", ".join(f"{key}={value!r}" for key, value in json.loads(arguments).items())
        lines = f"print({name}({told}))" if call else f"{name}({told})"
        return f"Thought: {name} can help here.\n{marks[1]}\n{lines}\n{marks[2]}"
    if call is None:
        label = "Final Answer" if "Final Answer:" in guide else "Answer"
        return f"Thought: I now know the final answer\n{label}: {said}"
    name, arguments = call
    values = json.loads(arguments)
    if "Tool Name: " not in guide and len(values) == 1:  # such tools take the text itself
        arguments = str(*values.values())
    return f"Thought: {name} can help here.\nAction: {name}\nAction Input: {arguments}"


def with_call(turns: Turns, said: Conversation, writer: Writer) -> Form | None:
    """Return the writer's form, with the next call in the fields that DSPy's ReAct has for it."""
    form = writer.form
    fields = form.schema.get("properties", {}) if form and form.schema else {}
    if form is None or "next_tool_name" not in fields:
        return form
    due = _due(_guide(turns), said.task, [each[:2] for each in said.made])
    name, arguments = [*fill_in(due, said.task, writer), ("finish", "{}")][0]
    value = json.loads(arguments) if form.written == "json" else arguments
    known = {"next_tool_name": {"const": name}, "next_tool_args": {"const": value}}
    return form._replace(schema=schema_of({**fields, **known}))


def split(turns: Turns) -> tuple[str, str, Turns]:
    """Return the task, what its message says after it, and the turns that follow."""
    users = [at for at, (role, _) in enumerate(turns) if role == "user"]
    asked = [at for at in users if not turns[at][1].lstrip().startswith("Observation:")]
    at = ([at for at in asked if RE.leads.search(turns[at][1])] or asked or [0])[-1]
    text = turns[at][1]
    if "Action Input:" in text:
        text = RE.question.split(text)[-1]
    pad = RE.after_the_task.search(text)
    end = pad.start() if pad else len(text)
    return glance(text[:end].strip()), text[end:], turns[at + 1 :]


def _due(guide: str, task: str, found: _rounds.Results) -> Due:
    """Return the first of the calls that are due."""
    tools = [tool for tool in _described(guide) if tool.name not in ("final_answer", "finish")]
    task = unframe(task).task
    needs = named(tools, task)
    if "Tool Arguments: " in guide:  # CrewAI's agents have tools because their tasks need them
        chosen = [each.tool for each in needs] or tools
        return [] if found else [(tool, [{}]) for tool in chosen[:1]]
    due = Rounds(tools, task, [(*each, None) for each in found], found, "").due(needs)
    return [(tool, plan[:1]) for tool, plan in due[:1]]


def _guide(turns: Turns) -> str:
    return glance("\n".join(text for role, text in turns if role != "assistant"))


def _described(text: str) -> list[Function]:
    for pattern in RE.each("described"):
        if found := list(pattern.finditer(text)):
            return [_tool(each, text) for each in found]
    offered = RE.names_offered.search(text)
    names = {*re.findall(r"[\w-]+", offered[1])} if offered else set()
    found = [each for each in RE.signature.finditer(text) if each["name"] in names]
    return [_tool(each, text) for each in found[:100]]


def _tool(said: re.Match[str], text: str) -> Function:
    name, about, line = said["name"].strip(), said["about"] or "", said["inputs"] or ""
    value: Any = None
    if line.startswith("{"):
        with suppress(ValueError):
            value = read_object(text, said.start("inputs"))[0]
    elif line:
        parts = [part.partition("=")[0].partition(":") for part in line.strip("()").split(",")]
        value = {key.strip(): typed(kind) for key, _, kind in parts if key.strip().isidentifier()}
    if isinstance(value, dict) and not isinstance(value.get("properties"), dict):
        value = schema_of({key: {} if problem(each) else each for key, each in value.items()})
    known = isinstance(value, dict) and not problem(value)
    return Function(name, about, dict(value if known else schema_of({"input": {"type": "string"}})))
