"""What one lab's endpoint tells another in front of it: its clock, and a request's times.

A lab that forwards to another, such as a learner's to the class's, could only time the way there
and back, which differs from run to run. So it asks, with the header `x-lab-times`, for the times of
the endpoint that answers, in model seconds after the request's arrival. They come in a header of
the same name. A stream begins before they are known: there they come in a comment before the last
events, which every reader of server-sent events skips.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from typing import Annotated

import msgspec

from agentlab.endpoint.contract.asgi import Message, Send
from agentlab.endpoint.contract.record import Span
from agentlab.errors import EndpointError
from agentlab.settings import OPENAI_URL

CLOCK = "/lab/clock"
"""Where an endpoint says how fast its time runs, and whether its answers cost money."""

TIMES = b"x-lab-times"

PATIENCE_S = 3.0
"""Seconds to wait for an endpoint to say whether it is a lab's."""

_COMMENT = re.compile(rb"^: x-lab-times (.+)$", re.M)
_NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class Clock(msgspec.Struct, frozen=True):
    """What a lab's endpoint says of itself; one that does not say is taken to cost money."""

    time_scale: Annotated[float, msgspec.Meta(gt=0, le=10_000)]
    paid: bool = True


class Times(msgspec.Struct, frozen=True):
    """A request's times, in model seconds after its arrival; None for what has not happened."""

    end_s: _NotNegative
    started_s: _NotNegative | None = None
    first_token_s: _NotNegative | None = None


def clock_of(upstream: str) -> Clock | None:
    """Ask `upstream` (an address ending in `/v1`) without a key; return None if it is no lab.

    Raises:
        EndpointError: If nothing answers within `PATIENCE_S` seconds.
    """
    if upstream.rstrip("/") == OPENAI_URL:
        return None
    import httpx  # not at the start of an endpoint, which seldom needs it

    answers: list[bytes] = []

    def get() -> None:
        with suppress(Exception):  # whatever it is, there is no answer
            url = upstream.rstrip("/").removesuffix("/v1") + CLOCK
            answers.append(httpx.get(url, timeout=PATIENCE_S).content)

    # httpx bounds each step, but neither the search for a name nor an answer that drips.
    asking = threading.Thread(target=get, name="clock", daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    if not answers:
        raise EndpointError(f"{upstream} does not answer within {PATIENCE_S:g} s")
    try:
        return msgspec.json.decode(answers[0], type=Clock)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def telling(send: Send, span: Span) -> Send:
    """Return a `send` that adds the times of `span`, as soon as its end is known."""
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


def read_times(text: bytes) -> Times | None:
    """Read the times in the value of a `TIMES` header; None if they cannot be read."""
    try:
        return msgspec.json.decode(text, type=Times)
    except msgspec.DecodeError:
        return None


def in_stream(text: bytes) -> Times | None:
    """Read the times that the end of a stream tells."""
    found = _COMMENT.search(text)
    return read_times(found[1]) if found else None


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
