"""Find words that this project does not use: private, ambiguous or translated ones.

    python tools/lint_prose.py

It reads the pages (README, CONTRIBUTING, DESIGN, docs), and the docstrings, comments and other
texts of the module. The notebooks have a style guide of their own.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# What is written here -> what a native writer writes.
WORDS = {
    r"in place of": "instead of",
    r"anew": "again",
    r"for ever": "forever, or: without end",
    r"(this|that|it|what|which) (is|are) none": "is not one",
    r"in vain": "wasted, or: without effect",
    r"foret(ell|old|ells)": "predict",
    r"mend(s|ed|ing)?": "fix",
    r"thereby|hence|lest|whereby": "a sentence with because or so that",
    r"whoever|whosoever": "name the person or the program",
    r"a (second|minute) each": "per second each",
    r"need each other not": "are independent",
    r"so many (seconds|tokens|requests|percent)": "a number, or: that many",
}
# The lessons' plots and tables still say it, so only what is read as prose is held to it.
IN_PROSE = {r"(?<!all )at once": "at the same time, or: immediately"}


def texts(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Each line of a page, or of a module's strings and comments: number, text, whether prose."""
    if path.suffix == ".md":
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield number, line, True
        return
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT) or token.type in STRINGS:
            prose = token.string.startswith(('"""', 'r"""', "#"))
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line, prose


# From Python 3.12 on, the words of an f-string are tokens of their own.
STRINGS = {getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def findings(path: Path) -> Iterator[str]:
    """One line per word that is not ours: where, which, and what to write."""
    for number, line, prose in texts(path):
        for word, way_out in (WORDS | IN_PROSE if prose else WORDS).items():
            for found in re.finditer(rf"\b(?:{word})\b", line, re.IGNORECASE):
                yield f"{path.relative_to(ROOT)}:{number}: {found[0]!r}: write {way_out}"


def pages() -> list[Path]:
    """What is read: English pages and the module."""
    docs = [path for path in (ROOT / "docs").rglob("*.md") if "ko" not in path.parts]
    tops = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "DESIGN.md")]
    return [
        *tops,
        *docs,
        *sorted((ROOT / "agentlab").rglob("*.py")),
        ROOT / "agentlab" / "README.md",
    ]


def main() -> int:
    found = [line for path in pages() for line in findings(path)]
    print("\n".join(found) or "No word of the list in the pages and the module.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
