"""Who is who: what makes a key a learner's name, and whether that name is of this class."""

from __future__ import annotations

import difflib
import unicodedata
from pathlib import Path
from urllib.parse import unquote

from agentlab.errors import ConfigError

MOST_CHARACTERS = 32
MOST_LEARNERS = 120
"""As many names as an open class takes: enough for people, few enough for a runaway script."""

TEACHER = "teacher"
"""The teacher's name, when they ask with their token for a key; nobody else may have it."""

_KEY_CHARACTERS = 20
"""So many letters and digits mixed, without a space, are taken for a real key."""

_RULE = (
    f"letters, digits, spaces and -_.' in any language, at most {MOST_CHARACTERS} characters, "
    f"under {_KEY_CHARACTERS} where letters and digits mix without a space"
)
_HOW = "set OPENAI_API_KEY to your name, such as OPENAI_API_KEY=ada"


class NotALearner(Exception):
    """A key that is no name of this class; says what to do, and repeats no key."""


class Roster:
    """The learners of a class: those on a list, or whoever comes.

    Names are compared without regard to case, and shown as they were first given.

    Args:
        listed: The class list; None lets anybody in.

    Raises:
        ConfigError: If a listed name cannot be one, or is there twice.

    Example:
        >>> roster = Roster(["Ada", "김민준"])
        >>> roster.learner("ADA"), roster.learner("%EA%B9%80%EB%AF%BC%EC%A4%80")
        ('Ada', '김민준')
    """

    def __init__(self, listed: list[str] | None = None):
        self._open = listed is None
        self._names: dict[str, str] = {}
        for name in listed or []:
            try:
                kept = _name(name)
            except NotALearner as error:
                raise ConfigError(f"class list: {name!r} cannot be a name: {error}") from None
            if kept.casefold() in self._names:
                raise ConfigError(f"class list: {kept!r} is there twice; tell the two apart")
            self._names[kept.casefold()] = kept

    @property
    def names(self) -> list[str]:
        """The listed names, in that order, or those that have come, by the alphabet."""
        names = list(self._names.values())
        return sorted(names, key=str.casefold) if self._open else names

    def learner(self, key: str) -> str:
        """Whose key this is.

        Raises:
            NotALearner: If it is nobody's.
        """
        name = _name(key)
        known = self._names.get(name.casefold())
        if known is not None:
            return known
        if not self._open:
            raise NotALearner(self._not_listed(name))
        if len(self._names) >= MOST_LEARNERS:
            raise NotALearner(f"This class is full: {MOST_LEARNERS} names. Ask your teacher.")
        self._names[name.casefold()] = name
        return name

    def forget(self) -> None:
        """Make room for other names, where anybody may come."""
        if self._open:
            self._names.clear()

    def _not_listed(self, name: str) -> str:
        near = difflib.get_close_matches(name.casefold(), self._names, n=1)
        hint = f"did you mean {self._names[near[0]]!r}?" if near else "ask your teacher for yours."
        return f"{name!r} is not on the class list; {hint}"


def load(path: str) -> list[str]:
    """Read a class list: a name a line; # begins a comment.

    Raises:
        ConfigError: If it cannot be read, or names nobody.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"class list {path!r}: {error}; give a file of names") from None
    names = [name for line in lines if (name := line.partition("#")[0].strip())]
    if not names:
        raise ConfigError(f"class list {path!r} names nobody; write a name a line")
    return names


def _name(key: str) -> str:
    """The name that a key is; keys travel in a header, so they may be percent-encoded."""
    name = unicodedata.normalize("NFC", unquote(key)).strip()
    if not name:
        raise NotALearner(f"Who is asking? Here {_HOW}.")
    # A real key left in the environment must not get onto the projector: nothing repeats it.
    if len(name) > MOST_CHARACTERS or _like_a_key(name) or not all(map(_allowed, name)):
        raise NotALearner(f"This class takes a name for a key ({_RULE}), and no real key; {_HOW}.")
    if not any(map(str.isalnum, name)):
        raise NotALearner(f"A name has a letter or a digit; {_HOW}.")
    if name.casefold() == TEACHER:  # else they would see the teacher's requests
        raise NotALearner(f"{name!r} is who shows the teacher's token; {_HOW}.")
    return name


def _like_a_key(name: str) -> bool:
    """True for OpenAI's keys, and for others' of letters and digits, such as Azure's 32."""
    mixed = any(map(str.isdigit, name)) and any(map(str.isalpha, name))
    return name.startswith("sk-") or (mixed and len(name) >= _KEY_CHARACTERS and " " not in name)


def _allowed(character: str) -> bool:
    # Marks (M) belong to the letters of many scripts.
    return (
        character.isalnum()
        or character in " -_.'"
        or unicodedata.category(character).startswith("M")
    )
