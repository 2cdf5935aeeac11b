"""The local model: answers that fit the task, in the time that a real model would take."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

from agentlab.endpoint import wire
from agentlab.endpoint.answer import Answer, compose, request_key
from agentlab.endpoint.app import unknown_route
from agentlab.endpoint.batch import QueueFull
from agentlab.endpoint.chat import Exchange
from agentlab.endpoint.http import Receive, Scope, Send, read_body, respond
from agentlab.endpoint.live import LiveBatch
from agentlab.endpoint.physics import Physics
from agentlab.endpoint.replies import Replies
from agentlab.endpoint.wire import ChatRequest, RequestError
from agentlab.trace import Span

_CHAT, _MODELS = "/v1/chat/completions", "/v1/models"


class LocalModel:
    """Answers chat completions with prepared words and real physics.

    Args:
        physics: How long answers take.
        replies: What they say.
        seed: From which answers and jitter are drawn.
        time_scale: Model seconds to a second of the event loop's clock.
    """

    def __init__(
        self, physics: Physics, replies: Replies, *, seed: int = 7, time_scale: float = 1.0
    ):
        self._physics, self._replies = physics, replies
        self._seed, self._time_scale = seed, time_scale
        self._seen: Counter[bytes] = Counter()

    @cached_property
    def _live(self) -> LiveBatch:
        # Made by the first request, because only then there is a loop whose clock it can take.
        return LiveBatch(self._physics, self._time_scale)

    def now_s(self) -> float:
        return self._live.now_s()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        path, method = scope["path"], scope["method"]
        if path == _CHAT and method == "POST":
            await self._chat(scope, receive, send, span)
        elif path.startswith(_MODELS) and method == "GET":
            await respond(send, 200, _models(path))
        elif path in (_CHAT, _MODELS):
            allowed = "POST" if path == _CHAT else "GET"
            message = f"Not allowed to {method} on {path}; use {allowed}."
            raise RequestError(405, message, code="method_not_allowed")
        else:
            raise unknown_route(scope, [_CHAT, _MODELS])

    async def _chat(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        request = wire.parse_chat(await read_body(scope, receive))
        answer = self._compose(request, retry=span.attempt > 1)
        try:
            await Exchange(self._live, span, request, answer).run(receive, send)
        except QueueFull:
            message = "The model is overloaded and its queue is full; try again later."
            raise RequestError(503, message, kind="server_error", code="queue_full") from None

    def _compose(self, request: ChatRequest, *, retry: bool) -> Answer:
        key = request_key(request)
        if not (retry and self._seen[key]):  # a retry is the same request once more
            self._seen[key] += 1
        occurrence = self._seen[key] - 1
        return compose(
            request, self._replies, self._physics, seed=self._seed, occurrence=occurrence
        )


def _models(path: str) -> wire.Json:
    name = path.removeprefix(_MODELS).removeprefix("/")
    if name:  # the local model answers to any name
        return wire.model_card(name)
    return {"object": "list", "data": [wire.model_card("local")]}
