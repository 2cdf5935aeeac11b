"""Tools that the prompt describes in words, called in lines after ReAct (Yao et al., 2022) or code.

The lines are Thought, Action and Action Input; then the client writes Observation. Each tool that
suits the task is called once; then comes the answer, so that every loop ends.
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

from agentlab.endpoint.answers._form import Form, read_json
from agentlab.endpoint.answers._listed import typed
from agentlab.endpoint.answers._prompt import glance, unframe
from agentlab.endpoint.answers._tools import Call, fill_in, suitable
from agentlab.endpoint.answers.replies import Writer
from agentlab.endpoint.contract.json_schema import problem
from agentlab.endpoint.contract.request import Function

Turns = Sequence[tuple[str, str]]  # (role, text), oldest first
Dialect = Literal["lines", "code"]

_DESCRIBED = [  # a tool's name, its description, and its arguments: schema, properties or signature
    r"^(?:> )?Tool Name: (?P<name>.+)\nTool Description: (?P<about>.*(?:\n(?!Tool ).*){0,9}?)\n"
    r"Tool Args: (?P<inputs>\{)",
    r"^Tool Name: (?P<name>.+)\nTool Arguments: (?P<inputs>\{.*)?"
    r"(?:\nTool Description: (?P<about>.*))?",
    r"^def (?P<name>\w+)\((?P<inputs>[^()\n]*)\)[^\n]*:\s*\"\"\"\s*(?P<about>.*)",
    r"^- (?P<name>\w+): (?P<about>.*)\n\s+Takes inputs: (?P<inputs>\{.*\})",
    r"^\s*\(\d+\) (?P<name>\w+), [^<\n]*<desc>(?P<about>[^<]*)</desc>[^<\n]*"
    r" arguments (?P<inputs>\{.*\})",
]
_NAMES = re.compile(r"(?:one (?:name )?of \[|\"Final Answer\" or )([^\]\n]{1,2000})")
_ACTION = re.compile(r"^Action:([^\n]*)\n+Action Input:|\"action\": *\"([^\"\n]+)\"", re.M)
_OBSERVATION = re.compile(r"^Observation: *(.*?)(?=\n(?:Thought|Action):|\Z)", re.M | re.S)
_LOGS = re.compile(
    r"\A(?:Observation:|Execution logs:|Result of [^\n]*:|\s)+|Last output from.*", re.S
)
_INPUT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
_CODE = re.compile(
    r"opened with '([^'\n]{1,20})',? and closed with '([^'\n]{1,20})'"
    r"|\bcode\b.{0,40}(<\w+>)(?:\.\.\.)?(</\w+>)|(```py)\n[^`]{1,2000}(```<end_code>)"
    r"|\b[Cc]ode\b.{0,40} fenced code block|'Code' attribute"
)
_PRINT = "print(result)"
_ENDS, _MOST_TOOLS = ("final_answer", "finish"), 100
_SIGNATURE = (  # behind a name: "(city: str) -> str - Get the weather, args: {...}"
    r"(?P<sig>\([^\n]{0,500}?\))?(?: -> [^\n]{1,80}?)? ?[-:] (?P<about>.*?)"
    r"(?:, args: (?P<inputs>\{.*\}))?$"
)
_LEADS = re.compile(r"\A\s*(?:New task:\n|Current Task: )|^Question:", re.M)
_SCRATCHPAD = re.compile(r"\n(?:Thought:|This was your previous work| *\(reminder)")


def dialect(turns: Turns) -> Dialect | None:
    """Return how a conversation wants the tools called that it describes in words, if it does."""
    for role, text in turns:
        lines = 0 <= text.find("Action Input:") < text.rfind("Answer:") or '"action_input"' in text
        if lines and role != "assistant":
            return "lines"
        if role in ("system", "developer") and _CODE.search(text) and _tools(glance(text)):
            return "code"
    return None


def react(turns: Turns, writer: Writer, draw: random.Random) -> str:
    """Return the lines that ask for one tool, or that answer after its result; or CannotFill."""
    guide = _said(turns, "system", "developer", "user")
    task, pad, later = _split(turns)
    done = "\n".join([pad, *(text for _, text in later)])
    called = [(first or second).strip() for first, second in _ACTION.findall(done)]
    results = [text.strip() for text in _OBSERVATION.findall(done)]
    in_json = '"action_input"' in guide
    call = _next_call(guide, task, called, results, writer, draw)
    if call is None:
        said = _answer(results, writer)
        label = "Final Answer" if "Final Answer:" in guide else "Answer"
        said = _blob("Final Answer", said) if in_json else f"{label}: {said}"
        return f"Thought: I now know the final answer\n{said}"
    name, arguments = call
    values = json.loads(arguments)
    if "Tool Name: " not in guide and len(values) == 1:  # such tools take the text itself
        arguments = str(*values.values())
    said = _blob(name, values) if in_json else f"Action: {name}\nAction Input: {arguments}"
    return f"Thought: {name} can help here.\n{said}"


def code(turns: Turns, writer: Writer, draw: random.Random) -> tuple[str, str]:
    """Return the code that calls one tool, or that answers after its result, bare and as asked.

    If no tool ends the task, the answer is not code. CannotFill if a tool asks too much.
    """
    guide = _said(turns, "system", "developer")
    marks = [mark for found in _CODE.finditer(guide) for mark in found.groups() if mark]
    opening, closing = marks[:2] or ("```python", "```")
    task, _, later = _split(turns)
    called = re.findall(
        r"\w+(?=\()", "\n".join(text for role, text in later if role == "assistant")
    )
    seen = [at for at in range(len(turns) - len(later), len(turns)) if _observed(turns, at)]
    results = [_LOGS.sub("", turns[at][1]).strip() for at in seen]
    name = "final_answer"
    if call := _next_call(guide, task, called, results, writer, draw):
        name, arguments = call
        values = ", ".join(f"{key}={value!r}" for key, value in json.loads(arguments).items())
        lines = f"result = {name}({values})\n{_PRINT}"
    elif name in guide:
        lines = f"{name}({json.dumps(_answer(results, writer), ensure_ascii=False)})"
    else:
        return "", _answer(results, writer)
    return lines, f"Thought: {name} can help here.\n{opening}\n{lines}\n{closing}"


def with_call(turns: Turns, writer: Writer, draw: random.Random) -> Form | None:
    """Return the writer's form, with the next call in the fields that DSPy's ReAct has for it."""
    form = writer.form
    if form is None or "next_tool_name" not in (form.schema or {}).get("properties", {}):
        return form
    prompt = next(text for role, text in reversed(turns) if role == "user")
    task = unframe(prompt.partition("[[ ## trajectory ## ]]")[0]).task
    called = re.findall(r"^\[\[ ## tool_name_\d+ ## \]\]\n(\w+)", prompt, re.M)
    call = _next_call(_said(turns, "system", "developer"), task, called, [], writer, draw)
    name, arguments = call or ("finish", "{}")
    known = {"next_tool_name": {"const": name}, "next_tool_args": {"const": json.loads(arguments)}}
    return form.with_types(known)


def task(turns: Turns) -> str:
    """Return what the user wants done, without a framework's words, calls and results."""
    return _split(turns)[0]


