"""A search over documents of our own, whose results a page can cite."""

import re
from collections.abc import Iterator
from pathlib import Path

from agentlab.errors import ConfigError
from agentlab.settings import DATA

_BEST = 3  # passages that a search returns
_FOUND = re.compile(r"(?:\A|\n\n)\[([^][\n]+)\] (\S.*)\n(?=.)")  # id and title
_IDLE = frozenset(  # words that say too little to be looked for
    "a about an and are as at be by can do does for from how in is it its not of on or that the "
    "their there they this to was what when where which who why will with".split()
)


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
        self._passages = {p: _words(p) for file in files for p in _passages(file)}
        if not self._passages:
            cure = "write ID.md files, each with `# Title` in its first line"
            raise ConfigError(f"no documents in {str(folder)!r}; {cure}")

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


def _passages(file: Path) -> Iterator[str]:
    """Yield a document's paragraphs, each in a line, below a line of its id and title."""
    try:
        title, *paragraphs = re.split(r"\n\s*\n", file.read_text(encoding="utf-8-sig").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"document {str(file)!r}: {error}; give a text in UTF-8") from None
    if not re.fullmatch("# .+", title) or not paragraphs:
        wants = "begin it with `# Title`, an empty line, and a paragraph"
        raise ConfigError(f"document {str(file)!r} begins with {title[:40]!r}; {wants}")
    yield from (f"[{file.stem}] {title[2:].strip()}\n{' '.join(p.split())}" for p in paragraphs)


def _words(text: str) -> frozenset[str]:
    return frozenset(w.rstrip("s") for w in re.findall(r"\w+", text.lower()) if w not in _IDLE)
