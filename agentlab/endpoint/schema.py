"""A value that a JSON Schema admits: the form from the schema, the contents from a `Filler`.

What was built is checked against the schema by `jsonschema_rs` before it is handed out,
so a keyword that the builder does not know leads to a clear refusal, never to a wrong answer.

A short schema can ask for a value without end, or for one that takes a validator years. So all of
it is counted beforehand, and within a budget: the schema's own size, each step of building, and
each place at which a validator may look.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import msgspec
import rstr
from jsonschema_rs import Draft202012Validator, FancyRegexOptions, ValidationError

Schema = Mapping[str, Any]

TOO_LARGE = "schema too large to fill"

_DEEP, _TOO_DEEP = 6, 40
_MOST_VALUES, _MOST_CHARACTERS, _DEEPEST = 10_000, 200_000, 64  # of all schemas of a request
_PATTERN_VALUES, _LONGEST_PATTERN = 50, 1000  # a pattern takes as long as so many values
_PATTERNS = FancyRegexOptions(backtrack_limit=10_000, size_limit=100_000, dfa_size_limit=100_000)
_LONGEST_KEPT = 16_384
_EXPLAINED_STEPS = 500  # what a validator explains takes a thousand times what it merely finds
_MEANS_ANOTHER_ROOT = ("$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef")
_FORMATS = {
    "date-time": "2026-01-15T09:30:00Z",
    "date": "2026-01-15",
    "time": "09:30:00Z",
    "duration": "PT30M",
    "email": "reader@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "6f1c2f6e-7d0c-4a52-9b8e-3f0a5d1c2b47",
}


class CannotFill(Exception):
    """The schema asks for something that cannot be built; the message says what."""

    def __init__(self, message: str):
        super().__init__(message if len(message) <= 300 else message[:300] + "...")


class Budget:
    """What filling may take: steps, and characters of what is built.

    Example:
        >>> budget = Budget(steps=2)
        >>> budget.spend(2)
        >>> budget.spend()
        Traceback (most recent call last):
        ...
        agentlab.endpoint.schema.CannotFill: schema too large to fill
    """

    def __init__(self, steps: int = 10_000, characters: int = 200_000):
        self.steps, self.characters = steps, characters

    def spend(self, steps: int = 1, characters: int = 0) -> None:
        """Take from it.

        Raises:
            CannotFill: If there is not so much left.
        """
        self.steps -= steps
        self.characters -= characters
        if self.steps < 0 or self.characters < 0:
            raise CannotFill(TOO_LARGE)


class Filler(Protocol):
    """Says what stands in the fields; `name` is the nearest property's name."""

    def text(self, name: str, schema: Schema) -> str: ...

    def choose(self, name: str, options: Sequence[Any]) -> Any: ...

    def number(self, name: str, least: float, most: float, whole: bool) -> float: ...


def too_large(value: Any) -> bool:
    """True if a schema, or a list of them, has more parts than are read.

    Example:
        >>> too_large({"type": "string"}), too_large({"enum": ["x"] * 100_000})
        (False, True)
    """
    values, characters, level = 0, 0, [("", value)]
    for _ in range(_DEEPEST):
        deeper: list[tuple[str, Any]] = []
        for keyword, each in level:
            values += _PATTERN_VALUES if keyword in ("pattern", "patternProperties") else 1
            if isinstance(each, dict):
                characters += sum(map(len, each))
                # Each name in it is a pattern.
                deeper += (
                    [(keyword, x) for x in each.values()]
                    if keyword == "patternProperties"
                    else each.items()
                )
            elif isinstance(each, list):
                deeper += [("", inner) for inner in each]
            elif isinstance(each, str):
                characters += len(each)
            if values + len(deeper) > _MOST_VALUES or characters > _MOST_CHARACTERS:
                return True
        level = deeper
    return bool(level)


def problem(schema: Any) -> str | None:
    """Why `schema` is no JSON Schema, or None if it is one."""
    try:
        _validator(schema)
    except CannotFill as error:
        return str(error)
    return None


