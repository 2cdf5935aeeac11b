"""The door of a classroom: a name is a learner's key, a token the teacher's.

A name is no secret: it tells people apart. People see letters on a projector, so a name is of one
alphabet, and no real key. The token guards what changes the class.

A page of the Internet, in a learner's browser, can reach an endpoint that listens to the network.
Its Host header is the name by which it was loaded, and a foreign name can be made to point here
(DNS rebinding), an address in figures cannot. So figures and this machine's own names are let in,
and pages only from where the endpoint is.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from agentlab.endpoint.contract.asgi import Scope, header
from agentlab.endpoint.contract.openai_json import RequestError
from agentlab.endpoint.contract.record import Span
from agentlab.endpoint.server.app import foreign, hostname
from agentlab.errors import ConfigError

TEACHER = "teacher"  # who asks with the token; nobody else may have the name
MOST_LEARNERS = 120  # of an open class: enough for people, few enough for a runaway script
_MOST_CHARACTERS = 32
_LONGEST_KEY = 12 * _MOST_CHARACTERS  # percent-encoded, a character takes twelve at most
_KEY_CHARACTERS = 20  # of letters and digits mixed, without a space, are taken for a real key
# Alphabets that may stand beside each other: Unicode's "highly restrictive" level (UTS 39)
_TOGETHER = set("LATIN MODIFIER CJK IDEOGRAPHIC HIRAGANA KATAKANA HANGUL BOPOMOFO".split())

_HOW = "set OPENAI_API_KEY to your name, such as OPENAI_API_KEY=ada"
_NO_KEY = (
    "This class takes a name for a key (letters, digits, spaces and -_.' in any language, at most "
    f"{_MOST_CHARACTERS} characters, under {_KEY_CHARACTERS} where letters and digits mix without "
    f"a space), and no real key; {_HOW}."
)


class NotALearner(Exception):
    """A key that is no name of this class; says what to do, and repeats no key."""


def read_name(key: str) -> str:
    """Return the name that a key is, which may be percent-encoded, or raise NotALearner."""
    if len(key) > _LONGEST_KEY:
        raise NotALearner(_NO_KEY)
    name = re.sub(" +", " ", unicodedata.normalize("NFKC", unquote(key))).strip()
    if not any(map(str.isalnum, name)):
        raise NotALearner(f"Who is asking? A name needs a letter or a digit; {_HOW}.")
    # A real key left in the environment must not get onto the projector: nothing repeats it.
    if len(name) > _MOST_CHARACTERS or _like_a_key(name) or not all(map(_readable, name)):
        raise NotALearner(_NO_KEY)
    if TEACHER in name.casefold():  # else they would be taken for them
        raise NotALearner(f"{name!r} is who shows the teacher's token; {_HOW}.")
    alphabets = {re.split("[ -]", unicodedata.name(c, "?"))[0] for c in name if c.isalpha()}
    if len(alphabets) > 1 and not alphabets <= _TOGETHER:
        raise NotALearner(
            f"{name!r} mixes alphabets, in which letters look alike; write it in one. {_HOW}."
        )
    return name


def _like_a_key(name: str) -> bool:  # OpenAI's, or letters and digits, such as Azure's 32
    mixed = any(map(str.isdigit, name)) and any(map(str.isalpha, name))
    return name.startswith("sk-") or (mixed and len(name) >= _KEY_CHARACTERS and " " not in name)


def _readable(character: str) -> bool:
    mark = unicodedata.category(character).startswith("M")  # part of the letters of many scripts
    return mark or character.isalnum() or character in " -_.'"


class Roster:
    """The learners of a class: those on a list, or anyone who comes.

    Names are compared without regard to case, and shown as they were first given. In an open class
    a name has a place from its first question on; of too many, the one that has been silent longest
    loses its place, which `on_leave` is told, until it asks again.
    """

    def __init__(self, listed: list[str] | None = None):
        self._open = listed is None
        self.on_leave: Callable[[str], None] = lambda name: None
        self._names: dict[str, str] = {}  # by casefold; of an open class, the longest silent first
        self._removed: set[str] = set()
        for name in listed or []:
            try:
                kept = read_name(name)
            except NotALearner as error:
                raise ConfigError(f"class list: {name!r} cannot be a name: {error}") from None
            if kept.casefold() in self._names:
                raise ConfigError(f"class list: {kept!r} is there twice; tell the two apart")
            self._names[kept.casefold()] = kept

    @property
    def names(self) -> list[str]:
        """The listed names, in that order, or those that have come, by the alphabet."""
        names = [name for folded, name in self._names.items() if folded not in self._removed]
        return sorted(names, key=str.casefold) if self._open else names

    def learner(self, key: str, *, asks: bool = True) -> str:
        """Return whose key this is, or raise NotALearner; who `asks` nothing needs no place."""
        name = read_name(key)
        folded = name.casefold()
        if folded in self._removed:
            raise NotALearner("Your teacher has removed this name from the class; talk to them.")
        if not self._open and folded not in self._names:
            raise NotALearner(f"{name!r} is not on the class list; ask your teacher for yours.")
        name = self._names.get(folded, name)
        if self._open and asks:
            self._names.pop(folded, None)
            self._names[folded] = name  # the last to be heard of
            if len(self._names) > MOST_LEARNERS:
                self.on_leave(self._names.pop(next(iter(self._names))))
        return name

    def remove(self, key: str) -> str:
        """Refuse a name until `forget`; return it as it was shown."""
        folded = read_name(key).casefold()
        if folded not in self._names or folded in self._removed:
            raise NotALearner("Nobody of this name is here.")
        self._removed.add(folded)
        name = self._names.pop(folded) if self._open else self._names[folded]
        self.on_leave(name)
        return name

    def forget(self) -> None:
        """Let removed names in again, and in an open class make room for others."""
        self._removed.clear()
        if self._open:
            self._names.clear()


def load_names(path: str) -> list[str]:
    """Read a class list: one name per line; # begins a comment."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"class list {path!r}: {error}; give a file of names") from None
    names = [name for line in lines if (name := line.partition("#")[0].strip())]
    if not names:
        raise ConfigError(f"class list {path!r} names nobody; write one name per line")
    return names


