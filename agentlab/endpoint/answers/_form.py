"""The form that a text asks for instead of prose: JSON, a table, tags, one of some words.

What stands in it is a value that a JSON Schema admits; only examples are imitated. Names stand
behind a noun ("the keys `name` (string) and `age`"), before it, or below it, line by line.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Literal, NamedTuple

from agentlab.endpoint.contract.json_schema import Schema, problem

_COUNTS = {
    "one": 1, "a single": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "한": 1, "두": 2, "세": 3, "네": 4, "다섯": 5,
}  # fmt: skip
MANY = rf"((?<!\d)\d{{1,9}}|{'|'.join(_COUNTS)})"
_DECODER = json.JSONDecoder()
_MOST, _REACH, _TRIES = 50, 200, 200  # names or rows, characters before a noun, places of JSON

# Names; the patterns are atomic or bounded, so that no text is read in two ways.
_STOP = (
    r"(?:a(?= (?!and|or)\w)|an|the|about|and|are|as|at|be|by|can|each|every|fields?|for|from|have"
    r"|in|is|it|json\S*|must|no|not|of|on|only|or|per|should|so|that|then|to|using|where|which|with"
    rf"|{'|'.join(_COUNTS)}|(?:포함|키|필드|속성|형식|형태|입니다)\S*)(?![\w-])"
)
_TYPE = (
    r"(?:an? |the )?(?:valid |python )?(?:(?:list|array)s? of )?"
    r"(?:str(?:ing)?|text|int(?:eger)?|number|float|bool(?:ean)?|list|array|object)s?(?![\w-])"
)
TYPE = re.compile(_TYPE, re.I)  # nothing but a type's words
_PARTICLE = (  # what Korean hangs on a name; but 결과, 경로 and 평가 are names
    r"(?:(?<![결효성])과|와|이?랑|은|는|을|를|이?라는|입니다|으?로(?= [하구된만작답])"
    r"|[이가](?= [있들포]))(?:[\s.]|$)"
)
_WORD = rf"(?!{_STOP}|(?:\w+ )?rows\b)[^\W\d][\w-]*?(?=[^\w-]|$|{_PARTICLE})"
_NAME = (
    r"(?>(?:the |an? |its |your )?(?:[\"'`“‘*]{1,2}([^\"'`”’*\n]{1,60})[\"'`”’*]{1,2}"
    rf"|({_WORD}(?: (?!{_TYPE}){_WORD}){{0,3}}))"
    rf"(\s*\([^()\n]{{0,160}}\)|(?:\s*[:=]\s*|\s+[-–]\s+|\s+)(?:as |is )?{_TYPE})?)"
)
_SEPARATOR = (
    r"(?:\s*[,;·|]\s*(?:(?:and|or|then)\s+)?|\s+(?:and|or|then|및|그리고|또는)\s+"
    r"|(?:이?랑|(?<![결효성])과|와)\s+)"
)
_END = rf"(?=\s*(?:[.!?:)\]}}\n\"]|$)|\s+{_STOP}|{_PARTICLE})"
_NEXT = re.compile(rf"\s*{_NAME}(?:({_SEPARATOR})|{_END})", re.I)
_LINE = re.compile(
    rf"\s*\n[ \t]*(?:[-*•]|\d{{1,2}}[.)])[ \t]+{_NAME}(?=\s*[:(,–\n-]|\s*$)[^\n]*", re.I
)
_TAIL = re.compile(
    rf"(?<![\w-]){_NAME}(?:{_SEPARATOR}{_NAME}){{0,20}}\s*(?:as(?: the)?|을|를|이?라는)?\s*$", re.I
)
_LINK = (
    r"(?:은|는|이|가|(?:을|를|으?로)(?:[^.\n:]{1,30}(?=:))?|\s+(?:are|is|named|called|exactly|only"
    r"|for|on|following|should|must|be|below)(?!\w)){0,4}(?P<sure>\s*[:=]|,(?= [\"'`]))?"
)
_KINDS = {  # what a type's words name, the outer first
    "array": "list|array|배열|목록", "object": "dict|object|객체", "boolean": "bool|불리언",
    "integer": r"\bint|정수", "number": "number|float|숫자|실수",
}  # fmt: skip

# Whether JSON is asked for, and of what keys.
_ASK = re.compile(
    r"\b(?:in|as|into|with|only|valid|be|return|output|produce|generate|give|provide|write|create"
    r"|make|use|want|need)(?: (?!th(?:is|at|ese)\b)[\w-]+){0,3} json\b(?![.(]\w)"
    r"|^json (?:object|array|list)\b|\bjson\W{0,4}(?:(?:으?로|형식|형태|객체|배열|만|only|response)"
    r"|[을를]? ?(?:만들|출력|반환|생성|작성))"
)
_ABOUT = re.compile(  # it is a topic, or given
    r"\b(?:about|explain|describe|review|parse|convert|compare|what|how|why|script|program)\b"
    r"(?:(?! in | as | into | with |,| follow)[^.?!\n]){0,60}(?:json|schema)"
    r"|\b(?:apis?|tools?|functions?|servers?|inputs?|files?)\b[^.?!\n]{0,80}json"
    r"|json\S* ?(?:이란|에 대해|에 대한)"
)
_KEYS = (
    r"keys?|fields?|propert(?:y|ies)|attributes?|structure|키|필드|속성|(?:포함|담|가진)\S*"
    r"|json(?: \w+){0,2} (?:containing|including|with|having|that (?:has|contains))"
)
_KEY = re.compile(rf'"([^"\n]+)"\s*:[\s"\'<]*({_TYPE})?', re.I)
_OBJECT = re.compile(r'\{(?=\s*["}])')
_SCHEMA = frozenset("properties $ref anyOf allOf enum".split())

# Other forms.
_TABLE = re.compile(
    r"(?im)(?:^|\b(?:in|as|with|make|give|create|draw|show|write)(?: me)? )an? (?:[\w-]+ )?table\b"
    r"|\btable with (?:the )?(?:\w+ )?columns\b|표[로를]"
)
_YES_NO = re.compile(
    r"(?im)(?:\b(?:answer|reply|respond|return|output|choose)\b[^.?!\n]{0,80}?|\bonly |[(\[]"
    r"|\?\s|^)[\"'`]?\b(yes|true)[\"'`]?\s*(?:or|/)\s*[\"'`]?(no|false)\b"
    r"|(예|네)\s*(?:또는|/|혹은|나)\s*(아니[요오])"
)
_PUTS = re.compile(r"\b(?:wrap|enclos|put|plac|respon|return|output|answer|format|with|in)", re.I)
_TAG = re.compile(
    r"<([A-Za-z][\w-]{0,40})>(?:\s{0,9}"
    r"(?:\.{3}|…|[{\[][^<\"]{0,60}[}\]]|[^<\n]{0,40}\bhere\b|your [^<\n]{0,40})?\s{0,9}</\1>"
    r"|(?=[`'\"*]*(?:,|\.|:|\Z| tags?\b| and | then )))"
)
_FIELD = re.compile(r"^\d+\. `(\w+)` \((.{1,300}?)\):", re.M)


def schema_of(properties: dict[str, Any]) -> Schema:
    """Return the schema of an object that has all of these."""
    return {"type": "object", "properties": properties, "required": [*properties]}


ANY = schema_of({"topic": {}, "answer": {}})


class Form(NamedTuple):
    """How an answer is written, and the schema of what stands in it."""

    written: Literal["json", "table", "word", "tags", "markers"]
    schema: Schema
    example: Any = None  # to be imitated instead


def form_of(text: str, shown: str, told: tuple[str, ...], *, as_json: bool) -> Form | None:
    """Return the form that `text` asks for or shows, or else others have `told`; None for prose."""
    if "[[ ## " in text and (names := re.findall(r"`\[\[ ## (\w+) ## \]\]`", text)):  # by DSPy
        return Form("markers", schema_of(_fields(names, "\n".join(told))))
    wanted = as_json
    for each, part in [(text, shown), *((each, each) for each in reversed(told))]:
        asked = _asks_for_json(each)
        if form := _asked(each, part, asked, as_json):
            return form
        wanted = wanted or asked
    return _example(shown) or (Form("json", ANY) if wanted else None)


def mentions(text: str, *words: str) -> bool:
    """Return True if a text has any of these; few have, and to look for more takes far longer."""
    lower = text.lower()
    return any(word in lower for word in words)


def _asked(text: str, shown: str, asked: bool, as_json: bool) -> Form | None:
    tags = _TAG.findall(text) if "<" in text and _PUTS.search(text) else []
    if fields := [tag for tag in tags if not TYPE.fullmatch(tag)]:
        return Form("tags", schema_of({tag: {} for tag in fields}))
    if schema := _schema_in(text):
        return Form("json", schema)
    if not (asked or as_json):
        if mentions(text, "no", "false", "아니") and (words := _YES_NO.search(text)):
            return Form("word", {"enum": [word for word in words.groups() if word]})
        return _table(text) if mentions(text, "table", "표") else None
    if asked and (form := _example(shown)):
        return form
    names = listed(text, _KEYS)
    return Form("json", schema_of(names)) if names else None


def _asks_for_json(text: str) -> bool:
    sentences = re.split(r"(?<=[.?!])\s|\n", text.lower()) if mentions(text, "json") else []
    return any(_ASK.search(each) and not _ABOUT.search(each) for each in sentences)


def _example(text: str) -> Form | None:
    """Return the JSON that a text shows, sketched or complete; None if it shows a schema."""
    if '"' not in text:
        return None
    start, end = text.find("{"), text.rfind("}") + 1
    keys = dict(_KEY.findall(text, max(start, 0), end))
    if not keys or {"properties", "type"} <= keys.keys() or "$ref" in keys:
        return None
    shown = f"[{text[start:end]}]" if text[:start].rstrip().endswith("[") else text[start:end]
    with suppress(ValueError, RecursionError):
        example, end = read_json(shown)
        if end == len(shown):
            return Form("json", ANY, example)
    return Form("json", ANY, keys)  # with comments, or unfinished


def _fields(names: list[str], text: str) -> dict[str, Schema]:
    kinds: dict[str, Schema] = {name: typed(words) for name, words in _FIELD.findall(text)}
    for name, said in re.findall(r"\{(\w+)\}[^\n]*JSON schema: ([^\n]*)", text):
        kinds[name] = next((schema for schema, _ in _objects(said)), {})
    return {name: kinds.get(name, {}) for name in names} | {"completed": {"const": ""}}


def render(written: str, value: Any) -> str:
    """Return a value, written as a form wants it."""
    if written == "json":
        return json.dumps(value, ensure_ascii=False, indent=2)
    if written == "word":
        return _plain(value)
    if written == "table":
        cells = [map(_plain, row.values()) for row in value]
        rows = [value[0], ["---"] * len(value[0]), *cells]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    mark = "<{0}>{1}</{0}>" if written == "tags" else "[[ ## {0} ## ]]\n{1}\n"
    return "\n".join(mark.format(name, _plain(inner)) for name, inner in value.items()).rstrip()


def read_json(text: str, at: int = 0) -> tuple[Any, int]:
    """Return the JSON value that begins there, and its end; ValueError if UTF-8 cannot hold it."""
    value, end = _DECODER.raw_decode(text, at)
    if "\\u" in text[at:end]:
        json.dumps(value, ensure_ascii=False).encode()
    return value, end


def number(words: str) -> int:
    """Return the number that `MANY` has matched."""
    return _COUNTS.get(words.lower()) or int(words)


def typed(words: str) -> dict[str, Any]:
    """Return the schema of the values that a type's words allow: any text, if they say none."""
    if "Literal" in words:
        return {"enum": re.findall(r"['\"](.+?)['\"]", words) or [""]}
    kinds = (kind for kind, said in _KINDS.items() if re.search(said, words, re.I))
    return {"type": next(kinds, "string")}


