"""A search over documents of our own (`data/corpus`), whose results a page can cite."""

import re

import msgspec

from agentlab._support import DATA

_CORPUS = msgspec.yaml.decode((DATA / "corpus" / "sea.yaml").read_bytes())
_IDLE, _DOCUMENTS = _CORPUS["idle"].split(), _CORPUS["documents"].items()
_PASSAGES = [f"[{id}] {one['title']}\n{text}" for id, one in _DOCUMENTS for text in one["text"]]


def search(words: str) -> str:
    """Search our documents; return the best passages, each with the id and title of its own."""
    asked = _words(words)
    titles = {passage: _words(passage.partition("\n")[0]) for passage in _PASSAGES}
    # A word of the title counts twice; of passages that share as many, the first comes first.
    shared = {each: len(asked & _words(each)) + len(asked & titles[each]) for each in _PASSAGES}
    ranked = sorted(filter(shared.get, shared), key=shared.__getitem__, reverse=True)
    return "\n\n".join(ranked[:3]) or f"Nothing was found for {words!r}; search in other words."


def _words(text: str) -> set[str]:
    return {word.rstrip("s") for word in re.findall(r"\w+", text.lower()) if word not in _IDLE}
