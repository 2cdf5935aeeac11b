"""What a request passes before the model, local or real: rate limits and planned faults."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from agentlab.endpoint.contract.asgi import (
    Around,
    BrokenOff,
    Message,
    Model,
    Receive,
    Scope,
    Send,
    unless_gone,
)
from agentlab.endpoint.contract.openai_json import Json
from agentlab.endpoint.contract.record import BROKEN_OFF, Span
from agentlab.endpoint.contract.seeded_random import Occurrences
from agentlab.endpoint.contract.tokens import count_all
from agentlab.endpoint.middleware._fault_injection import Ended, Tampered, web_page
from agentlab.endpoint.middleware.fault_plan import Fault, FaultPlan
from agentlab.endpoint.middleware.rate_limits import Limits


class Gate(Around):
    """Limits and faults in front of `model`; a model itself."""

    def __init__(self, model: Model, limits: Limits, faults: FaultPlan):
        super().__init__(model)
        self._limits, self._faults = limits, faults
        self._seen = Occurrences()

    async def question(
        self, body: bytes, scope: Scope, receive: Receive, send: Send, span: Span
    ) -> None:
        asked = _decoded(body)
        if self._limits:
            size_tokens = await _size_tokens(asked)
            self._limits.admit(size_tokens, self.now_s(), str(asked.get("model"))[:100])
            send = self._telling_what_is_left(send)
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
        if kind == "html":
            span.status = 200
            await web_page(send)
        elif kind == "stall":
            never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            stall = never if fault.stall_s is None else self._pause(fault.stall_s)
            await unless_gone(receive, stall)
            await self._model(scope, receive, send, span)
        else:
            try:
                await self._model(scope, receive, Tampered(send, fault, self._pause), span)
            except Ended:
                span.status = 200  # what the client saw
            except BrokenOff:
                span.status = BROKEN_OFF
                raise

    async def _pause(self, model_s: float) -> None:
        await asyncio.sleep(model_s / self.time_scale)

    def _telling_what_is_left(self, send: Send) -> Send:
        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                left = self._limits.headers(self.now_s(), self.time_scale)
                message = message | {"headers": [*message["headers"], *left]}
            await send(message)

        return telling


def _decoded(body: bytes) -> Json:
    try:
        asked = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}  # the model will say what is wrong with it
    return asked if isinstance(asked, dict) else {}


async def _size_tokens(asked: Json) -> int:
    """Return what a request counts against a limit: its text, and the longest answer it allows."""
    limits = [asked.get(name) for name in ("max_completion_tokens", "max_tokens")]
    longest = next((limit for limit in limits if isinstance(limit, int)), 0)
    said = [asked.get(name) for name in ("messages", "input", "instructions")]
    return max(1, await count_all(_texts_in(said)) + max(longest, 0))


def _texts_in(value: Any) -> Iterator[str]:
    """Yield all texts in a JSON value but the roles, however deep they lie."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, list):
            left += each
        elif isinstance(each, dict):
            left += (inner for key, inner in each.items() if key != "role")
