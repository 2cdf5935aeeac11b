"""Who may come in, and what they may see: what `app` asks before it lets a model answer."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from agentlab.endpoint.contract.asgi import Scope, header
from agentlab.endpoint.contract.openai_json import RequestError
from agentlab.endpoint.contract.record import Span

_HOST = re.compile(r"(?:https?://)?(\[[\da-f:.]+\]|[\w.-]+)(?::\d{1,5})?", re.ASCII | re.IGNORECASE)
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Door(Protocol):
    """The rules of an endpoint: each method raises 401 or 403 for what may not pass."""

    def enter(self, scope: Scope) -> None:
        """Let a request of any kind in, if no foreign page or name sends it."""

    def admit(self, scope: Scope, span: Span) -> None:
        """Let a request through to the model, noting in `span` who sent it."""

    def visible(self, scope: Scope) -> Callable[[Span], bool]:
        """Return a function that says of a span if the client may see it."""


class OwnDoor:
    """The door of an endpoint that one person uses: this machine only, with `lab_key` if any."""

    def __init__(self, lab_key: str | None = None):
        self._lab_key = lab_key

    def enter(self, scope: Scope) -> None:
        for name in (b"host", b"origin"):
            value = header(scope, name)
            if value and hostname(value) not in _LOOPBACK:
                what = f"{name.decode().title()} {value!r}"
                raise foreign(f"{what} is not this machine; use http://127.0.0.1.")

    def admit(self, scope: Scope, span: Span) -> None:
        self.visible(scope)  # the same key is good for both

    def visible(self, scope: Scope) -> Callable[[Span], bool]:
        shown, key = header(scope, b"authorization").removeprefix("Bearer "), self._lab_key
        if key is not None and not hmac.compare_digest(shown.encode(), key.encode()):
            raise RequestError(
                401,
                "This endpoint spends its owner's money and wants the lab's own key; "
                "take it from lab.api_key(), or from what `agentlab serve` printed.",
                code="invalid_api_key",
            )
        return lambda span: True


def foreign(message: str) -> RequestError:
    """Return the answer to a page, or a name, of another origin."""
    return RequestError(403, message, code="foreign")


@lru_cache(maxsize=256)
def hostname(value: str) -> str:
    """Return the host that a Host or an Origin header names; empty if it names none."""
    found = _HOST.fullmatch(value)
    return found[1].strip("[]").casefold() if found else ""