class ClassroomDoor:
    """Lets learners in by their names, and shows each their own spans; the `token` shows all."""

    def __init__(self, roster: Roster, *, token: str, host: str):
        self._roster, self._token = roster, token
        self._names = own_names() | {host.casefold()}

    def enter(self, scope: Scope) -> None:
        host, origin = header(scope, b"host"), header(scope, b"origin")
        if host and not (_in_figures(host) or hostname(host) in self._names):
            raise foreign(f"Host {host!r} is not this machine; use its address in figures.")
        if origin and origin.partition("://")[2] != host:
            raise foreign(f"Origin {origin!r} is another's; open the page of this machine.")

    def admit(self, scope: Scope, span: Span) -> None:
        span.learner = self._who(scope, asks=scope["method"] == "POST")

    def visible(self, scope: Scope) -> Callable[[Span], bool]:
        who = self._who(scope, asks=False)
        return lambda span: who in (TEACHER, span.learner)

    def refuse_learners(self, scope: Scope) -> None:
        """Let only the token pass, or raise 401."""
        if not self._is_token(_key(scope)):
            said = "This is the teacher's: it takes the token that `agentlab serve` printed."
            raise RequestError(401, said, code="invalid_token")

    def _who(self, scope: Scope, *, asks: bool) -> str:
        key = _key(scope)
        if self._is_token(key):
            return TEACHER
        try:
            return self._roster.learner(key, asks=asks)
        except NotALearner as error:
            raise RequestError(401, str(error), code="invalid_api_key") from None

    def _is_token(self, key: str) -> bool:
        return hmac.compare_digest(key.encode(), self._token.encode())


def own_names() -> set[str]:
    """Return the names by which this machine knows itself."""
    name = socket.gethostname().casefold()
    return {"localhost", name, f"{name.removesuffix('.local')}.local"}


def own_addresses() -> list[str]:
    """Return the addresses that learners may be told, that of the default route first."""
    import psutil

    outward, interfaces = _outward_address(), psutil.net_if_addrs().values()
    addresses = [each for interface in interfaces for each in interface]
    found = {ipaddress.ip_address(a.address) for a in addresses if a.family == socket.AF_INET}
    kept = [each for each in found if not (each.is_loopback or each.is_link_local)]
    return [str(each) for each in sorted(kept, key=lambda each: (str(each) != outward, each))]


def _outward_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nobody's address; of a datagram nothing is sent yet
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _key(scope: Scope) -> str:
    sent = header(scope, b"authorization").removeprefix("Bearer ").encode("latin-1")
    return sent.decode(errors="replace")


def _in_figures(host: str) -> bool:
    try:
        ipaddress.ip_address(hostname(host))
    except ValueError:
        return False
    return True
