"""Who may come in, and what they may see: what `app` asks before it lets a model answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agentlab.endpoint.http import Scope, refuse_strangers, refuse_without_key
from agentlab.endpoint.record import Span


class Door(Protocol):
    """The rules of an endpoint about those who knock."""

    def enter(self, scope: Scope) -> None:
        """Let a request of any kind in.

        Raises:
            RequestError: 403, if it comes from a page, or by a name, that is a stranger's.
        """
        ...

    def admit(self, scope: Scope, span: Span) -> None:
        """Let a request through to the model, noting in `span` who sent it.

        Raises:
            RequestError: 401, if it shows no key that opens.
        """
        ...

    def visible(self, scope: Scope) -> Callable[[Span], bool]:
        """Says of a recorded span if whoever asks may see it.

        Raises:
            RequestError: 401, if that is nobody in particular.
        """
        ...


class OwnDoor:
    """The door of an endpoint that one person uses: this machine only.

    Args:
        lab_key: The key that clients must show, for the record, too; None lets any in, where it
            costs nothing.
    """

    def __init__(self, lab_key: str | None = None):
        self._lab_key = lab_key

    def enter(self, scope: Scope) -> None:
        refuse_strangers(scope)

    def admit(self, scope: Scope, span: Span) -> None:
        if self._lab_key is not None:
            refuse_without_key(scope, self._lab_key)

    def visible(self, scope: Scope) -> Callable[[Span], bool]:
        if self._lab_key is not None:
            refuse_without_key(scope, self._lab_key)
        return lambda span: True