def listed(text: str, noun: str) -> dict[str, dict[str, Any]]:
    """Return the names that `text` last lists with a noun (a pattern), with schemas of types."""
    names: dict[str, dict[str, Any]] = {}
    pattern = rf"(?<![\w-])(?P<noun>{noun})(?![a-z-]){_LINK}"
    for found in list(re.finditer(pattern, text, re.I))[-20:]:
        behind, sure = _walk(text, found.end(), found["sure"] is not None)
        before = text[max(0, found.start() - _REACH) : found.start()]
        clause = found["noun"].isascii() and " " in found["noun"]
        tail = None if sure or clause else _TAIL.search(before)
        more = (tail and _walk(tail[0], 0, False)[0]) or behind
        names = {**names, **more} if found["noun"].lower() in ("key", "field") else more or names
    return names


def _walk(text: str, at: int, sure: bool) -> tuple[dict[str, dict[str, Any]], bool]:
    """Return the names from a place on, and whether they can be nothing but names."""
    names: dict[str, dict[str, Any]] = {}
    lines = bool(_LINE.match(text, at))
    sure = sure or lines
    while len(names) < _MOST and (found := (_LINE if lines else _NEXT).match(text, at)):
        names[(found[1] or found[2]).strip()] = typed(found[3] or "")
        sure = sure or bool(found[1])
        at = found.end()
        if not lines and not found[4]:
            break
    return (names, sure) if sure or len(names) > 1 else ({}, False)


