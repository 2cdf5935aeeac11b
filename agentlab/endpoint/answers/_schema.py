"""A value that a JSON Schema admits: the form from the schema, the contents from a `Filler`.

It is checked before it is handed out: what the builder does not know is refused, never wrong.
"""

import random
import re
import string
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import chain
from math import ceil, floor, inf
from typing import Any, Protocol

import rstr

from agentlab.endpoint.contract import json_schema
from agentlab.endpoint.contract.json_schema import Budget, CannotFill, Schema

_DEEP, _TOO_DEEP = 6, 40
_MORE, _TRIES = 4, 20  # repetitions that a pattern leaves open, and draws for a text that fits
_PRINTED = string.printable[:95]  # in one line
_WIDE = 128  # characters; of a wider range, so many stand for all
_PLAIN = ("null", "string", "number", "integer", "boolean")


class Filler(Protocol):
    """Says what stands in the fields; `name` is the nearest property's, ranges are inclusive."""

    draw: random.Random

    def text(self, name: str, schema: Schema) -> str: ...

    def choose(self, name: str, options: Sequence[Any]) -> Any: ...

    def number(self, name: str, least: float, most: float, whole: bool) -> float: ...


def build(
    schema: Schema, filler: Filler, *, optional: bool = True, budget: Budget | None = None
) -> Any:
    """Build a value that `schema` admits, or raise CannotFill; others may share the budget.

    Properties that are not required are filled in if they are `optional`, and if that fits.
    """
    json_schema.validator_of(schema)
    budget = budget or Budget()
    for attempt in range(_TRIES):
        value = _Builder(schema, filler, optional and not attempt, budget).value(schema, "", 0)
        if json_schema.admits(schema, value, budget):
            return value
    raise CannotFill("what it asks for does not fit together")


class _Xeger(rstr.Rstr):
    """Draws texts; what a pattern may repeat comes `more` times (from, to) than it has to."""

    def __init__(self, draw: random.Random, budget: Budget, more: tuple[int, int]):
        super().__init__(draw)
        self._budget, self._more = budget, more
        self._cases = {**self._cases, "any": lambda _: draw.choice(_PRINTED)}

    def _handle_state(self, state: Any) -> Any:
        opcode, value = state
        self._budget.spend(3 if opcode.name == "RANGE" else 1)
        if opcode.name != "RANGE":
            return super()._handle_state(state)
        step = 1 + (value[1] - value[0]) // _WIDE
        return [c for c in map(chr, range(value[0], value[1] + 1, step)) if c.isprintable()]

    def _handle_in(self, value: Any) -> Any:
        listed = [*chain(*map(self._handle_state, value))]
        others = [each for each in _PRINTED if each not in listed]
        return self._random.choice(others if listed[0] is False else listed)

    def _handle_repeat(self, start_range: int, end_range: int, value: Any) -> str:
        few, many = (min(start_range + more, end_range) for more in self._more)
        return "".join(self._build_string(value) for _ in range(self._random.randint(few, many)))


