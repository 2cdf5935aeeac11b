"""Values of a call's arguments: what the task names, and what earlier calls found.

Ids are never invented: one that neither the task nor a result holds stays unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import islice, product
from typing import Any, Literal, NamedTuple

import msgspec

from agentlab.endpoint.answers._prompt import glance
from agentlab.endpoint.answers._things import Group, things
from agentlab.endpoint.contract.request import Custom, Function

Values = dict[str, list[Any]]  # of each argument that is known

_MOST_CALLS = 16  # of one tool for one task
_LONGEST = 200  # characters of a value

# Arguments that end in these words are ids; the last ones only if a word says of what.
_ID = re.compile(r"(?:^|.*_)(?:id|uuid|guid)s?$|.+_(?:key|token|ref|reference|number)s?$")
WHOLE = frozenset("task question query input prompt request instruction message content".split())
_PASSED_ON = frozenset(
    "input message content context text body document notes data summary description details "
    "report results findings".split()
)
_ROLES = {
    "from": "from", "origin": "from", "source": "from", "departure": "from",
    "to": "to", "destination": "to", "target": "to", "arrival": "to", "language": "to",
    "city": "in", "place": "in", "location": "in", "country": "in",
}  # fmt: skip


class Argument(NamedTuple):
    """One that has to be given; `many` of its kind if it is a list."""

    name: str
    kind: Literal["id", "number", "name", "text", "other"]
    type: str
    many: bool

    @property
    def words(self) -> list[str]:
        """Its name's words, in lower case."""
        return snake(self.name).split("_")


@lru_cache(maxsize=1024)
def snake(name: str) -> str:
    """Return a name in snake case.

    Example:
        >>> snake("userId")
        'user_id'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|\W+", "_", name).lower()


def asked(tool: Function) -> list[Argument]:
    """Return the arguments that a call needs: those required, or all if none is."""
    return _asked(msgspec.json.encode(tool))


@lru_cache(maxsize=256)  # the next request often offers the same
def _asked(encoded: bytes) -> list[Argument]:
    schema = msgspec.json.decode(encoded).get("parameters") or {}
    properties = schema.get("properties", {})
    names = {*(schema.get("required") or properties)}
    return [_argument(name, inner) for name, inner in properties.items() if name in names]


def _argument(name: str, schema: Any) -> Argument:
    kind, inner = _plain(schema)
    many = kind == "array"
    if many:
        kind, inner = _plain(inner.get("items"))
    words = {*snake(name).split("_")}
    said: Literal["id", "number", "name", "text", "other"] = "name"
    if kind not in ("string", "integer", "number") or {"enum", "const", "format"} & inner.keys():
        said = "other"
    elif _ID.match(snake(name)):
        said = "id"
    elif kind != "string":
        said = "number"
    elif words & (_PASSED_ON | WHOLE):
        said = "text" if words & _PASSED_ON else "other"
    return Argument(name, said, kind, many)


def _plain(schema: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the type of a schema, and the first of its alternatives that is not null."""
    options = schema.get("anyOf", [schema]) if isinstance(schema, Mapping) else []
    plain = [each for each in options if isinstance(each, Mapping) and each.get("type") != "null"]
    inner = plain[0] if plain else {}
    kind = inner.get("type", "object" if inner.keys() & {"$ref", "properties"} else "string")
    kinds = kind if isinstance(kind, list) else [kind]
    return next((each for each in kinds if each != "null"), "null"), inner


def owners(tool: Function, argument: Argument) -> list[str]:
    """Return of what an id is: "user" of `user_id`; of a plain `id`, what its tool's name says."""
    return argument.words[:-1] or snake(tool.name).split("_")[1:]


def from_task(tool: Function, text: str) -> Values:
    """Return the values that `text` names for the arguments of a tool."""
    return {**_from_task(msgspec.json.encode(tool), text)}


@lru_cache(maxsize=256)
def _from_task(encoded: bytes, text: str) -> Values:
    tool = msgspec.json.decode(encoded, type=Custom)  # which has all the fields of a function
    named, given = things(text), asked(tool)
    values = {each.name: named.ids(owners(tool, each)) for each in given if each.kind == "id"}
    groups = [group for group in named.numbers if group.values not in values.values()]
    numbers = [each for each in given if each.kind == "number"]
    if len(numbers) > 1:  # "3 by 4, and 5 by 6" are two calls of two
        groups = [Group("", [], [value]) for group in groups for value in group.values]
    values |= _shared_out(numbers, groups)
    groups = [group for group in named.names if group.values not in values.values()]
    names = [each for each in given if each.kind == "name"]
    people = [each for each in names if not {"subject", "title"} & {*each.words}]
    values |= _shared_out(people or names, groups)
    groups = [group for group in groups if group.values not in values.values()]
    texts = [
        each for each in given if each.kind == "text" and not {"context", *WHOLE} & {*each.words}
    ]
    values |= {each.name: group.values for each, group in zip(texts, groups, strict=False)}
    cast = {each.name: fitting(each, values.get(each.name, [])) for each in given}
    return {name: known for name, known in cast.items() if known}


