"""What a prompt is searched for: patterns and sets of words of `data/patterns/answers.yaml`."""

import re
from functools import lru_cache

from agentlab._support import DATA
from agentlab._support.patterns import Patterns

RE = Patterns(DATA / "patterns" / "answers.yaml")
SETS = {name: frozenset(words.split()) for name, words in RE.mapping("sets").items()}
_WORD = re.compile(r"\w+|[^\w\s]")


@lru_cache(maxsize=8)  # the same text is asked about many things
def words_in(text: str) -> frozenset[str]:
    """Return the words and marks of a text, in lower case."""
    return frozenset(_WORD.findall(text.lower()))


def lacks(text: str, cues: str) -> bool:
    """Return True if a text is in ASCII and has none of these words: then their pattern fails."""
    return text.isascii() and SETS[cues].isdisjoint(words_in(text))
