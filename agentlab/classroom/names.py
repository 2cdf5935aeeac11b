"""What can be a learner's name, and which names look alike.

On a projector people see letters, not what a machine tells apart. So a name is of one alphabet, has
nothing that cannot be seen, and looks neither like another of its class nor like the teacher's.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import groupby
from urllib.parse import unquote

MOST_CHARACTERS = 32
TEACHER = "teacher"
"""The teacher's name, when they ask with their token for a key; nobody else may have it."""

_KEY_CHARACTERS = 20
"""So many letters and digits mixed, without a space, are taken for a real key."""

_RULE = (
    f"letters, digits, spaces and -_.' in any language, at most {MOST_CHARACTERS} characters, "
    f"under {_KEY_CHARACTERS} where letters and digits mix without a space"
)
# What letters and digits look like, in upper or in lower case. Accents stay: they can be seen.
_LOOKS_LIKE = str.maketrans(
    "01авеікмнорстухѕјһԁԛԝӏьгαβεζηικμνορτυχϲօսհոցᎠᎪᎬᎻᎫᏦᏞᎷᏢᎡᏚᎢᏙᏔᏃᏟꓮꓚꓰꓧꓣꓔʼʻ",
    "olabeikmhopctyxsjhdqwlbrabezhikmvoptyxcouhngdaehjklmprstvwzcacehrt''",
)
_LATIN = re.compile(r"LATIN (?:SMALL |CAPITAL |LETTER )+([A-Z])( WITH .+)?")
_EAST_ASIAN = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC"}
_COMMON = {"COMBINING", "MODIFIER"}
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_MOST_MARKS = 3
_LONGEST_KEY = 12 * MOST_CHARACTERS
"""Percent-encoded, a character takes twelve at most."""
_HOW = "set OPENAI_API_KEY to your name, such as OPENAI_API_KEY=ada"


class NotALearner(Exception):
    """A key that is no name of this class; says what to do, and repeats no key."""


@lru_cache(maxsize=1024)
def read_name(key: str) -> str:
    """The name that a key is; keys travel in a header, so they may be percent-encoded.

    Raises:
        NotALearner: If it can be no name.

    Example:
        >>> read_name(" %41da  Lovelace ")
        'Ada Lovelace'
    """
    if len(key) > _LONGEST_KEY:
        raise NotALearner(f"This class takes a name for a key ({_RULE}), and no real key; {_HOW}.")
    name = re.sub(" +", " ", unicodedata.normalize("NFKC", unquote(key))).strip()
    if not name:
        raise NotALearner(f"Who is asking? Here {_HOW}.")
    # A real key left in the environment must not get onto the projector: nothing repeats it.
    if len(name) > MOST_CHARACTERS or _like_a_key(name) or not _readable(name):
        raise NotALearner(f"This class takes a name for a key ({_RULE}), and no real key; {_HOW}.")
    if not any(map(str.isalnum, name)):
        raise NotALearner(f"A name has a letter or a digit; {_HOW}.")
    if _like_the_teacher(name):  # else they would see the teacher's requests, or be taken for them
        raise NotALearner(f"{name!r} is who shows the teacher's token; {_HOW}.")
    # East Asian and Latin letters cannot be taken for each other: Unicode's "highly restrictive"
    # level (UTS 39, 5.2) lets them stand together, too.
    if len(_alphabets(name)) > 1 and _alphabets(name) != {"CJK", "LATIN"}:
        raise NotALearner(
            f"{name!r} mixes alphabets, in which letters look alike; write it in one. {_HOW}."
        )
    return name


@lru_cache(maxsize=1024)
def looks_of(name: str) -> str:
    """What names that look alike have in common.

    Example:
        >>> looks_of("Ada") == looks_of("ADA") == looks_of("А\u0501а")
        True
        >>> looks_of("Ada") == looks_of("Áda")
        False
    """
    letters = ((_LATIN.fullmatch(unicodedata.name(each, "")), each) for each in name)
    plain = "".join(found[1] if found and not found[2] else each for found, each in letters)
    return plain.casefold().translate(_LOOKS_LIKE)


def _like_the_teacher(name: str) -> bool:
    bare = (_LATIN.fullmatch(unicodedata.name(each, "")) or {1: each} for each in _marks_off(name))
    looks = "".join(each[1] for each in bare).casefold().translate(_LOOKS_LIKE)
    return TEACHER in re.sub("[^a-z]", "", looks.translate(str.maketrans("437", "aet")))


def _marks_off(name: str) -> str:
    return "".join(each for each in unicodedata.normalize("NFKD", name) if not _is_mark(each))


def _alphabets(name: str) -> set[str]:
    """Of the letters of a name, and of the digits that are not everybody's."""
    words = (
        unicodedata.name(each, "?").removeprefix("EXTENDED ")
        for each in name
        if (each.isalnum() or _is_mark(each)) and not (each.isascii() and each.isdigit())
    )
    found = {re.split("[ -]", word)[0] for word in words} - _COMMON
    return found - _EAST_ASIAN | ({"CJK"} if found & _EAST_ASIAN else set())


def _like_a_key(name: str) -> bool:
    """True for OpenAI's keys, and for others' of letters and digits, such as Azure's 32."""
    mixed = any(map(str.isdigit, name)) and any(map(str.isalpha, name))
    return name.startswith("sk-") or (mixed and len(name) >= _KEY_CHARACTERS and " " not in name)


def _readable(name: str) -> bool:
    runs = (len(list(run)) for marks, run in groupby(name, _is_mark) if marks)
    return all(map(_allowed, name)) and all(length <= _MOST_MARKS for length in runs)


def _allowed(character: str) -> bool:
    # Marks belong to the letters of many scripts.
    seen = not _UNSEEN.match(character)
    return seen and (character.isalnum() or character in " -_.'" or _is_mark(character))


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
