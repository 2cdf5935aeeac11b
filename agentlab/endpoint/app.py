"""The endpoint as an ASGI application: what every request meets, whatever model answers it.

It is written on bare ASGI because its one hot route must carry a thousand requests at once on
one core. The same application runs under uvicorn in real time, and inside an event loop in
virtual time.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from urllib.parse import parse_qs, unquote

from agentlab.endpoint.door import Door, OwnDoor
from agentlab.endpoint.http import (
    RESET,
    BrokenOff,
    ClientGone,
    Headers,
    Model,
    Receive,
    Scope,
    Send,
    header,
    respond,
)
from agentlab.endpoint.times import TIMES, telling
from agentlab.endpoint.wire import RequestError
from agentlab.errors import EndpointError
from agentlab.trace import BROKEN_OFF, HUNG_UP, Recorder, Span

CLOCK = "/lab/clock"
"""Where an endpoint says how many model seconds pass in a second, and if its answers cost money."""

_MOST_DIGITS = 15


class App:
    """Guards the door, numbers and records the requests, and lets `model` answer them.

    Args:
        door: Says who may come in; by default this machine only, without a key.
        on_end: Is told of every question that has been answered, or has failed.
    """

    def __init__(
        self,
        model: Model,
        *,
        door: Door | None = None,
        on_end: Callable[[Span], object] | None = None,
    ):
        self.model = model
        self._door, self._on_end = door or OwnDoor(), on_end
        self.recorder = Recorder()
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        span = Span(
            request_id=f"req_{next(self._numbers):06d}",
            agent=unquote(header(scope, b"x-agent")) or "unnamed",
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
        retries = header(scope, b"x-stainless-retry-count")
        span.attempt = 1 + int(retries) if retries.isdigit() else 1
        if scope["method"] == "POST":
            self.recorder.add(span)
        await self.model(scope, receive, send, span)

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
            since = _since(scope, self.recorder.mark())
            try:
                spans = [span for span in self.recorder.since(since) if visible(span)]
            except EndpointError as error:  # they are gone
                raise RequestError(400, f"Invalid 'since': {error}.", param="since") from None
            await respond(send, 200, {"spans": spans})
        else:
            raise unknown_route(scope, ["/lab/mark", "/lab/spans", CLOCK])


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
    query = str(scope["query_string"], "latin-1")
    since = parse_qs(query).get("since", ["0"])[0]
    known = since.isascii() and since.isdecimal() and len(since) <= _MOST_DIGITS
    if not known or int(since) > now:
        what = f"{since[:40]!r}; give a whole number, at most {now}, the mark of now."
        raise RequestError(400, f"Invalid 'since': {what}", param="since")
    return int(since)


def _id(span: Span) -> bytes:
    return span.request_id.encode()
