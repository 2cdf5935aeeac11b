"""The endpoint in front of a real model: questions are passed on, and recorded as they pass.

The upstream's key is known to this process only, and never sent anywhere else. Because every
request spends the owner's money, only what a question needs goes up (routes, headers), and only
what a client needs comes back.
"""

from __future__ import annotations

import asyncio
import io
import re
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
import msgspec
from yarl import URL

from agentlab._support.upstream import checked_address
from agentlab.endpoint.contract.asgi import (
    BrokenOff,
    Receive,
    Scope,
    Send,
    finish,
    read_body,
    start,
    unknown_route,
    unless_gone,
    wrong_method,
)
from agentlab.endpoint.contract.events import Counts, Events, counts_in
from agentlab.endpoint.contract.openai_json import LeftOut, RequestError
from agentlab.endpoint.contract.record import Span
from agentlab.endpoint.middleware.server_timing import TIMES, read_times, take_over
from agentlab.errors import ConfigError

LEFT_OUT = b"x-lab-left-out"
"""The header of an answer that names what was left out of its question."""

# What passes: routes, by the path's very bytes; headers up and down, with those of another lab.
_METHODS = {
    "/v1/chat/completions": "POST",
    "/v1/responses": "POST",
    "/v1/embeddings": "POST",
    "/v1/models": "GET",
}
_ONE_MODEL = re.compile(r"/v1/models/\w[\w.:@-]{0,199}", re.ASCII)
_QUERY = re.compile(rb"(api-version=[\w.-]{1,40})?", re.ASCII)  # Azure's
_UP = rb"accept|content-type|user-agent|openai-beta|x-stainless-[a-z-]+"
_DOWN = (
    rb"retry-after(-ms)?|x-should-retry|x-ratelimit-[a-z-]+|(x-)?request-id"
    rb"|openai-(processing-ms|version|model)"
)
_UP_TO_LAB, _DOWN_FROM_LAB = _UP + rb"|x-agent", _DOWN + b"|" + LEFT_OUT
_VALUE = re.compile(rb"[\t -~\x80-\xff]{1,1000}")

_SHORTEST_KEY, _SHORTEST_REAL_KEY = 4, 12
_SHORTEST_IN_BASE64_BYTES = 12
_LONGEST_LINE_BYTES = 2**16
"""A stream's line is kept until its end, so that no key is cut in two; of a longer one, its end."""
_MOST_BYTES_AT_ONCE = 2**20  # of what is longer, aiohttp warns that sending it blocks the loop
_STALE_S = 1.0
"""A connection that the server had closed is found out within a round trip."""

_CLOSED = (
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientOSError,
    aiohttp.ClientConnectionResetError,
)

_reused: ContextVar[bool] = ContextVar("_reused")


class _Asked(msgspec.Struct):
    stream: Any = None


