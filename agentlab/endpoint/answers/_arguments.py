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

from agentlab.endpoint.answers._prompt import glance
from agentlab.endpoint.answers._things import Group, things
from agentlab.endpoint.contract.request import Function

Kind = Literal["id", "number", "name", "text", "other"]
Values = dict[str, list[Any]]  # of each argument that is known

MOST_CALLS = 16  # of one tool for one task

# Arguments that end in these words are ids; the last ones only if a word says of what.
_ID = re.compile(r"(?:^|.*_)(?:id|uuid|guid)s?$|.+_(?:key|token|ref|reference|number)s?$")
WHOLE = frozenset("task question query input prompt request instruction message content".split())
_PASSED_ON = frozenset(
    "input message content context text body document notes data summary description details "
    "report results findings".split()
)
_ROLES = {
    "from": "from", "origin": "from", "source": "from", "departure": "from", "sender": "from",
    "to": "to", "destination": "to", "target": "to", "arrival": "to", "recipient": "to",
    "language": "to", "city": "in", "place": "in", "location": "in", "country": "in", "town": "in",
}  # fmt: skip
_GIVEN = {"enum", "const", "pattern", "format"}  # the schema says itself what it may be
_LONGEST, _NO_VALUE = 200, frozenset("none null unknown n/a nothing undefined error".split())
_FIELD = re.compile(  # in a text that is not JSON: "user id: 7", "user_id=7", "User 7", "id is A7"
    r"(?<!\w)((?:[a-z]\w{0,40} )?[a-z]\w{0,40})[\"']?(?:\s?[:=#]\s?|\s(?:is|are)\s|\s(?=\d))[\"']?"
    r"([\w@.-]{0,64}\w(?:(?:, | and )(?=[a-z-]{0,20}\d)[\w-]{1,64})*)",
    re.IGNORECASE,
)


class Argument(NamedTuple):
    """One that has to be given; `many` of its kind if it is a list."""

    name: str
    kind: Kind
    type: str
    many: bool

    @property
    def words(self) -> list[str]:
        """Its name's words, in lower case."""
        return snake(self.name).split("_")


def snake(name: str) -> str:
    """Return a name in snake case.

    Example:
        >>> snake("userId")
        'user_id'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^\w]+", "_", name).lower()


def asked(tool: Function) -> list[Argument]:
    """Return the arguments that a call needs: those required, or all if none is."""
    schema = tool.parameters or {}
    properties = schema.get("properties", {})
    names = {*(schema.get("required") or properties)}
    return [_argument(name, inner) for name, inner in properties.items() if name in names]


def _argument(name: str, schema: Any) -> Argument:
    kind, inner = _plain(schema)
    many = kind == "array"
    if many:
        kind, inner = _plain(inner.get("items", {}))
    words = {*snake(name).split("_")}
    if kind not in ("string", "integer", "number") or inner.keys() & _GIVEN:
        return Argument(name, "other", kind, many)
    if _ID.match(snake(name)):
        return Argument(name, "id", kind, many)
    if kind != "string":
        return Argument(name, "number", kind, many)
    said: Kind = "text" if words & _PASSED_ON else "other" if words & WHOLE else "name"
    return Argument(name, said, kind, many)


def _plain(schema: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the type of a schema, and the first of its alternatives that is not null."""
    schema = schema if isinstance(schema, Mapping) else {}
    options = schema.get("anyOf") or schema.get("oneOf") or [schema]
    plain = [each for each in options if isinstance(each, Mapping) and each.get("type") != "null"]
    inner = plain[0] if plain else {}
    kinds = inner.get("type", "string" if not inner.keys() & {"$ref", "properties"} else "object")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return next((kind for kind in kinds if kind != "null"), "null"), inner


def owners(tool: Function, argument: Argument) -> list[str]:
    """Return of what an id is: "user" of `user_id`; of a plain `id`, what its tool's name says."""
    return argument.words[:-1] or snake(tool.name).split("_")[1:]


def from_task(tool: Function, text: str) -> Values:
    """Return the values that `text` names for the arguments of a tool."""
    named, given, values = things(text), asked(tool), Values()
    used: list[list[str]] = []
    for each in given:
        if each.kind == "id" and (group := named.ids(owners(tool, each))):
            values[each.name] = group.values
            used.append(group.values)
    groups = [group for group in named.numbers if group.values not in used]
    numbers = [each for each in given if each.kind == "number"]
    if len(numbers) > 1:  # "3 by 4, and 5 by 6" are two calls of two
        groups = [Group("", [], [value], False) for group in groups for value in group.values]
    values |= shared_out(numbers, groups)
    names = [each for each in given if each.kind == "name"]
    values |= shared_out(names, [group for group in named.names if group.values not in used])
    cast = {each.name: fitting(each, values.get(each.name, [])) for each in given}
    return {name: known for name, known in cast.items() if known}


