"""A search over documents of our own, whose results a page can cite."""

import re
from collections import Counter
from math import log
from pathlib import Path
from typing import NamedTuple

from agentlab.errors import ConfigError
from agentlab.settings import DATA

_BEST = 3  # passages that a search returns
_FOUND = re.compile(r"(?:\A|\n\n)\[([^][\n]+)\] (\S.*)\n(?=.)")  # id and title
# They say too little to be looked for.
_IDLE = frozenset(
    "a about an and are as at be by can do does for from how in is it its not of on or that the "
    "their there they this to was what when where which who why will with".split()
)


class _Passage(NamedTuple):
    shown: str
    words: frozenset[str]


class Corpus:
    """The documents of a folder: `ID.md` has `# Title` in its first line, and then paragraphs.

    Raises:
        ConfigError: If there are none, or one cannot be read or has no title.

    Example:
        >>> print(Corpus().search("rising bread").splitlines()[0])
        [bread] How bread rises
    """

    def __init__(self, folder: str | Path = DATA / "corpus"):
        files = sorted(Path(folder).glob("*.md"))
        if not files:
            cure = "write ID.md files, each with `# Title` in its first line"
            raise ConfigError(f"no documents in {str(folder)!r}; {cure}")
        self._passages = [passage for file in files for passage in _read(file)]
        self._holding = Counter(word for each in self._passages for word in each.words)

    def search(self, words: str) -> str:
        """Search our documents; return the best passages, each with the id and title of its own."""
        # In order, because a sum of fractions depends on it
        sought = sorted(_words(words) & self._holding.keys())
        rarity = {word: log(1 + len(self._passages) / self._holding[word]) for word in sought}
        scores = [sum(rarity[w] for w in sought if w in each.words) for each in self._passages]
        ranked = sorted(zip(scores, self._passages, strict=True), key=lambda pair: -pair[0])
        best = [passage.shown for score, passage in ranked[:_BEST] if score]
        return "\n\n".join(best) or f"No document was found for {words!r}; search in other words."


def titles(found: str) -> dict[str, str]:
    """Return id -> title of the documents in a result: blocks that begin with `[id] title`."""
    return dict(_FOUND.findall(found))


def _read(file: Path) -> list[_Passage]:
    try:
        first, *paragraphs = re.split(r"\n\s*\n", file.read_text(encoding="utf-8-sig").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"document {str(file)!r}: {error}; give a text in UTF-8") from None
    title = " ".join(first.removeprefix("# ").split())
    if not first.startswith("# ") or "\n" in first or not paragraphs:
        wants = "begin it with `# Title`, an empty line, and a paragraph"
        raise ConfigError(f"document {str(file)!r} begins with {first[:40]!r}; {wants}")
    lines = [" ".join(paragraph.split()) for paragraph in paragraphs]
    return [_Passage(f"[{file.stem}] {title}\n{line}", _words(f"{title} {line}")) for line in lines]


def _words(text: str) -> frozenset[str]:
    return frozenset(w.rstrip("s") for w in re.findall(r"\w+", text.lower()) if w not in _IDLE)
