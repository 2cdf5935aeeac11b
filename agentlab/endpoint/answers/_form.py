"""The form that a text asks for instead of prose: JSON, a table, tags, one of some words.

A JSON Schema admits what stands in it. Names are behind a noun, before it, or below it in lines.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Literal, NamedTuple

from agentlab.endpoint.answers._patterns import RE, SETS, lacks, words_in
from agentlab.endpoint.contract.json_schema import Schema, problem

_MOST, _REACH, _TRIES = 50, 200, 200  # names or rows, characters before a noun, places of JSON
_SCHEMA = frozenset("properties $ref anyOf allOf enum".split())


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
    if not (told or as_json) and lacks(text, "forming") and "json" not in text.lower():
        return None
    if "[[ ## " in text and (names := re.findall(r"`\[\[ ## (\w+) ## \]\]`", text)):  # by DSPy
        return Form("markers", _fields([*names, "completed"], text, told))
    wanted = as_json
    for each, part in [(text, shown), *((each, each) for each in reversed(told))]:
        sentences = re.split(r"(?<=[.?!])\s|\n", each.lower()) if mentions(each, "json") else []
        asked = any(RE.json_asked.search(s) and not RE.about_json.search(s) for s in sentences)
        if form := _asked(each, part, told, asked, as_json):
            return form
        wanted = wanted or asked
    return _example(shown) or (Form("json", ANY) if wanted else None)


def mentions(text: str, *words: str) -> bool:
    """Return True if a text has any of these; few have, and to look for more takes far longer."""
    return any(map(text.lower().__contains__, words))


def _asked(text: str, shown: str, told: tuple[str, ...], asked: bool, as_json: bool) -> Form | None:
    tags = RE.tag.findall(text) if "<" in text and RE.asks_for_tags.search(text) else []
    if fields := [listing or closed or bare for listing, *_, closed, bare in tags]:
        return Form("tags", _fields(fields, text, told))
    if "{" in text and (schema := _schema_in(text)):
        return Form("json", schema)
    if not (asked or as_json):
        if closed := _closed(text):
            return Form("word", closed)
        return _table(text) if mentions(text, "table", "tabelle", "표") else None
    if asked and (form := _example(shown)):
        return form
    names = listed(text, RE.keys_listed)
    if (several := RE.json_list.search(text)) and not as_json:
        of, said = several["of"] or "", RE.list_size.search(text)
        items = schema_of(names) if names else ANY if mentions(of, "object") else typed(of)
        return Form("json", _list_of(items, said))
    return Form("json", schema_of(names)) if names else None


def _list_of(items: Schema, said: re.Match[str] | None) -> Schema:
    """Return the schema of a list that is as long as is said, or else of three."""
    many = max(1, min(number(said[said.lastindex or 1]), _MOST)) if said else 3
    return {"type": "array", "items": items, "minItems": many, "maxItems": many}


def _closed(text: str) -> Schema | None:
    """Return the schema of one of some options, or of a number, if that is all that is wanted."""
    said = words_in(text)
    patterns = RE.each("one_of") if said & SETS["choosing"] else []
    patterns = patterns if text.isascii() else [*patterns, *RE.each("one_of_in_korean")]
    if found := [found for pattern in patterns for found in pattern.finditer(text)]:
        last = max(found, key=lambda each: each.end())["options"]
        return {"enum": [each.strip(" \t\"'`“”‘’") for each in RE.next_option.split(last)]}
    number = RE.number_asked.search(text) if said & SETS["counting"] else None
    if not number or RE.explained.search(text):
        return None
    least, most = (RE.range.findall(text) or [(0, 9 if "digit" in number[0] else 100)])[-1]
    kind = "number" if mentions(number[0], "float", "decimal") else "integer"
    return {"type": kind, "minimum": int(least), "maximum": max(int(least), int(most))}


def _example(text: str) -> Form | None:
    """Return the JSON that a text shows, sketched or complete; None if it shows a schema."""
    if '"' not in text:
        return None
    start, end = text.find("{"), text.rfind("}") + 1
    keys = dict(RE.key_shown.findall(text, max(start, 0), end))
    if not keys or {"properties", "type"} <= keys.keys() or "$ref" in keys:
        return None
    shown = f"[{text[start:end]}]" if text[:start].rstrip().endswith("[") else text[start:end]
    with suppress(ValueError, RecursionError):
        example, end = read_json(shown)
        if end == len(shown):
            return Form("json", ANY, example)
    return Form("json", ANY, keys)  # with comments, or unfinished


def _fields(names: list[str], text: str, told: tuple[str, ...]) -> Schema:
    """Return the schema of fields: of what they are told to be, or of the tags in them."""
    said = "\n".join(told)
    kinds: dict[str, Schema] = {name: typed(words) for name, words in RE.dspy_field.findall(said)}
    for name, schema in re.findall(r"\{(\w+)\}[^\n]*JSON schema: ([^\n]*)", said):
        kinds[name] = next((each for each, _ in _objects(schema)), {})
    for name, inside, _ in RE.nested_tags.findall(text):
        inner = re.findall(r"<(\w[\w-]*)>", inside)
        most = {tag: 1 if inner.count(tag) == 1 < len(inner) else _MOST for tag in inner}
        kinds[name] = schema_of({tag: {"type": "array", "maxItems": n} for tag, n in most.items()})
    kinds["completed"] = {"const": ""}
    return schema_of({name: kinds.get(name, {}) for name in names})


def render(written: str, value: Any) -> str:
    """Return a value, written as a form wants it."""
    if written == "json":
        return json.dumps(value, ensure_ascii=False, indent=2)
    if written == "word":
        return _plain(value)
    if written == "table":
        rows = [value[0], ["---"] * len(value[0]), *(map(_plain, row.values()) for row in value)]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    mark = "<{0}>{1}</{0}>" if written == "tags" else "[[ ## {0} ## ]]\n{1}\n"
    parts = (mark.format(name, _plain(inner, written == "tags")) for name, inner in value.items())
    return "\n".join(parts).rstrip()


def read_json(text: str, at: int = 0) -> tuple[Any, int]:
    """Return the JSON value that begins there, and its end; ValueError if UTF-8 cannot hold it."""
    value, end = json.JSONDecoder().raw_decode(text, at)
    if "\\u" in text[at:end]:
        json.dumps(value, ensure_ascii=False).encode()
    return value, end


def number(words: str) -> int:
    """Return the number that the pattern `many` has matched."""
    return RE.mapping("counts").get(words.lower()) or int(words)


def typed(words: str) -> dict[str, Any]:
    """Return the schema of the values that a type's words allow: any text, if they say none."""
    bare = RE.bare_options.fullmatch(words)
    options = re.split(r"\s*[/|]\s*", bare[1]) if bare else re.findall(r"['\"](.+?)['\"]", words)
    if "Literal" in words or options[1:]:
        return {"enum": options or [""]}
    kinds = (kind for kind, said in RE.mapping("kinds").items() if re.search(said, words))
    kind, ends = next(kinds, "string"), RE.range.search(words)
    bounds = sorted(map(int, ends.groups())) if ends else []
    return {"type": kind, **dict(zip(("minimum", "maximum"), bounds, strict=False))}


