"""OpenAI's embeddings: texts in, vectors out that lie near each other where the words do.

The vectors are hashed bags of words and of parts of words (Weinberger et al., 2009: the hashing
trick), so that texts which share words are similar. They know nothing of meaning.
"""

from __future__ import annotations

import asyncio
import base64
import math
import re
from array import array
from collections.abc import AsyncIterator, Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Annotated, Literal

import msgspec

from agentlab.endpoint.answer import Answer, Said
from agentlab.endpoint.request import Name
from agentlab.endpoint.tokens import count_all
from agentlab.endpoint.wire import decode, invalid
from agentlab.fields import Text

_DIMENSIONS = 1536
_MOST_TOKENS = 300_000
"""Of all inputs of a request. Source: OpenAI's API reference for embeddings."""

_SLICE = 10_000
"""Parts and dimensions that are worked on without a pause: a few milliseconds."""
_WORD = re.compile(r"\w+")

Tokens = Annotated[list[int], msgspec.Meta(min_length=1, max_length=8192)]


class EmbeddingRequest(msgspec.Struct):
    """What `/v1/embeddings` takes; any other field is let pass."""

    model: Name
    input: Text | Annotated[list[Text | int | Tokens], msgspec.Meta(min_length=1, max_length=2048)]
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=_DIMENSIONS)] | None = None
    encoding_format: Literal["float", "base64"] | None = None

    @property
    def texts(self) -> Iterator[str]:
        """The texts; one that comes as token numbers is those numbers."""
        if isinstance(self.input, str):
            yield self.input
        elif all(isinstance(each, int) for each in self.input):
            yield " ".join(map(str, self.input))
        else:
            for each in self.input:
                yield each if isinstance(each, str) else " ".join(map(str, each))  # type: ignore[arg-type]


_decoder = msgspec.json.Decoder(EmbeddingRequest)


def parse_embeddings(body: bytes) -> EmbeddingRequest:
    """Read an embedding request.

    Raises:
        RequestError: 400, naming the field.
    """
    request = decode(body, _decoder)
    if isinstance(request.input, list) and len({isinstance(e, int) for e in request.input}) > 1:
        raise invalid("input", "give texts, or lists of tokens, or one list of tokens.")
    return request


async def answer_to(request: EmbeddingRequest, id: str) -> Answer:
    """The answer's size: it is read (prefill) and has no words.

    Raises:
        RequestError: 400, if the texts are too long together.
    """
    prompt_tokens = await count_all(request.texts)
    if prompt_tokens > _MOST_TOKENS:
        raise invalid(
            "input", f"{prompt_tokens} tokens; the inputs may have {_MOST_TOKENS} together."
        )
    return Answer(id, Said([], prompt_tokens, completion_tokens=0, longest_tokens=0))


class Embeddings:
    """An answer in the words of the embeddings route (`exchange.Dialect`); it is never streamed."""

    def __init__(self, request: EmbeddingRequest, prompt_tokens: int):
        self._request, self._prompt_tokens = request, prompt_tokens

    async def whole(self) -> AsyncIterator[bytes]:
        """The body, a unit vector for each text, in pieces: it may be long."""
        size = self._request.dimensions or _DIMENSIONS
        packed = self._request.encoding_format == "base64"
        data, done = [b'{"object":"list","data":['], 0
        for index, text in enumerate(self._request.texts):
            vector = await _embedded(text, size)
            entry = {
                "object": "embedding",
                "index": index,
                "embedding": _packed(vector) if packed else vector,
            }
            data.append(b"," * (index > 0) + msgspec.json.encode(entry))
            done += size + len(text)
            if done > _SLICE:
                yield b"".join(data)
                data, done = [], 0
                await asyncio.sleep(0)
        usage = {"prompt_tokens": self._prompt_tokens, "total_tokens": self._prompt_tokens}
        rest = {"model": self._request.model, "usage": usage}
        yield b"".join([*data, b"],", msgspec.json.encode(rest)[1:]])

    def opening(self) -> bytes:
        return b""

    def between(self, sent: int, have: int) -> bytes:
        return b""

    def closing(self) -> bytes:
        return b""


def embed(text: str, dimensions: int = _DIMENSIONS) -> list[float]:
    """A unit vector for `text`, a function of its words alone.

    Example:
        >>> near = sum(a * b for a, b in zip(embed("the tides"), embed("tides in the sea")))
        >>> far = sum(a * b for a, b in zip(embed("the tides"), embed("accounting rules")))
        >>> near > 0.4 > far
        True
    """
    return _unit(_added([0.0] * dimensions, _parts(text)))


async def _embedded(text: str, dimensions: int) -> list[float]:
    """As `embed`; the event loop turns between slices of what is long."""
    vector, parts = [0.0] * dimensions, _parts(text)
    while len(few := list(islice(parts, _SLICE))) == _SLICE:
        _added(vector, few)
        await asyncio.sleep(0)
    return _unit(_added(vector, few))


def _parts(text: str) -> Iterator[tuple[str, float]]:
    """Its words in lower case, each with its parts of three letters; and what each counts."""
    words = (found[0].lower() for found in _WORD.finditer(text))
    for word in words if _WORD.search(text) else [text]:
        yield word, 2.0
        for i in range(len(word) - 2):
            yield word[i : i + 3], 0.5


def _added(vector: list[float], parts: Iterable[tuple[str, float]]) -> list[float]:
    for part, weight in parts:
        digest = int.from_bytes(blake2b(part.encode(), digest_size=8).digest())
        vector[(digest >> 1) % len(vector)] += weight if digest & 1 else -weight
    return vector


def _unit(vector: list[float]) -> list[float]:
    norm = math.sqrt(sum(x * x for x in vector))
    if not norm:  # parts that cancel out
        vector[0], norm = 1.0, 1.0
    return [x / norm for x in vector]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode()
