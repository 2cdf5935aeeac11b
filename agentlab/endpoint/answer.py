"""One request's answer: what is said, how many tokens, how much jitter.

All of it is a function of the endpoint's seed, the request, and its occurrence (how often the
same request came before), so neither the order of arrival nor the process matters. Python's own
`hash` differs from process to process and a shared generator depends on the order; so each draw
has a generator of its own, seeded with a digest.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from agentlab.endpoint.physics import Physics
from agentlab.endpoint.replies import Replies
from agentlab.endpoint.tokens import count_tokens, split
from agentlab.endpoint.wire import ChatRequest


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers to a request, as the pieces in which it is streamed."""

    pieces: list[str]
    finish_reason: str

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything about an answer that does not depend on when it was asked for."""

    id: str
    choices: list[Choice]
    prompt_tokens: int
    prefill_jitter: float
    decode_jitter: float

    @property
    def completion_tokens(self) -> int:
        """The tokens of all choices, as they are billed."""
        return sum(len(choice.pieces) for choice in self.choices)

    @property
    def longest_tokens(self) -> int:
        """The tokens of the longest choice: choices are decoded side by side."""
        return max(len(choice.pieces) for choice in self.choices)


def request_key(request: ChatRequest) -> bytes:
    """What makes two requests the same: model, conversation and the client's own seed."""
    canonical = msgspec.json.encode((request.model, request.turns, request.seed))
    return blake2b(canonical, digest_size=16).digest()


def compose(
    request: ChatRequest, replies: Replies, physics: Physics, *, seed: int, occurrence: int
) -> Answer:
    """The answer to the `occurrence`-th (from 0) request of its kind.

    At temperature 0 the text does not depend on the occurrence; its jitter still does.
    """
    key = request_key(request)
    said = 0 if request.temperature == 0 else occurrence
    texts = [
        replies.reply(request.turns, _draw(seed, key, said, f"text {index}"))
        for index in range(request.n or 1)
    ]
    jitter = _jitter(physics, seed, key, occurrence)
    return Answer(
        id=f"chatcmpl-{_digest(seed, key, occurrence, 'id').hex()}",
        choices=[_cut(text, request) for text in texts],
        prompt_tokens=prompt_tokens(request),
        prefill_jitter=jitter[0],
        decode_jitter=jitter[1],
    )


def prompt_tokens(request: ChatRequest) -> int:
    """The tokens of the conversation, and the 3 a message and 3 a request that frame them.

    Source: OpenAI's cookbook on counting the tokens of chat messages.
    """
    return 3 + sum(3 + count_tokens(text) for _, text in request.turns)


def _cut(text: str, request: ChatRequest) -> Choice:
    ends = [at for stop in request.stops if stop and (at := text.find(stop)) >= 0]
    pieces = split(text[: min(ends)] if ends else text)
    limit = request.limit_tokens
    if limit is not None and len(pieces) > limit:
        return Choice(pieces[:limit], "length")
    return Choice(pieces, "stop")


def _jitter(physics: Physics, seed: int, key: bytes, occurrence: int) -> tuple[float, float]:
    if not physics.jitter_sigma:  # spares most requests a generator
        return 1.0, 1.0
    draw = _draw(seed, key, occurrence, "timing")
    return physics.jitter(draw), physics.jitter(draw)


def _draw(seed: int, key: bytes, occurrence: int, purpose: str) -> random.Random:
    return random.Random(_digest(seed, key, occurrence, purpose))


def _digest(seed: int, key: bytes, occurrence: int, purpose: str) -> bytes:
    return blake2b(f"{seed} {occurrence} {purpose}".encode(), key=key, digest_size=12).digest()
