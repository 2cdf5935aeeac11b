"""What one lab's endpoint tells another in front of it: when things happened to a request.

A lab that forwards to another, such as a learner's to the class's, could only time the way there
and back, which no two runs share. So it asks, with the header `x-lab-times`, for the times of the
endpoint that answers, in model seconds after the request's arrival. They come in a header of the
same name; of a stream, which begins before they are known, in a comment before its last events,
which every reader of server-sent events passes over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from agentlab.endpoint.http import Message, Send
from agentlab.endpoint.record import Span
from agentlab.fields import NotNegative

TIMES = b"x-lab-times"

_COMMENT = re.compile(rb"^: x-lab-times (.+)$", re.M)


class Times(msgspec.Struct, frozen=True):
    """A request's times, in model seconds after its arrival; None for what has not happened."""

    end_s: NotNegative
    started_s: NotNegative | None = None
    first_token_s: NotNegative | None = None


def telling(send: Send, span: Span) -> Send:
    """A `send` that adds the times of `span`, as soon as its end is known."""
    streamed = False

    async def tell(message: Message) -> None:
        nonlocal streamed
        if message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            streamed = kind.startswith(b"text/event-stream")
            if not streamed and span.end_s is not None:
                message = message | {"headers": [*message["headers"], (TIMES, _said(span))]}
        elif streamed and not message.get("more_body") and span.end_s is not None:
            comment = b": " + TIMES + b" " + _said(span) + b"\n\n"
            message = message | {"body": comment + message.get("body", b"")}
        await send(message)

    return tell


def in_headers(headers: Mapping[str, str]) -> Times | None:
    """The times that an answer's headers tell."""
    return _read(headers.get(TIMES.decode(), "").encode())


def in_stream(text: bytes) -> Times | None:
    """The times that the end of a stream tells."""
    found = _COMMENT.search(text)
    return _read(found[1]) if found else None


def take_over(span: Span, times: Times | None) -> None:
    """Give `span`, on its own clock, the times that another endpoint told; None changes nothing."""
    if times is None:
        return
    for name in ("started_s", "first_token_s", "end_s"):
        after_s = getattr(times, name)
        setattr(span, name, None if after_s is None else round(span.arrived_s + after_s, 9))


def _said(span: Span) -> bytes:
    after = span.shifted(span.arrived_s)
    assert after.end_s is not None
    return msgspec.json.encode(Times(after.end_s, after.started_s, after.first_token_s))


def _read(text: bytes) -> Times | None:
    try:
        return msgspec.json.decode(text, type=Times)
    except msgspec.DecodeError:
        return None
