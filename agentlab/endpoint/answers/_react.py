"""Tools that the prompt describes in words, called in lines after ReAct (Yao et al., 2022) or code.

The lines are Thought, Action and Action Input; then the client writes Observation. Each tool that
suits the task is called once; then comes the answer, so that every loop ends.
"""

import ast
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from agentlab.endpoint.answers._form import Form, read_json, schema_of, typed
from agentlab.endpoint.answers._patterns import RE
from agentlab.endpoint.answers._prompt import glance, unframe
from agentlab.endpoint.answers._rounds import named
from agentlab.endpoint.answers._tools import Due, fill_in
from agentlab.endpoint.answers.replies import Writer
from agentlab.endpoint.contract.json_schema import problem
from agentlab.endpoint.contract.request import Function

Turns = Sequence[tuple[str, str]]  # (role, text), oldest first

_INPUT = schema_of({"input": {"type": "string"}})


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
    due = _due(guide, task, {name or also for name, also in RE.called.findall(done)}, results)
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


def with_call(turns: Turns, writer: Writer) -> Form | None:
    """Return the writer's form, with the next call in the fields that DSPy's ReAct has for it."""
    form = writer.form
    fields = form.schema.get("properties", {}) if form and form.schema else {}
    if form is None or "next_tool_name" not in fields:
        return form
    prompt = next(text for role, text in reversed(turns) if role == "user")
    task = prompt.partition("[[ ## trajectory ## ]]")[0]
    called = set(re.findall(r"^\[\[ ## tool_name_\d+ ## \]\]\n(\w+)", prompt, re.M))
    due = _due(_guide(turns), task, called, [])
    name, arguments = [*fill_in(due, task, writer), ("finish", "{}")][0]
    known = {"next_tool_name": {"const": name}, "next_tool_args": {"const": json.loads(arguments)}}
    return form._replace(schema=schema_of({**fields, **known}))


def split(turns: Turns) -> tuple[str, str, Turns]:
    """Return the task, what its message says after it, and the turns that follow."""
    users = [at for at, (role, _) in enumerate(turns) if role == "user"]
    asked = [at for at in users if not turns[at][1].lstrip().startswith("Observation:")]
    at = ([at for at in asked if RE.leads.search(turns[at][1])] or asked or [0])[-1]
    text = turns[at][1]
    if "Action Input:" in text and (start := text.rfind("\nQuestion:")) >= 0:
        text = text[start + len("\nQuestion:") :].lstrip()
    pad = RE.after_the_task.search(text)
    end = pad.start() if pad else len(text)
    return glance(text[:end].strip()), text[end:], turns[at + 1 :]


def _due(guide: str, task: str, called: set[str], results: list[str]) -> Due:
    """Return a call of the first tool that the task names and that was not called yet."""
    tools = [tool for tool in _tools(guide) if tool.name not in ("final_answer", "finish")]
    chosen = [each.tool for each in named(tools, unframe(task).task)]
    if "Tool Arguments: " in guide:  # CrewAI's agents have tools because their tasks need them
        chosen = [] if results else (chosen or tools)[:1]
    return [(tool, [{}]) for tool in chosen if tool.name not in called][:1]


def _guide(turns: Turns) -> str:
    return glance("\n".join(text for role, text in turns if role != "assistant"))


def _tools(text: str) -> list[Function]:
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
        with suppress(ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            value = read_json(json.dumps(ast.literal_eval(line)))[0]
        with suppress(ValueError, RecursionError):
            value = read_json(text, said.start("inputs"))[0]
    elif line:
        parts = [part.partition("=")[0].partition(":") for part in line.strip("()").split(",")]
        value = {key.strip(): typed(kind) for key, _, kind in parts if key.strip().isidentifier()}
    if isinstance(value, dict) and not isinstance(value.get("properties"), dict):
        value = schema_of({key: {} if problem(each) else each for key, each in value.items()})
    known = isinstance(value, dict) and not problem(value)
    return Function(name, about, dict(value if known else _INPUT))
