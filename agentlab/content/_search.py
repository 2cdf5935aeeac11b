"""A search over documents of our own (`data/corpus`), whose results a page can cite."""

import re
from functools import cache

import msgspec

from agentlab.settings import DATA

_CORPUS = msgspec.yaml.decode((DATA / "corpus" / "sea.yaml").read_bytes())


def search(words: str) -> str:
    """Search our documents; return the best passages, each with the id and title of its own."""
    shared = {passage: len(_words(words) & known) for passage, known in _passages().items()}
    # Of those that share as many words with the question, the shortest says least else.
    ranked = sorted(
        filter(shared.get, shared), key=lambda passage: (-shared[passage], len(passage))
    )
    found = "\n\n".join(ranked[:3])
    return found or f"No document was found for {words!r}; search in other words."


@cache
def _passages() -> dict[str, frozenset[str]]:
    """Return each paragraph, below a line with id and title of its document, and its words."""
    titled = [(f"[{id}] {one['title']}", one["text"]) for id, one in _CORPUS["documents"].items()]
    passages = [f"{title}\n{paragraph}" for title, text in titled for paragraph in text]
    return {passage: _words(passage) for passage in passages}


def _words(text: str) -> frozenset[str]:
    words = set(re.findall(r"\w+", text.lower())) - {*_CORPUS["idle"].split()}
    return frozenset(word.rstrip("s") for word in words)
