"""A search over documents of our own (`data/corpus`), whose results a page can cite."""

import re

import msgspec

from agentlab.settings import DATA

_CORPUS = msgspec.yaml.decode((DATA / "corpus" / "sea.yaml").read_bytes())
_DOCUMENTS = _CORPUS["documents"].items()
_PASSAGES = [f"[{id}] {one['title']}\n{text}" for id, one in _DOCUMENTS for text in one["text"]]


def search(words: str) -> str:
    """Search our documents; return the best passages, each with the id and title of its own."""
    shared = {passage: len(_words(words) & _words(passage)) for passage in _PASSAGES}
    # Of those that share as many words with the question, the shortest says least else.
    ranked = sorted(filter(shared.get, shared), key=lambda each: (-shared[each], len(each)))
    found = "\n\n".join(ranked[:3])
    return found or f"No document was found for {words!r}; search in other words."


def _words(text: str) -> set[str]:
    words = set(re.findall(r"\w+", text.lower())) - {*_CORPUS["idle"].split()}
    return {word.rstrip("s") for word in words}
