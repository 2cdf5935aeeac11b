"""A bundled estimate of how many tokens a text has: 1.1 to 1.3 per word of plain English prose.

Korean has one for every 1.5 to 2 syllables, as with the larger vocabularies.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from itertools import islice

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
A_TURN = 4000  # tokens that are counted before the event loop turns: a few milliseconds


def split(text: str) -> tuple[str, ...]:
    """Split the text into pieces of about a token each; joined, they are the text.

    Example:
        >>> split("Parallel processing, 2026")
        ('Parallel', ' processi', 'ng', ',', ' 202', '6')
    """
    return tuple(_PIECE.findall(text))


def count_tokens(text: str) -> int:
    """Return how many tokens the text has, by this estimate."""
    return len(split(text))


def first_pieces(text: str, many: int) -> list[str]:
    """Return the first `many` pieces of `split`, without a look at the rest of a long text."""
    return [found[0] for found in islice(_PIECE.finditer(text), many)]


async def count_all(texts: Iterable[str]) -> int:
    """Count the tokens of all texts; the event loop turns every `A_TURN` of them."""
    total = since_turn = 0
    for text in texts:
        pieces = _PIECE.finditer(text)
        while many := sum(1 for _ in islice(pieces, A_TURN)):
            total += many
            since_turn += many
            if since_turn >= A_TURN:
                since_turn = 0
                await asyncio.sleep(0)
    return total
