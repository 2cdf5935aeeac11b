"""The door of a classroom: a name is a learner's key, a token the teacher's.

A name is no secret: it tells people apart, and keeps their traces apart. The token guards what
changes the class. Guessing at it is slowed down: some wrong tokens are free, because people
mistype; each one more doubles the time in which that address is not let in, not even with the right
one. Other addresses wait for nothing.

Listening to the network, an endpoint can be reached by pages that a learner's browser shows, too.
Such a page cannot send the Host header of its choice: it is the name by which it was loaded. An
address in figures cannot be made to point elsewhere, a foreign name can (DNS rebinding).
So figures and this machine's own names are let in, and pages only from where the endpoint is.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import math
import socket
from collections.abc import Callable
from functools import lru_cache

from agentlab.classroom._roster import TEACHER, NotALearner, Roster
from agentlab.endpoint.contract.asgi import Scope, header
from agentlab.endpoint.contract.openai_json import RequestError
from agentlab.endpoint.contract.record import Span
from agentlab.endpoint.server.app import foreign, hostname

_FREE_GUESSES = 5
_FIRST_WAIT_S, _LONGEST_WAIT_S, _FORGOTTEN_S = 1.0, 60.0, 600.0
_MOST_ADDRESSES = 10_000


class ClassroomDoor:
    """Lets learners in by their names, and shows each the spans that are theirs.

    The teacher's `token` shows all spans. `host` is the address that the endpoint
    listens on; if it is a name, it is let in, too.
    """

    def __init__(self, roster: Roster, *, token: str, host: str, time_scale: float = 1.0):
        self._roster, self._token, self._time_scale = roster, token, time_scale
        self._guesses = _Guesses()
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
        """Let only the token pass: else 401, or 429 if this address has shown too many others."""
        if not self._shows_token(scope):
            raise RequestError(
                401,
                "This is the teacher's: it takes the token that `agentlab serve` printed.",
                code="invalid_token",
            )

    def _who(self, scope: Scope, *, asks: bool) -> str:
        key = _key(scope)
        # A name is a guess, too, if it might be the token.
        might_be = len(key) == len(self._token) and not self._roster.has(key)
        if might_be and self._shows_token(scope):
            return TEACHER
        try:
            return self._roster.learner(key, _address(scope), asks=asks)
        except NotALearner as error:
            raise RequestError(401, str(error), code="invalid_api_key") from None

    def _shows_token(self, scope: Scope) -> bool:
        key = _key(scope)
        if not key:
            return False
        now_s, address = asyncio.get_running_loop().time(), _address(scope)
        if wait_s := self._guesses.wait_s(address, now_s):
            raise RequestError(
                429,
                "Your address has shown too many wrong tokens; try again in "
                f"{math.ceil(wait_s)} s, or from another.",
                code="too_many_wrong_tokens",
                retry_after_s=wait_s * self._time_scale,
            )
        if hmac.compare_digest(key.encode(), self._token.encode()):
            return True
        self._guesses.wrong(address, now_s)
        return False


class _Guesses:
    """Counts wrong tokens by address; it decides, and never waits."""

    def __init__(self) -> None:
        self._wrong: dict[str, tuple[int, float]] = {}

    def wait_s(self, address: str, now_s: float) -> float:
        """Return how long until this address may try again; 0 if it may now."""
        count, at_s = self._wrong.get(address, (0, now_s))
        if count <= _FREE_GUESSES:
            return 0.0
        pause_s = min(_FIRST_WAIT_S * 2.0 ** min(count - _FREE_GUESSES - 1, 30), _LONGEST_WAIT_S)
        return max(0.0, at_s + pause_s - now_s)

    def wrong(self, address: str, now_s: float) -> None:
        """Note that this address has shown a wrong token."""
        count, at_s = self._wrong.pop(address, (0, now_s))
        self._wrong[address] = (count + 1 if now_s - at_s < _FORGOTTEN_S else 1, now_s)
        if len(self._wrong) > _MOST_ADDRESSES:
            del self._wrong[next(iter(self._wrong))]  # that of the oldest guess


def own_names() -> set[str]:
    """Return the names by which this machine knows itself."""
    name = socket.gethostname().casefold()
    return {"localhost", name, f"{name.removesuffix('.local')}.local"}


def own_addresses() -> list[str]:
    """Return this machine's addresses but loopback, that of the network which leads outside first.

    The others may be a VPN's, or a bridge's to virtual machines, where no learner is.
    """
    import psutil

    found = {
        address.address
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family == socket.AF_INET
    }
    return in_order(found, _outward_address())


def in_order(found: set[str], outward: str | None) -> list[str]:
    """Return the addresses that learners may be told, the likeliest first.

    Link-local ones (169.254) are what a machine without a network gives itself.

    Example:
        >>> in_order({"127.0.0.1", "169.254.7.7", "10.8.0.2", "192.168.1.20"}, "192.168.1.20")
        ['192.168.1.20', '10.8.0.2']
    """
    numbers = {each: ipaddress.ip_address(each) for each in found}
    kept = [e for e, number in numbers.items() if not number.is_loopback | number.is_link_local]
    return sorted(kept, key=lambda each: (each != outward, numbers[each].packed))


def _outward_address() -> str | None:
    """Return that of the interface that the default route uses; None without such a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nobody's address; of a datagram nothing is sent yet
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return _machine(client[0]) if client else ""


@lru_cache(maxsize=1024)
def _machine(host: str) -> str:
    """Return what stands for one machine: its IPv4 address, or the network that IPv6 gives each."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.ip_network((address, 64), strict=False))


def _key(scope: Scope) -> str:
    sent = header(scope, b"authorization").removeprefix("Bearer ").encode("latin-1")
    try:
        return sent.decode()
    except UnicodeDecodeError:  # a client that sends Latin-1
        return sent.decode("latin-1")


@lru_cache(maxsize=256)
def _in_figures(host: str) -> bool:
    try:
        ipaddress.ip_address(hostname(host))
    except ValueError:
        return False
    return True
