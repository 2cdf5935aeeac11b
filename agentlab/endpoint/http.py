"""The few lines of HTTP that the endpoint needs on top of ASGI: read a body, write an answer."""

from __future__ import annotations

import asyncio
import hmac
import re
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from agentlab.endpoint.record import Span
from agentlab.endpoint.wire import RequestError

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

MAX_BODY_BYTES = 2**20
"""Of a request to the local model, unless a setting says otherwise: a long book's letters."""

_BODIES_HELD = 64
"""All requests in flight may hold so many bodies of `MAX_BODY_BYTES` together, or 4 longer ones."""

RESET = "agentlab.reset"
"""The name of the scope's extension, a function without arguments, that resets the connection."""

_MOST_DIGITS = 15
_HEADERS = "agentlab.headers"  # the scope's headers by name, kept there for the next question
_HOST = re.compile(r"(\[[\da-f:.]+(%[\w.-]+)?\]|[\w.-]+)(:\d{1,5})?", re.ASCII | re.IGNORECASE)
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class ClientGone(Exception):
    """The client hung up before it was answered."""


class BrokenOff(Exception):
    """The connection is to be reset, as a fault plan wants it."""


class Model(Protocol):
    """What answers the `/v1` routes: the local model, or a real one behind the endpoint."""

    @property
    def time_scale(self) -> float:
        """Model seconds to a second of the event loop's clock."""
        ...

    @property
    def paid(self) -> bool:
        """True if its answers cost money."""
        ...

    def now_s(self) -> float:
        """Model seconds since this model's clock was started."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        """Answer one request, noting in `span` what happens to it.

        Raises:
            RequestError: If it cannot be answered; nothing has been sent then.
            ClientGone: If the client went before it had sent its request.
            BrokenOff: If the connection is to be reset.
        """
        ...


def header(scope: Scope, name: bytes) -> str:
    """The value of a request header (its name in lower case), or an empty string."""
    by_name = scope.get(_HEADERS)
    if by_name is None:
        by_name = scope[_HEADERS] = dict(scope["headers"])
    value = by_name.get(name)
    return str(value, "latin-1") if value else ""


def whole_number(text: str) -> int | None:
    """A whole number from outside; None if it is none, or has more digits than any of use.

    Example:
        >>> whole_number("12"), whole_number("-1"), whole_number("²"), whole_number("9" * 5000)
        (12, None, None, None)
    """
    sane = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
    return int(text) if sane else None


class Again:
    """A `receive` that gives a body that was read already, and then what the client does."""

    def __init__(self, body: bytes, receive: Receive):
        self._body: bytes | None = body
        self.disconnected = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self.disconnected()
        return {"type": "http.request", "body": self.take(), "more_body": False}

    def take(self) -> bytes:
        """The body; it is given only once."""
        body, self._body = self._body, None
        return body or b""


class Bodies:
    """Reads the bodies of requests, and knows how many bytes of them are held.

    Args:
        most_bytes: How long one may be.
    """

    def __init__(self, most_bytes: int = MAX_BODY_BYTES):
        self._most_bytes = most_bytes
        self._most_held_bytes = max(_BODIES_HELD * min(most_bytes, MAX_BODY_BYTES), 4 * most_bytes)
        self._held_bytes = 0

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body; it counts as held until `release` is called.

        Raises:
            RequestError: 413, if it is too long; 503, if too much is held already.
            ClientGone: If the client hung up while it was sending.
        """
        declared = header(scope, b"content-length")
        self._check(sys.maxsize if len(declared) > _MOST_DIGITS else whole_number(declared) or 0)
        pieces: list[bytes] = []
        size, more = 0, True
        try:
            while more:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise ClientGone
                pieces.append(event.get("body", b""))
                size += len(pieces[-1])
                self._held_bytes += len(pieces[-1])
                self._check(size)
                more = event.get("more_body", False)
        except BaseException:
            self._held_bytes -= size
            raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def release(self, body: bytes) -> None:
        """The request with this body is over."""
        self._held_bytes -= len(body)

    def _check(self, size_bytes: int) -> None:
        if size_bytes > self._most_bytes:
            raise RequestError(
                413,
                f"The request body is over {self._most_bytes:,} bytes; send a shorter one, or "
                "serve with another AGENTLAB_MAX_BODY_BYTES.",
                code="request_too_large",
            )
        if self._held_bytes > self._most_held_bytes:
            raise RequestError(
                503,
                f"The requests in flight hold {self._held_bytes:,} bytes already; try again later.",
                kind="server_error",
                code="overloaded",
                retry_after_s=1.0,
            )


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole request body, be it one that was read, and found short enough, already.

    Raises:
        RequestError: 413, if it is over `MAX_BODY_BYTES`.
        ClientGone: If the client hung up while it was sending.
    """
    return receive.take() if isinstance(receive, Again) else await Bodies().read(scope, receive)


class Around:
    """A model in front of `model`: it acts on questions, and passes everything else on."""

    def __init__(self, model: Model):
        self._model = model

    @property
    def time_scale(self) -> float:
        return self._model.time_scale

    @property
    def paid(self) -> bool:
        return self._model.paid

    def now_s(self) -> float:
        return self._model.now_s()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        if scope["method"] == "POST":
            body = await read_body(scope, receive)
            await self.question(body, scope, Again(body, receive), send, span)
        else:
            await self._model(scope, receive, send, span)

    async def question(
        self, body: bytes, scope: Scope, receive: Again, send: Send, span: Span
    ) -> None:
        """Answer a question, whose `body` `receive` gives once more."""
        raise NotImplementedError


def refuse_without_key(scope: Scope, lab_key: str) -> None:
    """Let nobody spend the owner's money who does not show the lab's own key.

    Raises:
        RequestError: 401, if the request does not.
    """
    shown = header(scope, b"authorization").removeprefix("Bearer ")
    if not hmac.compare_digest(shown.encode(), lab_key.encode()):
        raise RequestError(
            401,
            "This endpoint spends its owner's money and wants the lab's own key; "
            "take it from lab.api_key(), or from what `agentlab serve` printed.",
            code="invalid_api_key",
        )


def refuse_strangers(scope: Scope) -> None:
    """Let no page of another origin use the endpoint, not even by a name that points here.

    Raises:
        RequestError: 403, if the Host or the Origin header is not loopback's.
    """
    for name in (b"host", b"origin"):
        value = header(scope, name)
        if value and hostname(value) not in _LOOPBACK:
            what = name.decode().title()
            raise RequestError(
                403, f"{what} {value!r} is not this machine; use http://127.0.0.1.", code="foreign"
            )


@lru_cache(maxsize=256)
def hostname(value: str) -> str:
    """The host that a Host or an Origin header names; empty if it names none.

    Example:
        >>> hostname("localhost:8000"), hostname("http://[::1]:80"), hostname("127.0.0.1#.evil")
        ('localhost', '::1', '')
    """
    host = re.sub(r"^https?://", "", value)
    if not _HOST.fullmatch(host):
        return ""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # no address at all
        return ""


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, the answering of a request, but cancel it as soon as the client hangs up.

    Raises:
        ClientGone: If it did.
    """
    task = asyncio.current_task()
    assert task is not None
    watching = True

    def hang_up(gone: asyncio.Task[None]) -> None:
        if watching and not gone.cancelled():
            task.cancel()

    gone = asyncio.ensure_future(_hang_up(receive))
    gone.add_done_callback(hang_up)
    try:
        await work
    except asyncio.CancelledError:
        if not gone.done() or gone.cancelled():
            raise  # somebody else wants this task to end
        task.uncancel()
        raise ClientGone from None
    finally:
        watching = False
        gone.cancel()


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def start(send: Send, status: int, content_type: bytes, headers: Headers = ()) -> None:
    """Send an answer's status and headers."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", content_type), *headers],
        }
    )


async def respond(send: Send, status: int, body: Any, headers: Headers = ()) -> None:
    """Send a whole answer, as JSON."""
    data = msgspec.json.encode(body)
    length = (b"content-length", str(len(data)).encode())
    await start(send, status, b"application/json", [length, *headers])
    await send({"type": "http.response.body", "body": data})
