"""The form that a text asks for instead of prose: JSON, a table, tags, one of some words.

A JSON Schema admits what stands in it. Names are behind a noun, before it, or below it in lines.
"""

import json
import re
from contextlib import suppress
from itertools import islice
from typing import Any, Literal, NamedTuple

from agentlab.endpoint.answers._patterns import RE, SETS, lacks, words_in
from agentlab.endpoint.contract.json_schema import Schema, problem

_MOST, _TRIES, _DEEPEST = 50, 200, 40  # names or rows, places of JSON, and its nesting
_REACH, _NEAR = 200, 80  # characters before a noun, and before JSON
_SCHEMA = frozenset("properties $ref anyOf allOf enum".split())
_MORE = ("...",)  # items of a list


def schema_of(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object that has all of these."""
    return {"type": "object", "properties": properties, "required": [*properties]}


_MARKS = {"tags": "<{0}>{1}</{0}>", "markers": "[[ ## {0} ## ]]\n{1}\n", "lines": "{0}: {1}"}
ANY = schema_of({"topic": {}, "answer": {}})


class Form(NamedTuple):
    """How an answer is written, and the schema of what stands in it."""

    written: Literal["json", "table", "csv", "lines", "word", "tags", "markers"]
    schema: Schema


def form_of(text: str, told: tuple[str, ...], *, as_json: bool) -> Form | None:
    """Return the form that `text` asks for or shows, or else others have `told`; None for prose."""
    if not (told or as_json) and lacks(text, "forming") and "json" not in text.lower():
        return None
    if "[[ ## " in text and (names := re.findall(r"`\[\[ ## (\w+) ## \]\]`", text)):  # by DSPy
        return Form("markers", _fields([*names, "completed"], text, told))
    wanted = as_json
    for each in (text, *reversed(told)):
        sentences = re.split(r"(?<=[.?!])\s|\n", each.lower()) if mentions(each, "json") else []
        asked = any(RE.json_asked.search(s) and not RE.about_json.search(s) for s in sentences)
        if form := _asked(each, told, asked, as_json):
            return form
        wanted = wanted or asked
    return Form("json", ANY) if wanted else None


def mentions(text: str, *words: str) -> bool:
    """Return True if a text has any of these; few have, and to look for more takes far longer."""
    return any(map(text.lower().__contains__, words))


def _asked(text: str, told: tuple[str, ...], asked: bool, as_json: bool) -> Form | None:
    if "\n" in text and (at := RE.lines_shown.search(text)) and (lines := RE.label.findall(at[1])):
        return Form("lines", schema_of({name: _like((said,)) for name, said in lines}))
    tags = RE.tag.findall(text) if "<" in text and RE.asks_for_tags.search(text) else []
    if fields := [listing or closed or bare for listing, *_, closed, bare in tags]:
        return Form("tags", _fields(fields, text, told))
    schema, like = _json_in(text, asked) if "{" in text or "class " in text else (None, None)
    if schema:
        return Form("json", schema)
    if not (asked or as_json):
        if closed := _closed(text):
            return Form("word", closed)
        sheet = mentions(text, "csv") and RE.csv_asked.search(text)
        if sheet or (mentions(text, "table", "tabelle", "표") and RE.table.search(text)):
            columns = schema_of(listed(text, RE.columns_listed) or {"Name": {}, "Notes": {}})
            return Form("csv" if sheet else "table", _list_of(columns, RE.rows.search(text)))
    if like or not (asked or as_json):
        return Form("json", like) if like else None
    names = listed(text, RE.keys_listed)
    if (several := RE.json_list.search(text)) and not as_json:
        of, said = several["of"] or "", RE.list_size.search(text)
        items = schema_of(names) if names else ANY if mentions(of, "object") else typed(of)
        return Form("json", _list_of(items, said))
    return Form("json", schema_of(names)) if names else None


def _list_of(items: Schema, said: re.Match[str] | None) -> dict[str, Any]:
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


def _json_in(text: str, asked: bool) -> tuple[Schema | None, Schema | None]:
    """Return the last schema in a text, and that of its last example or type, if asked for."""
    found, likes, end = None, dict[bool, Schema](), 0  # by whether words ask in front of it
    text = RE.python_class.sub(r"{\1}", text) if "class " in text else text
    for begun in islice(RE.object_begins.finditer(text), _TRIES):
        if (at := begun.start()) < end:
            continue
        before = text[max(end, at - _NEAR) : at].lower()
        with suppress(ValueError):
            value, end = read_object(text, at)
            json.dumps(value, ensure_ascii=False).encode()  # fails if UTF-8 cannot hold it
            with suppress(TypeError, KeyError):
                value = value["json_schema"]["schema"]  # as CrewAI wraps it
            if (schema := _as_schema(value)) is None:
                likes[bool(RE.sketch_cue.search(before))] = _like(value)
            elif not (RE.about_json.search(before) or problem(schema)):
                found = schema
    return found, likes.get(True) or likes.get(not asked)


def _as_schema(value: Any) -> Schema | None:
    """Return what is a schema, or is one of these properties; None if it is an example."""
    if not isinstance(value, dict) or value.get("type") == "array" or _SCHEMA & value.keys():
        return value if isinstance(value, dict) else None
    kinds = [isinstance(each, dict) and {"type", *_SCHEMA} & each.keys() for each in value.values()]
    return schema_of(value) if kinds and all(kinds) else None


def read_object(text: str, at: int, depth: int = 0) -> tuple[Any, int]:
    """Return the value there, and its end, or raise ValueError; a type's words are in a tuple."""
    inside = {"{": RE.member, "[": RE.item}.get(text[at : at + 1])
    if not inside and (found := RE.sketched.match(text, at)):
        return _literal(found[1].strip()), found.end()
    parts, at = list[tuple[str, Any]](), at + 1
    while inside and depth <= _DEEPEST and (part := inside.match(text, at)):
        value, at = read_object(text, part.end(), depth + 1)
        parts.append(("".join(_literal(part["name"])), value))
    if not (inside and (end := RE.object_ends.match(text, at))):
        raise ValueError("it is not closed")
    values = [each for _, each in parts] + [_MORE] * bool(end["more"])
    value = dict(parts) if inside is RE.member else values
    return ([value, _MORE] if end["list"] else value), end.end()


def _literal(words: str) -> Any:
    if words[:1] == "'" and RE.shown_text.fullmatch(words):
        words = '"{}"'.format(words[1:-1].replace("\\'", "'").replace('"', '\\"'))
    with suppress(ValueError):
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(words, words))
    return (words,)


