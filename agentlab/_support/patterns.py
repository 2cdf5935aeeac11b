"""Regular expressions by name, from a YAML file in which they can be laid out and explained."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

_NAMED = re.compile(r"\(\?&(\w+)\)")


class Patterns:
    """The patterns of a file, as attributes, each compiled when it is first used.

    The lines of a pattern are joined without the blanks around them. In it, `(?&name)` stands for
    the pattern of that name, as in Perl; if that is a mapping, for any of its keys.
    """

    def __init__(self, file: Path):
        self._file = file

    def __getattr__(self, name: str) -> re.Pattern[str]:
        if name not in self._written:
            raise AttributeError(f"{self._file} has no pattern {name!r}")
        pattern = self._compiled(self._written[name])
        setattr(self, name, pattern)
        return pattern

    def each(self, name: str) -> list[re.Pattern[str]]:
        """Return the patterns of a list."""
        if name not in self.__dict__:
            setattr(self, name, [self._compiled(written) for written in self._written[name]])
        found: list[re.Pattern[str]] = self.__dict__[name]
        return found

    def mapping(self, name: str) -> dict[str, Any]:
        """Return a mapping as it stands in the file."""
        found: dict[str, Any] = self._written[name]
        return found

    @cached_property
    def _written(self) -> dict[str, Any]:
        return msgspec.yaml.decode(self._file.read_bytes(), type=dict[str, Any])

    def _compiled(self, written: Any) -> re.Pattern[str]:
        return re.compile(self._text(written))

    def _text(self, written: Any) -> str:
        if isinstance(written, dict):
            return "|".join(written)
        lines = "".join(line.strip() for line in written.splitlines())
        return _NAMED.sub(lambda found: self._text(self._written[found[1]]), lines)
