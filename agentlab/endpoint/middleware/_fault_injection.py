"""Answers that are spoiled on their way out: cut, dripped, emptied. A `send` around a `send`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from agentlab.endpoint.contract.asgi import BrokenOff, Message, Send, finish, respond
from agentlab.endpoint.middleware.fault_plan import Fault

_WHOLE_EVENTS = 2  # of a stream that is cut: the role, the first words
_HTML = b"<!doctype html><title>Welcome</title><p>Please sign in to this network.</p>"
_ERROR = b'data: {"error": {"message": "The server had an error.", "type": "server_error", ' \
    b'"param": null, "code": null}}\n\n'  # fmt: skip


class Ended(Exception):
    """The answer was ended before the model had ended it."""


class Tampered:
    """Passes an answer on to `send`, spoiled as `fault` says; `pause` waits for model seconds."""

    def __init__(self, send: Send, fault: Fault, pause: Callable[[float], Awaitable[None]]):
        self._send, self._fault, self._pause = send, fault, pause
        self._start: Message = {}
        self._body = b""
        self._events = 0
        self._streamed = False

    async def __call__(self, message: Message) -> None:
        """Take one message; raise Ended or BrokenOff if the answer ends, or is reset, here."""
        if message["type"] == "http.response.start":
            self._start = message
            content_type = dict(message["headers"]).get(b"content-type", b"")
            self._streamed = content_type.startswith(b"text/event-stream")
            if self._streamed:
                await self._send(message)
            return
        self._body += message.get("body", b"")
        more = message.get("more_body", False)
        if self._streamed:
            *events, self._body = self._body.split(b"\n\n")
            for event in events:
                await self._event(event + b"\n\n")
            if not more:
                await finish(self._send)
        elif not more:
            await self._whole()

    async def _whole(self) -> None:
        body, kind = self._body, self._fault.kind
        if kind in ("truncated_json", "cut"):
            body = body[: len(body) // 2]
        elif kind == "empty_choices":
            body = _emptied(body)
        kept = [each for each in self._start["headers"] if each[0] != b"content-length"]
        headers = [*kept, (b"content-length", b"%d" % len(body))]
        await self._send(self._start | {"headers": headers})
        if kind == "broken":
            await self._pass_on(body[: len(body) // 2])
            raise BrokenOff
        await self._pass_on(body)
        await finish(self._send)

    async def _event(self, event: bytes) -> None:
        kind = self._fault.kind
        self._events += 1
        if kind == "empty_choices":
            event = b"data: " + _emptied(event[6:]) + b"\n\n" if b"[DONE]" not in event else event
        if self._events <= _WHOLE_EVENTS or kind in ("drip", "empty_choices"):
            await self._pass_on(event)
            return
        if kind == "broken":
            raise BrokenOff
        if kind == "truncated_json":
            await self._pass_on(event[: len(event) // 2] + b"\n\n")
        if kind == "stream_error":
            await self._pass_on(_ERROR)
        await finish(self._send)
        raise Ended

    async def _pass_on(self, data: bytes) -> None:
        size = 1 if self._fault.kind == "drip" else max(len(data), 1)
        for start in range(0, len(data), size):
            if self._fault.kind == "drip":
                await self._pause(self._fault.byte_s)
            piece = data[start : start + size]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})


async def web_page(send: Send) -> None:
    """Send what a captive portal answers: a page, with status 200."""
    await respond(send, 200, _HTML, kind=b"text/html; charset=utf-8")


def _emptied(body: bytes) -> bytes:
    answer = msgspec.json.decode(body)
    for list_of_answers in ("choices", "output", "data"):
        if list_of_answers in answer:
            answer[list_of_answers] = []
    return msgspec.json.encode(answer)