def strict_problem(schema: Any, context: tuple[str, ...] = ()) -> str | None:
    """Why OpenAI's strict mode would refuse `schema`, or None.

    Source: OpenAI's guide on structured outputs: every object closes itself with
    ``additionalProperties: false`` and requires all of its properties.
    """
    if not isinstance(schema, Mapping):
        return None
    if not context and schema.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got {schema.get('type')!r}."
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False:
            return f"In context={context}, 'additionalProperties' is required to be false."
        required = {*schema.get("required", [])}
        missing = [name for name in properties if name not in required]
        if missing:
            return f"In context={context}, 'required' must name every property; not {missing[0]!r}."
    for keyword in ("properties", "$defs", "definitions"):
        for name, inner in schema.get(keyword, {}).items():
            if found := strict_problem(inner, (*context, keyword, name)):
                return found
    inside = [("items", schema.get("items"))]
    inside += [("anyOf", each) for each in schema.get("anyOf", [])]
    return next((p for word, i in inside if (p := strict_problem(i, (*context, word)))), None)


def build(
    schema: Schema,
    filler: Filler,
    *,
    draw: random.Random,
    optional: bool = True,
    budget: Budget | None = None,
) -> Any:
    """A value that `schema` admits.

    Args:
        filler: What stands in its fields.
        draw: For what only a pattern describes.
        optional: Whether properties that are not required are filled in, too.
        budget: What it may take; one that others share, too, where not None.

    Raises:
        CannotFill: If it asks for something that cannot be built, such as the impossible, or for
            more than the budget allows.
    """
    validator = _validator(schema)
    budget = budget or Budget()
    value = _Builder(schema, filler, draw, optional, budget).value(schema, "", 0)
    before = budget.steps
    _Places(schema, budget).look(schema, value, 0)
    if not validator.is_valid(value):
        if before - budget.steps > _EXPLAINED_STEPS:
            raise CannotFill("what it asks for does not fit together")
        error = next(validator.iter_errors(value))
        raise CannotFill(f"{error.message} (at {list(error.instance_path)})")
    return value


def admits(schema: Schema, value: Any) -> bool:
    """True if `value` is valid by `schema`.

    Raises:
        CannotFill: If it is no schema, or looking would take more than a budget.
    """
    validator = _validator(schema)
    _Places(schema, Budget()).look(schema, value, 0)
    return bool(validator.is_valid(value))


def _validator(schema: Any) -> Draft202012Validator:
    """What checks by `schema`.

    Raises:
        CannotFill: If that is no schema, or a large one.
    """
    if too_large(schema):
        raise CannotFill(TOO_LARGE)
    encoded = msgspec.json.encode(schema)
    try:
        return _kept(encoded) if len(encoded) <= _LONGEST_KEPT else _compiled(encoded)
    except ValidationError as error:
        raise CannotFill(error.message) from None
    except ValueError as error:  # such as one nested too deeply
        raise CannotFill(str(error)) from None


def _compiled(encoded: bytes) -> Draft202012Validator:
    schema = msgspec.json.decode(encoded)
    return Draft202012Validator(
        schema, retriever=_nothing_from_elsewhere, pattern_options=_PATTERNS
    )


_kept = lru_cache(maxsize=256)(_compiled)


def _nothing_from_elsewhere(uri: str) -> Any:
    raise ValueError(f"{uri} is not in the schema, and nothing is fetched")


def _resolve(root: Schema, reference: Any, budget: Budget) -> Any:
    found: Any = root
    budget.spend(characters=len(str(reference)))
    try:
        prefix, *path = str(reference).split("/")
        if prefix != "#":
            raise KeyError(reference)
        for part in path:
            part = part.replace("~1", "/").replace("~0", "~")
            found = found[int(part) if isinstance(found, list) else part]
    except (LookupError, ValueError, TypeError):
        raise CannotFill(f"$ref {reference!r} leads nowhere") from None
    return found


