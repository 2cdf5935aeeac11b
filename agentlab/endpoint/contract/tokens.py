"""A bundled estimate of how many tokens a text has; nothing is downloaded.

Real tokenizers differ from model to model. By this estimate plain English prose has 1.1 to 1.3
tokens per word, and Korean one token for every 1.5 to 2 syllables, as with the larger vocabularies.
A text is split into pieces whose concatenation is the text again, so that a piece can stand for a
token in a stream.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

_PIECE = re.compile(
    r"""
      \ ?[^\W\d_\uac00-\ud7a3]{1,8}   # up to eight letters, with the space before them
    | \ ?[\uac00-\ud7a3]{1,2}         # up to two Hangul syllables
    | \ ?\d{1,3}                      # up to three digits
    | \n+                             # line breaks
    | \ ?[^\w\s]                      # a punctuation mark or symbol
    | [^\S\n]+ | _+ | .               # other white space, and whatever is left
    """,
    re.VERBOSE | re.DOTALL,
)
_SHORT = 2048
_SLICE = 16_384  # characters that are split without a pause: a few milliseconds


def split(text: str) -> tuple[str, ...]:
    """Split the text into pieces of about a token each; joined, they are the text.

    Example:
        >>> split("Parallel processing, 2026")
        ('Parallel', ' processi', 'ng', ',', ' 202', '6')
    """
    return _split_short(text) if len(text) <= _SHORT else tuple(_PIECE.findall(text))


@lru_cache(maxsize=512)  # agents say and ask the same again and again
def _split_short(text: str) -> tuple[str, ...]:
    return tuple(_PIECE.findall(text))


def count_tokens(text: str) -> int:
    """Return how many tokens the text has, by this estimate.

    Example:
        >>> count_tokens("Three agents wait for each other.")
        7
    """
    return len(split(text))


def slices(text: str, size: int = _SLICE) -> Iterator[list[str]]:
    """Yield the pieces of `split`, as found in about `size` characters at a time.

    Example:
        >>> list(slices("Parallel processing, 2026", size=12))
        [['Parallel', ' processi'], ['ng', ',', ' 202', '6']]
    """
    start = 0
    while start < len(text):
        pieces: list[str] = _PIECE.findall(text, start, start + size)
        start += size
        if start < len(text):  # the last piece may go on behind the end of the slice
            last = _PIECE.match(text, start - len(pieces[-1]))
            assert last is not None
            pieces[-1], start = last[0], last.end()
        yield pieces


async def count_all(texts: Iterable[str]) -> int:
    """Count the tokens of all texts; the event loop turns between slices of what is long."""
    total = read = 0
    for text in texts:
        read += len(text) + 32  # what a short one costs, too
        if len(text) <= _SLICE:
            total += count_tokens(text)
        else:
            for pieces in slices(text):
                total += len(pieces)
                await asyncio.sleep(0)
        if read > _SLICE:
            read = 0
            await asyncio.sleep(0)
    return total


async def split_up_to(text: str, tokens: int) -> list[str]:
    """Return the first `tokens` pieces of `split` and one more, to tell that there is more."""
    if len(text) <= _SLICE:
        return [*split(text)[: tokens + 1]]
    found: list[str] = []
    for pieces in slices(text):
        found += pieces
        if len(found) > tokens:
            break
        await asyncio.sleep(0)
    return found[: tokens + 1]
