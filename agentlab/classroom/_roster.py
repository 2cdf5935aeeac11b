"""Who is who: what can be a learner's name, which names look alike, and who has a place.

On a projector people see letters, not what a machine tells apart. So a name is of one alphabet, has
nothing that cannot be seen, and looks neither like another of its class nor like the teacher's.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from agentlab.errors import ConfigError

TEACHER = "teacher"
"""The teacher's name, when they ask with their token for a key; nobody else may have it."""

MOST_LEARNERS = 120
"""As many names as an open class takes: enough for people, few enough for a runaway script."""
NAMES_PER_ADDRESS = 40
"""As many of them may come from one address: a class of thirty may share one, behind a router."""

_MOST_CHARACTERS, _MOST_MARKS = 32, 3
_LONGEST_KEY = 12 * _MOST_CHARACTERS  # percent-encoded, a character takes twelve at most
_KEY_CHARACTERS = 20  # of letters and digits mixed, without a space, are taken for a real key

_HOW = "set OPENAI_API_KEY to your name, such as OPENAI_API_KEY=ada"
_NO_KEY = (
    "This class takes a name for a key (letters, digits, spaces and -_.' in any language, at most "
    f"{_MOST_CHARACTERS} characters, under {_KEY_CHARACTERS} where letters and digits mix without "
    f"a space), and no real key; {_HOW}."
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


class NotALearner(Exception):
    """A key that is no name of this class; says what to do, and repeats no key."""


@lru_cache(maxsize=1024)
def read_name(key: str) -> str:
    """Return the name that a key is; keys travel in a header, so they may be percent-encoded.

    Raises:
        NotALearner: If it can be no name.

    Example:
        >>> read_name(" %41da  Lovelace ")
        'Ada Lovelace'
    """
    if len(key) > _LONGEST_KEY:
        raise NotALearner(_NO_KEY)
    name = re.sub(" +", " ", unicodedata.normalize("NFKC", unquote(key))).strip()
    if not name:
        raise NotALearner(f"Who is asking? Here {_HOW}.")
    # A real key left in the environment must not get onto the projector: nothing repeats it.
    if len(name) > _MOST_CHARACTERS or _like_a_key(name) or not _readable(name):
        raise NotALearner(_NO_KEY)
    if not any(map(str.isalnum, name)):
        raise NotALearner(f"A name needs a letter or a digit; {_HOW}.")
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
    """Return what names that look alike have in common.

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
    letters = [each for each in unicodedata.normalize("NFKD", name) if not _is_mark(each)]
    bare = (_LATIN.fullmatch(unicodedata.name(each, "")) or {1: each} for each in letters)
    looks = "".join(each[1] for each in bare).casefold().translate(_LOOKS_LIKE)
    return TEACHER in re.sub("[^a-z]", "", looks.translate(str.maketrans("437", "aet")))


def _alphabets(name: str) -> set[str]:
    """Return those of the letters of a name, and of digits that are not everybody's."""
    words = (
        unicodedata.name(each, "?").removeprefix("EXTENDED ")
        for each in name
        if (each.isalnum() or _is_mark(each)) and not (each.isascii() and each.isdigit())
    )
    found = {re.split("[ -]", word)[0] for word in words} - _COMMON
    return found - _EAST_ASIAN | ({"CJK"} if found & _EAST_ASIAN else set())


def _like_a_key(name: str) -> bool:
    """Return True for OpenAI's keys, and for others' of letters and digits, such as Azure's 32."""
    mixed = any(map(str.isdigit, name)) and any(map(str.isalpha, name))
    return name.startswith("sk-") or (mixed and len(name) >= _KEY_CHARACTERS and " " not in name)


def _readable(name: str) -> bool:
    for is_mark, run in groupby(name, _is_mark):  # marks belong to the letters of many scripts
        characters = list(run)
        if (is_mark and len(characters) > _MOST_MARKS) or any(map(_UNSEEN.match, characters)):
            return False
        if not is_mark and not all(each.isalnum() or each in " -_.'" for each in characters):
            return False
    return True


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


class _Learner(NamedTuple):
    name: str
    address: str = ""


class Roster:
    """The learners of a class: those on a list, or anyone who comes.

    Names are compared without regard to case, and shown as they were first given. In an open class
    a name has a place from its first question on. Where one address has all the places that it
    may, its newcomer takes that of its own name that has been silent longest.

    `listed` is the class list; None lets anybody in. `on_leave` is told each name that loses its
    place.

    Raises:
        ConfigError: If a listed name cannot be one, or is there twice.

    Example:
        >>> roster = Roster(["Ada", "김민준"])
        >>> roster.learner("ADA"), roster.learner("%EA%B9%80%EB%AF%BC%EC%A4%80")
        ('Ada', '김민준')
    """

    def __init__(self, listed: list[str] | None = None, *, per_address: int = NAMES_PER_ADDRESS):
        self._open, self._per_address = listed is None, per_address
        self.on_leave: Callable[[str], None] = lambda name: None
        # By what they look like; of an open class, the longest silent first.
        self._learners: dict[str, _Learner] = {}
        self._removed: set[str] = set()
        for name in listed or []:
            try:
                kept = read_name(name)
            except NotALearner as error:
                raise ConfigError(f"class list: {name!r} cannot be a name: {error}") from None
            if other := self._learners.get(looks_of(kept)):
                what = "is" if other.name.casefold() == kept.casefold() else "or its look-alike is"
                raise ConfigError(f"class list: {kept!r} {what} there twice; tell the two apart")
            self._learners[looks_of(kept)] = _Learner(kept)

    @property
    def names(self) -> list[str]:
        """The listed names, in that order, or those that have come, by the alphabet."""
        names = [one.name for looks, one in self._learners.items() if looks not in self._removed]
        return sorted(names, key=str.casefold) if self._open else names

    def learner(self, key: str, address: str = "", *, asks: bool = True) -> str:
        """Return the name of the learner whose key this is, or raise NotALearner.

        A request from `address` that asks no question needs no place.
        """
        name = read_name(key)
        looks = looks_of(name)
        if looks in self._removed:
            raise NotALearner("Your teacher has removed this name from the class; talk to them.")
        known = self._learners.get(looks)
        if known is None:
            if not self._open:
                near = difflib.get_close_matches(looks, self._learners, n=1)
                mean = f"did you mean {self._learners[near[0]].name!r}?" if near else ""
                what = mean or "ask your teacher for yours."
                raise NotALearner(f"{name!r} is not on the class list; {what}")
            if asks:
                self._make_place(address)
                self._learners[looks] = _Learner(name, address)
            return name
        if known.name.casefold() != name.casefold():
            raise NotALearner(f"{name!r} looks like another name of this class; add an initial.")
        if self._open and asks:
            self._learners[looks] = self._learners.pop(looks)  # the last to be heard of
        return known.name

    def has(self, key: str) -> bool:
        """Return True if this key is the name of somebody who is here."""
        try:
            return looks_of(read_name(key)) in self._learners
        except NotALearner:
            return False

    def remove(self, key: str) -> str:
        """Refuse a name until `forget`; return it as it was shown.

        Raises:
            NotALearner: If nobody here has that name.
        """
        looks = looks_of(read_name(key))
        known = self._learners.get(looks)
        if known is None or looks in self._removed:
            raise NotALearner("Nobody of this name is here.")
        self._removed.add(looks)
        if self._open:
            del self._learners[looks]
        self.on_leave(known.name)
        return known.name

    def forget(self) -> None:
        """Let removed names in again, and in an open class make room for others."""
        self._removed.clear()
        if self._open:
            self._learners.clear()

    def _make_place(self, address: str) -> None:
        near = [looks for looks, one in self._learners.items() if one.address == address]
        if address and len(near) >= self._per_address:
            self.on_leave(self._learners.pop(near[0]).name)
        elif len(self._learners) >= MOST_LEARNERS:
            raise NotALearner(f"This class is full: {MOST_LEARNERS} names. Ask your teacher.")


def load(path: str) -> list[str]:
    """Read a class list: one name per line; # begins a comment.

    Raises:
        ConfigError: If it cannot be read, or names nobody.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"class list {path!r}: {error}; give a file of names") from None
    names = [name for line in lines if (name := line.partition("#")[0].strip())]
    if not names:
        raise ConfigError(f"class list {path!r} names nobody; write one name per line")
    return names
