"""OpenAI's chat completions, whole or as the chunks of a stream; and the older completions.

A prompt of the older route, which many load tools ask, is answered as the one message of a chat
would be, without a chat's frame around it.
Source: OpenAI's API reference for both, and what its Python client accepts and sends.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from agentlab.endpoint.answers.answer import FRAME_TOKENS, Answer, Called, Choice, said_in
from agentlab.endpoint.contract.openai_json import Json, event, invalid, refusal
from agentlab.endpoint.contract.request import MOST_ITEMS, ChatRequest, Message, SomeUpToMost

FRAME = 2 * FRAME_TOKENS  # around the one message of a chat
_OTHERS = ("audio", "accepted_prediction", "rejected_prediction")  # kinds of an answer's tokens
_NO_OTHERS = {f"{kind}_tokens": 0 for kind in _OTHERS}
_SERVED = {"auto": "default", "fast": "priority"}  # the tier that answers, if it has another name


class Chat:
    """An answer in the words of chat completions."""

    WHOLE, CHUNK = "chat.completion", "chat.completion.chunk"  # what a body says that it is
    cached_tokens = 0

    def __init__(self, request: ChatRequest, answer: Answer, created: int):
        self._answer, self._choices = answer, answer.said.choices
        kind, model = self.CHUNK if request.stream else self.WHOLE, request.model
        self._head: Json = {"id": answer.id, "object": kind, "created": created, "model": model}
        if request.service_tier:
            self._head["service_tier"] = _SERVED.get(request.service_tier, request.service_tier)
        options = request.stream_options
        self._no_usage: Json = {"usage": None} if options and options.include_usage else {}

    def whole(self) -> Json:
        """Return the body of an answer that is not streamed."""
        choices = [
            {"index": i, "message": _message(c), "logprobs": None, "finish_reason": c.finish_reason}
            for i, c in enumerate(self._choices)
        ]
        rest = {"choices": choices, "usage": self._counts(), "system_fingerprint": "agentlab"}
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
            events.append(self._event([], usage=self._counts()))
        return b"".join([*events, b"data: [DONE]\n\n"])

    def _counts(self) -> Json:
        sent, thought = self._answer.said.prompt_tokens, self._answer.reasoning_tokens
        made = thought + self._answer.said.completion_tokens
        return {
            "prompt_tokens": sent,
            "completion_tokens": made,
            "total_tokens": sent + made,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": thought, **_NO_OTHERS},
        }

    def _chunk(self, index: int, delta: Json, reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._event([choice])

    def _event(self, choices: list[Json], **more: Any) -> bytes:
        rest = {"system_fingerprint": "agentlab", "choices": choices, **self._no_usage, **more}
        return event(self._head | rest)


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


class CompletionRequest(ChatRequest, kw_only=True):
    """What `/v1/completions` takes: a chat's fields, but for prompts, of `n` choices each."""

    prompt: str | Annotated[list[str], SomeUpToMost]
    messages: list[Message] = msgspec.field(default_factory=list)
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
    logprobs: int | None = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        idle = {"echo": False, "suffix": "", "best_of": self.n or 1}
        for param in (*idle, "logprobs", "tools", "response_format", "max_completion_tokens"):
            if getattr(self, param) not in (None, idle.get(param)):
                raise refusal("unsupported", param)
        super().__post_init__()
        if len(self.prompts) * (self.n or 1) > MOST_ITEMS:
            raise invalid("prompt", f"with 'n', it asks for over {MOST_ITEMS} choices.")

    @property
    def limit_tokens(self) -> int:
        return self.max_tokens or 16

    @property
    def prompts(self) -> list[str]:
        """The prompts, one at least."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def chat(self, prompt: str) -> ChatRequest:
        """Return the chat that asks one of the prompts."""
        return msgspec.structs.replace(self, messages=[Message(role="user", content=prompt)])


def together(answers: list[Answer]) -> Answer:
    """Return the answers to the prompts of one request as one, in the time of the longest."""
    choices = [choice for answer in answers for choice in answer.said.choices]
    whole = said_in(choices, sum(answer.said.prompt_tokens for answer in answers))
    id = answers[0].id.replace("chatcmpl-", "cmpl-")
    return msgspec.structs.replace(answers[0], id=id, said=whole)


class Completions(Chat):
    """An answer in the words of completions: a chat's, but for the shape of its choices."""

    WHOLE = CHUNK = "text_completion"

    def whole(self) -> Json:
        choices = [_choice(i, c.text, c.finish_reason) for i, c in enumerate(self._choices)]
        return super().whole() | {"choices": choices}

    def opening(self) -> bytes:
        return b""

    def _chunk(self, index: int, delta: Json, reason: str | None = None) -> bytes:
        return self._event([_choice(index, delta.get("content", ""), reason)])


def _choice(index: int, text: str, reason: str | None) -> Json:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}