def listed(text: str, nouns: re.Pattern[str]) -> dict[str, dict[str, Any]]:
    """Return the names that `text` last lists with one of the nouns, with schemas of types."""
    names: dict[str, dict[str, Any]] = {}
    for found in list(nouns.finditer(text))[-20:]:
        single = found["noun"].lower() in ("key", "schlüssel")
        behind, sure = _walk(text, found.end(), single or found["sure"] is not None)
        before = text[max(0, found.start() - _REACH) : found.start()]
        clause = found["noun"].isascii() and " " in found["noun"]
        tail = None if sure or clause else RE.names_before.search(before)
        more = (tail and _walk(tail[0], 0, False)[0]) or behind
        names = {**names, **more} if found["noun"].lower() in ("key", "field") else more or names
    return names


def _walk(text: str, at: int, sure: bool) -> tuple[dict[str, dict[str, Any]], bool]:
    """Return the names from a place on, and whether they can be nothing but names."""
    names: dict[str, dict[str, Any]] = {}
    lines = bool(RE.name_in_line.match(text, at))
    sure, pattern = sure or lines, RE.name_in_line if lines else RE.next_name
    while len(names) < _MOST and (found := pattern.match(text, at)):
        names[(found[1] or found[2]).strip()] = typed(found[3]) if found[3] else {}
        sure, at = sure or bool(found[1]), found.end()
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
        if schema and not (RE.about_json.search(before) or problem(schema)):
            found = schema
    return found


def _objects(text: str) -> Iterator[tuple[Any, int]]:
    end = 0
    for found in islice(RE.object_begins.finditer(text), _TRIES):
        if found.start() >= end:
            with suppress(ValueError, RecursionError):  # numbers of thousands of digits, too
                value, end = read_json(text, found.start())
                yield value, found.start()


def _plain(value: Any, tags: bool = False) -> str:
    if tags and isinstance(value, dict):  # of tags in it
        return "".join(f"<{tag}>{_plain(one)}</{tag}>" for tag in value for one in value[tag])
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(text: str) -> Form | None:
    if not RE.table.search(text):
        return None
    columns = listed(text, RE.columns_listed) or {"Name": {}, "Notes": {}}
    return Form("table", _list_of(schema_of(columns), RE.rows.search(text)))
