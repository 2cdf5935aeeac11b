"""A YAML file, read so that everything wrong in it is named with its line and column.

`fields.mistakes` says which fields are wrong; YAML's own nodes say where each one stands.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from agentlab._support import fields
from agentlab._support.fields import Where
from agentlab.errors import FileError, Problem

T = TypeVar("T")

_BROKEN = (ValueError, LookupError, AttributeError)
"""What YAML raises for a scalar that is not of its kind, such as the number "x"."""


def load(path: Path, kind: type[T], *, what: str) -> T:
    """Return a file's value as a model, or as a list of models; read again only if it changed.

    Raises:
        FileError: If the file cannot be read or is wrong, naming every mistake.

    Example:
        load(Path("mine.yaml"), Person, what="person")
    """
    stat = path.stat() if path.is_file() else None
    stamp = stat and (stat.st_mtime_ns, stat.st_size, stat.st_ino)
    return cast(T, _load(path, cast(Hashable, kind), what, stamp))


@lru_cache(maxsize=64)  # each run of a simulation asks for its endpoint's figures
def _load(path: Path, kind: Any, what: str, stamp: Hashable) -> Any:
    return LocatedFile(path, what=what).decode(kind)


class LocatedFile:
    """A file's value, and where in the file each part of it stands.

    Args:
        path: A file of one YAML document in UTF-8.
        what: What such a file holds, for messages.

    Attributes:
        value: What YAML makes of it; keys are text as written, even `yes` and `1`.

    Raises:
        FileError: If it cannot be read, is not YAML, or gives one key twice.
    """

    def __init__(self, path: Path, *, what: str):
        self.path = path
        self.what = what
        self._text = self._read()
        loader = yaml.SafeLoader(self._text)
        try:
            self._root = loader.get_single_node()
            twice = list(self._read_keys())
            self.value: Any = None if self._root is None else loader.construct_document(self._root)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            says = f"this is not YAML: {error.problem}"
            says += f", {error.context}" if error.context else ""
            raise self.error([self._at(mark.index if mark else 0, "", says)]) from None
        except RecursionError as error:  # YAML does not say where
            raise self.error([self._at(0, "", f"YAML cannot read it: {error}")]) from None
        except _BROKEN:
            raise self.error(self._unreadable()) from None
        finally:
            loader.dispose()
        if twice:
            raise self.error(twice)

    def decode(self, kind: type[T]) -> T:
        """Return the value as a model, or as a list of models.

        Raises:
            FileError: If it does not fit, naming every mistake.
        """
        if problems := self.problems(kind):
            raise self.error(problems)
        return TypeAdapter(kind).validate_python(self.value)

    def problems(self, kind: type) -> list[Problem]:
        """Return the fields that are missing, unknown or unfit for such a model."""
        try:
            TypeAdapter(kind).validate_python(self.value)
        except ValidationError as error:
            found = fields.mistakes(error, kind)
            return [self.problem(m.where, m.says, at_key=m.unknown) for m in found]
        return []

    def problem(
        self, where: Where, says: str, *, mention: str | None = None, at_key: bool = False
    ) -> Problem:
        """Return a problem with the value at `where`, with its key, or with a `{mention}` in it."""
        node = self._root
        key: yaml.Node | None = None
        for depth, step in enumerate(where):
            inner = None
            if isinstance(node, yaml.MappingNode):
                # what is merged in stands before what is written here, which wins
                for key_node, value_node in node.value:
                    if key_node.value == step:
                        key, inner = key_node, value_node
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                inner = node.value[step]
            if inner is None:
                where = where[:depth]  # beyond is the name of a type, which pydantic adds
                break
            node = inner
        if at_key:
            node = key
        index = 0 if node is None else node.start_mark.index
        if mention is not None and node is not None:
            brace = re.compile(rf"(?<!\{{)\{{{re.escape(mention)}[:}}]")
            if found := brace.search(self._text, index, node.end_mark.index):
                index = found.start()  # folded and escaped text may hide it; then its start counts
        return self._at(index, fields.dotted(where), says)

    def error(self, problems: Iterable[Problem]) -> FileError:
        """Return what to raise for the problems, in the order of their lines."""
        return FileError(self.what, str(self.path), sorted(problems))

    def _read(self) -> str:
        self._text = ""
        try:
            self._text = self.path.read_text(encoding="utf-8-sig")
            yaml.reader.Reader(self._text)
        except UnicodeDecodeError as error:
            self._text = error.object[: error.start].decode(errors="replace")
            says = "this is not UTF-8; save it as UTF-8"
            raise self.error([self._at(len(self._text), "", says)]) from None
        except OSError as error:
            raise self.error([self._at(0, "", f"it cannot be read: {error.strerror}")]) from None
        except yaml.reader.ReaderError as error:
            says = f"YAML does not allow the character {error.character!r} here; take it out"
            raise self.error([self._at(error.position, "", says)]) from None
        return self._text

    def _every_node(self) -> Iterator[yaml.Node]:
        """Yield each node of the file once, aliases or not."""
        waiting, seen = [self._root], set()
        while waiting:
            node = waiting.pop()
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            yield node
            if isinstance(node, yaml.SequenceNode):
                waiting.extend(node.value)
            elif isinstance(node, yaml.MappingNode):
                waiting.extend(part for pair in node.value for part in pair)

    def _read_keys(self) -> Iterator[Problem]:
        """Make all keys text, and yield those that a mapping has twice: YAML keeps the last."""
        for node in self._every_node():
            if not isinstance(node, yaml.MappingNode):
                continue
            first: dict[str, yaml.Node] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.tag != "tag:yaml.org,2002:merge":
                    key.tag = "tag:yaml.org,2002:str"
                if key.value in first:
                    line = self._at(first[key.value].start_mark.index, "", "").line
                    says = f"this is given in line {line} already; keep one"
                    yield self._at(key.start_mark.index, key.value, says)
                first.setdefault(key.value, key)

    def _unreadable(self) -> Iterator[Problem]:
        """Yield what looks like a date or a number but is not, such as 2026-13-45."""
        for node in self._every_node():
            if isinstance(node, yaml.ScalarNode):
                try:
                    yaml.SafeLoader("").construct_object(node)
                except _BROKEN as error:
                    says = f"YAML cannot read it: {error}; correct it, or put it in quotes"
                    yield self._at(node.start_mark.index, "", says)

    def _at(self, index: int, field: str, says: str) -> Problem:
        """Return a problem with its line and column as editors count them."""
        before = self._text[:index]  # YAML's own marks count more characters as line ends
        return Problem(before.count("\n") + 1, index - before.rfind("\n"), field, says)
