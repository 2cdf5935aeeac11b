"""One chat request being answered: its job in the batch, its bytes on the wire, its span.

A client that hangs up frees its slot at once, as a real server's abort does.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

from agentlab.endpoint import wire
from agentlab.endpoint.answer import Answer, Choice
from agentlab.endpoint.batch import Job
from agentlab.endpoint.http import Headers, Receive, Send, respond, start, unless_gone
from agentlab.endpoint.live import LiveBatch
from agentlab.endpoint.wire import ChatRequest, Json
from agentlab.trace import Span

_ROLE: Json = {"role": "assistant", "content": "", "refusal": None}


class Exchange:
    """Answer `request` with `answer`, in the time that `live` takes for it; note it in `span`."""

    def __init__(self, live: LiveBatch, span: Span, request: ChatRequest, answer: Answer):
        self._live, self._span, self._request, self._answer = live, span, request, answer
        self._identity: Json = {
            "id": answer.id,
            "created": int(time.time()),
            "model": request.model,
        }
        self._job = Job(
            prompt_tokens=answer.prompt_tokens,
            output_tokens=answer.longest_tokens,
            prefill_jitter=answer.prefill_jitter,
            decode_jitter=answer.decode_jitter,
        )

    async def run(self, receive: Receive, send: Send) -> None:
        """See the exchange through.

        Raises:
            QueueFull: If the batch has no place for it; nothing has been sent then.
            ClientGone: If the client hung up before the answer was complete.
        """
        self._span.prompt_tokens = self._answer.prompt_tokens
        self._live.submit(self._job)
        self._span.arrived_s = self._job.arrived_s  # reading the request was no wait for a slot
        headers = [(b"x-request-id", self._span.request_id.encode())]
        answering = self._stream if self._request.stream else self._whole
        try:
            await unless_gone(receive, answering(send, headers))
        finally:
            if self._job.end_s is None:
                self._note(self._live.made(self._job))
                self._live.cancel(self._job)
            self._span.end_s = self._job.end_s

    async def _whole(self, send: Send, headers: Headers) -> None:
        await self._live.finished(self._job)
        self._note(self._answer.completion_tokens, status=200)
        choices = [(_message(choice), choice.finish_reason) for choice in self._answer.choices]
        body = wire.completion(**self._identity, choices=choices, usage=self._usage)
        await respond(send, 200, body, headers)

    async def _stream(self, send: Send, headers: Headers) -> None:
        await self._live.started(self._job)
        await start(send, 200, b"text/event-stream; charset=utf-8", headers)
        async for data in self._content():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await self._live.finished(self._job)
        self._note(self._answer.completion_tokens, status=200)
        await send({"type": "http.response.body", "body": self._closing()})

    async def _content(self) -> AsyncIterator[bytes]:
        """A chunk for each choice whenever there are new tokens, as many as there are."""
        sent = 0
        while sent < self._job.output_tokens:
            have = await self._live.tokens(self._job, after=sent)
            opening = (
                [] if sent else [self._chunk(i, _ROLE) for i in range(len(self._answer.choices))]
            )
            new = [
                self._chunk(i, delta)
                for i, choice in enumerate(self._answer.choices)
                for delta in _deltas(choice, sent, have)
            ]
            yield b"".join(opening + new)
            sent = have

    def _closing(self) -> bytes:
        events = [
            self._chunk(index, {} if self._job.output_tokens else _ROLE, choice.finish_reason)
            for index, choice in enumerate(self._answer.choices)
        ]
        if self._request.wants_usage:
            events.append(wire.event(wire.usage_chunk(**self._identity, usage=self._usage)))
        return b"".join([*events, wire.DONE])

    def _chunk(self, index: int, delta: Json, finish_reason: str | None = None) -> bytes:
        return wire.event(
            wire.chunk(**self._identity, index=index, delta=delta, finish_reason=finish_reason)
        )

    @property
    def _usage(self) -> Json:
        return wire.usage(self._answer.prompt_tokens, self._answer.completion_tokens)

    def _note(self, completion_tokens: int, status: int | None = None) -> None:
        job, span = self._job, self._span
        span.status, span.completion_tokens = status, completion_tokens
        span.started_s, span.end_s = job.started_s, job.end_s
        if completion_tokens:
            span.first_token_s = job.first_token_s


def _message(choice: Choice) -> Json:
    calls = [wire.tool_call(c.id, c.name, choice.arguments(c)) for c in choice.calls]
    return wire.message(choice.text, calls)


def _deltas(choice: Choice, sent: int, have: int) -> Iterator[Json]:
    """What is new in a choice between two numbers of tokens."""
    if not choice.calls:
        if text := "".join(choice.pieces[sent:have]):
            yield {"content": text}
        return
    for index, call in enumerate(choice.calls):
        if sent <= call.start < have:
            yield {"tool_calls": [{"index": index, **wire.tool_call(call.id, call.name, "")}]}
        if new := "".join(choice.pieces[max(sent, call.start) : min(have, call.end)]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": new}}]}