def shared_out(arguments: list[Argument], groups: list[Group]) -> Values:
    """Give each argument a group of things: by its preposition, then in their order."""
    by_role = {group.role: group for group in reversed(groups) if group.role}
    values, left = Values(), list[Argument]()
    for each in arguments:
        roles = [_ROLES[word] for word in each.words if _ROLES.get(word) in by_role]
        if roles:
            values[each.name] = by_role.pop(roles[0]).values
        else:
            left.append(each)
    taken = [*values.values()]
    groups = [group for group in groups if group.values not in taken]
    if len(left) > 1 and (len(groups) < len(left) or len(groups) >= 2 * len(left)):
        singly = [value for group in groups for value in group.values]
        whole = max(len(singly) // len(left), 1) * len(left)
        shared = [singly[at : whole : len(left)] for at in range(len(left))]
    else:
        shared = [group.values for group in groups]
    return values | {each.name: share for each, share in zip(left, shared, strict=False) if share}


def from_results(
    tool: Function, argument: Argument, texts: Sequence[str], own: bool, named: bool = False
) -> list[Any]:
    """Return the values that results hold for an argument, of every result.

    What they call just "id", or nothing at all, counts for an id only if it is its `own`; nothing
    counts but a field of the argument's name if it has to be `named`.
    """
    names = [_folded(argument.name)]
    if argument.kind == "id":
        of, last = _folded("".join(owners(tool, argument))), _folded(argument.words[-1])
        names = [of + last, of, *(("id", last) if own else ())]
    values = []
    for text in map(glance, texts):
        fields = _fields(text)
        held = [fields[name] for name in names if name in fields]
        if not named:
            held += [fields[""]] if own or argument.kind != "id" else []
            held += [g.values[:1] for g in things(text).numbers if argument.kind == "number"]
        values += next(filter(None, (fitting(argument, each) for each in held)), [])
    return [*dict.fromkeys(values)]


def sets_of(tool: Function, values: Values) -> list[dict[str, Any]]:
    """Return the arguments of each call: lists as long as each other in pairs, others combined."""
    many = {each.name for each in asked(tool) if each.many}
    lists = [[values[name]] if name in many else values[name] for name in values]
    longest = max(map(len, lists), default=1)
    if all(len(each) in (1, longest) for each in lists):
        rows = zip(*(each * (longest // len(each)) for each in lists), strict=True)
    else:
        rows = product(*lists)
    made = [dict(zip(values, row, strict=True)) for row in islice(rows, MOST_CALLS)]
    return made if values else [{}]


def fitting(argument: Argument, values: Iterable[Any]) -> list[Any]:
    """Return those values that an argument may have, as its type has them."""
    cast = (_cast(value, argument.type) for value in values)
    known = dict.fromkeys(value for value in cast if value is not None)
    return [each for each in known if argument.kind != "id" or " " not in str(each)]


def _cast(value: Any, kind: str) -> Any:
    """Return a value as a schema's type has it, or None if it cannot be one."""
    said = str(value).strip()
    if isinstance(value, bool) or not 0 < len(said) <= _LONGEST or said.lower() in _NO_VALUE:
        return None
    if kind == "string":
        return said
    number = re.fullmatch(r"-?\d{1,15}(?:\.\d{1,15})?", said.replace(",", ""))
    if number is None or (kind == "integer" and "." in number[0]):
        return None
    return int(number[0]) if kind == "integer" else float(number[0])


@lru_cache(maxsize=256)  # several arguments are looked for in the same results
def _fields(text: str) -> dict[str, list[Any]]:
    """Return the values of each field of a result, JSON or not; "" has those without a name."""
    with suppress(ValueError, RecursionError):
        return _of_json(json.loads(text))
    fields: dict[str, list[Any]] = {"": [text] if re.fullmatch(r"[^\n.:;,]{1,60}", text) else []}
    for found in _FIELD.finditer(text):
        values = re.split(", | and ", found[2])
        for name in {_folded(found[1]), _folded(found[1].split()[-1])}:
            fields.setdefault(name, []).extend(values)
    return fields


def _of_json(value: Any) -> dict[str, list[Any]]:
    """Return the values of each field, from the outermost level that has it."""
    fields: dict[str, list[Any]] = {}
    level: list[tuple[str, str, Any]] = [("", "", value)]  # (name, whose it is, value)
    while level:
        here: dict[str, list[Any]] = {}
        below = []
        for name, owner, inner in level:
            if isinstance(inner, dict):
                below += [(key, name, each) for key, each in inner.items()]
            elif isinstance(inner, list):
                below += [(name, owner, each) for each in inner]
            elif inner is not None:
                for known in {_folded(name), _folded(owner) + _folded(name)}:
                    here.setdefault(known, []).append(inner)
        fields = here | fields
        level = below
    return {"": []} | fields


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower()).removesuffix("s")
