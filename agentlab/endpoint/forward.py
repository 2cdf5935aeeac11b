"""The endpoint in front of a real model: questions are passed on, and recorded as they pass.

The upstream's key is known to this process only, and never sent anywhere else. Because whoever asks
here spends its owner's money, only what a question needs goes up (routes, headers), and only what a
client needs comes back.
"""

from __future__ import annotations

import asyncio
import io
import re
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
import httpx
import msgspec
from yarl import URL

from agentlab.endpoint.app import unknown_route
from agentlab.endpoint.events import Events, counts_in
from agentlab.endpoint.http import (
    BrokenOff,
    Headers,
    Receive,
    Scope,
    Send,
    read_body,
    start,
    unless_gone,
)
from agentlab.endpoint.secret import Secret
from agentlab.endpoint.times import TIMES, in_headers, take_over
from agentlab.endpoint.wire import LeftOut, RequestError
from agentlab.errors import ConfigError
from agentlab.settings import checked_address
from agentlab.trace import Span

LEFT_OUT = b"x-lab-left-out"
"""The header of an answer that names what was left out of its question."""

_METHODS = {
    "/v1/chat/completions": "POST",
    "/v1/responses": "POST",
    "/v1/embeddings": "POST",
    "/v1/models": "GET",
}
_ONE_MODEL = re.compile(r"/v1/models/\w[\w.:@-]{0,199}", re.ASCII)
_QUERY = re.compile(rb"(api-version=[\w.-]{1,40})?", re.ASCII)  # Azure's
_UP = re.compile(rb"accept|content-type|user-agent|openai-beta|x-stainless-[a-z-]+")
_DOWN = re.compile(
    rb"retry-after(-ms)?|x-should-retry|x-ratelimit-[a-z-]+|(x-)?request-id"
    rb"|openai-(processing-ms|version|model)"
)
_VALUE = re.compile(rb"[\t -~\x80-\xff]{1,1000}")
_SHORTEST_KEY, _SHORTEST_REAL_KEY = 4, 12
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
        time_scale: That of another lab's endpoint, as its clock says it: then times are
            its model seconds, a finished call's are those that it noted itself, and it is told
            the agents' names. None for a real model.
        paid: False if the answers of that other lab cost nothing.
        account: Headers that choose the account's organization or project, sent with each request.
        leave_out: Parameters that no request is to have, of `settings.MayBeLeftOut`. What the model
            refuses is left out, too, from then on.

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
        self._key = key
        self._account = account or {}
        self.paid = paid
        self._lab = time_scale is not None
        # Another lab's key is a learner's name, which is no secret, or that lab's own key.
        known = self._lab and not (key or "").startswith(("lab-", "sk-"))
        self._secret = None if known or key is None or len(key) < _SHORTEST_KEY else Secret(key)
        self._proxy = _proxy(self._upstream)
        self._left_out = LeftOut(leave_out)
        self.time_scale = 1.0 if time_scale is None else time_scale
        self._epoch = time.monotonic()
        self._opened: dict[asyncio.AbstractEventLoop, tuple[_Sessions, Any]] = {}

    def now_s(self) -> float:
        """Seconds since the start; a real model's second is a second."""
        return round((time.monotonic() - self._epoch) * self.time_scale, 9)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        _check_route(scope)
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
                    raise self._unreachable(f"status {response.status}", reached=True)
                if _is_stream(response, body):
                    asking.again(response.status, b"")
                    await self._stream(response, asking.left_out, send, span)
                    return
                answer = self._hide(await response.read(), response.status)
            except (aiohttp.ClientError, TimeoutError):
                raise BrokenOff from None  # the client sees what happened, nothing that looks whole
            finally:
                response.close()  # one that was read to its end has given its connection back
            if not asking.again(response.status, answer):
                break
        self._note(span, response)
        counts = counts_in(answer)
        span.prompt_tokens, span.completion_tokens = counts.prompt_tokens, counts.completion_tokens
        headers = [
            (b"content-length", b"%d" % len(answer)),
            *self._passed_back(response, asking.left_out),
        ]
        await start(send, response.status, self._content_type(response), headers)
        await send({"type": "http.response.body", "body": answer})

    async def _stream(
        self, response: aiohttp.ClientResponse, left_out: list[str], send: Send, span: Span
    ) -> None:
        headers = self._passed_back(response, left_out)
        await start(send, response.status, self._content_type(response), headers)
        secret = self._hidden(response.status)
        hiding = secret.stream() if secret else None
        events = Events()
        try:
            async for piece in response.content.iter_any():
                events.feed(piece)
                if events.begun and span.first_token_s is None:
                    span.first_token_s = self.now_s()
                if events.ended and span.status is None:
                    self._note_stream(span, response, events)
                if shown := hiding.feed(piece) if hiding else piece:
                    await send({"type": "http.response.body", "body": shown, "more_body": True})
        except (aiohttp.ClientError, TimeoutError):
            if not events.ended:
                raise
        self._note_stream(span, response, events)
        await send({"type": "http.response.body", "body": hiding.end() if hiding else b""})

    def _note(self, span: Span, response: aiohttp.ClientResponse) -> None:
        """Note the end, before the client can have it, and what another lab says of it."""
        if span.end_s is None:
            span.end_s = self.now_s()
        span.status = response.status
        if self._lab:
            take_over(span, in_headers(response.headers))

    def _note_stream(self, span: Span, response: aiohttp.ClientResponse, events: Events) -> None:
        self._note(span, response)
        if self._lab:
            take_over(span, events.times)
        counts = events.counts
        span.prompt_tokens, span.completion_tokens = counts.prompt_tokens, counts.completion_tokens

    def _hidden(self, status: int) -> Secret | None:
        """What may not be shown of an answer: some endpoints repeat the key that they refuse.

        A word such as "EMPTY", which stands for a key where none is needed, may well be in a good
        answer.
        """
        real = status >= 400 or len(self._key or "") >= _SHORTEST_REAL_KEY
        return self._secret if real else None

    def _hide(self, text: bytes, status: int) -> bytes:
        secret = self._hidden(status)
        return secret.hide(text) if secret else text

    def _content_type(self, response: aiohttp.ClientResponse) -> bytes:
        kind = response.headers.get("content-type", "application/json")
        return self._hide(kind.encode(errors="replace"), response.status)

    def _passed_back(self, response: aiohttp.ClientResponse, left_out: list[str]) -> Headers:
        headers = [
            (low, self._hide(value, response.status))
            for name, value in response.raw_headers
            if _DOWN.fullmatch(low := name.lower()) or (self._lab and low == LEFT_OUT)
        ]
        if left_out:
            headers.append((LEFT_OUT, ", ".join(left_out).encode()))
        return headers

    async def _ask(self, scope: Scope, body: bytes) -> aiohttp.ClientResponse:
        """The beginning of the upstream's answer.

        Raises:
            RequestError: 502, if there is none.
        """
        sessions = await self._sessions()
        asked_s = time.monotonic()
        try:
            _reused.set(False)
            return await self._request(sessions.pooled, scope, body)
        except _CLOSED as error:
            # A server may close a connection that waits for its next request at any time; it has
            # not read this one then. In front of a lab, whose resets are meant, none is repeated.
            begun = not isinstance(getattr(error, "message", ""), str)  # then it is what had come
            late = time.monotonic() - asked_s > _STALE_S
            if self._lab or begun or late or not _reused.get():
                raise self._failed(error) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._failed(error) from None
        try:
            return await self._request(sessions.fresh, scope, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._failed(error) from None

    async def _request(
        self, session: aiohttp.ClientSession, scope: Scope, body: bytes
    ) -> aiohttp.ClientResponse:
        return await session.request(
            scope["method"],
            self._url(scope),
            data=io.BytesIO(body) if len(body) > _MOST_BYTES_AT_ONCE else body or None,
            headers=self._headers(scope),
            proxy=self._proxy,
            allow_redirects=False,
        )

    def _url(self, scope: Scope) -> URL:
        path = scope["raw_path"].decode("ascii").removeprefix("/v1")
        query = scope["query_string"].decode("ascii")
        return URL(f"{self._upstream}{path}{'?' + query if query else ''}", encoded=True)

    def _headers(self, scope: Scope) -> dict[str, str]:
        kept = {
            str(name, "latin-1"): str(value, "utf-8", "replace")
            for name, value in scope["headers"]
            if (_UP.fullmatch(name) or (self._lab and name == b"x-agent"))
            and _VALUE.fullmatch(value)
        }
        kept["accept-encoding"] = "identity"  # so that what passes can be read
        if self._lab:
            kept[TIMES.decode()] = "1"
        if self._key is not None:
            kept["authorization"] = f"Bearer {self._key}"
        return {**kept, **self._account}

    async def _sessions(self) -> _Sessions:
        """This event loop's: the connections of another one would be dead."""
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
            secure = httpx.create_ssl_context()  # its bundle of certificates is there everywhere
        async with (
            _session(_Connector(limit=0, keepalive_timeout=60, ssl=secure)) as pooled,
            _session(aiohttp.TCPConnector(limit=0, ssl=secure, force_close=True)) as fresh,
        ):
            try:
                yield _Sessions(pooled, fresh)
            finally:
                del self._opened[loop]

    def _failed(self, error: Exception) -> RequestError:
        reached = isinstance(error, _CLOSED) and not isinstance(error, aiohttp.ClientConnectorError)
        return self._unreachable(type(error).__name__, reached=reached)

    def _unreachable(self, why: str, *, reached: bool) -> RequestError:
        what, cure = (
            ("No whole answer came from", "ask again.")
            if reached
            else ("Cannot reach", "check OPENAI_BASE_URL and the network.")
        )
        return RequestError(
            502,
            f"{what} the model at {self._upstream} ({why}); {cure}",
            kind="server_error",
            code="upstream_unreachable",
        )


class _Sessions(NamedTuple):
    pooled: aiohttp.ClientSession
    fresh: aiohttp.ClientSession  # a new connection for each request


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


def _is_stream(response: aiohttp.ClientResponse, asked: bytes) -> bool:
    """True for an answer whose pieces are to be passed on as they come."""
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


def _check_route(scope: Scope) -> None:
    """Let nothing but questions and the list of models through, by the path's very bytes.

    Raises:
        RequestError: 404 or 405.
    """
    path, method = scope["raw_path"].decode("latin-1"), scope["method"]
    allowed = "GET" if _ONE_MODEL.fullmatch(path) else _METHODS.get(path)
    if allowed is None or not _QUERY.fullmatch(scope["query_string"]):
        raise unknown_route(scope, list(_METHODS))
    if method != allowed:
        message = f"Not allowed to {method} on {path}; use {allowed}."
        raise RequestError(405, message, code="method_not_allowed")


def _proxy(upstream: str) -> URL | None:
    """The proxy that the environment, or the system, sets for this address."""
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
