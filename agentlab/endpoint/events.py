"""What a stream of server-sent events tells while it passes: its first token, its end, its counts.

It decides, and never waits. The pieces may be cut anywhere, even within a character: whatever the
cuts, the same is seen. Comments, a role, empty words and blank lines keep a connection alive; they
are no token.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from agentlab.endpoint.times import TIMES, Times, in_stream

_BETWEEN = re.compile(rb"\r?\n\r?\n")
_DATA = re.compile(rb"^data:(.*)$", re.M)
_LAST = re.compile(
    rb'^(?:data: ?\[DONE\]|(?:event: ?|data: ?\{"type": ?")'
    rb"response\.(?:completed|incomplete|failed)\b)",
    re.M,
)
_SAID = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call")
_LONGEST_BYTES = 8 * 1024 * 1024  # of one event; what is longer is no event
_MOST_TOKENS = 2**53


class Counts(msgspec.Struct, frozen=True):
    """How many tokens an answer says that it took; 0 where it says nothing, or nonsense."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Counted(msgspec.Struct):
    usage: Any = None
    response: Any = None


class Events:
    """Reads along in a stream.

    Attributes:
        begun: True once an event held a token: content, reasoning, a refusal or a tool call.
        ended: True once the last event was seen whole; after it, many a client does not wait.
        counts: The tokens, as the latest event that names them says.
        times: What another lab told, or None.

    Example:
        >>> events = Events()
        >>> events.feed(b': wait\\n\\ndata: {"choices": [{"delta": {"content": "Hel')
        >>> events.begun
        False
        >>> events.feed(b'lo"}}]}\\n\\ndata: [DONE]\\n\\n')
        >>> events.begun, events.ended
        (True, True)
    """

    def __init__(self) -> None:
        self.begun = self.ended = False
        self.counts = Counts()
        self.times: Times | None = None
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Read the next piece."""
        *events, self._rest = _BETWEEN.split(self._rest + piece if self._rest else piece)
        for event in events:
            self._see(event)
        self._rest = self._rest[-_LONGEST_BYTES:]

    def _see(self, event: bytes) -> None:
        if not self.begun:
            self.begun = _has_token(_data(event))
        if b'_tokens"' in event:
            self.counts = counts_in(_data(event))
        if event.startswith(b": " + TIMES):
            self.times = in_stream(event)
        if _LAST.search(event):
            self.ended = True


def counts_in(body: bytes) -> Counts:
    """The token counts of an answer, or of an event's data.

    Example:
        >>> counts_in(b'{"usage": {"prompt_tokens": 9, "completion_tokens": -1}}')
        Counts(prompt_tokens=9, completion_tokens=0)
    """
    try:
        told = msgspec.json.decode(body, type=_Counted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Counts()
    usage = told.usage or _part(told.response, "usage")
    return Counts(
        _count(_part(usage, "prompt_tokens") or _part(usage, "input_tokens")),
        _count(_part(usage, "completion_tokens") or _part(usage, "output_tokens")),
    )


def _count(value: Any) -> int:
    sane = type(value) is int and 0 <= value <= _MOST_TOKENS
    return value if sane else 0


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _data(event: bytes) -> bytes:
    return b"\n".join(_DATA.findall(event))


def _has_token(data: bytes) -> bool:
    """True for a chunk of chat completions or completions, or an event of responses, that says."""
    try:
        told = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    kind = str(_part(told, "type"))
    if kind.endswith(".delta"):
        return bool(_part(told, "delta"))
    if kind == "response.output_item.added":
        return str(_part(_part(told, "item"), "type")).endswith("_call")
    choices = _part(told, "choices")
    return isinstance(choices, list) and any(map(_says, choices))


def _says(choice: Any) -> bool:
    delta = _part(choice, "delta")
    said = [_part(choice, "text"), *(_part(delta, name) for name in _SAID)]
    return any(map(_holds_words, said))


def _holds_words(said: Any) -> bool:
    """True for a text that is not empty, a call, or a part that is not empty, however nested."""
    if isinstance(said, list):
        return any(map(_holds_words, said))
    if isinstance(said, dict):  # a call, or a part: {"type": "text", "text": ""}
        return any(_holds_words(value) for name, value in said.items() if name not in _LABELS)
    return isinstance(said, str) and said != ""


_LABELS = ("type", "index")
