"""The door of a classroom: a name is a learner's key, a token the teacher's.

A name is no secret: it tells people apart. The token guards what changes the class.

A page of the Internet, in a learner's browser, can reach an endpoint that listens to the network.
Its Host header is the name by which it was loaded, and a foreign name can be made to point here
(DNS rebinding), an address in figures cannot. So figures and this machine's own names are let in,
and pages only from where the endpoint is.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Callable

from agentlab.classroom._roster import TEACHER, NotALearner, Roster
from agentlab.endpoint.contract.asgi import Scope, header
from agentlab.endpoint.contract.openai_json import RequestError
from agentlab.endpoint.contract.record import Span
from agentlab.endpoint.server.app import foreign, hostname


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
            raise RequestError(
                401,
                "This is the teacher's: it takes the token that `agentlab serve` printed.",
                code="invalid_token",
            )

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

    outward = _outward_address()
    found = {
        ipaddress.ip_address(address.address)
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family == socket.AF_INET
    }
    kept = [each for each in found if not (each.is_loopback or each.is_link_local)]
    return sorted(map(str, kept), key=lambda each: (each != outward, ipaddress.ip_address(each)))


def _outward_address() -> str | None:
    """Return that of the interface that the default route uses; None without such a route."""
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
