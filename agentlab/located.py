"""A YAML file, read so that whatever is wrong in it is said with its line.

msgspec says which field is wrong, and stops at the first one. Here each field is checked by
itself, and YAML's own nodes say where it stands.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Hashable, Iterable, Iterator
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin

import msgspec
import yaml

from agentlab.errors import FileError, Problem

T = TypeVar("T")

Where = tuple[str | int, ...]
"""The way to a value: ("steps", 1, "prompt")."""

_AT = re.compile(r" - at `\$(?P<way>.*)`$")
_STEP = re.compile(r"\.(?P<name>\w+)|\[(?P<number>\d+)\]")


def load(path: Path, kind: type[T], *, what: str) -> T:
    """A file's value as a struct, or as a list of structs; read anew only if the file changed.

    Raises:
        FileError: If the file cannot be read, or is wrong, naming all that is.

    Example:
        load(Path("mine.yaml"), Person, what="person")
    """
    return cast(T, _load(path, cast(Hashable, kind), what, _stamp(path)))


@lru_cache(maxsize=64)  # each run of a simulation asks for its endpoint's figures
def _load(path: Path, kind: Any, what: str, stamp: Hashable) -> Any:
    return LocatedFile(path, what=what).decode(kind)


def _stamp(path: Path) -> Hashable:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


class LocatedFile:
    """A file's value, and where in the file each part of it stands.

    Args:
        path: The file, of one YAML document in UTF-8.
        what: What such a file holds, for messages.

    Attributes:
        value: What YAML makes of it.

    Raises:
        FileError: If it cannot be read, is no YAML, or gives one key twice.

    Example:
        file = LocatedFile(Path("mine.yaml"), what="workflow")
        file.decode(Person)
    """

    def __init__(self, path: Path, *, what: str):
        self.path = path
        self.what = what
        self._text = self._read()
        loader = yaml.SafeLoader(self._text)
        try:
            self._root = loader.get_single_node()
            if twice := list(self._given_twice()):
                raise self.error(twice)
            self.value: Any = None if self._root is None else loader.construct_document(self._root)
        except yaml.MarkedYAMLError as error:
            raise self.error([self._syntax(error)]) from None
        except RecursionError as error:  # YAML does not say where
            raise self.error([Problem(1, 1, "", f"YAML cannot read it: {error}")]) from None
        except FileError:
            raise
        except ValueError:
            raise self.error(self._unreadable()) from None
        finally:
            loader.dispose()

    def decode(self, kind: type[T]) -> T:
        """The value as a struct, or as a list of structs.

        Raises:
            FileError: If fields are missing, unknown or of another kind, naming all of them.
        """
        if problems := self.misfits(kind):
            raise self.error(problems)
        return msgspec.convert(self.value, kind)

    def misfits(self, kind: type[T]) -> list[Problem]:
        """The fields that are missing, unknown or of another kind than the struct's."""
        return list(self._misfits(self.value, kind, ()))

    def problem(self, where: Where, says: str, *, mention: str | None = None) -> Problem:
        """A problem with the value at `where`, or with a `{mention}` in its text."""
        mark = self._mark(where)
        if mention is not None:
            node = self._nodes(where)[-1]
            found = re.compile(rf"(?<!\{{)\{{{re.escape(mention)}[:}}]").search(
                self._text, node.start_mark.index, node.end_mark.index
            )
            if found is not None:  # folded and escaped text may hide it; then the text's start does
                mark = _place(self._text, found.start())
        return Problem(*mark, _field(where), says)

    def error(self, problems: Iterable[Problem]) -> FileError:
        """What to raise for them; they are named in the order of the lines."""
        return FileError(self.what, str(self.path), sorted(problems))

    def _read(self) -> str:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(errors="replace")
            raise self.error(
                [Problem(*_place(before, len(before)), "", "this is no UTF-8; save it as UTF-8")]
            ) from None
        except OSError as error:
            raise self.error([Problem(1, 1, "", f"it cannot be read: {error.strerror}")]) from None
        try:
            yaml.reader.Reader(text)
        except yaml.reader.ReaderError as error:
            place = _place(text, error.position)
            says = f"YAML allows no character {error.character!r} here; take it out"
            raise self.error([Problem(*place, "", says)]) from None
        return text

    def _every_node(self) -> Iterator[yaml.Node]:
        """Each node of the file, once."""
        waiting, seen = [self._root], set()
        while waiting:
            node = waiting.pop()
            if node is None or id(node) in seen:  # an alias leads to a node that was met before
                continue
            seen.add(id(node))
            yield node
            if isinstance(node, yaml.SequenceNode):
                waiting.extend(node.value)
            elif isinstance(node, yaml.MappingNode):
                waiting.extend(part for pair in node.value for part in pair)

    def _given_twice(self) -> Iterator[Problem]:
        """Keys that a mapping has twice: YAML would keep the last, and say nothing."""
        for node in self._every_node():
            if not isinstance(node, yaml.MappingNode):
                continue
            keys: dict[str, yaml.Node] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if (first := keys.setdefault(key.value, key)) is not key:
                    line, _ = self._start(first)
                    says = f"this is given in line {line} already; keep one"
                    yield Problem(*self._start(key), key.value, says)

    def _unreadable(self) -> Iterator[Problem]:
        """What looks like a date or a number and is none, such as 2026-13-45."""
        for node in self._every_node():
            if isinstance(node, yaml.ScalarNode):
                try:
                    yaml.SafeLoader("").construct_object(node)
                except ValueError as error:
                    says = f"YAML cannot read it: {error}; correct it, or put it in quotes"
                    yield Problem(*self._start(node), "", says)

    def _misfits(self, value: Any, kind: Any, where: Where) -> Iterator[Problem]:
        struct = _present(kind)
        item = _struct_in_list(struct)
        found = False
        if _is_struct(struct) and isinstance(value, dict):
            for problem in self._fields(value, struct, where):
                found = True
                yield problem
        elif item is not None and isinstance(value, list):
            for number, one in enumerate(value):
                for problem in self._misfits(one, item, (*where, number)):
                    found = True
                    yield problem
        if found:
            return
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            yield self._of_msgspec(error, value, where)

    def _fields(self, value: dict[Any, Any], kind: Any, where: Where) -> Iterator[Problem]:
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        tag = (get_origin(kind) or kind).__struct_config__.tag_field
        for name in value:
            if name not in fields and name != tag:
                yield self._unknown(name, list(fields), where)
        for name, field in fields.items():
            if name in value:
                yield from self._misfits(value[name], field.type, (*where, name))
            elif field.required:
                yield self.problem(where, f"`{name}` is missing; add it")

    def _unknown(self, name: Any, fields: list[str], where: Where) -> Problem:
        likely = get_close_matches(str(name), fields, n=1)
        way_out = f"did you mean `{likely[0]}`?" if likely else f"there are {', '.join(fields)}"
        written = self._written(name, where)
        *_, key = self._keys((*where, written))
        return Problem(*key, _field((*where, written)), f"there is no such field; {way_out}")

    def _written(self, name: Any, where: Where) -> str:
        """A key as the file has it; YAML makes True of `yes`, which nobody would look for."""
        make = yaml.constructor.SafeConstructor()
        keys = (key for key, _ in self._nodes(where)[-1].value)
        scalars = (key for key in keys if isinstance(key, yaml.ScalarNode))
        return next((key.value for key in scalars if make.construct_object(key) == name), str(name))

    def _of_msgspec(self, error: msgspec.ValidationError, value: Any, where: Where) -> Problem:
        says = str(error)
        if at := _AT.search(says):
            says = says[: at.start()]
            position = 0
            while step := _STEP.match(at["way"], position):
                into = step["name"] or int(step["number"])
                where, value, position = (*where, into), value[into], step.end()
        field = getattr(error.__cause__, "field", None)
        if field is not None:  # a struct's own check, which knows what it looked at
            return self.problem((*where, field), says)
        if says.startswith("Expected"):
            says = f"e{says[1:]}; it is {reprlib.repr(value)}"
            if "expected `str`, got" in says and isinstance(value, bool | int | float):
                says += ", unless it stands in quotes"
        return self.problem(where, says)

    def _nodes(self, where: Where) -> list[yaml.Node]:
        """The nodes on the way, from the root; as far as there are any."""
        node = self._root
        nodes: list[yaml.Node] = [] if node is None else [node]
        for step in where:
            if isinstance(node, yaml.MappingNode):
                # what is merged in stands before what is written here, which wins
                values = [value for key, value in node.value if key.value == step]
                node = values[-1] if values else None
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                node = node.value[step]
            if node is None:
                break
            nodes.append(node)
        return nodes

    def _keys(self, where: Where) -> list[tuple[int, int]]:
        """Where the keys on the way stand."""
        marks = []
        for node, step in zip(self._nodes(where), where, strict=False):
            if isinstance(node, yaml.MappingNode):
                marks += [self._start(key) for key, _ in node.value if key.value == step][-1:]
        return marks or [(1, 1)]

    def _mark(self, where: Where) -> tuple[int, int]:
        nodes = self._nodes(where)
        return self._start(nodes[-1]) if nodes else (1, 1)

    def _start(self, node: yaml.Node) -> tuple[int, int]:
        return _place(self._text, node.start_mark.index)

    def _syntax(self, error: yaml.MarkedYAMLError) -> Problem:
        mark = error.problem_mark or error.context_mark
        place = _place(self._text, mark.index) if mark is not None else (1, 1)
        said = f"{error.problem}, {error.context}" if error.context else f"{error.problem}"
        return Problem(*place, "", f"this is no YAML: {said}")


def _is_struct(kind: Any) -> bool:
    bare = get_origin(kind) or kind  # of a generic one
    return isinstance(bare, type) and issubclass(bare, msgspec.Struct)


def _present(kind: Any) -> Any:
    """What there has to be where the field is not null."""
    kinds = [one for one in get_args(kind) if one is not NoneType]
    return kinds[0] if len(kinds) == 1 and NoneType in get_args(kind) else kind


def _struct_in_list(kind: Any) -> Any:
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    item = get_args(bare)[0] if get_origin(bare) is list else None
    return item if _is_struct(item) else None


def _field(where: Where) -> str:
    """As a reader would write it.

    Example:
        >>> _field(("steps", 1, "prompt"))
        'steps[1].prompt'
        >>> _field((1, "kind"))
        '[1].kind'
    """
    way = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where)
    return way.removeprefix(".")


def _place(text: str, index: int) -> tuple[int, int]:
    """Line and column as editors count them; YAML's marks count more characters as line ends."""
    before = text[:index]
    return before.count("\n") + 1, index - before.rfind("\n")
