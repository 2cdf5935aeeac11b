"""The form that a text asks for instead of prose: JSON, CSV, a table, fields, one of some words.

Whatever it is, its contents are a value that a JSON Schema admits; only examples are imitated.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from agentlab.endpoint.answers._listed import MANY, TYPE, listed, number, typed
from agentlab.endpoint.contract.json_schema import Schema, problem

_TRIES, _MOST_ROWS = 200, 100  # places at which JSON may begin
_OPENING = re.compile(r'\{(?=\s*["}])')
_KEY = re.compile(r'"([^"\n]+)"\s*:[\s"\'<]*')
_TYPES = frozenset("object array string number integer boolean null".split())
_KEYWORDS = frozenset(
    "anyOf oneOf allOf $ref items enum minItems maxItems minimum maximum pattern minLength".split()
)
_ASK = (
    r"\b(?:in|as|into|(?:only|valid|pure|raw|be|return|output|produce|emit|generate|give|provide"
    r"|write|create|make|use|want|need|than|(?:respond|reply|answer)\w*(?: \w+){{0,2}}? with)"
    r"(?: me| the| your)?)(?: an?| one)?(?: (?!th(?:is|at|e|ese)\b)[\w-]+)? {0}\b(?![.(]\w)"
    r"|^{0} (?:object|array|list)\b|\b{0}\W{{0,4}}(?:(?:으?로|형식|형태|객체|배열|만|only|response)"
    r"|[을를]? ?(?:만들|출력|반환|생성|작성))"
)
_ABOUT = (
    r"\b(?:about|explain|describe|parse|compare|what (?:is|are|does))\s+"
    r"(?:(?!in\b|as\b|into\b)[\w-]+\s+){{0,4}}{0}"
    r"|\b(?:how|why|script|program|parser|apis?|tools?|functions?|servers?|inputs?|files?)\b"
    r".{{0,80}}{0}|{0}\S* ?(?:이란|에 대해|에 대한)"
)
_ASKS_ABOUT = re.compile(
    r"\b(?:explain|describe|review|validate|convert|translate|what|why)\b", re.I
)
_FENCE = re.compile(r"```json\b.{0,30}block|code ?block|code fence|fenced|markdown code", re.I)
_NO_FENCE = re.compile(r"\b(?:not|no|never|without|don't)\b.{0,50}(?:code ?block|fence)", re.I)
_KEYS = (
    r"keys?|fields?|propert(?:y|ies)|attributes?|structure|키|필드|속성|(?:포함|담|가진)\S*"
    r"|json(?: \w+){0,2} (?:containing|including|with|having|holding|that (?:has|contains))"
)
_SEVERAL = re.compile(
    rf"(?:list|array)s? of (?:{MANY} )?(?:\w+ )?objects|json (?:list|array)(?: of {MANY})?"
    rf"|{MANY} (?:json )?objects|배열|객체 목록",
    re.I,
)
_TABLE = re.compile(
    r"\b(?:in|as|into) (?:an? )?(?!the |this |that )(?:\w+ )?(?:table|csv)\b"
    r"|markdown table|csv format|(?:표|csv)(?:로| 형식)|comma[- ]separated",
    re.I,
)
_COLUMNS = r"columns?|headers?|(?:table|csv)(?: format)?(?= ?:)|열|컬럼"
_ROWS = re.compile(rf"{MANY}(?: data)?\s?(?:rows|lines|행|줄)", re.I)
_REPLY = r"\b(?:answer|reply|respond|return|output|choose|pick|label)\b[^.?!\n]{0,80}?"
_ONE_OF = (
    r"classify\b[^.?!\n:]{0,80}? as|중에?서? ?하나"
    rf"|{_REPLY}\b(?:one of|either)(?: the(?: following)?)?(?: [a-z]+(?=:))?"
)
_FEW_WORDS = ("yes", "true", "one of", "either", "classify", "아니", "하나")
_YES_NO = re.compile(
    rf"(?:{_REPLY}|\b(?:only|just) (?:say |with )?|[(\[]|\?\s|^)[\"'`]?\b(yes|true)[\"'`]?"
    r"\s*(?:or|/)\s*[\"'`]?(no|false)\b"
    r"|(예|네)\s*(?:또는|/|혹은|나)\s*(아니[요오])",
    re.I | re.M,
)
_MARKER = re.compile(r"\[\[ ## (\w+) ## \]\]")
_GIVEN = re.compile(r"^\[\[ ## (\w+) ## \]\](?!\s*(?:\{|\[\[ ##|\Z))", re.M)
_WANTED = re.compile(rf"`{_MARKER.pattern}`")
_FIELD = re.compile(r"^\d+\. `(\w+)` \((.{1,300}?)\):", re.M)
_PUTS = re.compile(
    r"\b(?:wrap|enclos|put|plac|respon|return|output|answer|format|insid|within|between)", re.I
)
_EMPTY = (
    r"(?:\.{3}|…|\{[^{}<\"]{0,60}\}|\[[^\[\]<\"]{0,60}\]|[^<\n]{0,40}\bhere\b|your [^<\n]{0,40})?"
)
_TAG = re.compile(
    rf"<([A-Za-z][\w-]{{0,40}})>"
    rf"(?:\s{{0,9}}{_EMPTY}\s{{0,9}}</\1>|(?=[`'\"*]*(?:,|\.|:|\Z| tags?\b| and | then )))"
)


class Form(NamedTuple):
    """How an answer is written, and the schema of what stands in it; None if anything may."""

    written: Literal["json", "fenced", "table", "csv", "word", "tags", "markers"]
    schema: Schema | None = None
    example: Any = None  # to be imitated instead

    def with_types(self, types: Mapping[str, Schema]) -> Form:
        """Return it with the schemas of some of its fields."""
        fields = (self.schema or {}).get("properties", {})
        if fields.keys().isdisjoint(types):
            return self
        typed_fields = {name: types.get(name, schema) for name, schema in fields.items()}
        return self._replace(schema=_object(typed_fields))


def form_of(text: str, shown: str, *, as_json: bool = False) -> Form | None:
    """Return the form that `text` asks for, or None for prose.

    An example of JSON may stand in `shown`; it counts if JSON is wanted anyway, or asked for.
    """
    tags = _TAG.findall(text) if "<" in text and _PUTS.search(text) else []
    fields: dict[str, Schema] = {tag: {} for tag in tags if not TYPE.fullmatch(tag)}
    if fields:
        return Form("tags", _object(fields))
    lowered = text.lower()
    if schema := schema_in(text):
        return Form(_json(text), schema)
    asked = asks(lowered, "json")
    if asked and (form := example_in(shown)):
        return form
    if asked or as_json:
        names, several = listed(text, _KEYS), _SEVERAL.search(text)
        if several:
            return Form(_json(text), _rows(_object(names) if names else typed(""), several))
        if names:
            return Form(_json(text), _object(names))
    return None if asked else _table(text, lowered) or _word(text, lowered)


def asks(text: str, what: str) -> bool:
    """Return True if a sentence of the text, in lower case, asks for it, and not about it."""
    return what in text and any(
        re.search(_ASK.format(what), sentence) and not re.search(_ABOUT.format(what), sentence)
        for sentence in re.split(r"(?<=[.?!])\s|\n", text)
        if what in sentence
    )


def schema_in(text: str) -> Schema | None:
    """Return the last JSON Schema that stands in a text, unless the text asks about it."""
    if '{{"' in text:  # a template's braces that nobody has filled in
        text = text.replace("{{", "{").replace("}}", "}")
    found = None
    for value, start in _objects(text):
        schema = _as_schema(value)
        said = re.split(r"[.?!]\s", text[max(0, start - 80) : start].rstrip(" .\n"))[-1]
        if schema and not _ASKS_ABOUT.search(said):
            found = schema
    return found


def marked(prompt: str, text: str) -> Form | None:
    """Return the fields that DSPy's markers in `text` describe, without those that are given."""
    given, kinds = _GIVEN.findall(prompt), field_types(text)
    names = _WANTED.findall(prompt) or [name for name in _MARKER.findall(text) if name not in given]
    fields = {name: kinds.get(name, {}) for name in names} | {"completed": {"const": ""}}
    return Form("markers", _object(fields)) if names else None


