"""What a learner is shown, in another language: a YAML file of English texts and theirs."""

import re
from functools import cache
from pathlib import Path

from agentlab._support.yaml_file import LocatedFile


@cache
def translated(text: str, file: Path) -> str:
    """Return the text as the file's rooms have it, or as it is; a wrong file is a FileError.

    `{}` in an English text is what a run puts there; `{0}` in the other is the first of them.
    """
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
    return [(re.compile(re.escape(t).replace(r"\{\}", "(.*?)"), re.S), texts[t]) for t in ordered]