def suits(tool: Function, text: str) -> int:
    """Return how many of a tool's arguments `text` names, less those that it does not."""
    needed = [each for each in asked(tool) if each.kind in ("id", "number", "name")]
    return 2 * len(from_task(tool, text).keys() & {each.name for each in needed}) - len(needed)


def _shared_out(arguments: list[Argument], groups: list[Group]) -> Values:
    """Give each argument a group of things: by its preposition, then in their order."""
    by_role = {group.role: group for group in reversed(groups) if group.role}
    values, left = Values(), list[Argument]()
    for each in arguments:
        roles = [_ROLES[word] for word in each.words if _ROLES.get(word) in by_role]
        if roles:
            values[each.name] = by_role.pop(roles[0]).values
        else:
            left.append(each)
    shared = [group.values for group in groups if group.values not in values.values()]
    if len(left) > 1 and not len(left) <= len(shared) < 2 * len(left):  # one by one
        singly = [value for group in shared for value in group]
        whole = max(len(singly) // len(left), 1) * len(left)
        shared = [singly[at : whole : len(left)] for at in range(len(left))]
    return values | {each.name: share for each, share in zip(left, shared, strict=False) if share}


def from_results(tool: Function, argument: Argument, texts: Sequence[str], own: bool) -> list[Any]:
    """Return the values that results hold for an argument, of every result.

    What they call just "id", or nothing at all, counts for an id only if it is its `own`.
    """
    of, name = owners(tool, argument), _folded(argument.name)
    owned = _folded("".join(of))
    names = [owned + _folded(argument.words[-1]), owned] if argument.kind == "id" else [name]
    if own:
        names += [_folded(argument.words[-1]), "id", ""] if argument.kind == "id" else [""]
    values = []
    for text in map(glance, texts):
        fields, named = _fields(text), things(text)
        held = [fields[name] for name in names if name in fields]
        if argument.kind == "id" and own and "{" not in text:
            held.append(named.ids(of))
        if argument.kind == "number":
            held += [group.values[:1] for group in named.numbers]
        values += next(filter(None, (fitting(argument, each) for each in held)), [])
    return [*dict.fromkeys(values)]


def sets_of(tool: Function, values: Values) -> list[dict[str, Any]]:
    """Return the arguments of each call: lists as long as each other in pairs, others combined."""
    many = {each.name for each in asked(tool) if each.many}
    lists = [[known] if name in many else known for name, known in values.items()]
    longest = max(map(len, lists), default=1)
    if all(len(each) in (1, longest) for each in lists):
        lists = [each * (longest // len(each)) for each in lists]
        rows = zip(*lists, strict=True) if lists else iter([()])
    else:
        rows = product(*lists)
    return [dict(zip(values, row, strict=True)) for row in islice(rows, _MOST_CALLS)]


def fitting(argument: Argument, values: Iterable[Any]) -> list[Any]:
    """Return those values that an argument may have, as its type has them."""
    cast = dict.fromkeys(_cast(value, argument) for value in values)
    return [value for value in cast if value is not None]


def _cast(value: Any, argument: Argument) -> Any:
    said = str(value).strip()
    if isinstance(value, bool) or not 0 < len(said) <= _LONGEST:
        return None
    if argument.type == "string":
        return None if argument.kind == "id" and " " in said else said
    number = re.fullmatch(r"-?\d{1,15}(\.\d{1,15})?", said.replace(",", ""))
    if number is None or (argument.type == "integer" and number[1]):
        return None
    return int(number[0]) if argument.type == "integer" else float(number[0])


@lru_cache(maxsize=256)  # several arguments are looked for in the same results
def _fields(text: str) -> Mapping[str, list[Any]]:
    """Return the values of each field of a result, from the outermost level that has it.

    A result that is no JSON is one value if it is up to three words.
    """
    fields: dict[str, list[Any]] = {}
    level: list[tuple[str, str, Any]] = []  # (name, whose it is, value)
    for form in (text, text.replace("'", '"')):  # as Python prints a dictionary
        with suppress(ValueError, RecursionError):
            level = level or [("", "", json.loads(form))]
    if not level:
        return {"": [text] if re.fullmatch(r"[^\s.:;,]+(?: [^\s.:;,]+){0,2}", text) else []}
    while level:
        here, below = dict[str, list[Any]](), list[tuple[str, str, Any]]()
        for name, owner, inner in level:
            if isinstance(inner, dict):
                below += [(_folded(key), name, each) for key, each in inner.items()]
            elif isinstance(inner, list):
                below += [(name, owner, each) for each in inner]
            elif inner is not None:
                for known in {name, owner + name}:
                    here.setdefault(known, []).append(inner)
        fields, level = here | fields, below
    return fields


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower()).removesuffix("s")