def field_types(text: str) -> dict[str, Schema]:
    """Return the schemas of the fields that DSPy describes in a text."""
    kinds: dict[str, Schema] = {name: typed(words) for name, words in _FIELD.findall(text)}
    for found in re.finditer(r"\{(\w+)\}[^\n]*JSON schema: ([^\n]*)", text):
        schemas = _objects(found[2].replace('\\"', '"'))
        kinds[found[1]] = next((schema for schema, _ in schemas), {})
    return kinds


def render(written: str, value: Any) -> str:
    """Return a value, written as a form wants it."""
    match written:
        case "json" | "fenced":
            text = json.dumps(value, ensure_ascii=False, indent=2)
            return f"```json\n{text}\n```" if written == "fenced" else text
        case "tags":
            return "\n".join(f"<{name}>{_plain(inner)}</{name}>" for name, inner in value.items())
        case "markers":
            fields = (f"[[ ## {name} ## ]]\n{_plain(inner)}" for name, inner in value.items())
            return "\n\n".join(fields).rstrip()
        case "word":
            return _plain(value)
    if not isinstance(value[0], dict):
        return ", ".join(map(_plain, value))
    rows = [[*value[0]], *([_plain(cell) for cell in row.values()] for row in value)]
    if written == "csv":
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows(rows)
        return lines.getvalue().rstrip("\n")
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def read_json(text: str, at: int = 0) -> tuple[Any, int]:
    """Return the JSON value that begins there, and its end; ValueError if UTF-8 cannot hold it."""
    value, end = json.JSONDecoder().raw_decode(text, at)
    json.dumps(value, ensure_ascii=False).encode()
    return value, end


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _object(properties: dict[str, Any]) -> Schema:
    return {"type": "object", "properties": properties, "required": [*properties]}


