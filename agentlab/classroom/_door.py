"""The door of a classroom: a name is a learner's key, a token the teacher's.

A name is no secret: it tells people apart, on a projector, too, so it is no real key. The token
guards what changes the class.

A page of the Internet, in a learner's browser, can be loaded by a name that is made to point here
(DNS rebinding), which an address in figures cannot. So figures and this machine's own names are let
in, and pages only from where the endpoint is.
"""

import hmac
import ipaddress
import re
import socket
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import chain
from urllib.parse import unquote

import psutil

from agentlab.endpoint.contract.asgi import Scope, header
from agentlab.endpoint.contract.openai_json import RequestError, refusal
from agentlab.endpoint.contract.record import Span
from agentlab.endpoint.server.app import Door, foreign, hostname
from agentlab.errors import ConfigError

TEACHER = "teacher"  # who asks with the token; nobody else may have the name
MOST_LEARNERS = 120  # of an open class: enough for people, few enough for a runaway script
_MOST_CHARACTERS = 32
_KEY_CHARACTERS = 20  # of letters and digits mixed, without a space, are taken for a real key

# A key that is no name of this class: what is said repeats no key.
_no_name, _not_in = partial(refusal, "invalid_name"), partial(refusal, "not_in_the_class")


def read_name(key: str) -> str:
    """Return the name that a key is, which may be percent-encoded, or raise 401."""
    name = re.sub(" +", " ", unicodedata.normalize("NFKC", unquote(key))).strip()
    if not any(map(str.isalnum, name)):
        raise _no_name(what="Who is asking? A name needs a letter or a digit")
    # Marks are part of the letters of many scripts.
    readable = all(c.isalnum() or c in " -_.'" or unicodedata.category(c)[0] == "M" for c in name)
    # A real key left in the environment must not get onto the projector: nothing repeats it.
    mixed = any(map(str.isdigit, name)) and any(map(str.isalpha, name))  # as Azure's 32
    is_key = name.startswith("sk-") or (mixed and len(name) >= _KEY_CHARACTERS and " " not in name)
    if len(name) > _MOST_CHARACTERS or is_key or not readable:
        raise refusal("not_a_name", most=_MOST_CHARACTERS)
    if TEACHER in name.casefold():  # else they would be taken for them
        raise _no_name(what=f"{name!r} is who shows the teacher's token")
    return name


class Roster:
    """The learners of a class: those on a list, or anyone who comes.

    Case makes no difference, and names are shown as they were first given. In an open class a name
    has a place from its first question on; of too many, the longest silent loses it: `on_leave`.
    """

    def __init__(self, listed: list[str] | None = None):
        self._open = listed is None
        self.on_leave: Callable[[str], None] = lambda name: None
        self._names: dict[str, str] = {}  # by casefold; of an open class, the longest silent first
        self._removed: set[str] = set()
        for name in listed or []:
            try:
                kept = read_name(name)
            except RequestError as error:
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
        """Return whose key this is, or raise 401; who `asks` nothing needs no place."""
        name = read_name(key)
        folded = name.casefold()
        if folded in self._removed:
            raise _not_in(what="Your teacher has removed this name from the class; talk to them.")
        if not self._open and folded not in self._names:
            raise _not_in(what=f"{name!r} is not on the class list; ask your teacher for yours.")
        name = self._names.get(folded, name)
        if self._open and asks:
            self._names.pop(folded, None)
            self._names[folded] = name  # the last to be heard of
            if len(self._names) > MOST_LEARNERS:
                self.on_leave(self._names.pop(next(iter(self._names))))
        return name

    def remove(self, name: str) -> str:
        """Refuse a name until `forget`; return it as it was shown."""
        folded = unicodedata.normalize("NFKC", name).strip().casefold()
        if folded not in self._names or folded in self._removed:
            raise refusal("no_such_learner", "name")
        self._removed.add(folded)
        name = self._names.pop(folded) if self._open else self._names[folded]
        self.on_leave(name)
        return name

    def forget(self) -> None:
        """Let removed names in again, and in an open class make room for others."""
        self._removed.clear()
        if self._open:
            self._names.clear()


class ClassroomDoor(Door):
    """Lets learners in by their names, and shows each their own spans; the `token` shows all."""

    def __init__(self, roster: Roster, *, token: str, host: str):
        self._roster, self._token, self.classroom = roster, token, True
        own = socket.gethostname().casefold()
        self._names = {"localhost", own, f"{own.removesuffix('.local')}.local", host.casefold()}

    def enter(self, scope: Scope) -> None:
        host, origin = header(scope, b"host"), header(scope, b"origin")
        if host and not (_in_figures(host) or hostname(host) in self._names):
            raise foreign(what=f"Host {host!r} is not this machine; use its address in figures.")
        if origin and origin.partition("://")[2] != host:
            raise foreign(what=f"Origin {origin!r} is another's; open the page of this machine.")

    def admit(self, scope: Scope, span: Span) -> None:
        span.learner = self.who(scope)

    def visible(self, scope: Scope) -> Callable[[Span], bool]:
        who = self.who(scope)
        return lambda span: who in (TEACHER, span.learner)

    def refuse_learners(self, scope: Scope) -> None:
        """Let only the token pass, or raise 401."""
        if not self._is_token(_key(scope)):
            raise refusal("not_the_token")

    def who(self, scope: Scope) -> str:
        """Return whose key a request shows, or raise 401."""
        key = _key(scope)
        if self._is_token(key):
            return TEACHER
        return self._roster.learner(key, asks=scope["method"] == "POST")

    def _is_token(self, key: str) -> bool:
        return hmac.compare_digest(key.encode(), self._token.encode())


def own_addresses() -> list[str]:
    """Return the addresses that learners may be told, that of the default route first."""
    outward, addresses = _outward_address(), chain(*psutil.net_if_addrs().values())
    found = {ipaddress.ip_address(a.address) for a in addresses if a.family == socket.AF_INET}
    kept = [each for each in found if not (each.is_loopback or each.is_link_local)]
    return [str(each) for each in sorted(kept, key=lambda each: (str(each) != outward, each))]


def _outward_address() -> str | None:
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nobody's address; of a datagram nothing is sent yet
        return str(probe.getsockname()[0])
    return None


def _key(scope: Scope) -> str:
    sent = header(scope, b"authorization").removeprefix("Bearer ").encode("latin-1")
    return sent.decode(errors="replace")


def _in_figures(host: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(hostname(host)))
    return False
