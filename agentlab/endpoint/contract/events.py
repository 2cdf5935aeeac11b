"""What a stream of server-sent events tells while it passes: its first token, its end, its counts.

The pieces may be cut anywhere. What only keeps a connection alive (comments, a role, empty words)
is not a token.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from agentlab.endpoint.contract.openai_json import read_object
from agentlab.endpoint.middleware.server_timing import TIMES

_TIMES = b": " + TIMES + b" "
_BETWEEN = re.compile(rb"\r?\n\r?\n")
_DATA = re.compile(rb"^data:(.*)$", re.M)
_LAST = re.compile(
    rb'^(?:data: ?\[DONE\]|(?:event: ?|data: ?\{"type": ?")'
    rb"response\.(?:completed|incomplete|failed)\b)",
    re.M,
)
_SAID = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call")
_LABELS = ("type", "index")
_LONGEST_BYTES = 8 * 1024 * 1024  # of one event; what is longer is not an event
_MOST_TOKENS = 2**53


class Counts(msgspec.Struct, frozen=True):
    """How many tokens an answer says that it took; 0 if it does not say, or says nonsense."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Events:
    """Reads along in a stream.

    It has `begun` with the first token: content, reasoning, a refusal or a tool call. It has
    `ended` with the last event, after which many clients do not wait. `times` are another lab's.
    """

    def __init__(self) -> None:
        self.begun = self.ended = False
        self.counts = Counts()
        self.times = b""
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Read the next piece."""
        *events, self._rest = _BETWEEN.split(self._rest + piece if self._rest else piece)
        for event in events:
            data = b"\n".join(_DATA.findall(event))
            self.begun = self.begun or _has_token(data)
            if b'_tokens"' in event:
                self.counts = counts_in(data)
            if event.startswith(_TIMES):
                self.times = event.removeprefix(_TIMES)
            self.ended = self.ended or _LAST.search(event) is not None
        self._rest = self._rest[-_LONGEST_BYTES:]


def counts_in(body: bytes) -> Counts:
    """Return the token counts of an answer, or of an event's data."""
    told = read_object(body)
    usage = _part(told, "usage") or _part(told.get("response"), "usage")
    sent = _part(usage, "prompt_tokens") or _part(usage, "input_tokens")
    made = _part(usage, "completion_tokens") or _part(usage, "output_tokens")
    return Counts(*(n if type(n) is int and 0 <= n <= _MOST_TOKENS else 0 for n in (sent, made)))


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _has_token(data: bytes) -> bool:
    """Return True for a chunk of (chat) completions, or an event of responses, with words in it."""
    told = read_object(data)
    kind, choices = str(told.get("type")), told.get("choices")
    if kind.endswith(".delta"):
        return bool(told.get("delta"))
    if kind == "response.output_item.added":
        return str(_part(told.get("item"), "type")).endswith("_call")
    said = []
    for choice in choices if isinstance(choices, list) else []:
        said += [_part(choice, "text"), *(_part(_part(choice, "delta"), name) for name in _SAID)]
    return _holds_words(said)


def _holds_words(said: Any) -> bool:
    """Return True for a text that is not empty, a call, or a part with text, however nested."""
    if isinstance(said, list):
        return any(map(_holds_words, said))
    if isinstance(said, dict):  # a call, or a part: {"type": "text", "text": ""}
        return any(_holds_words(value) for name, value in said.items() if name not in _LABELS)
    return isinstance(said, str) and said != ""
