"""The local model: answers that fit the task, in the time that a real model would take."""

from __future__ import annotations

from functools import cached_property

from agentlab.endpoint import wire
from agentlab.endpoint.answer import Answer, compose, request_key
from agentlab.endpoint.app import unknown_route
from agentlab.endpoint.batch import QueueFull
from agentlab.endpoint.chat import Exchange
from agentlab.endpoint.draws import Occurrences
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
        queue_full_status: What a request gets that finds the queue full, 429 or 503.
        context_tokens: How long a prompt may be together with its answer; None for any length.
    """

    def __init__(
        self,
        physics: Physics,
        replies: Replies,
        *,
        seed: int = 7,
        time_scale: float = 1.0,
        queue_full_status: int = 503,
        context_tokens: int | None = None,
    ):
        self._physics, self._replies = physics, replies
        self.time_scale, self._seed = time_scale, seed
        self._queue_full_status, self._context_tokens = queue_full_status, context_tokens
        self._seen = Occurrences()

    @cached_property
    def _live(self) -> LiveBatch:
        # Made by the first request, because only then there is a loop whose clock it can take.
        return LiveBatch(self._physics, self.time_scale)

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
        self._check_length(request, answer)
        try:
            await Exchange(self._live, span, request, answer).run(receive, send)
        except QueueFull:
            raise self._queue_full() from None

    def _queue_full(self) -> RequestError:
        return RequestError(
            self._queue_full_status,
            "The model is overloaded and its queue is full; try again later.",
            kind="server_error",
            code="queue_full",
            # The next event may free a place; a guess, as a real server's is.
            retry_after_s=max(self._live.batch.next_event_s() - self.now_s(), 0.001),
        )

    def _check_length(self, request: ChatRequest, answer: Answer) -> None:
        needed = answer.prompt_tokens + (request.limit_tokens or 1)
        if self._context_tokens is not None and needed > self._context_tokens:
            raise RequestError(
                400,
                f"This model's maximum context length is {self._context_tokens} tokens. However, "
                f"your request needs {needed} ({answer.prompt_tokens} in the messages, the rest "
                "in the completion). Please reduce its length.",
                param="messages",
                code="context_length_exceeded",
            )

    def _compose(self, request: ChatRequest, *, retry: bool) -> Answer:
        occurrence = self._seen.next(request_key(request), retry=retry)
        return compose(
            request, self._replies, self._physics, seed=self._seed, occurrence=occurrence
        )


def _models(path: str) -> wire.Json:
    name = path.removeprefix(_MODELS).removeprefix("/")
    if name:  # the local model answers to any name
        return wire.model_card(name)
    return {"object": "list", "data": [wire.model_card("local")]}
