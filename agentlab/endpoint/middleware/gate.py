"""What a request passes before the model, local or real: rate limits and planned faults."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from agentlab.endpoint.contract import asgi
from agentlab.endpoint.contract.asgi import BrokenOff, Message, Model, Receive, Scope, Send
from agentlab.endpoint.contract.openai_json import Json, RequestError, event, read_object
from agentlab.endpoint.contract.record import Span
from agentlab.endpoint.contract.seeded_random import Occurrences
from agentlab.endpoint.contract.tokens import count_all
from agentlab.endpoint.middleware.fault_plan import Fault, FaultPlan
from agentlab.endpoint.middleware.rate_limits import Limits

_WHOLE_EVENTS = 2  # of a stream that is cut: the role, the first words
_HTML = b"<!doctype html><title>Welcome</title><p>Please sign in to this network.</p>"
_ERROR = event(RequestError(500, "The server had an error.", kind="server_error").body)


class _Ended(Exception):
    """The answer was ended before the model had ended it."""


class Gate:
    """Limits and faults in front of `model`; a model itself."""

    def __init__(self, model: Model, limits: Limits, faults: FaultPlan):
        self._model, self._limits, self._faults = model, limits, faults
        self.time_scale, self.paid, self.now_s = model.time_scale, model.paid, model.now_s
        self._seen = Occurrences()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        if scope["method"] != "POST":  # no question
            await self._model(scope, receive, send, span)
            return
        body = await asgi.read_body(scope, receive)
        asked = read_object(body)
        if self._limits:
            size_tokens = await _size_tokens(asked)
            self._limits.admit(size_tokens, self.now_s(), str(asked.get("model"))[:100])
            send = asgi.adding(send, lambda: self._limits.headers(self.now_s(), self.time_scale))
        key = blake2b(body, digest_size=16).digest()
        occurrence = self._seen.next(key, retry=span.attempt > 1)
        fault = self._faults.next(key, occurrence, span.attempt, span.agent, at_s=span.arrived_s)
        if fault is None:
            await self._model(scope, receive, send, span)
        else:
            span.fault = fault.kind
            await self._suffer(fault, scope, receive, send, span, bool(asked.get("stream")))

    async def _suffer(
        self, fault: Fault, scope: Scope, receive: Receive, send: Send, span: Span, streamed: bool
    ) -> None:
        kind = fault.kind
        if kind in ("error", "quota") or (kind == "stream_error" and not streamed):
            raise fault.error
        if kind == "reset":
            raise BrokenOff
        if kind == "html":  # what a captive portal answers
            span.status = 200
            await asgi.respond(send, 200, _HTML, kind=b"text/html; charset=utf-8")
        elif kind == "stall":
            never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            stall = never if fault.stall_s is None else self._pause(fault.stall_s)
            await asgi.unless_gone(receive, stall)
            await self._model(scope, receive, send, span)
        else:
            try:
                await self._model(scope, receive, _Tampered(send, fault, self._pause), span)
            except _Ended:
                span.status = 200  # what the client saw

    async def _pause(self, model_s: float) -> None:
        await asyncio.sleep(model_s / self.time_scale)


class _Tampered:
    """Passes an answer on to `send`, spoiled as `fault` says; a plain answer is one event."""

    def __init__(self, send: Send, fault: Fault, pause: Callable[[float], Awaitable[None]]):
        self._send, self._fault, self._pause = send, fault, pause
        self._body, self._events, self._streamed = b"", 0, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [each for each in message["headers"] if each[0] != b"content-length"]
            content_type = dict(headers).get(b"content-type", b"")
            self._streamed = content_type.startswith(b"text/event-stream")
            await self._send(message | {"headers": headers})
            return
        self._body += message.get("body", b"")
        more = message.get("more_body", False)
        if self._streamed:
            *events, self._body = self._body.split(b"\n\n")
            for each in events:
                await self._event(each + b"\n\n")
        elif not more:
            await self._event(self._body)
        if not more:
            await asgi.finish(self._send)

    async def _event(self, data: bytes) -> None:
        kind = self._fault.kind
        self._events += 1
        if kind == "empty_choices" and b"[DONE]" not in data:
            data = self._emptied(data)
        spared = self._streamed and self._events <= _WHOLE_EVENTS
        if spared or kind in ("drip", "empty_choices"):
            await self._pass_on(data)
            return
        if kind == "stream_error":
            await self._pass_on(_ERROR)
        elif kind == "truncated_json" or not self._streamed:
            await self._pass_on(data[: len(data) // 2] + b"\n\n" * self._streamed)
        if kind == "broken":
            raise BrokenOff
        await asgi.finish(self._send)
        raise _Ended

    def _emptied(self, data: bytes) -> bytes:
        start = data.index(b"{")
        answer = msgspec.json.decode(data[start:])
        for list_of_answers in {"choices", "output", "data"} & answer.keys():
            answer[list_of_answers] = []
        return data[:start] + msgspec.json.encode(answer) + b"\n\n" * self._streamed

    async def _pass_on(self, data: bytes) -> None:
        drips = self._fault.kind == "drip"
        for piece in (data[i : i + 1] for i in range(len(data))) if drips else [data]:
            if drips:
                await self._pause(self._fault.byte_s)
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})


async def _size_tokens(asked: Json) -> int:
    """Return what a request counts against a limit: its text, and the longest answer it allows."""
    limits = [asked.get(name) for name in ("max_completion_tokens", "max_tokens")]
    longest = next((limit for limit in limits if isinstance(limit, int)), 0)
    said = [asked.get(name) for name in ("messages", "prompt", "input", "instructions")]
    return max(1, await count_all(_texts_in(said)) + max(longest, 0))


def _texts_in(value: Any) -> Iterator[str]:
    """Yield all texts, and a digit per number, in a JSON value but the roles, however deep."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            yield each
        elif type(each) is int:  # a token's number
            yield "0"
        elif isinstance(each, list):
            left += each
        elif isinstance(each, dict):
            left += (inner for key, inner in each.items() if key != "role")
