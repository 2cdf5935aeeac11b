"""A conversation as the model's next turn sees it: the task, and what calls have found.

Some clients hand results back as the user's words ("Observation: ..."); those are results, too,
and the task is what the user said before.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from agentlab.endpoint.answers._prompt import glance
from agentlab.endpoint.contract.request import ChatRequest, Message

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


class Found(NamedTuple):
    """What a call of a tool found; `arguments` as they were sent."""

    name: str
    arguments: str
    text: str

    @property
    def informs(self) -> bool:
        """False if it says that nothing was found, or who speaks from now on."""
        return not (_HANDS_OVER.match(self.name) or _NOTHING.match(self.text.strip()))


class Conversation(NamedTuple):
    """The task, the results since the user set it, and those of the tasks before; oldest first."""

    system: str
    task: str
    found: list[Found]
    earlier: list[Found]

    @property
    def results(self) -> list[tuple[str, str]]:
        """(tool, result) of those calls that found something, since the user set the task."""
        return [(each.name, each.text) for each in self.found if each.informs]


def conversation(request: ChatRequest) -> Conversation:
    """Return what was asked and found; each call has a result, as every request was checked for."""
    task, found, since = "", list[Found](), 0
    waiting: dict[str | None, Found] = {}
    before: Message | None = None
    for message in request.messages:
        for call in message.tool_calls or []:
            waiting[call.id] = Found(call.function.name, call.function.arguments, "")
        if message.role == "tool":
            found.append(waiting[message.tool_call_id]._replace(text=message.text))
        elif message.role == "user" and (results := _in_words(request, before, message)):
            found += results
        elif message.role == "user":
            task, since = message.text, len(found)
        before = message
    told = (said.text for said in request.messages if said.role in ("system", "developer"))
    return Conversation(glance(next(told, "")), glance(task), found[since:], found[:since])


def _in_words(request: ChatRequest, before: Message | None, said: Message) -> list[Found]:
    """Return the results in a user's words, one for each call that the model's words name."""
    heading = _OBSERVED.match(said.text) if request.tools and before else None
    if not (heading and before and before.role == "assistant"):
        return []
    words = re.findall(r"[\w-]+", before.text)
    offered = {tool.function.name for tool in request.tools or []}
    result = said.text[heading.end() :].strip()
    return [Found(name, "", result) for name in words if name in offered] or [Found("", "", result)]
