"""One request's answer: what is said, how many tokens, how much jitter.

All of it is a function of the endpoint's seed, the request, and its occurrence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b

import msgspec

from agentlab.endpoint.draws import digest, generator
from agentlab.endpoint.physics import Physics
from agentlab.endpoint.replies import Replies
from agentlab.endpoint.request import ChatRequest
from agentlab.endpoint.tokens import count_all, split_up_to
from agentlab.endpoint.turn import Turn, take

_LONGEST_TOKENS = 16_384
"""Of a choice, whatever the request allows; as of the models that the presets stand for."""

_PIECES_A_TURN = 5000
"""Choices are written until they have so many pieces together; then the event loop turns."""

_FORM_PIECES = 2500
"""To fill a schema may take as long as to write so many pieces."""


class Called(msgspec.Struct, frozen=True):
    """A call of a tool; its arguments are the pieces from `start` to `end` of its choice."""

    id: str
    name: str
    start: int
    end: int


class Choice(msgspec.Struct, frozen=True):
    """One of the answers to a request, as the pieces in which it is streamed.

    The pieces are those of the text, or of the arguments of one call after the other.
    """

    pieces: Sequence[str]
    finish_reason: str
    calls: list[Called] = []

    @property
    def text(self) -> str:
        """What is said; empty where tools are called."""
        return "" if self.calls else "".join(self.pieces)

    def arguments(self, call: Called) -> str:
        """The arguments of one of its calls, JSON in a string."""
        return "".join(self.pieces[call.start : call.end])


class Said(msgspec.Struct, frozen=True):
    """What is said in answer to a request, before it has an id and a time.

    Attributes:
        completion_tokens: The tokens of all choices, as they are billed.
        longest_tokens: Those of the longest choice: choices are decoded side by side.
        fixed: True if every request of its kind is told the same.
    """

    choices: list[Choice]
    prompt_tokens: int
    completion_tokens: int
    longest_tokens: int
    fixed: bool = False


class Answer(msgspec.Struct, frozen=True):
    """Everything about an answer that does not depend on when it was asked for."""

    id: str
    said: Said
    prefill_jitter: float = 1.0
    decode_jitter: float = 1.0

    @property
    def choices(self) -> list[Choice]:
        return self.said.choices


def request_key(request: ChatRequest) -> bytes:
    """What makes two requests the same: model, conversation and the client's own seed."""
    canonical = msgspec.json.encode(
        (request.model, request.messages, request.seed, request.tools, request.response_format)
    )
    return blake2b(canonical, digest_size=16).digest()


async def say(
    request: ChatRequest, replies: Replies, *, seed: int, key: bytes, occurrence: int
) -> Said:
    """The words of the answer to the `occurrence`-th (from 0) request with this `key`.

    At temperature 0 they do not depend on the occurrence. Of long work the event loop gets slices.
    """
    said = 0 if request.temperature == 0 else occurrence
    choices, fixed, pieces = [], True, 0
    for index in range(request.n or 1):
        turn = take(request, replies, partial(generator, seed, key, said, f"text {index}"))
        choices.append(await _choice(turn, request, f"{key.hex()[:10]}{index}"))
        fixed = fixed and (turn.fixed or request.temperature == 0)
        pieces += len(choices[-1].pieces)
        pieces += _FORM_PIECES if request.tools or request.response_format else 0
        if pieces > _PIECES_A_TURN:
            pieces = 0
            await asyncio.sleep(0)
    sizes = [len(choice.pieces) for choice in choices]
    return Said(choices, await prompt_tokens(request), sum(sizes), max(sizes), fixed)


def timed(said: Said, physics: Physics, *, seed: int, key: bytes, occurrence: int) -> Answer:
    """What was said as an answer, with an id and the jitter of its times."""
    id = f"chatcmpl-{digest(seed, key, occurrence, 'id').hex()}"
    return Answer(id, said, *_jitter(physics, seed, key, occurrence))


async def prompt_tokens(request: ChatRequest) -> int:
    """The tokens of the conversation, and the 3 a message and 3 a request that frame them.

    Source: OpenAI's cookbook on counting the tokens of chat messages.
    """
    tokens = 3 + 3 * len(request.messages) + await count_all(text for _, text in request.turns)
    if request.tools or request.response_format:  # a provider writes them into the prompt
        described = msgspec.json.encode((request.tools, request.response_format)).decode()
        tokens += await count_all([described])
    return tokens


async def _choice(turn: Turn, request: ChatRequest, id_stem: str) -> Choice:
    limit = min(request.limit_tokens or _LONGEST_TOKENS, _LONGEST_TOKENS)
    pieces, called = await _pieces(turn, request, id_stem, limit)
    if len(pieces) > limit:
        return Choice(pieces[:limit], "length", [call for call in called if call.start < limit])
    return Choice(pieces, "tool_calls" if called else "stop", called)


async def _pieces(
    turn: Turn, request: ChatRequest, id_stem: str, limit: int
) -> tuple[Sequence[str], list[Called]]:
    """The pieces, and at least one more than `limit` if there are more."""
    if not turn.calls:
        ends = [at for stop in request.stops if stop and (at := turn.text.find(stop)) >= 0]
        return await split_up_to(turn.text[: min(ends)] if ends else turn.text, limit), []
    pieces: list[str] = []
    called: list[Called] = []
    for number, (name, arguments) in enumerate(turn.calls):
        start = len(pieces)
        pieces += await split_up_to(arguments, limit)
        turns = len(request.messages)
        called.append(Called(f"call_{id_stem}{turns}{number}", name, start, len(pieces)))
    return pieces, called


def _jitter(physics: Physics, seed: int, key: bytes, occurrence: int) -> tuple[float, float]:
    if not physics.jitter_sigma:  # spares most requests a generator
        return 1.0, 1.0
    draw = generator(seed, key, occurrence, "timing")
    return physics.jitter(draw), physics.jitter(draw)
