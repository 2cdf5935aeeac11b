"""What one lab's endpoint tells another in front of it: its clock, and a request's times.

The times, asked for with `x-lab-times`, come in a header of that name; in a stream, which begins
before they are known, in a comment before the last events.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, TypeVar

import msgspec

from agentlab.endpoint.contract.asgi import Message, Send
from agentlab.endpoint.contract.record import Span
from agentlab.errors import EndpointError
from agentlab.settings import OPENAI_URL

T = TypeVar("T")

CLOCK = "/lab/clock"  # where an endpoint says its time scale, and whether its answers cost money
TIMES = b"x-lab-times"
PATIENCE_S = 3.0  # for an endpoint to say whether it is a lab's
_NOT_UNDERSTOOD = (msgspec.DecodeError, UnicodeDecodeError)
_NotNegative = Annotated[float, msgspec.Meta(ge=0)]
_AFTER_ARRIVAL = ("end_s", "started_s", "first_token_s")  # model seconds; lateness is wall-clock's
_TOLD = (*_AFTER_ARRIVAL, "late_ms")


class Clock(msgspec.Struct, frozen=True):
    """What a lab's endpoint says of itself; one that does not say is taken to cost money."""

    time_scale: Annotated[float, msgspec.Meta(gt=0, le=10_000)]
    paid: bool = True
    classroom: bool = False  # which may be told who has solved what


def clock_of(upstream: str) -> Clock | None:
    """Ask an upstream without a key; None if it is no lab, EndpointError if nothing answers."""
    base = upstream.rstrip("/")
    if base == OPENAI_URL:
        return None
    import httpx  # not at the start of an endpoint, which seldom needs it

    url = base.removesuffix("/v1") + CLOCK
    told = within(PATIENCE_S, lambda: httpx.get(url, timeout=PATIENCE_S).content)
    if told is None:
        raise EndpointError(f"{upstream} does not answer within {PATIENCE_S:g} s")
    with suppress(*_NOT_UNDERSTOOD):
        return msgspec.json.decode(told, type=Clock)
    return None


def within(most_s: float, ask: Callable[[], T]) -> T | None:
    """Return the answer, or None if there is an error or nothing in time.

    httpx bounds each step, but neither the search for a name nor an answer that drips.
    """
    answers: list[T] = []

    def work() -> None:
        with suppress(Exception):
            answers.append(ask())

    asking = threading.Thread(target=work, name="asking", daemon=True)
    asking.start()
    asking.join(most_s)
    return answers[0] if answers else None


def telling(send: Send, span: Span) -> Send:
    """Return a `send` that adds the times of `span`, as soon as its end is known."""
    streamed = False

    async def tell(message: Message) -> None:
        nonlocal streamed
        if message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            streamed = kind.startswith(b"text/event-stream")
            if not streamed and span.end_s is not None:
                message = message | {"headers": [*message["headers"], (TIMES, _told(span))]}
        elif streamed and not message.get("more_body") and span.end_s is not None:
            comment = b": %b %b\n\n" % (TIMES, _told(span))
            message = message | {"body": comment + message.get("body", b"")}
        await send(message)

    return tell


def take_over(span: Span, told: bytes) -> None:
    """Give `span`, on its own clock, the times that another endpoint told, if they make sense."""
    with suppress(*_NOT_UNDERSTOOD):
        times = msgspec.json.decode(told, type=dict[str, _NotNegative | None])
        if times.get("end_s") is not None:
            span.late_ms = times.get("late_ms")
            for name in _AFTER_ARRIVAL:
                after_s = times.get(name)
                setattr(span, name, None if after_s is None else round(span.arrived_s + after_s, 9))


def _told(span: Span) -> bytes:
    after = span.shifted(span.arrived_s)
    return msgspec.json.encode({name: getattr(after, name) for name in _TOLD})
