"""What a call asks for, and the values for it that the task names or that earlier calls found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import islice, product
from typing import Any, NamedTuple

import msgspec

from agentlab.endpoint.answers._prompt import glance
from agentlab.endpoint.answers._things import Group, things
from agentlab.endpoint.contract.request import Function

Values = dict[str, list[Any]]  # of each argument that is known

_MOST_CALLS = 16  # of one tool for one task
_LONGEST = 200  # characters of a value
_MOST_COWORKERS = 100
_COWORKERS = re.compile(r"following coworkers?: (.+?)\n")
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[\uac00-\ud7a3]{2,}")
_PARTICLE = re.compile(r"(?<=..)(?:의|에서|은|는|이|가|을|를|와|과|에|도|으로|로)$")
_IDLE = frozenset(
    "the and for with from that this what which who how are was were you your all any can get "
    "set use used using tool tools function return returns given about into one its our will "
    "should must does name value input output data call text string".split()
)

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
    """One that has to be given; `many` if it is a list.

    `kind` is id, number, name, text, or other; `of` says whose an id is, as "user" of `user_id`.
    """

    name: str
    kind: str
    type: str
    many: bool
    words: list[str]
    of: list[str]


@lru_cache(maxsize=1024)  # of names, descriptions and tasks that come again
def words(text: str) -> frozenset[str]:
    """Return the words of a text that say what it is about, as far as words are compared."""
    return frozenset(stem(found[0]) for found in WORD.finditer(text)) - {""}


def stem(word: str) -> str:
    """Return a word as it is compared with others; nothing if it says too little."""
    stem = _PARTICLE.sub("", word).lower().rstrip("s")[:7]
    short = len(word) < 3 and word < "가" and stem != "id"
    return "" if short or stem in _IDLE else stem


def snake(name: str) -> list[str]:
    """Return the words of a name, in lower case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|\W+", "_", name).lower().split("_")


def asked(tool: Function) -> list[Argument]:
    """Return the arguments that a call needs: those required, or all if none is."""
    return _asked(tool.name, msgspec.json.encode(tool.parameters or {}))


@lru_cache(maxsize=256)  # the next request often offers the same
def _asked(tool: str, encoded: bytes) -> list[Argument]:
    schema = msgspec.json.decode(encoded)
    properties = schema.get("properties", {})
    names = {*(schema.get("required") or properties)}
    return [_argument(tool, name, inner) for name, inner in properties.items() if name in names]


def _argument(tool: str, name: str, schema: Any) -> Argument:
    type, inner = _plain(schema)
    if many := type == "array":
        type, inner = _plain(inner.get("items"))
    words, kind, of = snake(name), "name", list[str]()
    if type not in ("string", "integer", "number") or {"enum", "const", "format"} & inner.keys():
        kind = "other"
    elif _ID.match("_".join(words)):
        kind, of = "id", words[:-1] or snake(tool)[1:]
    elif type != "string":
        kind = "number"
    elif {*words} & (_PASSED_ON | WHOLE):
        kind = "text" if {*words} & _PASSED_ON else "other"
    return Argument(name, kind, type, many, words, of)


