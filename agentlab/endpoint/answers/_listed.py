"""Names that a sentence lists, with their types: "with the keys `name` (string) and `age` (int)".

They stand behind the noun, before it ("'setup' and 'punchline' keys"), or below it, line by line.
"""

from __future__ import annotations

import re
from typing import Any

_COUNTS = {
    "one": 1, "a single": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "twelve": 12, "한": 1, "두": 2, "세": 3, "네": 4, "다섯": 5,
    "여섯": 6, "일곱": 7, "여덟": 8,
}  # fmt: skip
MANY = rf"((?<!\d)\d{{1,9}}|{'|'.join(_COUNTS)})"
_MOST, _REACH = 50, 200  # names, and characters before the noun
_STOP = (
    r"(?:a(?= (?!and|or)\w)|an|the|about|also|and|are|as|at|based|be|but|by|can|describing|each"
    r"|every|fields?|for|from|have|in|is|it|keys?|(?:json|csv)\S*|must|no|not|of|on|only|or|per|should|so|that|then|this|to"
    rf"|using|where|which|will|with|{'|'.join(_COUNTS)}|(?:포함|키|필드|속성|형식|형태|입니다)\S*)(?![\w-])"
)
_TYPE = (
    r"(?:an? |the )?(?:valid |python |whole )*(?:(?:list|array)s? of )?"
    r"(?:str(?:ing)?|text|int(?:eger)?|number|float|decimal|bool(?:ean)?|list|array|object|dict)s?"
    r"(?:\[[^\]\n]{0,60}\])?(?![\w-])"
)
TYPE = re.compile(_TYPE, re.I)  # nothing but a type's words
_PARTICLE = (  # what Korean hangs on a name; but 결과, 경로 and 평가 are names
    r"(?:(?<![결효성])과|와|이?랑|은|는|을|를|이?라는|입니다|으?로(?= [하구된만작답])"
    r"|[이가](?= [있들포]))(?:[\s.]|$)"
)
_WORD = rf"(?!{_STOP}|(?:\w+ )?(?:rows|lines)\b)[^\W\d][\w-]*?(?=[^\w-]|$|{_PARTICLE})"
_ITEM = (  # atomic, so that no text is read in two ways
    r"(?>(?:the |an? |its |your )?(?P<before>(?:list|array|integer|number|boolean) (?:of )?)?"
    rf"(?:[\"'`“‘*]{{1,2}}(?P<quoted>[^\"'`”’*\n]{{1,60}})[\"'`”’*]{{1,2}}"
    rf"|(?P<plain>{_WORD}(?: (?!{_TYPE}){_WORD}){{0,3}}))"
    rf"(?P<after>\s*\([^()\n]{{0,160}}\)|(?:\s*[:=]\s*|\s+[-–]\s+|\s+)(?:as |is )?{_TYPE})?)"
)
_SEPARATOR = (
    r"(?:\s*[,;·|]\s*(?:(?:and|or|then)\s+)?|\s+(?:and|or|then|및|그리고|또는)\s+"
    r"|(?:이?랑|(?<![결효성])과|와)\s+)"
)
_END = rf"(?=\s*(?:[.!?:)\]}}\n\"]|$)|\s+{_STOP}|{_PARTICLE})"
_NEXT = re.compile(rf"\s*{_ITEM}(?:(?P<more>{_SEPARATOR})|{_END})", re.I)
_LINE = re.compile(
    rf"\s*\n[ \t]*(?:[-*•]|\d{{1,2}}[.)])[ \t]+{_ITEM}(?=\s*[:(,–\n-]|\s*$)[^\n]*", re.I
)
_UNNAMED = re.sub(r"\?P<\w+>", "?:", _ITEM)
_TAIL = re.compile(
    rf"(?<![\w-]){_UNNAMED}(?:{_SEPARATOR}{_UNNAMED}){{0,20}}"
    r"\s*(?:as(?: the)?|을|를|이?라는)?\s*$",
    re.I,
)
_LINK = (
    r"(?:(?:을|를|으?로)[^.\n:]{1,30}(?=:)|은|는|이|가|으?로)?(?:\s+(?:are|is|named|called|titled|exactly"
    r"|only|for|on|covering|following|should|must|be|below)(?!\w)){0,4}"
    r"(?P<sure>\s*[:=]|,(?= [\"'`])|(?<=named)|(?<=called)|(?<=titled))?"
)
_KINDS = [  # what a type's words name, the outer first
    (r"literal|one of|\w\|\w", "enum"), (r"list|array|\[\]|배열|목록", "array"),
    (r"bool|true|불리언", "boolean"), (r"\bint|whole|정수", "integer"),
    (r"number|float|decimal|숫자|실수", "number"), (r"dict|object|객체", "object"),
]  # fmt: skip


def number(words: str) -> int:
    """Return the number that `MANY` has matched."""
    return _COUNTS.get(words.lower()) or int(words)


def typed(words: str) -> dict[str, Any]:
    """Return the JSON Schema of the values that a type's words allow: any text, if they say none.

    Example:
        >>> typed("a list of integers")
        {'type': 'array', 'items': {'type': 'integer'}}
    """
    for pattern, kind in _KINDS:
        if found := re.search(pattern, words, re.I):
            if kind == "array":
                return {"type": kind, "items": typed(words[found.end() :])}
            if kind != "enum":
                return {"type": kind}
            words = re.sub(r"(?i)^(?:literal|one of)", "", words[found.start() :])
            quoted = re.findall(r"(['\"])(.+?)\1", words)
            return {"enum": [word for _, word in quoted] or re.findall(r"[\w-]+", words)}
    return {"type": "string"}


def listed(text: str, noun: str) -> dict[str, dict[str, Any]]:
    """Return the names that `text` lists with a noun (a pattern), each with the schema of its type.

    The last list counts; nothing if there is none.
    """
    names: dict[str, dict[str, Any]] = {}
    pattern = rf"(?<![\w-])(?P<noun>{noun})(?![a-z-]){_LINK}"
    for found in list(re.finditer(pattern, text, re.I))[-20:]:
        behind, sure = _walk(text, found.end(), found["sure"] is not None)
        before = text[max(0, found.start() - _REACH) : found.start()]
        clause = found["noun"].isascii() and " " in found["noun"]
        tail = None if sure or clause else _TAIL.search(before)
        more = (tail and _walk(tail[0], 0, False)[0]) or behind
        one = found["noun"].lower() in ("key", "field") or before.lower().endswith("optional ")
        names = {**names, **more} if one else more or names
    return names


def _walk(text: str, at: int, sure: bool) -> tuple[dict[str, dict[str, Any]], bool]:
    """Return the names from a place on, and whether they can be nothing but names."""
    names: dict[str, dict[str, Any]] = {}
    lines = bool(_LINE.match(text, at))
    sure = sure or lines
    while len(names) < _MOST and (found := (_LINE if lines else _NEXT).match(text, at)):
        name = (found["quoted"] or found["plain"]).strip()
        names[name] = typed(f"{found['before'] or ''} {found['after'] or ''}")
        sure = sure or bool(found["quoted"])
        at = found.end()
        if not lines and not found["more"]:
            break
    return (names, sure) if sure or len(names) > 1 else ({}, False)
