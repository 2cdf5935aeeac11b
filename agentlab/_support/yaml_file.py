"""A YAML file, found by its name, and read so that all mistakes are told with line and column."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from agentlab._support import fields
from agentlab._support.fields import Where
from agentlab.errors import ConfigError, FileError, Problem

T = TypeVar("T")


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def found(name: str | Path, folder: Path, *, what: str) -> Path:
    """Return the file NAME.yaml of the folder, or `name` itself if it is a YAML file's path."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(names(folder))
        raise ConfigError(f"no {what} {str(name)!r}; choose one of {known}, or give a .yaml file")
    return path


class LocatedFile:
    """The `value` of one YAML document, and where in the file each part of it stands.

    Keys are text as written, even `yes` and `1`. `what` says what such a file holds. One that is
    not YAML in UTF-8, gives a key twice, or would take long to read, is a FileError.
    """

    def __init__(self, path: Path, *, what: str):
        self._path, self._what, self._text = path, what, ""
        try:
            if path.stat().st_size > 2_000_000:  # at most half a minute's worth
                raise ValueError("it has more than 2,000,000 bytes; shorten or split it")
            # A byte that is not UTF-8 becomes a character that YAML refuses, and so has a place.
            self._text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
            loader = _Loader(self._text)
            self._root: yaml.Node | None = loader.get_single_node()
            self.value: Any = self._root and loader.construct_document(self._root)
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            at = getattr(mark, "index", getattr(error, "position", 0))
            parts = [getattr(error, p, None) for p in "context problem reason strerror".split()]
            says = ", ".join(filter(None, parts)) or str(error)
            raise self.error([self._at(at, "", f"cannot read YAML in UTF-8: {says}")]) from None

    def decode(self, kind: type[T]) -> T:
        """Return it as a model, or several; else raise a FileError with all mistakes."""
        try:
            return TypeAdapter(kind).validate_python(self.value)
        except ValidationError as error:
            found = fields.mistakes(error, kind)
            raise self.error(self.problem(w, says, at_key=new) for w, says, new in found) from None

    def problem(self, where: Where, says: str, *, at_key: bool = False) -> Problem:
        """Return a problem with the value at `where`, or with its key."""
        node = key = self._root
        found: list[str | int] = []
        for step in where:
            inner = None
            if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                inner = node.value[step]
            elif isinstance(node, yaml.MappingNode):
                # What is merged in stands before what is written here, which wins.
                for key_node, value_node in node.value:
                    if key_node.value == step:
                        key, inner = key_node, value_node
            if inner is not None:  # else it is the name of a type, which pydantic adds
                node = inner
                found.append(step)
        named = key if at_key else node
        return self._at(named.start_mark.index if named else 0, fields.dotted(tuple(found)), says)

    def error(self, problems: Iterable[Problem]) -> FileError:
        """Return what to raise for the problems, in the order of their lines."""
        return FileError(self._what, str(self._path), sorted(problems))

    def _at(self, index: int, field: str, says: str) -> Problem:
        before = self._text[:index]  # YAML's own marks count more characters as line ends
        return Problem(before.count("\n") + 1, index - before.rfind("\n"), field, says)


class _Loader(yaml.SafeLoader):
    """Takes all keys as text and none twice, and says where a scalar cannot be read."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        given = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.tag != "tag:yaml.org,2002:merge":
                    key.tag = "tag:yaml.org,2002:str"
                if key.value in given:
                    says = f"`{key.value}` is given twice; keep one"
                    raise yaml.composer.ComposerError(None, None, says, key.start_mark)
                given.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            number = isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float"))
            text = node.value.lstrip("+-") if number else ""
            if ":" in text or ("." not in text and "00" <= text[:2] <= "09"):
                raise ValueError(f"{text:.40} is octal or of base 60 in YAML 1.1; use base 10")
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as e:  # of 2026-13-45, or !!int x
            raise yaml.constructor.ConstructorError(None, None, str(e), node.start_mark) from None
