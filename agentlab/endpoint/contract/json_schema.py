"""JSON Schemas: whether one is valid, and whether a value fits it, within a budget of work.

A short schema can keep a validator busy for years. So work is counted beforehand: the parts of the
schema, and each place at which a validator may look.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, product
from typing import Any

import msgspec
from jsonschema_rs import Draft202012Validator, FancyRegexOptions

from agentlab._support import DATA

Schema = Mapping[str, Any]

TOO_LARGE = "schema too large to fill"

_STEPS, _CHARACTERS, _DEEPEST = 10_000, 200_000, 64
_PATTERN_STEPS = 50  # to read a pattern takes as long as to read so many values
_PATTERNS = FancyRegexOptions(backtrack_limit=10_000, size_limit=300_000, dfa_size_limit=100_000)
_KEYWORDS = msgspec.yaml.decode((DATA / "wire" / "json_schema.yaml").read_bytes())


class CannotFill(Exception):
    """The schema asks for something that cannot be built; the message says what."""


class Budget:
    """What work on schemas may take: steps, and characters."""

    def __init__(self, steps: int = _STEPS, characters: int = _CHARACTERS):
        self.steps, self.characters = steps, characters

    def spend(self, steps: int = 1, characters: int = 0) -> None:
        """Take from it; raise CannotFill if not enough is left."""
        self.steps -= steps
        self.characters -= characters
        if self.steps < 0 or self.characters < 0:
            raise CannotFill(TOO_LARGE)


def count_parts(value: Any, budget: Budget, pattern: bool = False, depth: int = 0) -> None:
    """Take the parts of a schema or of a value from the budget; a pattern counts for more."""
    budget.spend(_PATTERN_STEPS if pattern else 1, len(value) if isinstance(value, str) else 0)
    if depth == _DEEPEST:
        raise CannotFill(TOO_LARGE)
    if isinstance(value, list):
        for inner in value:
            count_parts(inner, budget, False, depth + 1)
    elif isinstance(value, dict):
        for name, inner in value.items():
            budget.spend(0, len(name))
            count_parts(inner, budget, name == "pattern", depth + 1)
            if name == "patternProperties" and isinstance(inner, dict):  # each name is a pattern
                budget.spend(_PATTERN_STEPS * len(inner))


def problem(schema: Any, budget: Budget | None = None, *, strict: bool | None = None) -> str | None:
    """Return why `schema` is none that can be read, or that OpenAI takes if it is strict or not."""
    try:
        validator_of(schema, budget)
    except CannotFill as error:
        return str(error)
    return None if strict is None else _not_taken(schema, strict)


def _not_taken(schema: Schema, strict: bool) -> str | None:
    """Return why OpenAI refuses a schema, by its guide on structured outputs, or None."""
    if (kind := schema.get("type")) != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
    left: list[tuple[tuple[str, ...], Any]] = [((), schema)]
    for way, part in left:  # which grows meanwhile
        if isinstance(part, list):
            left += [((*way, str(number)), inner) for number, inner in enumerate(part)]
        if not isinstance(part, Mapping):
            continue
        if strict and (wrong := _not_strict(part, root=not way)):
            return f"In context={way}, {wrong}"
        if "array" in part.get("type", "") and "items" not in part:
            return f"In context={way}, array schema missing items."
        for keyword in _KEYWORDS["openai_by_name"]:
            left += [((*way, keyword, name), each) for name, each in part.get(keyword, {}).items()]
        left += [((*way, each), part[each]) for each in _KEYWORDS["openai"] if each in part]
    return None


def _not_strict(part: Schema, root: bool) -> str | None:
    """Return what strict mode refuses in one part of a schema, or None."""
    for keyword in (*_KEYWORDS["not_strict"], *(["anyOf"] if root else [])):
        if keyword in part:
            return f"'{keyword}' is not permitted."
    if part.keys().isdisjoint(("type", "$ref", "anyOf")):
        return "schema must have a 'type' key."
    if "object" in part.get("type", "") and part.get("additionalProperties") is not False:
        return "'additionalProperties' is required to be supplied and to be false."
    properties = part.get("properties", {}).keys()
    if names := properties ^ {*part.get("required", [])}:
        every = "'required' is required to be supplied and to be an array including every key in"
        said, extra = f"Missing '{min(names)}'.", f"Extra required key '{min(names)}' supplied."
        return f"{every} properties. {said if min(names) in properties else extra}"
    return None


def admits(schema: Schema, value: Any, budget: Budget | None = None) -> bool:
    """Return True if `value` is valid by `schema`; raise CannotFill if that takes too much."""
    validator = validator_of(schema)
    _count_looks(schema, schema, value, budget or Budget())
    return bool(validator.is_valid(value))


def validator_of(schema: Any, budget: Budget | None = None) -> Draft202012Validator:
    """Return what checks by `schema`; raise CannotFill if it is not a schema, or a large one."""
    count_parts(schema, budget or Budget())
    try:
        return _compiled(msgspec.json.encode(schema))
    except ValueError as error:  # not a schema, or one nested too deeply
        raise CannotFill(getattr(error, "message", str(error))) from None


@lru_cache(maxsize=64)  # the next request, and the next choice, often ask for the same
def _compiled(encoded: bytes) -> Draft202012Validator:
    schema = msgspec.json.decode(encoded)
    return Draft202012Validator(schema, retriever=_fetch_nothing, pattern_options=_PATTERNS)


def _fetch_nothing(uri: str) -> Any:
    raise ValueError(f"{uri} is not in the schema, and nothing is fetched")


def resolve(root: Schema, reference: Any, budget: Budget) -> Any:
    """Return the part of `root` to which a `$ref` leads; raise CannotFill if it leads nowhere."""
    budget.spend(characters=len(str(reference)))
    found: Any = {"#": root}
    try:
        for part in str(reference).split("/"):
            part = part.replace("~1", "/").replace("~0", "~")
            found = found[int(part) if isinstance(found, list) else part]
    except (LookupError, ValueError, TypeError):
        raise CannotFill(f"$ref {reference!r} leads nowhere") from None
    return found


def _count_looks(root: Schema, schema: Any, value: Any, budget: Budget, depth: int = 0) -> None:
    """Take from the budget each look that a validator may take, by whatever reference."""
    budget.spend()
    if not isinstance(schema, Mapping) or not schema:
        return
    if depth > _DEEPEST * 2:
        raise CannotFill(TOO_LARGE)
    if depth and (name := next((n for n in _KEYWORDS["another_root"] if n in schema), None)):
        raise CannotFill(f"{name!r} inside it is not supported")
    here = [*_held(schema, _KEYWORDS["here"])]
    if "$ref" in schema:
        here.append(resolve(root, schema["$ref"], budget))
    # For what nobody has looked at yet, a validator looks again at all that is here.
    times = 1 + ("unevaluatedProperties" in schema) + ("unevaluatedItems" in schema)
    for inner in here * times:
        _count_looks(root, inner, value, budget, depth + 1)
    own: list[tuple[Any, Any]] = []  # the schemas of single parts
    parts: Iterable[Any] = ()
    if isinstance(value, dict):
        properties, parts = schema.get("properties", {}), value.values()
        own = [(properties[name], value[name]) for name in properties.keys() & value.keys()]
    elif isinstance(value, list):
        own, parts = [*zip(schema.get("prefixItems", ()), value, strict=False)], value
    for inner, part in chain(own, product([*_held(schema, _KEYWORDS["inside"])], parts)):
        _count_looks(root, inner, part, budget, depth + 1)


def _held(schema: Schema, keywords: Iterable[str]) -> Iterator[Any]:
    """Yield the schemas that are under these keywords."""
    for keyword in keywords:
        held = schema.get(keyword, [])
        if keyword in _KEYWORDS["by_name"] and held:
            held = [*held.values()]
        yield from held if isinstance(held, list) else [held]
