"""An answer in the words of OpenAI's completions, the older route, which many load tools ask.

A prompt is answered as the one message of a chat would be, without a chat's frame around it.
Source: OpenAI's API reference for completions, and what its Python client accepts and sends.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Annotated, Any

import msgspec

from agentlab.endpoint.answers.answer import FRAME_TOKENS, Answer, Said
from agentlab.endpoint.contract.openai_json import Json, decode, invalid, unsupported, wrong_field
from agentlab.endpoint.contract.request import MOST_ITEMS, ChatRequest
from agentlab.endpoint.dialects.chat import Chat

_AS_IN_CHAT = "model stream stream_options n stop temperature seed ignore_eos min_tokens".split()
_DEFAULT_TOKENS = 16
_Number = Annotated[int, msgspec.Meta(ge=0)]
_Numbers = Annotated[list[_Number], msgspec.Meta(min_length=1)]


class _Own(msgspec.Struct):
    """What `/v1/completions` takes and a chat does not; token numbers are a prompt, too."""

    prompt: str | Annotated[list[str | _Number | _Numbers], msgspec.Meta(min_length=1)]
    max_tokens: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
    logprobs: None = None


def chats_in(body: bytes) -> Iterator[tuple[ChatRequest, bytes, int]]:
    """Yield for each prompt the chat that asks it, its key, and how many tokens it has more."""
    own, asked = decode(body, _Own), decode(body, dict[str, Any])
    for param, idle in (("echo", False), ("suffix", ""), ("best_of", asked.get("n") or 1)):
        if getattr(own, param) not in (None, idle):
            raise unsupported(param)
    given: Any = own.prompt
    if isinstance(given, str) or {*map(type, given)} == {int}:
        given = [given]
    limit = _DEFAULT_TOKENS if own.max_tokens is None else own.max_tokens
    fields = {name: asked[name] for name in _AS_IN_CHAT if name in asked} | {"max_tokens": limit}
    for prompt in given:
        if isinstance(prompt, int):
            raise invalid("prompt", "give texts, or lists of tokens, or one list of tokens.")
        text, more = (prompt, 0) if isinstance(prompt, str) else ("", len(prompt))
        fields["messages"] = [{"role": "user", "content": text}]
        try:
            chat = msgspec.convert(fields, ChatRequest)
        except (msgspec.ValidationError, RecursionError) as error:
            raise wrong_field(str(error)) from None
        if len(given) * (chat.n or 1) > MOST_ITEMS:
            raise invalid(
                "prompt", f"{len(given)} prompts; with 'n', at most {MOST_ITEMS} choices."
            )
        key = msgspec.json.encode((chat.model, prompt, chat.seed))
        yield chat, blake2b(key, digest_size=16).digest(), more - 2 * FRAME_TOKENS


def together(answers: list[Answer]) -> Answer:
    """Return the answers to the prompts of one request as one, in the time of the longest."""
    said = [answer.said for answer in answers]
    whole = Said(
        [choice for each in said for choice in each.choices],
        sum(each.prompt_tokens for each in said),
        sum(each.completion_tokens for each in said),
        max(each.longest_tokens for each in said),
    )
    return msgspec.structs.replace(answers[0], said=whole)


class Completions(Chat):
    """An answer in the words of completions: a chat's, but for the shape of its choices."""

    CHUNK = "text_completion"

    def __init__(self, request: ChatRequest, answer: Answer, created: int):
        super().__init__(request, answer, created)
        self._head |= {"id": answer.id.replace("chatcmpl-", "cmpl-"), "object": self.CHUNK}

    def whole(self) -> Json:
        choices = [_choice(i, c.text, c.finish_reason) for i, c in enumerate(self._choices)]
        return super().whole() | {"choices": choices}

    def opening(self) -> bytes:
        return b""

    def _chunk(self, index: int, delta: Json, reason: str | None = None) -> bytes:
        return self._event([_choice(index, delta.get("content", ""), reason)])


def _choice(index: int, text: str, reason: str | None) -> Json:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}