def _plain(schema: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the type of a schema, and the first of its alternatives that is not null."""
    options = schema.get("anyOf", [schema]) if isinstance(schema, Mapping) else []
    plain = [each for each in options if isinstance(each, Mapping) and each.get("type") != "null"]
    inner = plain[0] if plain else {}
    kind = inner.get("type", "object" if inner.keys() & {"$ref", "properties"} else "string")
    kinds = kind if isinstance(kind, list) else [kind]
    return next((each for each in kinds if each != "null"), "null"), inner


def from_task(tool: Function, text: str) -> Values:
    """Return the values that `text` names for the arguments of a tool."""
    named, given = things(text), asked(tool)
    values = {each.name: named.ids(each.of) for each in given if each.kind == "id"}
    numbers = [each for each in given if each.kind == "number"]
    groups = _left(named.numbers, values)
    if len(numbers) > 1:  # "3 by 4, and 5 by 6" are two calls of two
        groups = [Group("", "", [value]) for group in groups for value in group.values]
    values |= _shared_out(numbers, groups)
    names = [each for each in given if each.kind == "name"]
    people = [each for each in names if not {"subject", "title"} & {*each.words}]
    values |= _shared_out(people or names, _left(named.names, values))
    said = [each for each in given if each.kind == "text"]
    said = [each for each in said if not {"context", *WHOLE} & {*each.words}]
    rest = zip(said, _left(named.names, values), strict=False)
    values |= {each.name: group.values for each, group in rest}
    if people := coworkers(tool):
        values["coworker"] = [max(people, key=lambda who: len(words(who) & words(text)))]
    cast = {each.name: fitting(each, values.get(each.name, [])) for each in given}
    return {name: known for name, known in cast.items() if known}


def coworkers(tool: Function) -> list[str]:
    """Return those to whom CrewAI's tool hands a task on."""
    found = _COWORKERS.search((tool.description or "") + "\n")
    return [name.strip() for name in found[1].split(",")[:_MOST_COWORKERS]] if found else []


def _left(groups: list[Group], values: Values) -> list[Group]:
    return [group for group in groups if group.values not in values.values()]


def _shared_out(arguments: list[Argument], groups: list[Group]) -> Values:
    """Give each argument a group of things: by its preposition, then in their order."""
    by_role = {group.role: group for group in reversed(groups) if group.role}
    values, left = Values(), list[Argument]()
    for each in arguments:
        role = next((_ROLES[word] for word in each.words if _ROLES.get(word) in by_role), None)
        if role:
            values[each.name] = by_role.pop(role).values
        else:
            left.append(each)
    shared = [group.values for group in _left(groups, values)]
    if len(left) > 1 and not len(left) <= len(shared) < 2 * len(left):  # one by one
        singly = [value for group in shared for value in group]
        whole = max(len(singly) // len(left), 1) * len(left)
        shared = [singly[at : whole : len(left)] for at in range(len(left))]
    return values | {each.name: share for each, share in zip(left, shared, strict=False) if share}


def from_results(argument: Argument, texts: Iterable[str], own: bool) -> list[Any]:
    """Return the values that results hold for an argument, of every result.

    What they call just "id", or nothing at all, counts for an id only if it is its `own`.
    """
    last, is_id = _folded(argument.words[-1]), argument.kind == "id"
    owner = _folded("".join(argument.of))
    names = [owner + last, owner] if is_id else [_folded(argument.name)]
    names += ([last, "id", ""] if is_id else [""]) if own else []
    values = []
    for text in map(glance, texts):
        fields, named = _fields(text), things(text)
        held = [fields[name] for name in names if name in fields]
        if is_id and own and "{" not in text:
            held.append(named.ids(argument.of))
        if argument.kind == "number":
            held += [group.values[:1] for group in named.numbers]
        values += next(filter(None, (fitting(argument, each) for each in held)), [])
    return [*dict.fromkeys(values)]


def sets_of(tool: Function, values: Values) -> list[dict[str, Any]]:
    """Return the arguments of each call: lists as long as each other in pairs, others combined."""
    many = {each.name for each in asked(tool) if each.many}
    lists = [[known] if name in many else known for name, known in values.items()]
    longest = max(map(len, lists), default=1)
    rows: Iterable[Sequence[Any]] = product(*lists)
    if all(len(each) in (1, longest) for each in lists) and lists:
        rows = zip(*(each * (longest // len(each)) for each in lists), strict=True)
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
    level: list[tuple[str, str, Any]] = []  # (name, whose it is, value)
    for form in (text, text.replace("'", '"')):  # as Python prints a dictionary
        with suppress(ValueError, RecursionError):
            level = level or [("", "", json.loads(form))]
    if not level:
        return {"": [text] if re.fullmatch(r"[^\s.:;,]+(?: [^\s.:;,]+){0,2}", text) else []}
    fields: dict[str, list[Any]] = {}
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
