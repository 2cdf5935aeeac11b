"""OpenAI's embeddings: texts in, vectors out that lie near each other where the words do.

They are hashed bags of words and of parts of words (Weinberger et al., 2009: the hashing trick).
"""

import asyncio
import base64
import math
import re
from array import array
from collections.abc import Iterator
from hashlib import blake2b
from typing import Annotated, Any, Literal

import msgspec

from agentlab._support import DATA
from agentlab._support.fields import Text
from agentlab.endpoint.answers.answer import Answer, Said
from agentlab.endpoint.contract.openai_json import Json, invalid, refusal
from agentlab.endpoint.contract.request import MOST_ITEMS, Name, Strict
from agentlab.endpoint.contract.tokens import count_all

_SIZES = (DATA / "wire" / "embeddings.yaml").read_bytes()
_DIMENSIONS = msgspec.yaml.decode(_SIZES, type=dict[str, tuple[int, int]])
_MOST_TOKENS_EACH, _MOST_TOKENS = 8192, 300_000
_SLICE = 10_000  # parts of a text that are worked on without a pause: a few milliseconds
_WORD, _SYLLABLES = re.compile(r"\w+"), re.compile(r"[\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3]")
_Tokens = Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1)]
_Inputs = Annotated[list[Text | int | _Tokens], msgspec.Meta(min_length=1)]


class EmbeddingRequest(Strict):
    """What `/v1/embeddings` takes."""

    model: Name
    input: Text | _Inputs
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=3072)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None

    def __post_init__(self) -> None:
        most = self._own_and_most[1]
        if self.dimensions is not None and self.dimensions > most:
            what = f"'{self.model}' has at most {most}" if most else "this model has a fixed size"
            raise invalid("dimensions", f"{what}, but got {self.dimensions}.")
        if isinstance(self.input, list) and len({isinstance(e, int) for e in self.input}) > 1:
            raise invalid("input", "give texts, or lists of tokens, or one list of tokens.")
        if len(self.inputs) > MOST_ITEMS:
            raise refusal("array_above_max_length", "input", most=MOST_ITEMS)

    @property
    def size(self) -> int:
        """How many numbers a vector has."""
        return self.dimensions or self._own_and_most[0]

    @property
    def inputs(self) -> list[str | list[int]]:
        """The texts, or the token numbers of the texts."""
        given: Any = self.input
        return [given] if isinstance(given, str) or isinstance(given[0], int) else given

    @property
    def _own_and_most(self) -> tuple[int, int]:
        return _DIMENSIONS.get(self.model.rpartition("/")[2], _DIMENSIONS["others"])


async def answer_to(request: EmbeddingRequest, id: str) -> Answer:
    """Return an answer that is read (prefill) and has no words; a RequestError if too long."""
    prompt_tokens = 0
    for index, each in enumerate(request.inputs):
        if index:
            await asyncio.sleep(0)
        tokens = await count_all([each]) if isinstance(each, str) else len(each)
        if tokens > _MOST_TOKENS_EACH:
            what = f"maximum input length is {_MOST_TOKENS_EACH} tokens, but it has {tokens}."
            raise invalid(f"input[{index}]", what)
        prompt_tokens += tokens
        if prompt_tokens > _MOST_TOKENS:
            raise refusal("max_tokens_per_request", most=_MOST_TOKENS)
    return Answer(id, Said([], prompt_tokens, completion_tokens=0, longest_tokens=0))


class Embeddings:
    """An answer in the words of the embeddings route; it is never streamed."""

    cached_tokens = 0

    def __init__(self, request: EmbeddingRequest, prompt_tokens: int):
        self._request, self._prompt_tokens = request, prompt_tokens

    async def whole(self) -> Json:
        """Return the body: a unit vector for each text."""
        request, data = self._request, []
        for index, each in enumerate(request.inputs):
            text = each if isinstance(each, str) else " ".join(map(str, each))
            vector: Any = await embed(text, request.size)
            if request.encoding_format == "base64":
                vector = base64.b64encode(array("f", vector).tobytes()).decode()
            entry = {"object": "embedding", "index": index, "embedding": vector}
            data.append(msgspec.Raw(msgspec.json.encode(entry)))  # all together take long
            await asyncio.sleep(0)
        usage = {"prompt_tokens": self._prompt_tokens, "total_tokens": self._prompt_tokens}
        return {"object": "list", "data": data, "model": request.model, "usage": usage}


async def embed(text: str, dimensions: int) -> list[float]:
    """Return a unit vector for `text`, a function of its words alone."""
    vector = [0.0] * dimensions
    for number, (part, weight) in enumerate(_parts(text), 1):
        digest = int.from_bytes(blake2b(part.encode(), digest_size=8).digest())
        vector[(digest >> 1) % dimensions] += weight if digest & 1 else -weight
        if number % _SLICE == 0:
            await asyncio.sleep(0)
    norm = math.sqrt(sum(x * x for x in vector))
    if not norm:  # parts that cancel out
        vector[0], norm = 1.0, 1.0
    return [x / norm for x in vector]


def _parts(text: str) -> Iterator[tuple[str, float]]:
    """Yield its words in lower case, each with its parts of a few letters; and what each counts."""
    words = (found[0].lower() for found in _WORD.finditer(text))
    for word in words if _WORD.search(text) else [text]:
        # A pair says more in Hangul, kana and Han, where spaces hardly part words.
        size, whole, part = (2, 0.5, 1.0) if _SYLLABLES.search(word) else (3, 2.0, 0.5)
        yield word, whole
        for i in range(len(word) - size + 1):
            yield word[i : i + size], part