def _rows(item: Schema, said: re.Match[str] | None) -> Schema:
    many = number(said[said.lastindex]) if said and said.lastindex else 3
    many = min(max(many, 1), _MOST_ROWS)
    return {"type": "array", "items": item, "minItems": many, "maxItems": many}


def _json(text: str) -> Literal["json", "fenced"]:
    return "fenced" if _FENCE.search(text) and not _NO_FENCE.search(text) else "json"


def _objects(text: str) -> Iterator[tuple[Any, int]]:
    """Yield each JSON object that is not inside another, and where it begins."""
    end = 0
    for found in list(_OPENING.finditer(text))[:_TRIES]:
        if found.start() >= end:
            with suppress(ValueError, RecursionError):  # numbers of thousands of digits, too
                value, end = read_json(text, found.start())
                yield value, found.start()


def _as_schema(value: Any) -> Schema | None:
    """Return the schema that a JSON object is, holds, or names the properties of; else None."""
    for name in ("json_schema", "schema"):  # as in a request, or in a part of one
        value = value[name] if isinstance(value.get(name), dict) else value
    kind, named = value.get("type", "object"), value.get("properties")
    if str(kind) not in _TYPES and not isinstance(kind, list):
        return None
    whole = isinstance(named, dict) and all(isinstance(each, dict) for each in named.values())
    if whole or not _KEYWORDS.isdisjoint(value):
        return None if problem(value) else value
    if value and all(isinstance(each, dict) and _kind(each) for each in value.values()):
        return None if problem(_object(value)) else _object(value)
    return None


def _kind(value: dict[str, Any]) -> bool:
    return str(value.get("type")) in _TYPES or not {"anyOf", "$ref", "enum"}.isdisjoint(value)


def example_in(text: str) -> Form | None:
    """Return the JSON that a text shows, sketched or complete; None if it shows a schema."""
    start, end = text.find("{"), text.rfind("}") + 1
    keys = {key[1]: TYPE.match(text, key.end()) for key in _KEY.finditer(text, start, max(end, 0))}
    if not keys or {"properties", "type"} <= keys.keys() or "$ref" in keys:
        return None
    written = _json(text)
    if text[:start].rstrip().endswith("[") and text[end:].lstrip().startswith("]"):
        start, end = text.rindex("[", 0, start), text.index("]", end) + 1
    text = text[start:end]
    for candidate in (text, text.replace("{{", "{").replace("}}", "}")):
        with suppress(ValueError, RecursionError):
            example, end = read_json(candidate)
            if end == len(candidate):
                return Form(written, example=example)
    if any(keys.values()):  # with comments, or unfinished
        kinds = {key: typed(kind[0] if kind else "") for key, kind in keys.items()}
        return Form(written, _object(kinds))
    return Form(written, example=dict.fromkeys(keys, ""))


def _table(text: str, lowered: str) -> Form | None:
    commas = "csv" in lowered or "comma" in lowered
    written: Literal["csv", "table"] = "csv" if commas else "table"
    if not (commas or "table" in lowered or "tabulat" in lowered or "표" in text):
        return None
    plainly, columns = _TABLE.search(text), listed(text, _COLUMNS)
    if not columns and plainly and "comma" in plainly[0].lower():
        return Form(written, _rows(typed(""), re.search(MANY, text, re.I)))
    if not columns and plainly:
        columns = {"Name": {}, "Notes": {}}
    return Form(written, _rows(_object(columns), _ROWS.search(text))) if columns else None


def _word(text: str, lowered: str) -> Form | None:
    if not any(word in lowered for word in _FEW_WORDS):
        return None
    if found := _YES_NO.search(text):
        return Form("word", {"enum": [word for word in found.groups() if word]})
    options = listed(text, _ONE_OF)
    return Form("word", {"enum": [*options]}) if options else None
