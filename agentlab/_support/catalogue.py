"""What a learner is shown, in another language: a YAML file of English texts and theirs."""

import re
from functools import cache
from pathlib import Path

from agentlab._support.yaml_file import LocatedFile


@cache
def translated(text: str, file: Path) -> str:
    """Return the text as the file's rooms have it, or as it is; a wrong file is a FileError."""
    for english, other in _patterns(file):
        if found := english.fullmatch(text):
            parts = {f"{{{n}}}": translated(part, file) for n, part in enumerate(found.groups())}
            return "".join(parts.get(piece, piece) for piece in re.split(r"(\{\d+\})", other))
    return text


@cache
def _patterns(file: Path) -> list[tuple[re.Pattern[str], str]]:
    """Return each text as a pattern; the one with the most letters comes first."""
    rooms = LocatedFile(file, what="catalogue of texts").decode(dict[str, dict[str, str]])
    texts = {t: other for room in rooms.values() for t, other in room.items() if t.strip("{}")}
    ordered = sorted(texts, key=lambda text: (-len(text.replace("{}", "")), len(text)))
    return [(_pattern(*text.split("{}")), texts[text]) for text in ordered]


def _pattern(first: str, *pieces: str) -> re.Pattern[str]:
    """Match pieces with anything between them; each where it first stands, in linear time."""
    places = [f"(?>(.*?){re.escape(piece)})" for piece in pieces[:-1]]
    places += [f"(.*){re.escape(last)}" for last in pieces[-1:]]
    return re.compile(re.escape(first) + "".join(places), re.DOTALL)
