"""OpenAI's embeddings: texts in, vectors out that lie near each other where the words do.

The vectors are hashed bags of words and of parts of words (Weinberger et al., 2009: the hashing
trick), so that texts which share words are similar. They know nothing of meaning.
"""

from __future__ import annotations

import base64
import math
import re
from array import array
from hashlib import blake2b
from typing import Annotated, Literal

import msgspec

from agentlab.endpoint.answer import Answer, Said
from agentlab.endpoint.tokens import count_tokens
from agentlab.endpoint.wire import Json, decode, invalid
from agentlab.fields import Text

_DIMENSIONS = 1536
_WORD = re.compile(r"\w+")

Tokens = Annotated[list[int], msgspec.Meta(min_length=1)]


class EmbeddingRequest(msgspec.Struct):
    """What `/v1/embeddings` takes; any other field is let pass."""

    model: Text
    input: Text | Annotated[list[Text | int | Tokens], msgspec.Meta(min_length=1, max_length=2048)]
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=_DIMENSIONS)] | None = None
    encoding_format: Literal["float", "base64"] | None = None

    @property
    def texts(self) -> list[str]:
        """The texts; one that comes as token numbers is those numbers."""
        if isinstance(self.input, str):
            return [self.input]
        if all(isinstance(each, int) for each in self.input):
            return [" ".join(map(str, self.input))]
        return [
            each if isinstance(each, str) else " ".join(map(str, each))  # type: ignore[arg-type]
            for each in self.input
        ]


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


def answer_to(request: EmbeddingRequest, id: str) -> Answer:
    """The answer's size: it is read (prefill) and has no words."""
    prompt_tokens = sum(map(count_tokens, request.texts))
    return Answer(id, Said([], prompt_tokens, completion_tokens=0, longest_tokens=0))


class Embeddings:
    """An answer in the words of the embeddings route (`exchange.Dialect`); it is never streamed."""

    def __init__(self, request: EmbeddingRequest, prompt_tokens: int):
        self._request, self._prompt_tokens = request, prompt_tokens

    def whole(self) -> Json:
        """The body: a unit vector for each text."""
        size = self._request.dimensions or _DIMENSIONS
        vectors = [embed(text, size) for text in self._request.texts]
        packed = self._request.encoding_format == "base64"
        return {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": _packed(vector) if packed else vector,
                }
                for index, vector in enumerate(vectors)
            ],
            "model": self._request.model,
            "usage": {"prompt_tokens": self._prompt_tokens, "total_tokens": self._prompt_tokens},
        }

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
    vector = [0.0] * dimensions
    words = [word.lower() for word in _WORD.findall(text)] or [text]
    parts = [(word, 2.0) for word in words]
    parts += [(word[i : i + 3], 0.5) for word in words for i in range(len(word) - 2)]
    for part, weight in parts:
        digest = int.from_bytes(blake2b(part.encode(), digest_size=8).digest())
        vector[(digest >> 1) % dimensions] += weight if digest & 1 else -weight
    norm = math.sqrt(sum(x * x for x in vector))
    if not norm:  # parts that cancel out
        vector[0], norm = 1.0, 1.0
    return [x / norm for x in vector]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode()
