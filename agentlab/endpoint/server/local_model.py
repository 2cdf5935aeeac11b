"""The local model: answers that fit the task, in the time that a real model would take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import cache, cached_property
from typing import Any

import msgspec

from agentlab.endpoint.answers.answer import Answer, Said, request_key, say, timed
from agentlab.endpoint.answers.replies import Replies
from agentlab.endpoint.contract import asgi
from agentlab.endpoint.contract.asgi import Receive, Scope, Send
from agentlab.endpoint.contract.openai_json import RequestError, decode
from agentlab.endpoint.contract.record import Span
from agentlab.endpoint.contract.request import ChatRequest
from agentlab.endpoint.contract.seeded_random import Occurrences
from agentlab.endpoint.dialects.chat import Chat
from agentlab.endpoint.dialects.embeddings import EmbeddingRequest, Embeddings, answer_to
from agentlab.endpoint.dialects.exchange import Dialect, Exchange
from agentlab.endpoint.dialects.responses import Responses, ResponsesRequest, as_chat
from agentlab.endpoint.physics.batch import Queue, QueueFull
from agentlab.endpoint.physics.live import LiveBatch
from agentlab.endpoint.presets import Preset
from agentlab.settings import DATA, Settings

_MODELS = "/v1/models"
_SHORT_BYTES, _SHORT_TOKENS, _MOST_KNOWN = 16_384, 1024, 1024
_Reply = tuple[Answer, Dialect, bool]
_Known = tuple[ChatRequest, bytes, Said | None]
"""A request, its key, and the words of its answer, if they are the same every time."""
_replies = cache(Replies)


class LocalModel:
    """Answers OpenAI's routes with prepared words and real physics, as `LiveBatch` has it."""

    def __init__(self, preset: Preset, settings: Settings, queue: Queue | None = None):
        self.time_scale, self.paid, self._seed = settings.time_scale, False, settings.seed
        self._physics = msgspec.structs.replace(preset.physics, capacity=settings.capacity)
        self._replies, self._queue = _replies(DATA / "replies"), queue
        self._longest_tokens = preset.context_tokens.value if preset.context_tokens else None
        self._seen = Occurrences()
        self._known: dict[bytes, _Known] = {}
        # One long request after the other: together, their slices would keep all others waiting.
        self._reading = asyncio.Lock()
        self._answering: dict[str, Callable[[bytes, Span], Awaitable[_Reply]]] = {
            "/v1/chat/completions": self._chat,
            "/v1/responses": self._responses,
            "/v1/embeddings": self._embeddings,
        }

    @cached_property
    def _live(self) -> LiveBatch:
        # Made by the first request, because only then there is a loop whose clock it can take.
        return LiveBatch(self._physics, self.time_scale, self._queue)

    def now_s(self) -> float:
        return self._live.now_s()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        path, method = scope["path"], scope["method"]
        answering = self._answering.get(path)
        if answering is not None and method == "POST":
            body = await asgi.read_body(scope, receive)
            async with self._reading if len(body) > _SHORT_BYTES else nullcontext():
                answer, dialect, stream = await answering(body, span)
            try:
                exchange = Exchange(self._live, span, answer, dialect)
                await exchange.run(receive, send, stream=stream)
            except QueueFull:  # the next event may free a place: a guess, as a real server's is
                again_s = max(self._live.batch.next_event_s() - self.now_s(), 0.001)
                message = "The model is overloaded and its queue is full; try again later."
                code = {"kind": "server_error", "code": "queue_full"}
                raise RequestError(503, message, **code, retry_after_s=again_s) from None
        elif f"{path}/".startswith(f"{_MODELS}/") and method == "GET":
            name = path.removeprefix(_MODELS).removeprefix("/")  # any name will do
            card = {"id": name or "local", "object": "model", "created": 0, "owned_by": "agentlab"}
            await asgi.respond(send, 200, card if name else {"object": "list", "data": [card]})
        elif answering or path == _MODELS:
            raise asgi.wrong_method(path, method, "POST" if answering else "GET")
        else:
            raise asgi.unknown_route(scope, [*self._answering, _MODELS])

    async def _chat(self, body: bytes, span: Span) -> _Reply:
        # Agents, and benchmarks above all, send the very same bytes again and again.
        known = self._known.get(body) or _new(decode(body, ChatRequest))
        request, key, said = known
        answer = await self._compose(known, span)
        short = len(body) <= _SHORT_BYTES and answer.said.completion_tokens <= _SHORT_TOKENS
        if said is None and answer.said.fixed and short:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[body] = (request, key, answer.said)
        return answer, Chat(request, answer, int(time.time())), bool(request.stream)

    async def _responses(self, body: bytes, span: Span) -> _Reply:
        request = decode(body, ResponsesRequest)
        answer = await self._compose(_new(as_chat(request)), span)
        return answer, Responses(request, answer, int(time.time())), bool(request.stream)

    async def _embeddings(self, body: bytes, span: Span) -> _Reply:
        request = decode(body, EmbeddingRequest)
        answer = await answer_to(request, span.request_id)
        return answer, Embeddings(request, answer.said.prompt_tokens), False

    async def _compose(self, known: _Known, span: Span) -> Answer:
        request, key, said = known
        # Counted by learner, so that nobody's answers depend on what the neighbours ask.
        counted = key + span.learner.encode() if span.learner else key
        occurrence = self._seen.next(counted, retry=span.attempt > 1)
        drawn: Any = {"seed": self._seed, "key": key, "occurrence": occurrence}
        said = said or await say(request, self._replies, **drawn)
        needed = said.prompt_tokens + (request.limit_tokens or 1)
        if self._longest_tokens is not None and needed > self._longest_tokens:
            raise RequestError(
                400,
                f"This model's maximum context length is {self._longest_tokens} tokens. However, "
                f"your request needs {needed} ({said.prompt_tokens} in the messages, the rest "
                "in the completion). Please reduce its length.",
                param="messages",
                code="context_length_exceeded",
            )
        return timed(said, self._physics, **drawn)


def _new(request: ChatRequest) -> _Known:
    return request, request_key(request), None
