"""What the routes need of ASGI: read a body, write an answer, notice a client that hangs up."""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from agentlab.endpoint.contract.openai_json import RequestError, refusal
from agentlab.endpoint.contract.record import Span

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]
Answering = Callable[[], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

MAX_BODY_BYTES = 2**20  # of a request to the local model, unless a setting says otherwise
RESET = "agentlab.reset"  # the scope's extension: a function that resets the connection

_BODIES_HELD = 64  # of MAX_BODY_BYTES, by all requests in flight together; or 4 longer ones
_MOST_DIGITS = 15
_BODY, _HEADERS = "agentlab.body", "agentlab.headers"  # the scope's, once read; those by name


class ClientGone(Exception):
    """The client hung up before it was answered."""


class BrokenOff(Exception):
    """The connection is to be reset, as a fault plan wants it."""


class Model(Protocol):
    """What answers the `/v1` routes: the local model, or a real one behind the endpoint.

    `time_scale` is model seconds per second of the event loop's clock, `now_s` model seconds since
    the start; answers that are `paid` cost money.
    """

    time_scale: float
    paid: bool

    def now_s(self) -> float: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        """Answer one request, noting it in `span`; a RequestError is raised with nothing sent."""


def header(scope: Scope, name: bytes) -> str:
    """Return the value of a request header (its name in lower case), or an empty string."""
    if _HEADERS not in scope:
        scope[_HEADERS] = dict(scope["headers"])
    value: bytes | None = scope[_HEADERS].get(name)
    return value.decode("latin-1") if value else ""


def whole_number(text: str) -> int | None:
    """Read a whole number from outside; return None for anything else, and for too many digits."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else None


class Bodies:
    """Reads the bodies of requests, and knows how many bytes of them are held."""

    def __init__(self, most_bytes: int = MAX_BODY_BYTES):
        self._most_bytes = most_bytes
        self._most_held_bytes = max(_BODIES_HELD * min(most_bytes, MAX_BODY_BYTES), 4 * most_bytes)
        self._held_bytes = 0

    async def read(self, scope: Scope, receive: Receive, then: Answering | None = None) -> None:
        """Read the whole body, for `read_body`; it counts as held until `then` is done."""
        declared = header(scope, b"content-length")
        self._check(int(declared[:_MOST_DIGITS]) if declared.isdecimal() else 0)
        pieces, size_bytes, more = [b""], 0, True
        try:
            while more:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise ClientGone
                pieces.append(piece := event.get("body", b""))
                size_bytes += len(piece)
                self._held_bytes += len(piece)
                self._check(size_bytes)
                more = event.get("more_body", False)
            scope[_BODY] = b"".join(pieces)
            if then is not None:
                await then()
        finally:
            self._held_bytes -= size_bytes

    def _check(self, size_bytes: int) -> None:
        if size_bytes > self._most_bytes:
            raise refusal("request_too_large", most_bytes=self._most_bytes)
        if self._held_bytes > self._most_held_bytes:
            raise refusal("too_many_bytes", held_bytes=self._held_bytes, retry_after_s=1.0)


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Return the whole request body; it is read, and checked, once."""
    if _BODY not in scope:
        await Bodies().read(scope, receive)
    body: bytes = scope[_BODY]
    return body


async def unless_gone(receive: Receive, work: Awaitable[object]) -> None:
    """Do `work`, the answering of a request; if the client hangs up, cancel it: ClientGone."""

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    gone.add_done_callback(lambda _: working.cancel())
    try:
        await working
    except asyncio.CancelledError:
        if not gone.done() or gone.cancelled():
            raise  # somebody else wants this task to end
        raise ClientGone from None
    finally:
        gone.cancel()


async def start(send: Send, status: int, content_type: bytes, headers: Headers = ()) -> None:
    """Send an answer's status and headers."""
    headers = [(b"content-type", content_type), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def finish(send: Send, body: bytes = b"") -> None:
    """Send the end of an answer's body."""
    await send({"type": "http.response.body", "body": body})


async def respond(
    send: Send, status: int, body: Any, headers: Headers = (), kind: bytes = b"application/json"
) -> None:
    """Send a whole answer: `body` as it is where it is bytes, else as JSON."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    await start(send, status, kind, [(b"content-length", b"%d" % len(data)), *headers])
    await finish(send, data)


def adding(send: Send, headers: Callable[[], Headers]) -> Send:
    """Return a `send` whose answers have these headers besides."""

    async def more(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = message | {"headers": [*message["headers"], *headers()]}
        await send(message)

    return more


def for_page(scope: Scope, origin: str, send: Send) -> Send:
    """Return a `send` whose answers a page of this origin may read; the door has let it in."""
    wanted = header(scope, b"access-control-request-headers")  # before it sends its request
    headers = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"*"),
        (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
        (b"access-control-allow-headers", wanted.encode("latin-1")),
        (b"vary", b"origin"),
    ]
    return adding(send, lambda: headers)


def way_out(error: RequestError, time_scale: float) -> Headers:
    """Return the headers that say which methods there are, or when to try again."""
    if error.allow:
        return [(b"allow", ", ".join(error.allow).encode())]
    if error.retry_after_s is None:
        return []
    # The client waits by its own clock; the milliseconds it takes without jitter.
    wait_s = error.retry_after_s / time_scale
    return [
        (b"retry-after-ms", b"%d" % math.ceil(wait_s * 1000)),
        (b"retry-after", b"%d" % math.ceil(wait_s)),
    ]


def routed(path: str, method: str, routes: Mapping[str, Collection[str]]) -> str:
    """Return the route of a path that takes this method, or raise 404 or 405 with what there is.

    A route is a pattern; one that ends in a slash takes a name behind it.
    """
    if method in routes.get(path, ()) and path[-1] != "/":  # as of nearly every request
        return path
    fits = (each for each in routes if re.fullmatch(each + ".*" * (each[-1] == "/"), path))
    if (route := next(fits, None)) is None or path[-1:] == "/":
        known = ", ".join(filter(re.compile(r"[\w/]+\w").fullmatch, routes))
        raise refusal("unknown_url", known=known, method=method, path=path)
    allowed = routes[route]
    allow = [*allowed, "HEAD"] if "GET" in allowed else allowed
    if method not in allow:
        either = " or ".join(allowed)
        raise refusal("method_not_allowed", method=method, path=path, allowed=either, allow=allow)
    return route