def _like(value: Any) -> Schema:
    """Return the schema of what looks like an example, or is of the types that it names."""
    if isinstance(value, dict):
        return schema_of({name: _like(each) for name, each in value.items()})
    if isinstance(value, str | tuple):
        text = "".join(value).strip("<> ")
        meant = typed(f"({text})")
        known = isinstance(value, tuple) or "enum" in meant or RE.type.fullmatch(text)
        return meant if known else {}
    like: Schema = {"const": value}
    if isinstance(value, list):
        items = [_like(each) for each in value if each != _MORE] or [{}, {}]
        if _MORE in value:
            return {"type": "array", "items": items[0]}
        like = {"type": "array", "prefixItems": items, "items": False}
    elif type(value) is int:  # no larger than the example, because it may stand for a scale
        like = {"type": "integer", "minimum": 1, "maximum": max(value, 1)}
    elif isinstance(value, float):
        like = {"type": "number", "minimum": 0, "maximum": 1}
    return {"anyOf": [like, {}]}  # whatever a tool gave may be there, too


def _fields(names: list[str], text: str, told: tuple[str, ...]) -> Schema:
    """Return the schema of fields: of what they are told to be, or of the tags in them."""
    said = "\n".join(told)
    kinds: dict[str, Schema] = {name: typed(words) for name, words in RE.dspy_field.findall(said)}
    for name, schema in re.findall(r"\{(\w+)\}[^\n]*JSON schema: ([^\n]*)", said):
        kinds[name] = _json_in(schema, True)[0] or {}
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
    if written in ("table", "csv"):
        rows = [[*value[0]], *([*map(_plain, row.values())] for row in value)]
        if written == "csv":
            return "\n".join(",".join(cell.replace(",", ";") for cell in row) for row in rows)
        rows.insert(1, ["---"] * len(rows[0]))
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    mark = _MARKS[written]
    parts = (mark.format(name, _plain(inner, written == "tags")) for name, inner in value.items())
    return "\n".join(parts).rstrip()


def number(words: str) -> int:
    """Return the number that the pattern `many` has matched."""
    return RE.mapping("counts").get(words.lower()) or int(words)


def typed(words: str) -> dict[str, Any]:
    """Return the schema of the values that a type's words allow: any text, if they say none."""
    if many := RE.array_of.fullmatch(words):
        return _list_of(typed(many["of"] or many["each"]), RE.many.match(many["size"] or ""))
    if (inner := RE.object_with.search(words)) and (names := _walk(words, inner.end(), True)[0]):
        return schema_of(names)
    bare = RE.bare_options.fullmatch(words)
    options = RE.next_option.split(bare[bare.lastindex or 1]) if bare else RE.quotes.findall(words)
    if "Literal" in words or options[1:]:
        return {"enum": [each.strip("'\"") for each in options] or [""]}
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
        tail = None if (sure and behind) or clause else RE.names_before.search(before)
        kind = RE.type_behind.match(text, found.end())
        more = (tail and _walk(tail[0] + (kind[0] if kind else ""), 0, False)[0]) or behind
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


def _plain(value: Any, tags: bool = False) -> str:
    if tags and isinstance(value, dict):  # of tags in it
        return "".join(f"<{tag}>{_plain(one)}</{tag}>" for tag in value for one in value[tag])
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
