"""What a learner is shown, in another language: a YAML file of English texts and theirs."""

import re
from functools import cache
from pathlib import Path

from agentlab._support.yaml_file import LocatedFile


@cache
def translated(text: str, file: Path) -> str:
    """Return the text as the file has it; one that is not there stays as it is.

    The file holds rooms of texts. `{}` in an English one is what a run puts there, which is
    translated as well; `{0}` in the other is the first of them. A wrong file is a FileError.
    """
    for english, other in _patterns(file):
        if found := english.fullmatch(text):
            parts = [translated(part, file) for part in found.groups()]
            return re.sub(r"\{(\d+)\}", lambda place, parts=parts: parts[int(place[1])], other)
    return text


@cache
def _patterns(file: Path) -> list[tuple[re.Pattern[str], str]]:
    """Return each text as a pattern; the one with the most letters comes first."""
    rooms = LocatedFile(file, what="catalogue of texts").decode(dict[str, dict[str, str]])
    texts = {english: other for room in rooms.values() for english, other in room.items()}
    ordered = sorted(texts, key=lambda text: (-len(text.replace("{}", "")), len(text)))
    return [
        (re.compile(re.escape(text).replace(r"\{\}", "(.*?)"), re.DOTALL), texts[text])
        for text in ordered
        if text.strip("{}")  # nothing but a place would be a part of itself
    ]
