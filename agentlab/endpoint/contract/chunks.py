"""A stream of events, put together: the completion that its chunks are the pieces of."""

from typing import Any

import msgspec

from agentlab.errors import EndpointError

_TROUBLE = ("error", "errors", "detail", "message")  # in what is no chunk


def joined(stream: bytes) -> Any:
    """Return the completion that the chunks of a stream make up, or else the first error in it.

    Raises:
        EndpointError: If it ends before its answer does: with neither a finish_reason nor [DONE].

    Example:
        >>> joined(b'data: {"choices": [{"delta": {"content": "Hi"}}]}\\n\\ndata: [DONE]\\n\\n')
        {'choices': [{'message': {'content': ['Hi'], 'tool_calls': []}}], 'usage': None}
    """
    message: dict[str, Any] = {"content": []}
    choice: dict[str, Any] = {"message": message}
    choices, usage = list[Any](), None
    calls: dict[Any, dict[str, Any]] = {}
    ids: dict[Any, Any] = {}  # of the call that goes on at an index: servers may tell it once
    for data in (line[5:].strip() for line in stream.splitlines() if line.startswith(b"data:")):
        if data == b"[DONE]":
            break
        said = msgspec.json.decode(data)
        if any(said.get(name) for name in _TROUBLE):
            return said
        usage = said.get("usage") or usage
        for part in (said.get("choices") or [])[:1]:
            choices = [choice]
            if part.get("finish_reason"):
                choice["finish_reason"] = part["finish_reason"]
            delta = part.get("delta") or {}
            content = delta.pop("content", None)  # of some servers, a list of parts
            message["content"] += content if isinstance(content, list) else [content]
            for piece in delta.pop("tool_calls", None) or []:
                index = piece.get("index", 0)
                ids[index] = piece.get("id") or ids.get(index, index)
                _add(calls.setdefault(ids[index], {}), piece)
            _add(message, delta)
    else:
        if "finish_reason" not in choice:
            raise EndpointError("the endpoint broke off (its stream ended before the answer did)")
    message["tool_calls"] = [*calls.values()]
    return {"choices": choices, "usage": usage}


def _add(said: dict[str, Any], more: dict[str, Any]) -> None:
    """Add the next piece of a message, or of a call: texts grow, what is told again stays."""
    for name, value in more.items():
        if isinstance(value, dict):
            _add(said.setdefault(name, {}), value)
        elif name in ("refusal", "arguments"):
            said[name] = said.get(name, "") + (value or "")
        elif value is not None:
            said[name] = value
