"""The few lines of HTTP that the endpoint needs on top of ASGI: read a body, write an answer."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from agentlab.endpoint.wire import RequestError
from agentlab.trace import Span

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

MAX_BODY_BYTES = 32 * 1024 * 1024

RESET = "agentlab.reset"
"""The name of the scope's extension, a function without arguments, that resets the connection."""

_HEADERS = "agentlab.headers"  # the scope's headers by name, kept there for the next question
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


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole request body.

    Raises:
        RequestError: 413, if it is over `MAX_BODY_BYTES`.
        ClientGone: If the client hung up while it was sending.
    """
    declared = header(scope, b"content-length")
    pieces: list[bytes] = []
    size = int(declared) if declared.isdigit() else 0
    _check_size(size)
    more = True
    size = 0
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(event.get("body", b""))
        size += len(pieces[-1])
        _check_size(size)
        more = event.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_BODY_BYTES:
        raise RequestError(
            413, f"The request body is over {MAX_BODY_BYTES // 2**20} MiB; send a shorter one."
        )


class Again:
    """A `receive` that gives a body that was read already, and then what the client does."""

    def __init__(self, body: bytes, receive: Receive):
        self._body: bytes | None = body
        self.disconnected = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self.disconnected()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


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
        if value and _hostname(value) not in _LOOPBACK:
            what = name.decode().title()
            raise RequestError(
                403, f"{what} {value!r} is not this machine; use http://127.0.0.1.", code="foreign"
            )


@lru_cache(maxsize=256)
def _hostname(value: str) -> str | None:
    try:
        return urlsplit(value if "//" in value else f"//{value}").hostname
    except ValueError:  # no address at all
        return None


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