class Forward:
    """Let the model at `upstream` (an address ending in `/v1`) answer.

    A plain answer is read whole before it is passed on, so that its end is never noted later than
    the client has it; a stream is passed on piece by piece.

    Args:
        key: The upstream's key, or None where it wants none.
        time_scale: That of another lab's endpoint: then times are its model seconds, a finished
            call's are those that it noted itself, and it is told the agents' names. None for a
            real model.
        paid: False if the answers of that other lab cost nothing.
        account: Headers that choose the account's organization or project.
        leave_out: Parameters that no request is to have. What the model refuses is left out, too,
            from then on.

    Raises:
        ConfigError: If the address or the proxy cannot be used.
    """

    def __init__(
        self,
        upstream: str,
        *,
        key: str | None,
        time_scale: float | None = None,
        paid: bool = True,
        account: Mapping[str, str] | None = None,
        leave_out: Iterable[str] = (),
    ):
        self._upstream = checked_address(upstream)
        self._key, self._account, self.paid = key, account or {}, paid
        self._lab = lab = time_scale is not None
        # Another lab's key is a learner's name, which is no secret, or that lab's own key.
        known = lab and not (key or "").startswith(("lab-", "sk-"))
        self._secret = Secret(None if known or len(key or "") < _SHORTEST_KEY else key)
        self._up = re.compile(_UP_TO_LAB if lab else _UP)
        self._down = re.compile(_DOWN_FROM_LAB if lab else _DOWN)
        self._proxy = _proxy(self._upstream)
        self._left_out = LeftOut(leave_out)
        self.time_scale = 1.0 if time_scale is None else time_scale
        self._epoch = time.monotonic()
        self._opened: dict[asyncio.AbstractEventLoop, tuple[_Sessions, Any]] = {}

    def now_s(self) -> float:
        """Return the seconds since the start; a real model's second is a second."""
        return round((time.monotonic() - self._epoch) * self.time_scale, 9)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        path, method = scope["raw_path"].decode("latin-1"), scope["method"]
        allowed = "GET" if _ONE_MODEL.fullmatch(path) else _METHODS.get(path)
        if allowed is None or not _QUERY.fullmatch(scope["query_string"]):
            raise unknown_route(scope, _METHODS)
        if method != allowed:
            raise wrong_method(path, method, allowed)
        body = await read_body(scope, receive)
        span.arrived_s = span.started_s = self.now_s()
        try:
            await unless_gone(receive, self._pass_on(scope, body, send, span))
        finally:
            if span.end_s is None:
                span.end_s = self.now_s()

    async def _pass_on(self, scope: Scope, body: bytes, send: Send, span: Span) -> None:
        asking = self._left_out.asking(body)
        while True:
            response = await self._ask(scope, asking.body)
            try:
                if not 200 <= response.status <= 599:
                    raise self._failed(f"status {response.status}", reached=True)
                if _is_stream(response, body):
                    asking.again(response.status, b"")
                    await self._stream(response, asking.left_out, send, span)
                    return
                answer = self._hidden(response).hide(await response.read())
            except (aiohttp.ClientError, TimeoutError):
                raise BrokenOff from None  # the client sees what happened, nothing that looks whole
            finally:
                response.close()  # one that was read to its end has given its connection back
            if not asking.again(response.status, answer):
                break
        span.end_s = self.now_s()
        self._note(span, response, counts_in(answer))
        length = (b"content-length", b"%d" % len(answer))
        await self._begin(send, response, asking.left_out, length)
        await finish(send, answer)

    async def _stream(
        self, response: aiohttp.ClientResponse, left_out: list[str], send: Send, span: Span
    ) -> None:
        await self._begin(send, response, left_out)
        hiding, events = HidingStream(self._hidden(response)), Events()
        try:
            async for piece in response.content.iter_any():
                events.feed(piece)
                if events.begun and span.first_token_s is None:
                    span.first_token_s = self.now_s()
                if events.ended and span.status is None:
                    self._note(span, response, events.counts, events)
                if shown := hiding.feed(piece):
                    await send({"type": "http.response.body", "body": shown, "more_body": True})
        except (aiohttp.ClientError, TimeoutError):
            if not events.ended:
                raise
        self._note(span, response, events.counts, events)
        await finish(send, hiding.end())

    def _note(
        self,
        span: Span,
        response: aiohttp.ClientResponse,
        counts: Counts,
        events: Events | None = None,
    ) -> None:
        """Note the end, before the client can have it, and what another lab says of it."""
        if span.end_s is None:
            span.end_s = self.now_s()
        span.status = response.status
        span.prompt_tokens, span.completion_tokens = counts.prompt_tokens, counts.completion_tokens
        if self._lab:
            told = response.headers.get(TIMES.decode(), "").encode(errors="replace")
            take_over(span, read_times(told))
            take_over(span, events.times if events else None)

    def _hidden(self, response: aiohttp.ClientResponse) -> Secret:
        """Return what may not be shown of an answer: some repeat the key that they refuse."""
        # A word such as "EMPTY", for a key where none is needed, may well be in a good answer.
        real = response.status >= 400 or len(self._key or "") >= _SHORTEST_REAL_KEY
        return self._secret if real else _NO_SECRET

    async def _begin(
        self,
        send: Send,
        response: aiohttp.ClientResponse,
        left_out: list[str],
        *first: tuple[bytes, bytes],
    ) -> None:
        """Send the answer's status, and those of its headers that may pass."""
        secret = self._hidden(response)
        headers = [
            *first,
            *(
                (name.lower(), secret.hide(value))
                for name, value in response.raw_headers
                if self._down.fullmatch(name.lower())
            ),
        ]
        if left_out:
            headers.append((LEFT_OUT, ", ".join(left_out).encode()))
        kind = response.headers.get("content-type", "application/json").encode(errors="replace")
        await start(send, response.status, secret.hide(kind), headers)

    async def _ask(self, scope: Scope, body: bytes) -> aiohttp.ClientResponse:
        """Return the beginning of the upstream's answer, or raise a 502."""
        pooled, fresh = await self._sessions()
        asked_s = time.monotonic()
        try:
            _reused.set(False)
            return await self._request(pooled, scope, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            # A server may close a connection that waits for its next request at any time; it has
            # not read this one then. In front of a lab, whose resets are meant, none is repeated.
            begun = not isinstance(getattr(error, "message", ""), str)  # then it is what had come
            late = time.monotonic() - asked_s > _STALE_S
            closed = isinstance(error, _CLOSED) and _reused.get()
            if self._lab or begun or late or not closed:
                raise self._failed(type(error).__name__, reached=_had_reached(error)) from None
        try:
            return await self._request(fresh, scope, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._failed(type(error).__name__, reached=_had_reached(error)) from None

    async def _request(
        self, session: aiohttp.ClientSession, scope: Scope, body: bytes
    ) -> aiohttp.ClientResponse:
        path = scope["raw_path"].decode("ascii").removeprefix("/v1")
        query = scope["query_string"].decode("ascii")
        headers = {
            str(name, "latin-1"): str(value, "utf-8", "replace")
            for name, value in scope["headers"]
            if self._up.fullmatch(name) and _VALUE.fullmatch(value)
        }
        headers["accept-encoding"] = "identity"  # so that what passes can be read
        if self._lab:
            headers[TIMES.decode()] = "1"
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        return await session.request(
            scope["method"],
            URL(f"{self._upstream}{path}{'?' + query if query else ''}", encoded=True),
            data=io.BytesIO(body) if len(body) > _MOST_BYTES_AT_ONCE else body or None,
            headers={**headers, **self._account},
            proxy=self._proxy,
            allow_redirects=False,
        )

    async def _sessions(self) -> _Sessions:
        """Return this event loop's: the connections of another one would be dead."""
        loop = asyncio.get_running_loop()
        if loop not in self._opened:
            opened = self._open(loop)
            self._opened[loop] = (await anext(opened), opened)
        return self._opened[loop][0]

    async def _open(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[_Sessions]:
        # asyncio.run ends a loop's unfinished generators before it closes the loop: that is when
        # the sessions are closed, and forgotten.
        secure: Any = True
        if self._upstream.startswith("https:"):
            import httpx

            secure = httpx.create_ssl_context()  # its bundle of certificates is there everywhere
        async with (
            _session(_Connector(limit=0, keepalive_timeout=60, ssl=secure)) as pooled,
            _session(aiohttp.TCPConnector(limit=0, ssl=secure, force_close=True)) as fresh,
        ):
            try:
                yield pooled, fresh
            finally:
                del self._opened[loop]

    def _failed(self, why: str, *, reached: bool) -> RequestError:
        what, cure = "Cannot reach", "check OPENAI_BASE_URL and the network."
        if reached:
            what, cure = "No whole answer came from", "ask again."
        message = f"{what} the model at {self._upstream} ({why}); {cure}"
        return RequestError(502, message, kind="server_error", code="upstream_unreachable")


_Sessions = tuple[aiohttp.ClientSession, aiohttp.ClientSession]
"""One that keeps connections, and one with a new connection for each request."""


class _Connector(aiohttp.TCPConnector):
    """Says in `_reused` whether the connection that a request was given had served another."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._served: WeakSet[Any] = WeakSet()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> Any:
        connection = await super().connect(req, traces, timeout)
        _reused.set(connection.protocol in self._served)
        self._served.add(connection.protocol)
        return connection


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600),
        skip_auto_headers=("user-agent", "accept", "content-type"),
    )


def _had_reached(error: Exception) -> bool:
    return isinstance(error, _CLOSED) and not isinstance(error, aiohttp.ClientConnectorError)


def _is_stream(response: aiohttp.ClientResponse, asked: bytes) -> bool:
    """Return True for an answer whose pieces are to be passed on as they come."""
    if response.status >= 400:
        return False
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        return True
    if "content-length" in response.headers:
        return False
    try:  # a server may call its stream by another name
        return msgspec.json.decode(asked, type=_Asked).stream is True
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _proxy(upstream: str) -> URL | None:
    """Return the proxy that the environment, or the system, sets for this address."""
    url, known = URL(upstream), getproxies()
    found = None if proxy_bypass(url.host or "") else known.get(url.scheme) or known.get("all")
    if found is None:
        return None
    try:
        proxy = URL(found if "://" in found else f"http://{found}")
    except ValueError:  # which may hold a password
        raise ConfigError("the proxy is no address; correct HTTPS_PROXY, or unset it") from None
    if proxy.scheme not in ("http", "https"):
        raise ConfigError(
            f"cannot use a {proxy.scheme} proxy to reach {upstream}; "
            "set HTTPS_PROXY to an HTTP proxy, or NO_PROXY to the host"
        )
    return proxy


class Secret:
    """Replaces a key by `...`, as it is, escaped character by character, or in base64.

    The escapes are those that URLs, JSON (in JSON) and HTML know. A key of None hides nothing.

    Example:
        >>> secret = Secret("sk-0123456789")
        >>> secret.hide(b'{"error": "not sk-0123456789, nor \\\\u0073k%2D0123456789"}')
        b'{"error": "not ..., nor ..."}'
    """

    def __init__(self, key: str | None):
        data = (key or "").encode()
        whole = [data, *_in_base64(data)] if data else []
        self._forms = re.compile(b"|".join([b"".join(map(_escaped, data)), *map(re.escape, whole)]))
        self._marks = [b"\\", b"%", b"&#", *whole] if data else []
        self.longest_bytes = 12 * len(data)

    def hide(self, text: bytes) -> bytes:
        """Return the text without the key."""
        # Megabytes of figures, such as embeddings, are not worth a regular expression.
        return self._forms.sub(b"...", text) if any(m in text for m in self._marks) else text


class HidingStream:
    """Hides a key that may be cut in two by the pieces in which a text comes.

    A line is passed on when it has ended; before that no client of a stream of events can use it.
    """

    def __init__(self, secret: Secret):
        self._secret = secret
        self._kept = b""

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece; return what may be passed on by now."""
        if not self._secret.longest_bytes:
            return piece
        text = self._kept + piece
        end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        if not end and len(text) > _LONGEST_LINE_BYTES:
            text = self._secret.hide(text)
            end = len(text) - self._secret.longest_bytes
        self._kept = text[end:]
        return self._secret.hide(text[:end])

    def end(self) -> bytes:
        """Return what is left when no more pieces come."""
        return self._secret.hide(self._kept)


def _escaped(code: int) -> bytes:
    r"""Match one character: `s`, `%73`, `%2573`, `\u0073`, `\\u0073`, `\x73`, `&#115;`, `&#x73;`.

    Repetitions are bounded, so that no text takes long to read.
    """
    return (
        rb"(?:\\{0,4}%b|(?i:%%(?:25){0,3}%02x|\\{1,4}(?:u00|x)%02x|&#0{0,4}%d;|&#x0{0,4}%x;))"
    ) % (re.escape(bytes([code])), code, code, code, code)


def _in_base64(data: bytes) -> set[bytes]:
    """Return what every base64 text with `data` in it has in common, at each of three offsets."""
    found = set()
    for shift in range(3 if len(data) >= _SHORTEST_IN_BASE64_BYTES else 0):
        for encode in (b64encode, urlsafe_b64encode):
            whole = encode(b"\0" * shift + data)
            # The first and the last characters also depend on what stands around.
            found.add(whole[(0, 2, 3)[shift] : len(data + b"\0" * shift) // 3 * 4])
    return found


_NO_SECRET = Secret(None)
