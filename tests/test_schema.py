"""Filling schemas, hostile ones too: it ends, within a budget that is counted in steps."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from agentlab.endpoint.answers._schema import build
from agentlab.endpoint.answers.replies import Replies, Writer
from agentlab.endpoint.contract.json_schema import (
    TOO_LARGE,
    Budget,
    CannotFill,
    Schema,
    admits,
    problem,
)
from agentlab.settings import DATA

REPLIES = Replies(DATA / "replies")
STEPS, CHARACTERS = 2000, 20_000


class Plain:
    """Says a word, takes the last option, and the middle of a range."""

    def __init__(self) -> None:
        self.draw = random.Random(1)

    def text(self, name: str, schema: Schema) -> str:
        return "word"

    def choose(self, name: str, options: Sequence[Any]) -> Any:
        return options[-1]

    def number(self, name: str, least: float, most: float, whole: bool) -> float:
        middle = (least + most) / 2
        return int(middle) if whole else middle


NONSENSE: list[Any] = [
    None, True, False, -1, 0, 3, 10**6, 10**12, 10**30, 1e300, 2.0, 0.5, "", "#", "x", [], [1], {},
]  # fmt: skip
NAMES = list("abcd")
PATTERNS = [
    "^a$",
    "a{9999}",
    "(a{99}){99}",
    "(a+)+$",
    "[^a]",
    "\\w{5}",
    "(",
    "(?=x)y",
    "\\p{L}",
    "",
]
REFERENCES = ["#", "#/$defs/a", "#/$defs/b", "#/properties/a", "#/allOf/0", "#/nowhere", "x", "#a"]
TYPES = ["object", "array", "string", "number", "integer", "null", "boolean", "x", []]


class Hostile:
    """Draws schemas: right keywords, wrong ones, and such as contradict each other."""

    def __init__(self, seed: int):
        self._draw = random.Random(seed)
        self._left = 40

    def schema(self, depth: int = 0) -> Any:
        draw = self._draw
        self._left -= 1
        if depth and (depth > 6 or self._left < 0 or draw.random() < 0.15):
            return draw.choice([{}, True, *[{"type": draw.choice(TYPES[:7])}] * 4])
        keywords = draw.sample(sorted(self._values), draw.randint(1, 5))
        return {keyword: self._value(keyword, depth + 1) for keyword in keywords}

    def _value(self, keyword: str, depth: int) -> Any:
        if self._draw.random() < 0.03:
            return self._draw.choice(NONSENSE)
        return self._values[keyword](self, depth)

    def _some(self, depth: int) -> list[Any]:
        return [self.schema(depth) for _ in range(self._draw.randint(1, 3))]

    def _named(self, depth: int) -> dict[str, Any]:
        return {name: self.schema(depth) for name in self._draw.sample(NAMES, 2)}

    def _by_pattern(self, depth: int) -> dict[str, Any]:
        return {self._draw.choice(PATTERNS): self.schema(depth)}

    def _size(self, depth: int) -> Any:
        return self._draw.choice([0, 1, 2, 3, 4, 40, 10**3, 10**9, 3.0])

    def _of(options: list[Any]) -> Callable[[Hostile, int], Any]:  # type: ignore[misc]
        return lambda self, depth: self._draw.choice(options)

    _values: ClassVar[dict[str, Callable[[Hostile, int], Any]]] = {
        **dict.fromkeys(["allOf", "anyOf", "oneOf", "prefixItems"], _some),
        **dict.fromkeys(["properties", "dependentSchemas", "$defs"], _named),
        **dict.fromkeys(
            ["items", "contains", "not", "if", "then", "additionalProperties", "propertyNames"],
            schema,
        ),
        **dict.fromkeys(["unevaluatedProperties", "unevaluatedItems"], schema),
        **dict.fromkeys(["minItems", "maxItems", "minLength", "maxLength"], _size),
        **dict.fromkeys(["minimum", "maximum", "exclusiveMinimum", "multipleOf"], _size),
        "patternProperties": _by_pattern,
        "type": _of(TYPES),
        "required": _of([["a"], ["a", "b"], [], ["d"]]),
        "uniqueItems": _of([True, False]),
        "pattern": _of(PATTERNS),
        "enum": _of([[], [1], [None, "a"], [[1], {"a": 2}], ["x"] * 500]),
        "const": _of(NONSENSE),
        "$ref": _of(REFERENCES),
        "$id": _of(["a", "http://x/y"]),
        "format": _of(["date", "x"]),
    }


seeds = st.integers(0, 2**32)


@settings(max_examples=600)
@given(seeds)
def test_a_schema_is_filled_or_refused(seed: int):
    """What is built is valid, by a validator of its own, and no larger than its budget."""
    schema = Hostile(seed).schema()
    budget = Budget(STEPS, CHARACTERS)
    try:
        value = build(schema, Plain(), budget=budget)
    except CannotFill:
        return
    assert Draft202012Validator(schema).is_valid(value)
    assert budget.steps >= 0
    assert budget.characters >= 0
    assert values_in(value) <= STEPS


@settings(max_examples=200)
@given(seeds)
def test_the_checks_of_any_schema_end(seed: int):
    """Whether it is one, whether strict mode takes it, and whether it admits a value."""
    schema = Hostile(seed).schema()
    if problem(schema) is None:
        problem(schema, strict=True)
        try:
            assert admits(schema, {"a": [1]}) in (True, False)
        except CannotFill as error:
            assert str(error)
    else:
        with pytest.raises(CannotFill):
            build(schema, Plain())


def values_in(value: Any) -> int:
    if isinstance(value, Mapping):
        return 1 + sum(map(values_in, value.values()))
    return 1 + sum(map(values_in, value)) if isinstance(value, list) else 1


def doubled(keyword: str, levels: int) -> dict[str, Any]:
    """Each level leads to the next in two ways: to look at all takes 2**levels steps."""
    definitions: dict[str, Any] = {
        f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": definitions | {f"d{levels}": {"type": "string"}}}


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_what_a_validator_may_look_at_is_counted(keyword: str):
    """To look at 2**30 places is refused before the validator is asked."""
    with pytest.raises(CannotFill, match="too large"):
        admits(doubled(keyword, 30), "word")


def test_a_budget_may_be_shared():
    """Two lists of 40 fit; the third does not."""
    forty: dict[str, Any] = {"type": "array", "items": {"type": "null"}, "minItems": 40}
    budget = Budget(steps=300)
    for _ in range(2):
        assert len(build(forty, Plain(), budget=budget)) == 40
    with pytest.raises(CannotFill, match="too large"):
        build(forty, Plain(), budget=budget)


def test_patterns_count_for_more_in_a_schema():
    """Two hundred are too many; two hundred names are few."""
    names = {f"p{i}": {"type": "string"} for i in range(201)}
    assert problem({"properties": names}) is None
    assert problem({"properties": {n: {"pattern": "x"} for n in names}}) == TOO_LARGE


def test_whole_numbers_may_be_written_with_a_point():
    """JSON Schema calls 2.0 an integer, and so do the keywords that count."""
    schema = {"type": "array", "items": {"type": "string", "maxLength": 2.0}, "minItems": 4.0}
    assert build(schema, Plain()) == ["wo"] * 4


def filled(schema: Schema, seed: int = 1) -> Any:
    """What the one property of an object is filled with."""
    filler = Plain()
    filler.draw = random.Random(seed)
    return build({"type": "object", "properties": {"a": schema}}, filler)["a"]


@pytest.mark.parametrize(
    "pattern",
    [
        "^[가-힣]{2,4}$", "^[一-龥ぁ-んァ-ヶ]+$", "^[a-zA-Z가-힣 ]+$", "^[\\u0000-\\uffff]+$",
        "^[a-z0-9]+(?:-[a-z0-9]+)*$", r"^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}$",
        r"^[^\s@]+@[^\s@]+\.[^\s@]+$", r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$",
        "^.{10,200}$", r"^\w{120}$", r"^(?=.*[A-Z])(?=.*\d)[A-Za-z\d]{8,}$", "^(?!.*--)[a-z-]+$",
        r"^\p{Lu}\p{L}+$",
    ],
)  # fmt: skip
def test_patterns_of_the_world_are_filled_briefly(pattern: str):
    """Whatever the draw; what a pattern leaves open is repeated a few times only."""
    least = max(map(int, re.findall(r"{(\d+)", pattern)), default=0)
    for seed in range(40):
        text = filled({"type": "string", "pattern": pattern}, seed)
        assert len(text) <= 32 + least
        assert text.isprintable()


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        ("^[a-z]+$", 0, 1),
        ("^[a-z]+$", 20, 20),
        ("^[a-z]+$", 150, 160),
        ("^[A-Z][a-z]*( [A-Z][a-z]*)*$", 15, 20),
        ("^[a-z]+-[a-z]+$", 10, 10),
        ("^[가-힣]{1,30}$", 12, 14),
    ],
)
def test_a_pattern_keeps_to_the_length_beside_it(pattern: str, least: int, most: int):
    """Its repetitions are as many as that takes, whatever the draw."""
    schema = {"type": "string", "pattern": pattern, "minLength": least, "maxLength": most}
    assert {least <= len(filled(schema, seed)) <= most for seed in range(40)} == {True}


def test_what_a_pattern_excludes_is_drawn_alike_in_every_process():
    """A set's order, which differs between processes, has no part in it."""
    code = "import tests.test_schema as t; print(t.filled({'pattern': '^[^a-y]{9}$'}))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert len(said) == 1