class _Builder:
    def __init__(self, root: Schema, filler: Filler, optional: bool, budget: Budget):
        self._root, self._filler, self._optional, self._budget = root, filler, optional, budget
        self._open = ["#"]  # the references that lead to where we are

    def value(self, schema: Any, name: str, depth: int) -> Any:
        self._budget.spend()
        if not isinstance(schema, Mapping) or not schema:
            return self._string({}, name)
        self._open.append(str(schema.get("$ref", "")))
        value = self._inner(self._merged(schema, depth), name, depth)
        self._open.pop()
        return value

    def _merged(self, schema: Schema, depth: int) -> Schema:
        if depth > _TOO_DEEP:
            raise CannotFill("it contains itself without an end")
        self._budget.spend(len(schema))
        parts = [*schema.get("allOf", [])]
        if "$ref" in schema:
            parts = [json_schema.resolve(self._root, schema["$ref"], self._budget), *parts]
        merged: dict[str, Any] = {k: v for k, v in schema.items() if k not in ("$ref", "allOf")}
        for part in parts:
            if isinstance(part, Mapping):
                inner = self._merged(part, depth + 1)
                properties = {**inner.get("properties", {}), **merged.get("properties", {})}
                required = [*inner.get("required", []), *merged.get("required", [])]
                self._budget.spend(len(properties) + len(required))
                both = {"properties": properties, "required": required} if properties else {}
                merged = {**inner, **merged, **both}
        return merged

    def _inner(self, schema: Schema, name: str, depth: int) -> Any:
        if "const" in schema or "enum" in schema:
            options = schema.get("enum") or [None]
            self._budget.spend(len(options))
            given = schema["const"] if "const" in schema else self._filler.choose(name, options)
            json_schema.count_parts(given, self._budget)  # it may be given again and again
            return given
        if options := schema.get("anyOf") or schema.get("oneOf"):
            return self.value(self._alternative(options, depth), name, depth + 1)
        match _type(schema):
            case "object":
                return self._object(schema, name, depth)
            case "array":
                return self._array(schema, name, depth)
            case "boolean":
                return bool(self._filler.choose(name, [True, False]))
            case "integer" | "number" as kind:
                return self._number(schema, name, whole=kind == "integer")
            case "null":
                return None
            case _:
                return self._string(schema, name)

    def _alternative(self, options: Sequence[Any], depth: int) -> Any:
        """Return the first that is not null and does not lead back here; deep down, a plain one."""

        def rank(option: Any) -> tuple[bool, bool, bool, bool]:
            kind = option.get("type") if isinstance(option, Mapping) else None
            # Where a client cut a circle open, it left the empty schema.
            again, deep = not option or self._again(option), depth > _DEEP
            return again, self._holds_again(option), deep and kind not in _PLAIN, kind == "null"

        self._budget.spend(len(options))
        return min(options, key=rank)

    def _again(self, schema: Any) -> bool:
        return isinstance(schema, Mapping) and schema.get("$ref") in self._open

    def _holds_again(self, schema: Any) -> bool:
        self._budget.spend()
        inner = schema.values() if isinstance(schema, dict) else schema
        held = isinstance(schema, dict | list) and any(map(self._holds_again, inner))
        return held or self._again(schema)

    def _object(self, schema: Schema, name: str, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = dict.fromkeys(schema.get("required", []))  # in order, and quick to look in
        self._budget.spend(len(properties) + len(required), sum(map(len, (*properties, *required))))
        more = {} if depth > _DEEP or (required and not self._optional) else properties
        names = [n for n in properties if n in required or (n in more and not self._again(more[n]))]
        every = dict.fromkeys([*names, *required])
        made = {each: self.value(properties.get(each, {}), each, depth + 1) for each in every}
        return made or self._map(schema, name, depth)

    def _map(self, schema: Schema, name: str, depth: int) -> dict[str, Any]:
        """Return entries of an object whose names are free, two if the schema lets it."""
        inner = schema.get("additionalProperties")
        if not inner or inner is True or depth > _DEEP or self._again(inner):
            return {}
        least, most = int(schema.get("minProperties", 0)), int(schema.get("maxProperties", 2))
        names = {"type": "string", **schema.get("propertyNames", {})}
        keys = (str(self.value(names, name, depth + 1)) for _ in range(max(least, min(2, most))))
        return {key: self.value(inner, key, depth + 1) for key in keys}

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        values = [self.value(item, name, depth + 1) for item in schema.get("prefixItems", [])]
        items, unique = schema.get("items", {}), schema.get("uniqueItems")
        wanted = int(schema.get("minItems", 0))
        if depth <= _DEEP and items is not False and not self._again(items):
            wanted = max(wanted, min(3, int(schema.get("maxItems", 3))))
        for _ in range(20 * wanted + 20):  # more tries than places, because of what must be unique
            if len(values) >= wanted:
                break
            value = self.value(items, name, depth + 1)
            self._budget.spend(len(values) if unique else 0)
            if not (unique and value in values):
                values.append(value)
        return values

    def _number(self, schema: Schema, name: str, *, whole: bool) -> float:
        try:
            least = max(schema.get("minimum", -inf), schema.get("exclusiveMinimum", -inf) + whole)
            most = min(schema.get("maximum", inf), schema.get("exclusiveMaximum", inf) - whole)
            value = self._filler.number(name, least, max(least, most), whole)
            if "multipleOf" in schema:
                by = Decimal(str(schema["multipleOf"]))  # since .29 is no multiple of .01 in binary
                times = floor(Decimal(str(value)) / by)
                times = times if times * by >= least else ceil(Decimal(str(least)) / by)
                value = float(times * by)
            return int(value) if whole else value
        except (ArithmeticError, ValueError):  # beyond what a float holds
            raise CannotFill("its numbers are out of range") from None

    def _string(self, schema: Schema, name: str) -> str:
        pattern = schema.get("pattern")
        text = "" if pattern and "format" not in schema else self._filler.text(name, schema)
        if pattern is not None and not (text and json_schema.admits({"pattern": pattern}, text)):
            try:
                text = self._matching(pattern, schema)
            except Exception as error:
                raise CannotFill(f"pattern {pattern!r} ({error})") from None
            self._budget.spend(characters=len(text) + len(pattern))
            return text
        least = int(schema.get("minLength", 0))  # 2.0 is a whole number there
        self._budget.spend(characters=len(text) + least)
        return text[: int(schema.get("maxLength", len(text)))].ljust(least, ".")

    def _matching(self, pattern: str, schema: Schema) -> str:
        """Return a text that a pattern describes; its repetitions are fitted to the length."""
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength", inf)
        low, high, more, text = 0, 2**20, 0, ""
        known = re.sub(r"\\p\{L\w*\}", r"\\w", pattern)  # what Python's patterns lack
        for attempt in range(_TRIES):
            repeated = more, more + (1 if attempt else _MORE)
            text = str(_Xeger(self._filler.draw, self._budget, repeated).xeger(known))
            if len(text) < least:
                low = more + 1
            elif len(text) > most:
                high = more
            elif json_schema.admits({"pattern": pattern}, text):  # it may look ahead
                break
            more = min(2 * low, (low + high) // 2)
        return text


def _type(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((each for each in kind if each != "null"), "null")
    guessed = "array" if "items" in schema or "prefixItems" in schema else "string"
    if "properties" in schema or "required" in schema:
        guessed = "object"
    return guessed if kind is None else str(kind)
