"""What a text names: things, ids and numbers, in groups of those that are named alike.

The patterns take time in proportion to a text's length.
"""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

_LETTERS = "[A-Za-zÀ-ÿ0-9_-]"
_PROPER = f"[A-ZÀ-Þ]{_LETTERS}+"
_THING = re.compile(
    r"(?<!\w)[\"“'‘](?P<quoted>[^\"”'’\n]{2,60})[\"”'’](?!\w)"
    r"|(?<![\w@./+-])(?P<code>https?://[^\s\"'<>)]+|[\w.+-]{1,64}@[\w-]{1,64}(?:\.\w{1,32})+"
    r"|\d{4}-\d\d-\d\d|[0-9a-f]{8}-[0-9a-f-]{27}|(?=[\w-]{0,64}\d)[A-Za-z][A-Za-z0-9_-]*"
    r"|[\w/-]{2,64}\.[a-z]{1,4}\b)"
    r"|(?P<number>(?<![\w.])-?\d+(?:,\d{3}(?!\d))*(?:\.\d+)?)"
    rf"|(?P<name>(?<![.?!:\n] )(?<!^)\b{_PROPER}(?: {_PROPER})*(?:(?<=[a-z]), [A-Z]{{2}}\b)?"
    # At the beginning of a sentence, where every word has a capital letter:
    rf"|\b{_PROPER}(?=(?:, {_PROPER}){{0,8}},? (?:and|or|vs\.?|versus) {_PROPER}))",
    re.MULTILINE,
)
_KOREAN = re.compile(
    r"(?<![\uac00-\ud7a3])(?!오늘|내일|모레|지금|이번)(?P<name>[\uac00-\ud7a3]{2,12}?)"
    r"(?:의|에서|에게|은|는|이|가|을|를|에|(?:과|와|랑|하고)(?=\s))?(?=[\s,.?!]|$)"
)
# Names in lower case, as "in paris and new york", are plain only where their clause ends.
_COMMON = (
    r"(?!(?:the|this|that|these|those|all|any|each|every|and|then|now|today|tonight|tomorrow|one|two"
    r"|three|detail|general|short|total|order|case|words|parallel|json|its|his|her|our|your)\b)"
)
_PLAIN = (
    rf"{_COMMON}[a-z]{{3,}}(?: {_COMMON}[a-z]{{3,}})?"
    r"(?=\s*(?:$|[.,;?!])| (?:and|or|to|today|tomorrow|now)\b)"
)
_PLACES = re.compile(
    rf"\b(?:in|from|to) {_PLAIN}(?:(?:,? (?:and|or)|,) (?:in )?{_PLAIN})*", re.MULTILINE
)
_PLACE = re.compile(rf"\b(?!(?:in|from|to|and|or) )(?P<name>{_PLAIN})", re.MULTILINE)
_WORDS = re.compile(r"[^\W_]+|&")
_LINK = re.compile(r"[,;/&?.\n]|\b(?:and|or|vs|versus)\b|과 |와 |랑 |하고 |및 ")
_LINKS = frozenset("and or vs versus also & 과 와 랑 하고 및 그리고 또는".split())
_PREPOSITIONS = frozenset("in at of for from to on about between by with into near".split())
_SKIPPED = frozenset("the a an is are no number numbers id ids s".split())
_ASIDE = re.compile(r" \([^()\d\n]{0,60}\)")
_NUMBERED = re.compile(r"^[ \t]*\d{1,2}[.)](?=\s)", re.MULTILINE)
_FAR = 60  # characters between two things that are not named together


class Group(NamedTuple):
    """Things named alike, as in "in Seoul and in Busan"; `label` is the word before ("user 42")."""

    role: str  # their preposition
    label: str
    values: list[str]


class Things(NamedTuple):
    """What a text names, in its order; codes are those names that have digits.

    Places are what prepositions show to be names, though in lower case.
    """

    names: list[Group]
    codes: list[Group]
    numbers: list[Group]
    places: list[Group]

    def ids(self, owners: Collection[str]) -> list[str]:
        """Return the ids of such owners ("user 42"), or else those of whom nothing is said."""
        owned = [g for g in (*self.codes, *self.numbers) if g.label.rstrip("s") in owners]
        free = [g for g in self.numbers if g.role == "of" or not g.label or g.label >= "가"]
        return next((group.values for group in owned or self.codes or free), [])


@lru_cache(maxsize=256)  # each round of a task reads it again
def things(text: str) -> Things:
    """Return what a text names."""
    text = _NUMBERED.sub("-", _ASIDE.sub("", text))
    found = [*_THING.finditer(text)]
    numbers = [each for each in found if each["number"]]
    names = [each for each in found if not each["number"]] or [*_KOREAN.finditer(text)]
    codes = [each for each in names if re.fullmatch(r"(?=.*\d)(?=.*[A-Za-z])[\w-]+", each[0])]
    lists = [each.span() for each in _PLACES.finditer(text)]
    places = [each for span in lists for each in _PLACE.finditer(text, *span)]
    return Things(*(_grouped(text, each) for each in (names, codes, numbers, places)))


def _grouped(text: str, found: list[re.Match[str]]) -> list[Group]:
    groups, by_key, end = list[Group](), dict[str, Group](), 0
    for each in found:
        start, stop = each.span(each.lastgroup or 0)
        between = text[max(end, start - _FAR) : start].lower()
        words = [word for word in _WORDS.findall(between) if word not in _SKIPPED]
        role = words.pop() if words and words[-1] in _PREPOSITIONS else ""
        label = words[-1] if words else ""
        # "Seoul and Busan", or "in Seoul and in Busan", or "user Ana and user Bob"
        linked = groups and _LINK.search(between) and {*words} <= _LINKS and start - end < _FAR
        group = groups[-1] if linked and not role else by_key.get(role or label)
        if group is None:
            group = Group(role, label, [])
            groups.append(group)
            by_key |= {role or label: group} if role or label else {}
        group.values.append(text[start:stop])
        end = stop
    return groups
