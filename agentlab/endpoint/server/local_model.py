"""The local model: answers that fit the task, in the time that a real model would take.

A client that hangs up frees its slot immediately, as with a real server.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import cache, cached_property, lru_cache, partial
from typing import Any

import msgspec

from agentlab._support import DATA
from agentlab.endpoint.answers.answer import Answer, Heard, hear, lengths, say
from agentlab.endpoint.answers.replies import Replies
from agentlab.endpoint.contract import asgi
from agentlab.endpoint.contract.asgi import Headers, Receive, Scope, Send
from agentlab.endpoint.contract.openai_json import RequestError, decode, refusal
from agentlab.endpoint.contract.record import Span
from agentlab.endpoint.contract.request import ChatRequest
from agentlab.endpoint.contract.seeded_random import Occurrences, digest, generator, uniform
from agentlab.endpoint.dialects.chat import FRAME, Chat, CompletionRequest, Completions, together
from agentlab.endpoint.dialects.embeddings import EmbeddingRequest, Embeddings, answer_to
from agentlab.endpoint.dialects.responses import Responses, Stored, size_bytes
from agentlab.endpoint.dialects.responses_request import ResponsesRequest, as_chat, in_own_words
from agentlab.endpoint.physics.batch import Job, Queue, QueueFull
from agentlab.endpoint.physics.live import LiveBatch
from agentlab.endpoint.physics.prefixes import blocks
from agentlab.endpoint.presets import Preset
from agentlab.settings import Settings

_SHORT_BYTES, _MOST_KNOWN = 16_384, 1024
Dialect = Chat | Responses | Embeddings  # each knows the answer, not the time

_HEADERS = [(b"openai-version", b"2020-10-01"), (b"openai-organization", b"agentlab")]
_Reply = tuple[Answer, Dialect, bool]
_Replying = Callable[[bytes, Span], Awaitable[_Reply]]
_Answering = Callable[[Scope, Receive, Send, Span], Awaitable[None]]
_ANY_TIME, _replies = nullcontext(), cache(Replies)


class LocalModel:
    """Answers OpenAI's routes with prepared words and real physics, as `LiveBatch` has it."""

    def __init__(self, preset: Preset, settings: Settings, queue: Queue | None = None):
        self.time_scale, self.paid, self._seed = settings.time_scale, False, settings.seed
        self._physics = msgspec.structs.replace(preset.physics, capacity=settings.capacity)
        self._replies, self._queue = _replies(DATA / "replies"), queue
        self._longest_tokens = preset.context_tokens.value if preset.context_tokens else None
        share, thought = preset.reasoning_share, preset.reasoning_tokens
        self._reasoning = (share.value, thought.value) if share and thought else (0.0, 0)
        self._seen, self._stored = Occurrences(), Stored()
        # Agents, and benchmarks above all, send the very same bytes again and again.
        self._known = lru_cache(maxsize=_MOST_KNOWN)(self._hear)
        # One long request after the other: together, their slices would keep all others waiting.
        self._reading = asyncio.Lock()
        self._routes: dict[str, dict[str, _Answering]] = {
            "/v1/chat/completions": {"POST": partial(self._ask, self._chat)},
            "/v1/completions": {"POST": partial(self._ask, self._completions)},
            "/v1/responses": {"POST": partial(self._ask, self._responses)},
            "/v1/responses/(?!input_t|compact)[^/]+": {"GET": self._kept, "DELETE": self._kept},
            "/v1/responses/[^/]+/input_items": {"GET": self._kept},
            "/v1/embeddings": {"POST": partial(self._ask, self._embeddings)},
            "/v1/models": {"GET": self._models},
            "/v1/models/": {"GET": self._models},
        }

    @cached_property
    def _live(self) -> LiveBatch:
        # Made by the first request, because only then there is a loop whose clock it can take.
        return LiveBatch(self._physics, self.time_scale, self._queue)

    def now_s(self) -> float:
        return self._live.now_s()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        method = scope["method"]
        route = asgi.routed(scope["path"], method, self._routes)
        await self._routes[route][method](scope, receive, send, span)

    async def _ask(
        self, reply: _Replying, scope: Scope, receive: Receive, send: Send, span: Span
    ) -> None:
        body = await asgi.read_body(scope, receive)
        async with self._reading if len(body) > _SHORT_BYTES else _ANY_TIME:
            answer, dialect, stream = await reply(body, span)
        try:
            await _Exchange(self._live, span, answer, dialect).run(receive, send, stream=stream)
            if isinstance(dialect, Responses) and dialect.store and span.ok:
                self._stored.keep(span.learner, dialect.id, dialect.kept())
        except QueueFull:  # the next event may free a place: a guess, as a real server's is
            again_s = max(self._live.batch.next_event_s() - self.now_s(), 0.001)
            raise refusal("queue_full", retry_after_s=again_s) from None

    async def _models(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        name = scope["path"].removeprefix("/v1/models").removeprefix("/")  # any name will do
        card = {"id": name or "local", "object": "model", "created": 0, "owned_by": "agentlab"}
        await asgi.respond(send, 200, card if name else {"object": "list", "data": [card]})

    async def _chat(self, body: bytes, span: Span) -> _Reply:
        heard = self._known(body) if len(body) <= _SHORT_BYTES else self._hear(body)
        request, answer = heard.request, await self._compose(heard, span)
        return answer, Chat(request, answer, int(time.time())), bool(request.stream)

    def _hear(self, body: bytes) -> Heard:
        return hear(decode(body, ChatRequest), self._replies)

    async def _completions(self, body: bytes, span: Span) -> _Reply:
        request, answers = decode(body, CompletionRequest), list[Answer]()
        lengths(request, len(request.prompts))  # cannot be too much
        for prompt in request.prompts:
            heard = hear(request.chat(prompt), self._replies)
            answers.append(await self._compose(heard, span, "prompt"))
            await asyncio.sleep(0)  # writing many answers takes long
        answer = together(answers)
        return answer, Completions(request, answer, int(time.time())), bool(request.stream)

    async def _responses(self, body: bytes, span: Span) -> _Reply:
        request = decode(body, ResponsesRequest)
        before = self._stored.recall(span.learner, request)
        long = len(body) <= _SHORT_BYTES < size_bytes(before)  # what it continues is
        try:
            async with self._reading if long else _ANY_TIME:
                answer = await self._compose(hear(as_chat(request, before), self._replies), span)
        except RequestError as error:
            raise in_own_words(error) from None
        return answer, Responses(request, answer, int(time.time()), before), bool(request.stream)

    async def _kept(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        await asgi.respond(send, 200, self._stored.answer(span.learner, scope))

    async def _embeddings(self, body: bytes, span: Span) -> _Reply:
        request = decode(body, EmbeddingRequest)
        answer = await answer_to(request, span.request_id)
        return answer, Embeddings(request, answer.said.prompt_tokens), False

    async def _compose(self, heard: Heard, span: Span, asked: str = "messages") -> Answer:
        request, key = heard.request, heard.key
        # Counted by learner, so that nobody's answers depend on what the neighbours ask.
        counted = key + span.learner.encode() if span.learner else key
        drawn = self._seed, key, self._seen.next(counted, retry=span.attempt > 1)
        said = await say(heard, self._replies, *drawn)
        if asked == "prompt":  # which no chat's frame is around
            said = msgspec.structs.replace(said, prompt_tokens=said.prompt_tokens - FRAME)
        needed = said.prompt_tokens + ((limit := request.limit_tokens) or 1)
        if self._longest_tokens is not None and needed > self._longest_tokens:
            words: Any = {"most": self._longest_tokens, "needed": needed}
            raise refusal("context_length_exceeded", asked, read=said.prompt_tokens, **words)
        share, thought = self._reasoning
        fits = limit is None or said.longest_tokens + thought <= limit
        thinks = share and fits and uniform(*drawn, "reasoning") < share
        id, jitters = f"chatcmpl-{digest(*drawn, 'id').hex()}", (1.0, 1.0)
        if self._physics.jitter_sigma:  # a generator takes longer to make than all the rest
            draw = generator(*drawn, "timing")
            jitters = self._physics.jitter(draw), self._physics.jitter(draw)
        read = [*request.described, *request.texts] if self._physics.prefix_caching else ()
        return Answer(id, said, *jitters, blocks(read), thought if thinks else 0)


class _Exchange:
    """Gives `answer`, worded by `dialect`, in the time it takes `live`; notes it in `span`."""

    def __init__(self, live: LiveBatch, span: Span, answer: Answer, dialect: Dialect):
        said, self._thought = answer.said, answer.reasoning_tokens
        self._live, self._span, self._said, self._dialect = live, span, said, dialect
        sizes = said.prompt_tokens, self._thought + said.longest_tokens
        jitter = answer.prefill_jitter, answer.decode_jitter
        self._job = Job(*sizes, *jitter, span.learner or "", span.agent, answer.blocks)

    async def run(self, receive: Receive, send: Send, *, stream: bool) -> None:
        self._span.prompt_tokens = self._said.prompt_tokens
        self._live.submit(self._job)
        self._span.arrived_s = self._job.arrived_s  # reading the request was not a wait for a slot
        answering = self._answer(send, stream)
        try:
            if self._job.end_s is not None:  # it is done already, so nobody can hang up meanwhile
                await answering
            else:
                await asgi.unless_gone(receive, answering)
        finally:
            if self._job.end_s is None:
                self._note(self._live.made(self._job))
                self._live.cancel(self._job)
            self._span.end_s = self._job.end_s

    async def _answer(self, send: Send, stream: bool) -> None:
        job: Job = self._job
        dialect: Any = self._dialect
        if job.started_s is None:
            await self._live.started(job)
        self._span.started_s = job.started_s  # for those who look meanwhile
        opening = await self._words(send, dialect) if stream else b""
        due_s = await self._live.finished(job)
        headers = () if stream else self._headers()
        self._note(self._thought + self._said.completion_tokens, status=200)
        dialect.cached_tokens = job.cached_tokens
        body = opening + dialect.closing() if stream else dialect.whole()
        if not isinstance(body, bytes | dict):
            body = await body
        self._note_lateness(due_s)
        await (asgi.finish(send, body) if stream else asgi.respond(send, 200, body, headers))

    async def _words(self, send: Send, dialect: Any) -> bytes:
        """Stream all tokens; return what is still to be sent because there were none."""
        await asgi.start(send, 200, b"text/event-stream; charset=utf-8", self._headers())
        opening: bytes = dialect.opening()
        sent = self._thought
        while sent < self._job.output_tokens:
            have, due_s = await self._live.tokens(self._job, after=sent)
            self._note_lateness(due_s)
            words = dialect.between(sent - self._thought, have - self._thought)
            data, opening = opening + words, b""
            await send({"type": "http.response.body", "body": data, "more_body": True})
            sent = have
        return opening

    def _headers(self) -> Headers:
        took_s = (self._live.now_s() - self._job.arrived_s) / self._live.time_scale
        took = (b"openai-processing-ms", b"%d" % (took_s * 1000))
        return [*_HEADERS, (b"x-request-id", self._span.request_id.encode()), took]

    def _note_lateness(self, due_s: float | None) -> None:
        late_s = 0.0 if due_s is None else self._live.now_s() - due_s
        late_ms = round(late_s / self._live.time_scale * 1000, 3) if late_s else 0.0
        self._span.late_ms = max(late_ms, self._span.late_ms or 0.0)

    def _note(self, completion_tokens: int, status: int | None = None) -> None:
        job, span = self._job, self._span
        span.status, span.completion_tokens = status, completion_tokens
        span.started_s, span.end_s = job.started_s, job.end_s
        span.cached_tokens = job.cached_tokens
        if status:
            cut = "length" in [choice.finish_reason for choice in self._said.choices]
            span.finish_reason = "length" if cut else "stop"
        if completion_tokens:
            span.first_token_s = job.first_token_s
