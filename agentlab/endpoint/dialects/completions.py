"""OpenAI's completions, the older route, which many load tools ask.

A prompt is answered as the one message of a chat would be, without a chat's frame around it.
Source: OpenAI's API reference for completions, and what its Python client accepts and sends.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from hashlib import blake2b
from typing import Annotated, Any

import msgspec

from agentlab.endpoint.answers.answer import FRAME_TOKENS, Answer, Said
from agentlab.endpoint.contract.openai_json import Json, invalid, unsupported
from agentlab.endpoint.contract.request import MOST_ITEMS, ChatRequest, Message
from agentlab.endpoint.dialects.chat import Chat

_Number = Annotated[int, msgspec.Meta(ge=0)]
_Numbers = Annotated[list[_Number], msgspec.Meta(min_length=1)]
_Some = Annotated[list[str | _Number | _Numbers], msgspec.Meta(min_length=1)]


class CompletionRequest(ChatRequest, kw_only=True):
    """What `/v1/completions` takes: a chat's fields, but for a prompt, of text or token numbers.

    Each of several prompts has `n` choices.
    """

    prompt: str | _Some
    messages: list[Message] = msgspec.field(default_factory=list)
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
    logprobs: int | None = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        idle = {"echo": False, "suffix": "", "best_of": self.n or 1}
        for param in (*idle, "logprobs", "tools", "response_format", "max_completion_tokens"):
            if getattr(self, param) not in (None, idle.get(param)):
                raise unsupported(param)
        super().__post_init__()
        if len(self.prompts) * (self.n or 1) > MOST_ITEMS:
            raise invalid("prompt", f"with 'n', it asks for over {MOST_ITEMS} choices.")
        if any(isinstance(prompt, int) for prompt in self.prompts):
            raise invalid("prompt", "give texts, or lists of tokens, or one list of tokens.")

    @property
    def limit_tokens(self) -> int:
        return self.max_tokens or 16

    @property
    def prompts(self) -> list[Any]:
        """The prompts, a text or a list of token numbers each."""
        given = self.prompt
        single = isinstance(given, str) or {*map(type, given)} == {int}
        return [given] if single else list(given)

    def chats(self) -> Iterator[tuple[ChatRequest, bytes, int]]:
        """Yield for each prompt the chat that asks it, its key, and how many tokens it has more."""
        for prompt in self.prompts:
            text, more = (prompt, 0) if isinstance(prompt, str) else ("", len(prompt))
            chat = copy(self)
            chat.messages = [Message(role="user", content=text)]
            key = msgspec.json.encode((self.model, prompt, self.seed))
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
