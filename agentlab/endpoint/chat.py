"""An answer in the words of OpenAI's chat completions, whole or as the chunks of a stream.

Source: OpenAI's API reference for chat completions, and what its Python client accepts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentlab.endpoint.answer import Answer, Choice
from agentlab.endpoint.request import ChatRequest
from agentlab.endpoint.wire import DONE, Json, event


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """The token counts that an answer carries."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def completion(
    *, id: str, created: int, model: str, choices: Sequence[tuple[Json, str]], usage: Json
) -> Json:
    """A whole answer; `choices` are (message, finish_reason)."""
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": reason}
            for index, (message, reason) in enumerate(choices)
        ],
        "usage": usage,
        "system_fingerprint": "agentlab",
    }


def message(text: str, calls: Sequence[Json]) -> Json:
    """What the assistant says: text, or calls of tools."""
    said: Json = {"role": "assistant", "content": text, "refusal": None}
    return said | {"content": text or None, "tool_calls": calls} if calls else said


def tool_call(id: str, name: str, arguments: str) -> Json:
    """One call of a tool; `arguments` is JSON in a string."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def chunk(
    *,
    id: str,
    created: int,
    model: str,
    index: int,
    delta: Mapping[str, Any],
    finish_reason: str | None = None,
) -> Json:
    """One piece of a streamed answer, for the choice number `index`."""
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _chunk(id, created, model) | {"choices": [choice]}


def usage_chunk(*, id: str, created: int, model: str, usage: Json) -> Json:
    """The last piece of a stream whose client asked for the token counts."""
    return _chunk(id, created, model) | {"choices": [], "usage": usage}


def _chunk(id: str, created: int, model: str) -> Json:
    return {
        "id": id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "system_fingerprint": "agentlab",
    }


class Chat:
    """An answer in the words of chat completions (`exchange.Dialect`)."""

    def __init__(self, request: ChatRequest, answer: Answer, created: int):
        self._request, self._answer = request, answer
        self._identity: Json = {"id": answer.id, "created": created, "model": request.model}

    def whole(self) -> Json:
        """The body of an answer that is not streamed."""
        choices = [(_message(choice), choice.finish_reason) for choice in self._answer.choices]
        return completion(**self._identity, choices=choices, usage=self._usage)

    def opening(self) -> bytes:
        """The first events of a stream: who speaks."""
        role = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(self._chunk(i, role) for i in range(len(self._answer.choices)))

    def between(self, sent: int, have: int) -> bytes:
        """The events for the tokens after number `sent` up to number `have` of each choice."""
        return b"".join(
            self._chunk(i, delta)
            for i, choice in enumerate(self._answer.choices)
            for delta in _deltas(choice, sent, have)
        )

    def closing(self) -> bytes:
        """The last events: why it ended, and the token counts if they were asked for."""
        events = [self._chunk(i, {}, c.finish_reason) for i, c in enumerate(self._answer.choices)]
        if self._request.wants_usage:
            events.append(event(usage_chunk(**self._identity, usage=self._usage)))
        return b"".join([*events, DONE])

    def _chunk(self, index: int, delta: Json, finish_reason: str | None = None) -> bytes:
        return event(chunk(**self._identity, index=index, delta=delta, finish_reason=finish_reason))

    @property
    def _usage(self) -> Json:
        return usage(self._answer.said.prompt_tokens, self._answer.said.completion_tokens)


def _message(choice: Choice) -> Json:
    calls = [tool_call(c.id, c.name, choice.arguments(c)) for c in choice.calls]
    return message(choice.text, calls)


def _deltas(choice: Choice, sent: int, have: int) -> Iterator[Json]:
    """What is new in a choice between two numbers of tokens."""
    if not choice.calls:
        if text := "".join(choice.pieces[sent:have]):
            yield {"content": text}
        return
    for index, call in enumerate(choice.calls):
        if sent <= call.start < have:
            yield {"tool_calls": [{"index": index, **tool_call(call.id, call.name, "")}]}
        if new := "".join(choice.pieces[max(sent, call.start) : min(have, call.end)]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": new}}]}
