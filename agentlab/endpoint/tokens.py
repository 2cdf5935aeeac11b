"""A bundled estimate of how many tokens a text has; nothing is downloaded.

Real tokenizers differ from model to model. By this estimate plain English prose has 1.1 to 1.3
tokens a word, and Korean one token for every 1.5 to 2 syllables, as with the larger vocabularies.
A text is split into pieces whose concatenation is the text again, so that a piece can stand for a
token in a stream.
"""

from __future__ import annotations

import re
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


@lru_cache(maxsize=1024)  # agents say and ask the same again and again
def split(text: str) -> tuple[str, ...]:
    """The text in pieces of about a token each; joined, they are the text.

    Example:
        >>> split("Parallel processing, 2026")
        ('Parallel', ' processi', 'ng', ',', ' 202', '6')
    """
    return tuple(_PIECE.findall(text))


def count_tokens(text: str) -> int:
    """How many tokens the text has, by this estimate.

    Example:
        >>> count_tokens("Three agents wait for each other.")
        7
    """
    return len(split(text))