def _schema_in(text: str) -> Schema | None:
    """Return the last schema in a text, or schemas of properties, unless the text asks about it."""
    found = None
    for value, start in _objects(text):
        schema = value
        if value.get("type") != "array" and _SCHEMA.isdisjoint(value):
            kinds, parts = {"type", *_SCHEMA}, value.values()
            named = all(isinstance(each, dict) and kinds & each.keys() for each in parts)
            schema = schema_of(value) if named and value else None
        before = text[max(0, start - 80) : start].lower()
        if schema and not (_ABOUT.search(before) or problem(schema)):
            found = schema
    return found


def _objects(text: str) -> Iterator[tuple[Any, int]]:
    end = 0
    for found in islice(_OBJECT.finditer(text), _TRIES) if "{" in text else ():
        if found.start() >= end:
            with suppress(ValueError, RecursionError):  # numbers of thousands of digits, too
                value, end = read_json(text, found.start())
                yield value, found.start()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(text: str) -> Form | None:
    if not _TABLE.search(text):
        return None
    columns = listed(text, r"columns?|headers?|table(?= ?:)|열|컬럼") or {"Name": {}, "Notes": {}}
    said = re.search(rf"{MANY}\s?(?:rows|행|줄)", text, re.I)
    many = max(1, min(number(said[1]), _MOST)) if said else 3
    rows = {"type": "array", "items": schema_of(columns), "minItems": many, "maxItems": many}
    return Form("table", rows)
