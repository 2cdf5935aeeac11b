"""What a text names: things, ids and numbers, in groups of those that are named alike."""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

from agentlab.endpoint.answers._patterns import RE, SETS

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
    text = RE.item_number.sub("-", RE.aside.sub("", text))
    found = [*RE.thing.finditer(text)]
    numbers = [each for each in found if each["number"]]
    names = [each for each in found if not each["number"]] or [*RE.thing_in_korean.finditer(text)]
    codes = [each for each in names if RE.code.fullmatch(each[0])]
    lists = [each.span() for each in RE.places.finditer(text)]
    places = [each for span in lists for each in RE.place.finditer(text, *span)]
    return Things(*(_grouped(text, each) for each in (names, codes, numbers, places)))


def _grouped(text: str, found: list[re.Match[str]]) -> list[Group]:
    groups, by_key, end = list[Group](), dict[str, Group](), 0
    for each in found:
        start, stop = each.span(each.lastgroup or 0)
        between = text[max(end, start - _FAR) : start].lower()
        words = RE.word_between.findall(between)
        role = words.pop() if words and words[-1] in SETS["prepositions"] else ""
        label = words[-1] if words else ""
        # "Seoul and Busan", or "in Seoul and in Busan", or "user Ana and user Bob"
        linked = RE.linked.search(between) and {*words} <= SETS["links"] and not role
        near = groups and linked and start - end < _FAR
        group = groups[-1] if near else by_key.get(role or label)
        if group is None:
            group = Group(role, label, [])
            groups.append(group)
            by_key |= {role or label: group} if role or label else {}
        group.values.append(text[start:stop])
        end = stop
    return groups