@pytest.mark.parametrize("step", [0.1, 0.05, 0.01, 0.001, 0.3, 2.5, 3, 7, 10**20])
def test_multiples_of_a_step_are_multiples_as_they_are_written(step: float):
    """Of those that floats cannot hold, and of large ones; also below zero."""
    for least, most in ((0, 10 * step), (-10 * step, -5 * step)):
        for kind in ("number", "integer") if step >= 3 else ("number",):
            schema = {"type": kind, "multipleOf": step, "minimum": least, "maximum": most}
            for share in range(1, 40):
                filler = Plain()
                filler.number = lambda name, least, most, whole, share=share: (  # type: ignore
                    (int if whole else float)(least + (most - least) * share / 40)
                )
                value = build(schema, filler)
                assert Decimal(str(value)) % Decimal(str(step)) == 0 and least <= value <= most


DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
NUMBER = {"type": "object", "properties": {"n": DIGIT}, "required": ["n"]}


def two(*names: str) -> dict[str, Any]:
    """An object whose properties of these names refer to definitions of the same names."""
    referred = {name: {"$ref": f"#/$defs/{name[0]}"} for name in names}
    return {"type": "object", "properties": referred, "required": [*names]}


@pytest.mark.parametrize(
    "definitions",
    [
        {"e": {"anyOf": [two("e1", "e2"), NUMBER]}},
        {"e": {"oneOf": [two("f1"), NUMBER]}, "f": two("e1")},
        {"e": {"anyOf": [{"type": "array", "items": two("e"), "minItems": 2}, NUMBER]}},
        {"e": {"anyOf": [{"$ref": "#/$defs/f"}, NUMBER]}, "f": two("e1", "e2")},
        {"e": {"anyOf": [two("f"), two("f2")]}, "f": {"anyOf": [two("e"), {"type": "null"}]}},
    ],
)
def test_a_union_that_recurs_in_its_first_branch_ends_in_another(definitions: dict[str, Any]):
    """Directly, in a list, or by way of others: an expression of numbers ends in a number."""
    value = build({**two("e"), "$defs": definitions}, Plain())
    assert 0 < values_in(value) < 20


def writer(seed: int) -> Writer:
    """What fills schemas when the local model answers."""
    return REPLIES.writer("Describe tides.", random.Random(seed), (), as_json=False)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 1, "exclusiveMinimum": 5, "exclusiveMaximum": 7},
        {"type": "number", "exclusiveMinimum": 0.999, "exclusiveMaximum": 1},
        {"type": "number", "minimum": 1e-9, "maximum": 1e-8},
        {"type": "integer", "minimum": 0, "maximum": 2, "not": {"enum": [0, 1]}},
        {"properties": {"a": {}, "b": {}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {
            "type": "object",
            "propertyNames": {"enum": ["en", "de"]},
            "additionalProperties": {"type": "string"},
            "minProperties": 1,
        },
    ],
)
def test_what_one_draw_misses_another_meets(schema: Schema):
    """Bounds on both sides, in narrow ranges as well, names of a map, and what is excluded."""
    assert all(admits(schema, build(schema, writer(seed))) for seed in range(20))


def test_a_format_is_kept_where_its_pattern_lets_it():
    """A date that only a pattern described would have a month 64."""
    schema = {"type": "string", "format": "date", "pattern": r"^\d{4}-\d{2}-\d{2}$"}
    assert build(schema, writer(1)) == "2026-01-15"