class _Places:
    """Counts where a validator may look, each time that it may: a place can be led to in many ways.

    More often than not it looks less often; never more.
    """

    _HERE = ("allOf", "anyOf", "oneOf")
    _HERE_ALONE = ("not", "if", "then", "else")
    _INSIDE = (
        "additionalProperties", "unevaluatedProperties", "propertyNames",
        "items", "contains", "unevaluatedItems",
    )  # fmt: skip

    def __init__(self, root: Schema, budget: Budget):
        self._root, self._budget = root, budget

    def look(self, schema: Any, value: Any, depth: int) -> None:
        """Count what `schema` makes a validator do with `value`.

        Raises:
            CannotFill: If that is over the budget.
        """
        self._budget.spend()
        if not isinstance(schema, Mapping) or not schema:
            return
        if depth > _DEEPEST * 2:
            raise CannotFill(TOO_LARGE)
        if depth and (name := next((n for n in _MEANS_ANOTHER_ROOT if n in schema), None)):
            raise CannotFill(f"{name!r} inside it is not supported")
        here = [inner for word in self._HERE for inner in schema.get(word, ())]
        here += [schema[word] for word in self._HERE_ALONE if word in schema]
        here += schema.get("dependentSchemas", {}).values()
        here += schema.get("dependencies", {}).values()
        if "$ref" in schema:
            here.append(_resolve(self._root, schema["$ref"], self._budget))
        # For what nobody has looked at yet, a validator looks again at all that is here.
        times = 1 + ("unevaluatedProperties" in schema) + ("unevaluatedItems" in schema)
        for inner in here * times:
            self.look(inner, value, depth + 1)
        if isinstance(value, dict | list):
            self._look_inside(schema, value, depth + 1)

    def _look_inside(self, schema: Schema, value: Any, depth: int) -> None:
        inside = [schema[word] for word in self._INSIDE if word in schema]
        inside += schema.get("patternProperties", {}).values()
        if isinstance(value, dict):
            properties = schema.get("properties", {})
            for name in properties.keys() & value.keys():
                self.look(properties[name], value[name], depth)
        else:
            for part, each in zip(schema.get("prefixItems", ()), value, strict=False):
                self.look(part, each, depth)
        for each in value.values() if isinstance(value, dict) else value:
            for part in inside:
                self.look(part, each, depth)


class _Xeger(rstr.Rstr):
    """Text by a pattern, within a budget."""

    def __init__(self, draw: random.Random, budget: Budget):
        super().__init__(draw)
        self._budget = budget

    def _handle_state(self, state: Any) -> Any:
        opcode, value = state
        self._budget.spend(value[1] - value[0] if opcode.name == "RANGE" else 1)
        return super()._handle_state(state)


