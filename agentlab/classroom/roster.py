"""Who is who: whether a name is of this class, and has a place in it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from agentlab.classroom.names import NotALearner, looks_of, read_name
from agentlab.errors import ConfigError

MOST_LEARNERS = 120
"""As many names as an open class takes: enough for people, few enough for a runaway script."""
NAMES_PER_ADDRESS = 40
"""As many of them may come from one address: a class of thirty may share one, behind a router."""

_ASK = "ask your teacher for yours."


class _Learner(NamedTuple):
    name: str
    address: str = ""


class Roster:
    """The learners of a class: those on a list, or whoever comes.

    Names are compared without regard to case, and shown as they were first given. In an open class
    a name has a place from its first question on. Where one address has all the places that it
    may, its newcomer takes that of its own name that has been silent longest.

    Args:
        listed: The class list; None lets anybody in.
        per_address: As many places of an open class one address may take.

    Attributes:
        on_leave: Is told each name that loses its place.

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
        """Whose key this is.

        Args:
            address: Where it comes from; empty where that does not matter.
            asks: False if it asks no question, and so needs no place.

        Raises:
            NotALearner: If it is nobody's.
        """
        name = read_name(key)
        looks = looks_of(name)
        if looks in self._removed:
            raise NotALearner("Your teacher has removed this name from the class; talk to them.")
        known = self._learners.get(looks)
        if known is None:
            if not self._open:
                raise NotALearner(self._not_listed(name))
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
        """True if this key is the name of somebody who is here."""
        try:
            looks = looks_of(read_name(key))
        except NotALearner:
            return False
        return looks in self._learners

    def remove(self, key: str) -> str:
        """Let a name in no longer, until `forget`; returns it as it was shown.

        Raises:
            NotALearner: If nobody here is called so.
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
        """Let removed names in again, and where anybody may come, make room for others."""
        self._removed.clear()
        if self._open:
            self._learners.clear()

    def _make_place(self, address: str) -> None:
        near = [looks for looks, one in self._learners.items() if one.address == address]
        if address and len(near) >= self._per_address:
            self.on_leave(self._learners.pop(near[0]).name)
        elif len(self._learners) >= MOST_LEARNERS:
            raise NotALearner(f"This class is full: {MOST_LEARNERS} names. Ask your teacher.")

    def _not_listed(self, name: str) -> str:
        near = difflib.get_close_matches(looks_of(name), self._learners, n=1)
        hint = f"did you mean {self._learners[near[0]].name!r}?" if near else _ASK
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
