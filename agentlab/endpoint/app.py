"""The endpoint as an ASGI application: what every request meets, whatever model answers it.

It is written on bare ASGI because its one hot route must carry a thousand requests at once on
one core. The same application runs under uvicorn in real time, and inside an event loop in
virtual time.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable
from itertools import islice
from urllib.parse import parse_qs, unquote

import msgspec

from agentlab.endpoint.door import Door, OwnDoor
from agentlab.endpoint.http import (
    MAX_BODY_BYTES,
    RESET,
    Again,
    Bodies,
    BrokenOff,
    ClientGone,
    Headers,
    Model,
    Receive,
    Scope,
    Send,
    header,
    respond,
    whole_number,
)
from agentlab.endpoint.record import BROKEN_OFF, HUNG_UP, Recorder, Span
from agentlab.endpoint.times import TIMES, telling
from agentlab.endpoint.wire import RequestError
from agentlab.errors import EndpointError

CLOCK = "/lab/clock"
"""Where an endpoint says how many model seconds pass in a second, and if its answers cost money."""


_LONGEST_NAME = 200
_LONGEST_QUOTED = 12 * _LONGEST_NAME  # a letter of four bytes takes %F0%9F%90%8C
_SPANS_A_TURN = 5000
"""So many spans are put into words before the event loop turns."""


class App:
    """Guards the door, numbers and records the requests, and lets `model` answer them.

    Args:
        door: Says who may come in; by default this machine only, without a key.
        on_end: Is told of every question that has been answered, or has failed.
        max_body_bytes: How long the body of a request may be.
    """

    def __init__(
        self,
        model: Model,
        *,
        door: Door | None = None,
        on_end: Callable[[Span], object] | None = None,
        max_body_bytes: int = 8 * MAX_BODY_BYTES,
    ):
        self.model = model
        self._bodies = Bodies(max_body_bytes)
        self._door, self._on_end = door or OwnDoor(), on_end
        self.recorder = Recorder()
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        span = Span(
            request_id=f"req_{next(self._numbers):06d}",
            agent=_agent(scope),
            arrived_s=self.model.now_s(),
        )
        if header(scope, TIMES):
            send = telling(send, span)
        try:
            self._door.enter(scope)
            if scope["path"].startswith("/lab/"):
                await self._record(scope, send)
            else:
                await self._answer(scope, receive, send, span)
        except RequestError as error:
            span.status, span.end_s = error.status, span.end_s or self.model.now_s()
            await respond(send, error.status, error.body, self._headers(error, span))
        except ClientGone:
            if span.status is None:  # else it had all it wanted, and did not wait for the end
                span.status = HUNG_UP
        except BrokenOff:
            span.status = BROKEN_OFF
            scope["extensions"][RESET]()
        finally:
            if span.end_s is None:  # refused, or gone, before the model began
                span.end_s = self.model.now_s()
            if self._on_end is not None and scope["method"] == "POST":
                self._on_end(span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        self._door.admit(scope, span)
        span.attempt = 1 + (whole_number(header(scope, b"x-stainless-retry-count")) or 0)
        if scope["method"] != "POST":
            await self.model(scope, receive, send, span)
            return
        self.recorder.add(span)
        body = await self._bodies.read(scope, receive)
        try:
            await self.model(scope, Again(body, receive), send, span)
        finally:
            self._bodies.release(body)

    def _headers(self, error: RequestError, span: Span) -> Headers:
        return [(b"x-request-id", _id(span)), *when_again(error, self.model.time_scale)]

    async def _record(self, scope: Scope, send: Send) -> None:
        path = scope["path"]
        if path == CLOCK:  # another lab asks for it before it shows anybody a key
            clock = {"time_scale": self.model.time_scale, "paid": self.model.paid}
            await respond(send, 200, clock)
            return
        visible = self._door.visible(scope)
        if path == "/lab/mark":
            mark = {"mark": self.recorder.mark(), "cpu_s": time.process_time()}
            await respond(send, 200, mark)
        elif path == "/lab/spans":
            await self._spans(scope, visible, send)
        else:
            raise unknown_route(scope, ["/lab/mark", "/lab/spans", CLOCK])

    async def _spans(self, scope: Scope, visible: Callable[[Span], bool], send: Send) -> None:
        try:
            recorded = self.recorder.since(_since(scope, self.recorder.mark()))
        except EndpointError as error:
            raise RequestError(410, str(error), param="since", code="not_kept") from None
        spans = filter(visible, recorded)
        data = []
        while few := list(islice(spans, _SPANS_A_TURN)):
            data.append(msgspec.json.encode(few)[1:-1])
            if len(few) == _SPANS_A_TURN:
                await asyncio.sleep(0)
        await respond(send, 200, msgspec.Raw(b'{"spans":[' + b",".join(data) + b"]}"))


def when_again(error: RequestError, time_scale: float) -> Headers:
    """The headers that say when to try again, where that would help."""
    if error.retry_after_s is None:
        return []
    # The client waits by its own clock; it takes the milliseconds, without jitter, if there are
    # any, so that a run repeats.
    wait_s = error.retry_after_s / time_scale
    return [
        (b"retry-after-ms", str(math.ceil(wait_s * 1000)).encode()),
        (b"retry-after", str(math.ceil(wait_s)).encode()),
    ]


def unknown_route(scope: Scope, known: list[str]) -> RequestError:
    """The answer to a path that is not there, naming those that are."""
    message = (
        f"Unknown request URL: {scope['method']} {scope['path']}; there are {', '.join(known)}."
    )
    return RequestError(404, message, code="unknown_url")


def _since(scope: Scope, now: int) -> int:
    asked = parse_qs(scope["query_string"].decode("latin-1")).get("since", ["0"])[0]
    since = whole_number(asked)
    if since is None or since > now:
        what = f"{asked[:40]!r}; give a whole number, at most {now}, the mark of now."
        raise RequestError(400, f"Invalid 'since': {what}", param="since")
    return since


def _agent(scope: Scope) -> str:
    """The name that the client gives the agent who asks, as it may be kept and shown."""
    name = unquote(header(scope, b"x-agent")[:_LONGEST_QUOTED])[:_LONGEST_NAME] or "unnamed"
    if name.isprintable():
        return name
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)


def _id(span: Span) -> bytes:
    return span.request_id.encode()
