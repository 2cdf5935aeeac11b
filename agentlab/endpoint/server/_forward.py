"""The endpoint in front of a real model: questions are passed on, and noted as they pass.

The upstream's key never leaves this process, but to the upstream, nor does what no question needs.
"""

import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp import ClientResponse
from yarl import URL

from agentlab._support import DATA
from agentlab._support.patterns import Patterns
from agentlab.endpoint.contract import asgi
from agentlab.endpoint.contract.asgi import BrokenOff, Receive, Scope, Send
from agentlab.endpoint.contract.openai_json import Events, RequestError, counts_in, refusal
from agentlab.endpoint.contract.record import Span
from agentlab.endpoint.contract.refused import Asking
from agentlab.endpoint.middleware.server_timing import TIMES, Clock, take_over
from agentlab.errors import ConfigError
from agentlab.settings import checked_address

_LEFT_OUT = b"x-lab-left-out"  # the header of an answer that names what its question lost
_RE = Patterns(DATA / "patterns" / "forwarded.yaml")
_QUESTIONS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings")
_ROUTES = {"/v1/models": ("GET",), **dict.fromkeys(_QUESTIONS, ("POST",))}

_FAILED = (aiohttp.ClientError, TimeoutError)
_SHORTEST_KEY = 12  # of a real key that does not begin as one
_KEPT_S = 4.0  # shorter than servers keep a connection: none is closed as a question goes out


class Forward:
    """Let the model at `upstream` (an address ending in `/v1`) answer.

    With `clock`, another lab answers: times are its model seconds, as it noted them itself, and it
    is told the agents' names. `account` holds headers that choose who pays; no request has a
    parameter of `leave_out`. An address or a proxy that cannot be used is a ConfigError.
    """

    def __init__(
        self,
        upstream: str,
        *,
        key: str | None,
        clock: Clock | None = None,
        account: Mapping[str, str] | None = None,
        leave_out: Iterable[str] = (),
    ):
        self._upstream = checked_address(upstream)
        self._key, self._account = key, account or {}
        self._lab = lab = clock is not None
        self.time_scale, self.paid = (clock.time_scale, clock.paid) if clock else (1.0, True)
        # Another lab's key may be a learner's name, and a real one "EMPTY" where none is needed:
        # words that may well be in a good answer.
        secret = key or ""
        if not secret.startswith(("sk-", "lab-")) and (lab or len(secret) < _SHORTEST_KEY):
            secret = ""
        self._hide = _hiding(secret)
        self._up, self._down = (_RE.lab_up, _RE.lab_down) if lab else (_RE.up, _RE.down)
        self._proxy = _proxy(self._upstream)
        self._leave_out, self._learned = [*leave_out], dict[str, set[str]]()
        self._epoch = time.monotonic()
        self._opened = _opened(self._upstream)
        self._session: aiohttp.ClientSession | None = None

    def now_s(self) -> float:
        return round((time.monotonic() - self._epoch) * self.time_scale, 9)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        path = scope["raw_path"].decode("latin-1")
        asgi.routed(path + "?" * bool(scope["query_string"]), scope["method"], _ROUTES)
        body = await asgi.read_body(scope, receive)
        span.arrived_s = span.started_s = self.now_s()
        await asgi.unless_gone(receive, self._pass_on(scope, body, send, span))

    async def _pass_on(self, scope: Scope, body: bytes, send: Send, span: Span) -> None:
        asking = Asking(body, self._leave_out, self._learned)
        while True:
            response = await self._ask(scope, asking.body)
            try:
                if not 200 <= response.status <= 599:
                    raise self._failed(f"status {response.status}")
                kind = response.headers.get("content-type", "")
                if response.status < 400 and kind.startswith("text/event-stream"):
                    asking.again(response.status, b"")
                    await self._stream(response, asking.left_out, send, span)
                    return
                answer = self._hide(await response.read())
            except _FAILED:
                raise BrokenOff from None  # the client sees what happened, nothing that looks whole
            finally:
                response.close()  # one that was read to its end has given its connection back
            if not asking.again(response.status, answer):
                break
        self._note(span, response, counts_in(answer))
        await self._begin(send, response, asking.left_out)
        await asgi.finish(send, answer)

    async def _stream(
        self, response: ClientResponse, left_out: list[str], send: Send, span: Span
    ) -> None:
        await self._begin(send, response, left_out)
        events, kept = Events(), b""
        try:
            async for piece in response.content.iter_any():
                events.feed(piece)
                if events.begun and span.first_token_s is None:
                    span.first_token_s = self.now_s()
                if events.ended and span.status is None:
                    self._note(span, response, events.counts, events.times)
                # Whole lines, so that no key is cut in two; no client can use half of one.
                lines, newline, kept = (kept + piece).rpartition(b"\n")
                if newline:
                    shown = self._hide(lines + newline)
                    await send({"type": "http.response.body", "body": shown, "more_body": True})
        except _FAILED:
            if not events.ended:
                raise
        self._note(span, response, events.counts, events.times)
        await asgi.finish(send, self._hide(kept))

    def _note(
        self, span: Span, response: ClientResponse, counts: list[int], told: bytes = b""
    ) -> None:
        """Note the end, before the client can have it, and what another lab says of it."""
        if span.end_s is None:
            span.end_s = self.now_s()
        span.status = response.status
        span.prompt_tokens, span.completion_tokens, span.cached_tokens = counts
        if self._lab:
            header = response.headers.get(TIMES.decode(), "").encode(errors="replace")
            take_over(span, told or header)

    async def _begin(self, send: Send, response: ClientResponse, left_out: list[str]) -> None:
        named = [(name.lower(), self._hide(value)) for name, value in response.raw_headers]
        headers = [each for each in named if self._down.fullmatch(str(each[0], "latin-1"))]
        if left_out:
            headers.append((_LEFT_OUT, ", ".join(left_out).encode()))
        kind = response.headers.get("content-type", "application/json").encode(errors="replace")
        await asgi.start(send, response.status, self._hide(kind), headers)

    async def _ask(self, scope: Scope, body: bytes) -> ClientResponse:
        path = scope["raw_path"].decode("ascii").removeprefix("/v1")
        named = [(str(name, "latin-1"), value) for name, value in scope["headers"]]
        headers = {n: str(v, "utf-8", "replace") for n, v in named if self._up.fullmatch(n)}
        headers["accept-encoding"] = "identity"  # so that what passes can be read
        if self._lab:
            headers[TIMES.decode()] = "1"
        headers |= self._account
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        if self._session is None:
            self._session = await anext(self._opened)
        url = URL(self._upstream + path, encoded=True)
        how: Any = {"headers": headers, "proxy": self._proxy, "allow_redirects": False}
        try:
            return await self._session.request(scope["method"], url, data=body or None, **how)
        except _FAILED as error:
            raise self._failed(type(error).__name__) from None

    def _failed(self, why: str) -> RequestError:
        return refusal("upstream_unreachable", upstream=self._upstream, why=why)


