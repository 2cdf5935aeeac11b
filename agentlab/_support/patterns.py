"""Regular expressions by name, from a YAML file in which they can be laid out and explained."""

import re
from pathlib import Path
from typing import Any

import msgspec

_NAMED = re.compile(r"\(\?&(\w+)\)")


class Patterns:
    """The patterns of a file, as attributes.

    The lines of a pattern are joined without the blanks around them. In it, `(?&name)` stands for
    the pattern of that name, as in Perl; if that is a mapping, for any of its keys, and if it is a
    list, for any of its patterns.
    """

    def __init__(self, file: Path):
        self._written = msgspec.yaml.decode(file.read_bytes(), type=dict[str, Any])
        self._made: dict[str, list[re.Pattern[str]]] = {}  # now, so that no request waits for it
        for name, written in self._written.items():
            those = written if isinstance(written, list) else [written]
            self._made[name] = [re.compile(self._text(each)) for each in those]
        vars(self).update((name, made[0]) for name, made in self._made.items())

    def __getattr__(self, name: str) -> re.Pattern[str]:
        raise AttributeError(f"there is no pattern {name!r}")

    def each(self, name: str) -> list[re.Pattern[str]]:
        """Return the patterns of a list."""
        return self._made[name]

    def mapping(self, name: str) -> dict[str, Any]:
        """Return a mapping as it stands in the file."""
        return dict(self._written[name])

    def _text(self, written: Any) -> str:
        if isinstance(written, dict | list):
            return "|".join(map(self._text, written))
        lines = "".join(line.strip() for line in written.splitlines())
        return _NAMED.sub(lambda found: self._text(self._written[found[1]]), lines)
