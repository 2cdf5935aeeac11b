"""A value that a JSON Schema admits: the form from the schema, the contents from a `Filler`.

What was built is checked against the schema by `jsonschema_rs` before it is handed out,
so a keyword that the builder does not know leads to a clear refusal, never to a wrong answer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import msgspec
import rstr
from jsonschema_rs import Draft202012Validator, ValidationError

Schema = Mapping[str, Any]

_DEEP, _TOO_DEEP = 6, 40
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


class Filler(Protocol):
    """Says what stands in the fields; `name` is the nearest property's name."""

    def text(self, name: str, schema: Schema) -> str: ...

    def choose(self, name: str, options: Sequence[Any]) -> Any: ...

    def number(self, name: str, least: float, most: float, whole: bool) -> float: ...


def problem(schema: Any) -> str | None:
    """Why `schema` is no JSON Schema, or None if it is one."""
    try:
        _validator(msgspec.json.encode(schema))
    except ValidationError as error:
        return str(error.message)
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
        missing = [name for name in properties if name not in schema.get("required", [])]
        if missing:
            return f"In context={context}, 'required' must name every property; not {missing[0]!r}."
    for keyword in ("properties", "$defs", "definitions"):
        for name, inner in schema.get(keyword, {}).items():
            if found := strict_problem(inner, (*context, keyword, name)):
                return found
    inside = [("items", schema.get("items"))]
    inside += [("anyOf", each) for each in schema.get("anyOf", [])]
    return next((p for word, i in inside if (p := strict_problem(i, (*context, word)))), None)


def build(schema: Schema, filler: Filler, *, draw: random.Random, optional: bool = True) -> Any:
    """A value that `schema` admits.

    Args:
        filler: What stands in its fields.
        draw: For what only a pattern describes.
        optional: Whether properties that are not required are filled in, too.

    Raises:
        CannotFill: If it asks for something that cannot be built, such as the impossible.
    """
    value = _Builder(schema, filler, draw, optional).value(schema, "", 0)
    error = next(_validator(msgspec.json.encode(schema)).iter_errors(value), None)
    if error is not None:
        raise CannotFill(f"{error.message} (at {list(error.instance_path)})")
    return value


def admits(schema: Schema, value: Any) -> bool:
    """True if `value` is valid by `schema`."""
    return bool(_validator(msgspec.json.encode(schema)).is_valid(value))


@lru_cache(maxsize=256)
def _validator(encoded: bytes) -> Draft202012Validator:
    return Draft202012Validator(msgspec.json.decode(encoded), retriever=_nothing_from_elsewhere)


def _nothing_from_elsewhere(uri: str) -> Any:
    raise ValueError(f"{uri} is not in the schema, and nothing is fetched")


class _Builder:
    def __init__(self, root: Schema, filler: Filler, draw: random.Random, optional: bool):
        self._root, self._filler, self._draw, self._optional = root, filler, draw, optional
        self._open = ["#"]  # the references that lead to where we are

    def value(self, schema: Any, name: str, depth: int) -> Any:
        if depth > _TOO_DEEP:
            raise CannotFill("it contains itself without an end")
        if not isinstance(schema, Mapping) or not schema:
            return self._filler.text(name, {})
        self._open.append(str(schema.get("$ref", "")))
        value = self._inner(self._merged(schema, depth), name, depth)
        self._open.pop()
        return value

    def _inner(self, schema: Schema, name: str, depth: int) -> Any:
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._filler.choose(name, schema["enum"])
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
        parts = [self._resolve(schema["$ref"])] if "$ref" in schema else []
        parts += schema.get("allOf", [])
        if depth > _TOO_DEEP:
            raise CannotFill("it contains itself without an end")
        merged: dict[str, Any] = {k: v for k, v in schema.items() if k not in ("$ref", "allOf")}
        for part in parts:
            if isinstance(part, Mapping):
                inner = self._merged(part, depth + 1)
                properties = {**inner.get("properties", {}), **merged.get("properties", {})}
                required = [*inner.get("required", []), *merged.get("required", [])]
                merged = {**inner, **merged}
                if properties:
                    merged |= {"properties": properties, "required": required}
        return merged

    def _resolve(self, reference: Any) -> Schema:
        found: Any = self._root
        try:
            prefix, *path = str(reference).split("/")
            if prefix != "#":
                raise KeyError(reference)
            for part in path:
                part = part.replace("~1", "/").replace("~0", "~")
                found = found[int(part) if isinstance(found, list) else part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise CannotFill(f"$ref {reference!r} leads nowhere") from None
        return found if isinstance(found, Mapping) else {}

    def _alternative(self, options: Sequence[Any], depth: int) -> Any:
        """The first that is not null and leads round in no circle; deep down, a plain one."""

        def rank(option: Any) -> tuple[bool, bool, bool]:
            kind = option.get("type") if isinstance(option, Mapping) else None
            plain = kind in ("null", "string", "number", "integer", "boolean")
            # Where a client cut a circle open, it left the empty schema.
            return (not option or self._again(option), depth > _DEEP and not plain, kind == "null")

        return min(options, key=rank)

    def _again(self, schema: Any) -> bool:
        return isinstance(schema, Mapping) and schema.get("$ref") in self._open

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
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
        least = schema.get("minItems", 0)
        circular = depth > _DEEP or self._again(schema.get("items"))
        wanted = least if circular else max(least, min(3, schema.get("maxItems", 3)))
        if schema.get("items") is False:
            return first
        values = list(first)
        for _ in range(20 * wanted + 20):  # more tries than places, for what must be unique
            if len(values) >= wanted:
                break
            value = self.value(schema.get("items", {}), name, depth + 1)
            if not (schema.get("uniqueItems") and value in values):
                values.append(value)
        return values

    def _number(self, schema: Schema, name: str, *, whole: bool) -> float:
        step = schema.get("multipleOf", 1 if whole else 0.01)
        tiny = 1 if whole else min(step, 0.01)
        least = schema.get("minimum", schema.get("exclusiveMinimum", -tiny) + tiny)
        most = schema.get("maximum", schema.get("exclusiveMaximum", float("inf")) - tiny)
        if most == float("inf"):
            most = least + (9 if whole or least else 1)
        value = self._filler.number(name, least, max(least, most), whole)
        if "multipleOf" in schema:
            value = (
                -(-least // step) * step if value // step * step < least else value // step * step
            )
        return int(value) if whole else value

    def _string(self, schema: Schema, name: str) -> str:
        if "pattern" in schema:
            try:
                return rstr.Rstr(self._draw).xeger(schema["pattern"])
            except Exception as error:
                raise CannotFill(f"pattern {schema['pattern']!r} ({error})") from None
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = self._filler.text(name, schema)
        text = text[: schema.get("maxLength", len(text))]
        return text.ljust(schema.get("minLength", 0), ".")


def _type(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((each for each in kind if each != "null"), "null")
    if kind is not None:
        return str(kind)
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"
