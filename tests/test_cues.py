"""What lets a prompt be read fast, that most patterns are skipped, never changes what is read."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterator
from functools import cache
from re import _constants as code  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]

import pytest

from agentlab.endpoint.answers import _form, _prompt
from agentlab.endpoint.answers._patterns import RE, SETS, lacks, words_in

SEARCHED = [
    *([RE.not_asked_for] * 8),
    *([RE.begins_with, RE.ends_with] * 4),
    *(RE.table, RE.tag, RE.key_shown, RE.number_asked, RE.json_asked, RE.marked),
    *(RE.headings_listed, RE.columns_listed, RE.keys_listed, RE.list_asked, RE.list_of_many),
    *(*RE.each("one_of"), *RE.each("topics"), RE.bound_behind),
]
AROUND = ["", " ", "\n", ". ", "x", "_", "-", "1", '"', "The "]
CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n"
CATEGORIES = {
    code.CATEGORY_DIGIT: string.digits,
    code.CATEGORY_WORD: string.ascii_letters + string.digits + "_",
    code.CATEGORY_SPACE: " \n",
}


@cache
def parsed(pattern: re.Pattern[str]):
    return parser.parse(pattern.pattern, pattern.flags)


class Examples:
    """Draws texts that a pattern matches, or nearly: what it looks for around them is left out."""

    def __init__(self, seed: int):
        self._draw = random.Random(seed)
        self._groups: dict[int, str] = {}

    def of(self, pattern: re.Pattern[str]) -> str:
        self._groups = {}
        before, after = self._draw.choices(AROUND, k=2)
        return before + "".join(self._texts(parsed(pattern))) + after

    def _texts(self, parts) -> Iterator[str]:
        for kind, value in parts:
            if kind in (code.LITERAL, code.NOT_LITERAL):
                yield chr(value) if kind is code.LITERAL else "x"
            elif kind is code.ANY:
                yield self._draw.choice(CHARACTERS)
            elif kind is code.IN:
                yield self._draw.choice(self._members(value))
            elif kind is code.BRANCH:
                yield from self._texts(self._draw.choice(value[1]))
            elif kind is code.SUBPATTERN:
                self._groups[value[0]] = "".join(self._texts(value[3]))
                yield self._groups[value[0]]
            elif kind is code.GROUPREF:
                yield self._groups.get(value, "")
            elif kind is code.ATOMIC_GROUP:
                yield from self._texts(value)
            elif kind in (code.MAX_REPEAT, code.MIN_REPEAT, code.POSSESSIVE_REPEAT):
                least, most, repeated = value
                for _ in range(self._draw.randint(least, min(int(most), least + 3))):
                    yield from self._texts(repeated)

    def _members(self, members) -> str:
        chosen = ""
        for kind, value in members:
            if kind is code.LITERAL:
                chosen += chr(value)
            elif kind is code.RANGE:
                chosen += "".join(map(chr, range(value[0], min(value[1], value[0] + 60) + 1)))
            elif kind is code.CATEGORY:
                chosen += CATEGORIES.get(value, "-. ")
        if members[0][0] is code.NEGATE:
            return "".join(each for each in CHARACTERS if each not in chosen)
        return chosen


def examples(seed: int, many: int) -> Iterator[str]:
    """Texts of one pattern or two, in ASCII, often with a length before or after."""
    drawn, draw = Examples(seed), random.Random(seed)
    nouns = [getattr(RE, name) for name, (*_, words) in RE.mapping("lengths").items() if words]
    for _ in range(many):
        parts = [drawn.of(pattern) for pattern in draw.choices(SEARCHED, k=draw.choice([1, 2]))]
        length = (
            f"{drawn.of(RE.many_before).strip()}{draw.choice(' -')}{drawn.of(draw.choice(nouns))}"
        )
        text = draw.choice([" ", "\n", ". "]).join(draw.sample([*parts, length], k=len(parts)))
        if text.isascii():
            yield text


class Everything(frozenset):
    """Words that every text has."""

    def isdisjoint(self, other) -> bool:
        return False


def test_a_prompt_is_read_as_if_every_pattern_were_tried(monkeypatch: pytest.MonkeyPatch):
    """Of texts made from the patterns themselves, so that each matches many of them."""
    texts = [*examples(seed=1, many=5000)]
    fast = [_prompt.read.__wrapped__(text) for text in texts]
    for module in (_prompt, _form):
        monkeypatch.setattr(module, "lacks", lambda text, cues: False)
    all_kinds = [(*kind, Everything()) for *kind, _ in _prompt._LENGTHS]
    monkeypatch.setattr(_prompt, "_LENGTHS", all_kinds)
    slow = [_prompt.read.__wrapped__(text) for text in texts]
    assert [pair for pair in zip(texts, fast, slow, strict=True) if pair[1] != pair[2]] == []
    assert {each.form.written for each in slow if each.form} == {"json", "table", "word", "tags"}
    assert len({each.length[1] for each in slow if each.length}) == 4
    assert sum(RE.not_asked_for.search(text) is not None for text in texts) > 100
    for end in (0, 1):
        assert sum(each.around[end] != "" for each in slow) > 10


def test_what_forbids_has_a_word_that_says_so():
    """Each branch of the pattern, hundreds of times."""
    drawn = Examples(seed=2)
    texts = [text for _ in range(20_000) if (text := drawn.of(RE.not_asked_for)).isascii()]
    texts = [text for text in texts if RE.not_asked_for.search(text)]
    assert len(texts) > 1000
    assert [text for text in texts if lacks(text, "forbidding")] == []
    rare = {cue for cue in SETS["forbidding"] if not any(cue in words_in(text) for text in texts)}
    assert rare == set(), "each of the words is there for a branch"


def test_who_may_choose_or_say_a_number_is_asked_for_a_form():
    """The words of both are among those of all forms."""
    ascii_words = {word for word in SETS["choosing"] | SETS["counting"] if word.isascii()}
    assert ascii_words <= SETS["forming"]


@pytest.mark.parametrize("text", ["Ne écris pas. Do not use a table.", "Kein JSON: ſaid", "표로"])
def test_of_other_letters_nothing_is_skipped(text: str):
    """In another script a word may begin or end elsewhere, or have two forms of a letter."""
    assert not any(lacks(text, cues) for cues in SETS)
