"""Tools that the prompt describes in words, called in lines after ReAct (Yao et al., 2022).

The lines are Thought, Action and Action Input; then the client writes Observation.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from contextlib import suppress

from agentlab.endpoint.answers._prompt import glance, unframe
from agentlab.endpoint.answers._rounds import named
from agentlab.endpoint.answers._tools import fill_in
from agentlab.endpoint.answers.replies import Writer
from agentlab.endpoint.contract.request import Function

Turns = Sequence[tuple[str, str]]  # (role, text), oldest first

_TOOL = re.compile(r"^Tool Name: (.+)\nTool Arguments: ", re.MULTILINE)
_NAMES = re.compile(r"one (?:name )?of \[([^\]\n]{1,2000})\]")
_OBSERVATION = re.compile(r"^Observation: *", re.MULTILINE)
_INPUT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


def asks_for_react(turns: Turns) -> bool:
    """Return True if the conversation describes tools in words, and wants ReAct's lines."""
    return any(
        0 <= text.find("Action Input:") < text.rfind("Final Answer:")
        for role, text in turns
        if role != "assistant"
    )


def react(turns: Turns, writer: Writer, draw: random.Random) -> str:
    """Return the lines that ask for one tool, or that answer after its result; or CannotFill."""
    for role, text in reversed(turns):
        if role == "assistant" and (found := _OBSERVATION.search(text)):
            return _final(writer.from_results([("", text[found.end() :].strip())]))
    task = glance(next((text for role, text in turns if role == "user"), ""))
    described = _described(glance("\n".join(text for role, text in turns if role != "assistant")))
    chosen = [each.tool for each in named(described, unframe(task).task)] or described
    if not chosen:
        return _final(writer.write())
    ((name, arguments),) = fill_in([(chosen[0], [{}])], task, writer, draw)
    return f"Thought: {name} can help here.\nAction: {name}\nAction Input: {arguments}"


def _final(answer: str) -> str:
    return f"Thought: I now know the final answer\nFinal Answer: {answer}"


def _described(text: str) -> list[Function]:
    """Return the tools that a conversation describes in words."""
    functions = []
    for found in _TOOL.finditer(text):
        parameters, end = None, found.end()
        with suppress(ValueError, RecursionError):
            parameters, end = json.JSONDecoder().raw_decode(text, end)
        parameters = parameters if isinstance(parameters, dict) else _INPUT
        description = text[end:].removeprefix("\nTool Description: ").partition("\n")[0]
        functions.append(Function(found[1].strip(), description, parameters))
    if functions:
        return functions
    names = _NAMES.search(text)
    listed = names[1].split(",") if names else []
    return [Function(name.strip(" '\"`"), parameters=_INPUT) for name in listed]
