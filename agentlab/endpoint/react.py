"""Tools that a prompt describes in words, and the lines in which a model asks for them.

Frameworks fall back to this form, after ReAct (Yao et al., 2022), where a model is said to have no
function calling: Thought, Action, Action Input; then Observation; at last Final Answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from agentlab.endpoint.asked import glance
from agentlab.endpoint.request import Function

_TOOL = re.compile(r"^Tool Name: (.+)\nTool Arguments: ", re.MULTILINE)
_NAMES = re.compile(r"one (?:name )?of \[([^\]\n]{1,2000})\]")
_OBSERVATION = re.compile(r"^Observation: *", re.MULTILINE)
_ONE_STRING = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
}


def asked_for(turns: Sequence[tuple[str, str]]) -> bool:
    """True if the conversation of (role, text) asks for this form."""
    return any(
        0 <= text.find("Action Input:") < text.rfind("Final Answer:")
        for role, text in turns
        if role != "assistant"
    )


def described(turns: Sequence[tuple[str, str]]) -> list[Function]:
    """The tools that the conversation describes."""
    text = glance("\n".join(text for role, text in turns if role != "assistant"))
    if functions := [_function(text, found) for found in _TOOL.finditer(text)]:
        return functions
    names = _NAMES.search(text)
    listed = names[1].split(",") if names else []
    return [Function(name=name.strip(" '\"`"), parameters=_ONE_STRING) for name in listed]


def _function(text: str, found: re.Match[str]) -> Function:
    try:
        parameters, end = json.JSONDecoder().raw_decode(text, found.end())
    except (ValueError, RecursionError):
        parameters, end = _ONE_STRING, found.end()
    if not isinstance(parameters, dict):
        parameters = _ONE_STRING
    description = text[end:].removeprefix("\nTool Description: ").partition("\n")[0]
    return Function(name=found[1].strip(), description=description, parameters=parameters)


def observed(turns: Sequence[tuple[str, str]]) -> str | None:
    """What the last tool returned, or None if none was called yet."""
    for role, text in reversed(turns):
        if role == "assistant" and (found := _OBSERVATION.search(text)):
            return text[found.end() :].strip()
    return None


def action(name: str, arguments: str) -> str:
    """The lines that ask for a tool; `arguments` is JSON."""
    return f"Thought: {name} can help here.\nAction: {name}\nAction Input: {arguments}"


def final(answer: str) -> str:
    """The lines that answer."""
    return f"Thought: I now know the final answer\nFinal Answer: {answer}"