async def _opened(upstream: str) -> AsyncGenerator[aiohttp.ClientSession]:
    """Yield a session; it is closed when the event loop ends, as all its generators are."""
    import httpx

    # Its bundle of certificates is there everywhere.
    secure: Any = httpx.create_ssl_context() if upstream.startswith("https:") else True
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_S, ssl=secure),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600),
        skip_auto_headers=("user-agent", "accept", "content-type"),
    ) as session:
        yield session


def _proxy(upstream: str) -> URL | None:
    """Return the proxy that the environment, or the system, sets for this address."""
    url, known = URL(upstream), getproxies()
    found = known.get(url.scheme) or known.get("all")
    if found is None or proxy_bypass(url.host or ""):
        return None
    with suppress(ValueError):
        proxy = URL(found if "://" in found else f"http://{found}")
        if proxy.scheme in ("http", "https"):
            return proxy
    way = "set HTTPS_PROXY to an HTTP proxy, or NO_PROXY to the host"
    # Without the proxy's address, which may hold a password.
    raise ConfigError(f"cannot use the proxy for {upstream}; {way}")


def _hiding(key: str) -> Callable[[bytes], bytes]:
    """Return what replaces a key by `...`, as it is, or escaped as URLs, JSON and HTML do."""
    data = key.encode()
    # Each letter is `s`, `%73`, `\u0073`, `\\u0073`, `\x73`, `&#115;` or `&#x73;`; repetitions are
    # bounded, so that no text takes long to read.
    letter = rb"(?:\\{0,4}%b|(?i:%%(?:25){0,3}%02x|\\{1,4}(?:u00|x)%02x|&#0{0,4}%d;|&#x0{0,4}%x;))"
    letters = [letter % (re.escape(bytes([code])), code, code, code, code) for code in data]
    forms = re.compile(b"".join(letters))
    # Megabytes of figures, such as embeddings, are not worth a regular expression.
    marks = [b"\\", b"%", b"&#", data] if data else []
    return lambda text: forms.sub(b"...", text) if any(m in text for m in marks) else text


def account_from(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the headers that choose the account which pays, as OpenAI's client reads them."""
    account = {}
    for header, kind in (("organization", "ORG"), ("project", "PROJECT")):
        value = environ.get(f"OPENAI_{kind}_ID", "").strip()
        if not re.fullmatch(r"[!-~]{0,200}", value):
            raise ConfigError(f"OPENAI_{kind}_ID can be no {header}; set it again, or unset it")
        if value:
            account[f"openai-{header}"] = value
    return account
