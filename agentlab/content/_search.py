"""A search over documents of our own, whose results a page can cite."""

import re
from pathlib import Path

from agentlab._support.fields import Text, model
from agentlab._support.yaml_file import LocatedFile
from agentlab.settings import DATA

_BEST = 3  # passages that a search returns
_FOUND = re.compile(r"(?:\A|\n\n)\[([^][\n]+)\] (\S.*)\n(?=.)")  # id and title
_IDLE = frozenset(  # words that say too little to be looked for
    "a about an and are as at be by can do does for from how in is it its not of on or that the "
    "their there they this to was what when where which who why will with".split()
)


@model
class _Document:
    title: Text
    paragraphs: list[Text]


class Corpus:
    """The documents of a YAML file, each by its id; a FileError says what is wrong, and where.

    Example:
        >>> print(Corpus().search("rising bread").splitlines()[0])
        [bread] How bread rises
    """

    def __init__(self, file: str | Path = DATA / "corpus" / "sea.yaml"):
        self._passages: dict[str, frozenset[str]] = {}  # and their words
        read = LocatedFile(Path(file), what="corpus").decode(dict[str, _Document])
        for id, document in read.items():
            for lines in document.paragraphs:
                passage = f"[{id}] {' '.join(document.title.split())}\n{' '.join(lines.split())}"
                self._passages[passage] = _words(passage)

    def search(self, words: str) -> str:
        """Search our documents; return the best passages, each with the id and title of its own."""
        shared = {p: len(_words(words) & known) for p, known in self._passages.items()}
        # Of those that share as many words with the question, the shortest says least else.
        ranked = sorted(filter(shared.get, shared), key=lambda p: (-shared[p], len(p)))
        found = "\n\n".join(ranked[:_BEST])
        return found or f"No document was found for {words!r}; search in other words."


def titles(found: str) -> dict[str, str]:
    """Return id -> title of the documents in a result: blocks that begin with `[id] title`."""
    return dict(_FOUND.findall(found))


def _words(text: str) -> frozenset[str]:
    return frozenset(w.rstrip("s") for w in re.findall(r"\w+", text.lower()) if w not in _IDLE)
