"""One request being answered: its job in the batch, its bytes on the wire, its span.

A client that hangs up frees its slot immediately, as with a real server.
"""

from __future__ import annotations

from agentlab.endpoint.answers.answer import Answer
from agentlab.endpoint.contract import asgi
from agentlab.endpoint.contract.asgi import Headers, Receive, Send
from agentlab.endpoint.contract.record import Span
from agentlab.endpoint.dialects.chat import Chat
from agentlab.endpoint.dialects.embeddings import Embeddings
from agentlab.endpoint.dialects.responses import Responses
from agentlab.endpoint.physics.batch import Job
from agentlab.endpoint.physics.live import LiveBatch

Dialect = Chat | Responses | Embeddings  # each knows the answer, not the time

_HEADERS = [(b"openai-version", b"2020-10-01"), (b"openai-organization", b"agentlab")]


class Exchange:
    """Gives `answer`, worded by `dialect`, in the time it takes `live`; notes it in `span`."""

    def __init__(self, live: LiveBatch, span: Span, answer: Answer, dialect: Dialect):
        self._live, self._span, self._said, self._dialect = live, span, answer.said, dialect
        self._job = Job(
            prompt_tokens=answer.said.prompt_tokens,
            output_tokens=answer.said.longest_tokens,
            prefill_jitter=answer.prefill_jitter,
            decode_jitter=answer.decode_jitter,
            learner=span.learner or "",
            agent=span.agent,
        )

    async def run(self, receive: Receive, send: Send, *, stream: bool) -> None:
        """See the exchange through; QueueFull if nothing is sent, ClientGone if nobody listens."""
        self._span.prompt_tokens = self._said.prompt_tokens
        self._live.submit(self._job)
        self._span.arrived_s = self._job.arrived_s  # reading the request was not a wait for a slot
        headers = [*_HEADERS, (b"x-request-id", self._span.request_id.encode())]
        answering = self._stream(send, headers) if stream else self._whole(send, headers)
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

    async def _whole(self, send: Send, headers: Headers) -> None:
        await self._live.finished(self._job)
        headers = [*headers, self._took()]
        self._note(self._said.completion_tokens, status=200)
        body = self._dialect.whole()
        await asgi.respond(send, 200, body if isinstance(body, dict) else await body, headers)

    async def _stream(self, send: Send, headers: Headers) -> None:
        assert not isinstance(self._dialect, Embeddings)
        await self._live.started(self._job)
        headers = [*headers, self._took()]
        await asgi.start(send, 200, b"text/event-stream; charset=utf-8", headers)
        opening, sent = self._dialect.opening(), 0
        while sent < self._job.output_tokens:
            have = await self._live.tokens(self._job, after=sent)
            data, opening = opening + self._dialect.between(sent, have), b""
            await send({"type": "http.response.body", "body": data, "more_body": True})
            sent = have
        await self._live.finished(self._job)
        self._note(self._said.completion_tokens, status=200)
        await asgi.finish(send, opening + self._dialect.closing())

    def _took(self) -> tuple[bytes, bytes]:
        took_s = (self._live.now_s() - self._job.arrived_s) / self._live.time_scale
        return b"openai-processing-ms", b"%d" % (took_s * 1000)

    def _note(self, completion_tokens: int, status: int | None = None) -> None:
        job, span = self._job, self._span
        span.status, span.completion_tokens = status, completion_tokens
        span.started_s, span.end_s = job.started_s, job.end_s
        if completion_tokens:
            span.first_token_s = job.first_token_s
