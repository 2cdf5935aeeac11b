"""An answer in the words of OpenAI's chat completions, whole or as the chunks of a stream.

Source: OpenAI's API reference for chat completions, and what its Python client accepts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agentlab.endpoint.answers.answer import Answer, Called, Choice
from agentlab.endpoint.contract.openai_json import Json, event
from agentlab.endpoint.contract.request import ChatRequest

_SERVED = {"auto": "default", "fast": "priority"}  # the tier that answers, if it has another name
_OF_COMPLETION = ("reasoning", "audio", "accepted_prediction", "rejected_prediction")
_DETAILS = {
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {f"{name}_tokens": 0 for name in _OF_COMPLETION},
}


class Chat:
    """An answer in the words of chat completions."""

    WHOLE, CHUNK = "chat.completion", "chat.completion.chunk"  # what a body says that it is

    def __init__(self, request: ChatRequest, answer: Answer, created: int):
        self._choices = answer.said.choices
        self._head: Json = {"id": answer.id, "object": self.WHOLE}
        self._head |= {"created": created, "model": request.model}
        if request.service_tier:
            self._head["service_tier"] = _SERVED.get(request.service_tier, request.service_tier)
        sent, made = answer.said.prompt_tokens, answer.said.completion_tokens
        counts = {"prompt_tokens": sent, "completion_tokens": made}
        self._usage = counts | {"total_tokens": sent + made} | _DETAILS
        options = request.stream_options
        self._no_usage: Json = {"usage": None} if options and options.include_usage else {}

    def whole(self) -> Json:
        """Return the body of an answer that is not streamed."""
        choices = [
            {"index": i, "message": _message(c), "logprobs": None, "finish_reason": c.finish_reason}
            for i, c in enumerate(self._choices)
        ]
        rest = {"choices": choices, "usage": self._usage, "system_fingerprint": "agentlab"}
        return self._head | rest

    def opening(self) -> bytes:
        """Return the first events of a stream: who speaks."""
        role = {"role": "assistant", "content": "", "refusal": None}
        deltas = [role | {"content": None} if c.calls else role for c in self._choices]
        return b"".join(self._chunk(i, delta) for i, delta in enumerate(deltas))

    def between(self, sent: int, have: int) -> bytes:
        """Return the events for the tokens after number `sent` up to `have` of each choice."""
        return b"".join(
            self._chunk(i, delta)
            for i, choice in enumerate(self._choices)
            for delta in _deltas(choice, sent, have)
        )

    def closing(self) -> bytes:
        """Return the last events: why it ended, and the token counts if they were asked for."""
        events = [self._chunk(i, {}, c.finish_reason) for i, c in enumerate(self._choices)]
        if self._no_usage:
            events.append(self._event([], usage=self._usage))
        return b"".join([*events, b"data: [DONE]\n\n"])

    def _chunk(self, index: int, delta: Json, reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._event([choice])

    def _event(self, choices: list[Json], **more: Any) -> bytes:
        kind = {"object": self.CHUNK, "system_fingerprint": "agentlab"}
        return event(self._head | kind | {"choices": choices} | self._no_usage | more)


def _message(choice: Choice) -> Json:
    calls = [_tool_call(call, choice.arguments(call)) for call in choice.calls]
    message = {"role": "assistant", "content": None if calls else choice.text, "refusal": None}
    return message | {"tool_calls": calls} if calls else message


def _tool_call(call: Called, arguments: str) -> Json:
    if call.custom:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": arguments}}
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _deltas(choice: Choice, sent: int, have: int) -> Iterator[Json]:
    if not choice.calls:
        if text := "".join(choice.pieces[sent:have]):
            yield {"content": text}
        return
    for index, call in enumerate(choice.calls):
        if sent <= call.start < have:
            yield {"tool_calls": [{"index": index, **_tool_call(call, "")}]}
        if new := "".join(choice.pieces[max(sent, call.start) : min(have, call.end)]):
            more = {"custom": {"input": new}} if call.custom else {"function": {"arguments": new}}
            yield {"tool_calls": [{"index": index, **more}]}