class _Builder:
    def __init__(
        self,
        root: Schema,
        filler: Filler,
        draw: random.Random,
        optional: bool,
        budget: Budget,
    ):
        self._root, self._filler, self._draw, self._optional = root, filler, draw, optional
        self._budget = budget
        self._open = ["#"]  # the references that lead to where we are

    def value(self, schema: Any, name: str, depth: int) -> Any:
        if depth > _TOO_DEEP:
            raise CannotFill("it contains itself without an end")
        self._budget.spend()
        if not isinstance(schema, Mapping) or not schema:
            return self._text(name, {})
        self._open.append(str(schema.get("$ref", "")))
        value = self._inner(self._merged(schema, depth), name, depth)
        self._open.pop()
        return value

    def _inner(self, schema: Schema, name: str, depth: int) -> Any:
        if "const" in schema:
            return self._given(schema["const"])
        if "enum" in schema:
            self._budget.spend(len(schema["enum"]))
            if not schema["enum"]:
                raise CannotFill("'enum' is empty")
            return self._given(self._filler.choose(name, schema["enum"]))
        for keyword in ("anyOf", "oneOf"):
            if schema.get(keyword):
                return self.value(self._alternative(schema[keyword], depth), name, depth + 1)
        return self._typed(schema, name, depth)

    def _typed(self, schema: Schema, name: str, depth: int) -> Any:
        match _type(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "boolean":
                return bool(self._filler.choose(name, [True, False]))
            case "integer" | "number" as kind:
                return self._number(schema, name, whole=kind == "integer")
            case "null":
                return None
            case "string":
                return self._string(schema, name)
            case other:
                raise CannotFill(f"unknown type {other!r}")

    def _merged(self, schema: Schema, depth: int) -> Schema:
        """The schema with its reference and its `allOf` put in."""
        self._budget.spend(len(schema))
        parts = [_resolve(self._root, schema["$ref"], self._budget)] if "$ref" in schema else []
        parts += schema.get("allOf", [])
        if depth > _TOO_DEEP:
            raise CannotFill("it contains itself without an end")
        merged: dict[str, Any] = {k: v for k, v in schema.items() if k not in ("$ref", "allOf")}
        for part in parts:
            if isinstance(part, Mapping):
                inner = self._merged(part, depth + 1)
                properties = {**inner.get("properties", {}), **merged.get("properties", {})}
                required = [*inner.get("required", []), *merged.get("required", [])]
                self._budget.spend(len(properties) + len(required))
                merged = {**inner, **merged}
                if properties:
                    merged |= {"properties": properties, "required": required}
        return merged

    def _alternative(self, options: Sequence[Any], depth: int) -> Any:
        """The first that is not null and leads round in no circle; deep down, a plain one."""

        def rank(option: Any) -> tuple[bool, bool, bool]:
            kind = option.get("type") if isinstance(option, Mapping) else None
            plain = kind in ("null", "string", "number", "integer", "boolean")
            # Where a client cut a circle open, it left the empty schema.
            return (not option or self._again(option), depth > _DEEP and not plain, kind == "null")

        self._budget.spend(len(options))
        return min(options, key=rank)

    def _again(self, schema: Any) -> bool:
        return isinstance(schema, Mapping) and schema.get("$ref") in self._open

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = dict.fromkeys(schema.get("required", []))  # in order, and quick to look in
        self._budget.spend(len(properties) + len(required), sum(map(len, (*properties, *required))))
        all_of_them = depth <= _DEEP and (self._optional or not required)
        names = [
            name
            for name, inner in properties.items()
            if name in required or (all_of_them and not self._again(inner))
        ]
        names += [name for name in required if name not in properties]
        return {name: self.value(properties.get(name, {}), name, depth + 1) for name in names}

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        first = [self.value(item, name, depth + 1) for item in schema.get("prefixItems", [])]
        least = _count(schema, "minItems", 0)
        circular = depth > _DEEP or self._again(schema.get("items"))
        wanted = least if circular else max(least, min(3, _count(schema, "maxItems", 3)))
        if schema.get("items") is False:
            return first
        values = list(first)
        for _ in range(20 * wanted + 20):  # more tries than places, for what must be unique
            if len(values) >= wanted:
                break
            value = self.value(schema.get("items", {}), name, depth + 1)
            self._budget.spend(len(values) if schema.get("uniqueItems") else 0)
            if not (schema.get("uniqueItems") and value in values):
                values.append(value)
        return values

    def _number(self, schema: Schema, name: str, *, whole: bool) -> float:
        step = schema.get("multipleOf", 1 if whole else 0.01)
        tiny = 1 if whole else min(step, 0.01)
        try:
            least = schema.get("minimum", schema.get("exclusiveMinimum", -tiny) + tiny)
            most = schema.get("maximum", schema.get("exclusiveMaximum", float("inf")) - tiny)
            if most == float("inf"):
                most = least + (9 if whole or least else 1)
            value = self._filler.number(name, least, max(least, most), whole)
            if "multipleOf" in schema:
                multiple = value // step * step
                value = -(-least // step) * step if multiple < least else multiple
            return int(value) if whole else value
        except (ArithmeticError, ValueError):  # beyond what a float holds
            raise CannotFill("its numbers are out of range") from None

    def _string(self, schema: Schema, name: str) -> str:
        if "pattern" in schema:
            return self._by_pattern(schema["pattern"])
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = self._text(name, schema)
        text = text[: _count(schema, "maxLength", len(text))]
        least = _count(schema, "minLength", 0)
        self._budget.spend(characters=least)
        return text.ljust(least, ".")

    def _text(self, name: str, schema: Schema) -> str:
        text = self._filler.text(name, schema)
        self._budget.spend(characters=len(text))
        return text

    def _by_pattern(self, pattern: str) -> str:
        if len(pattern) > _LONGEST_PATTERN:
            raise CannotFill(TOO_LARGE)
        try:
            text = str(_Xeger(self._draw, self._budget).xeger(pattern))
        except CannotFill:
            raise
        except Exception as error:
            raise CannotFill(f"pattern {pattern!r} ({error})") from None
        self._budget.spend(characters=len(text))
        return text

    def _given(self, value: Any) -> Any:
        """What the schema itself gives; it may be long, and be given again and again."""
        left = [value]
        while left:
            each = left.pop()
            self._budget.spend(1, len(each) if isinstance(each, str) else 0)
            if isinstance(each, dict):
                self._budget.spend(len(each), sum(map(len, each)))
                left += each.values()
            elif isinstance(each, list):
                left += each
        return value


def _count(schema: Schema, keyword: str, otherwise: int) -> int:
    return int(schema.get(keyword, otherwise))  # 2.0 is a whole number there


def _type(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((each for each in kind if each != "null"), "null")
    if kind is not None:
        return str(kind)
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"