def _split(turns: Turns) -> tuple[str, str, Turns]:
    """Return the task, what its message says after it, and the turns that follow."""
    asked = [at for at, turn in enumerate(turns) if turn[0] == "user" and not _observed(turns, at)]
    at = ([at for at in asked if _LEADS.search(turns[at][1])] or asked or [0])[-1]
    text = turns[at][1]
    if "Action Input:" in text and (start := text.rfind("\nQuestion:")) >= 0:
        text = text[start + len("\nQuestion:") :].lstrip()
    pad = _SCRATCHPAD.search(text)
    end = pad.start() if pad else len(text)
    return glance(text[:end].strip()), text[end:], turns[at + 1 :]


def _observed(turns: Turns, at: int) -> bool:
    """Return True if the user passes on a tool's result there, or what our code has printed."""
    role, text = turns[at]
    ran = at > 0 and turns[at - 1][0] == "assistant" and _PRINT in turns[at - 1][1]
    return role == "user" and (ran or text.lstrip().startswith("Observation:"))


def _next_call(
    guide: str,
    task: str,
    called: list[str],
    results: list[str],
    writer: Writer,
    draw: random.Random,
) -> Call | None:
    """Return the next call of a tool that suits the task and was not called; None to answer."""
    tools = _tools(guide)
    chosen = suitable([tool for tool in tools if tool.name not in _ENDS], unframe(task).task)
    if "Tool Arguments: " in guide:  # CrewAI's agents have tools because their tasks need them
        chosen = [] if results else (chosen or tools)[:1]
    left = [tool for tool in chosen if tool.name not in called][:1]
    return next(iter(fill_in(left, task, writer, draw, as_form=False)), None)


def _answer(results: list[str], writer: Writer) -> str:
    found = [("", text) for text in results if not text.startswith("Error")]
    return writer.from_results(found) or writer.write()


def _said(turns: Turns, *roles: str) -> str:
    return glance("\n".join(text for role, text in turns if role in roles))


def _blob(action: str, value: Any) -> str:
    told = json.dumps({"action": action, "action_input": value}, ensure_ascii=False)
    return f"Action:\n```\n{told}\n```"


def _tools(text: str) -> list[Function]:
    """Return the tools that a conversation describes in words."""
    for pattern in _DESCRIBED:
        if found := list(re.finditer(pattern, text, re.M)):
            return [_tool(each["name"], each, text) for each in found]
    names = _NAMES.search(text)
    listed = [name.strip(" '\"`") for name in names[1].split(",")] if names else []
    return [
        _tool(name, re.search(rf"^{re.escape(name)}{_SIGNATURE}", text, re.M), text)
        for name in listed[:_MOST_TOOLS]
    ]


def _tool(name: str, said: re.Match[str] | None, text: str) -> Function:
    told = said.groupdict() if said else {}
    line = told.get("inputs") or told.get("sig") or ""
    whole = text[said.start("inputs") :] if said and told["inputs"] else line
    return Function(name.strip(), told.get("about") or "", _parameters(whole, line))


def _parameters(inputs: str, line: str) -> dict[str, Any]:
    """Return the schema of a tool's arguments; of one text, if it is not told."""
    value: Any = None
    if inputs.startswith("{"):
        with suppress(ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            value = read_json(json.dumps(ast.literal_eval(line)))[0]
        with suppress(ValueError, RecursionError):
            value = read_json(inputs)[0]
    elif inputs:
        parts = [part.partition("=")[0].partition(":") for part in line.strip("()").split(",")]
        value = {
            name.strip(): typed(kind) for name, _, kind in parts if name.strip().isidentifier()
        }
    if not isinstance(value, dict):
        return _INPUT
    if not isinstance(value.get("properties"), dict):
        value = {name: {} if problem(each) else each for name, each in value.items()}
        value = {"type": "object", "properties": value, "required": [*value]}
    return _INPUT if problem(value) else value
