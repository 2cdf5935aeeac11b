"""The endpoint in front of a real model: everything is passed on, and recorded as it passes.

The upstream's key is known to this process only, and never sent anywhere else.
"""

from __future__ import annotations

import re
import time

import httpx

from agentlab.endpoint.another import clock_of
from agentlab.endpoint.http import (
    Headers,
    Receive,
    Scope,
    Send,
    read_body,
    start,
    unless_gone,
)
from agentlab.endpoint.times import TIMES, in_headers, in_stream, take_over
from agentlab.endpoint.wire import RequestError
from agentlab.errors import EndpointError
from agentlab.trace import Span

_OWN_REQUEST_HEADERS = {
    b"accept-encoding", b"authorization", b"connection", b"content-length", b"host", b"origin",
    b"transfer-encoding", TIMES,
}  # fmt: skip
_OWN_RESPONSE_HEADERS = {
    b"connection", b"content-type", b"transfer-encoding", b"keep-alive", TIMES,
}  # fmt: skip
_LAST_EVENT = re.compile(rb"^(?:data: \[DONE\]|event: response\.(?:completed|incomplete))", re.M)
_PROMPT_TOKENS = re.compile(rb'"(?:prompt|input)_tokens":\s*(\d+)')
_COMPLETION_TOKENS = re.compile(rb'"(?:completion|output)_tokens":\s*(\d+)')


def time_scale_of(upstream: str) -> float | None:
    """Model seconds to a second at another lab's endpoint; None where a real model answers.

    What cannot be reached now is taken for a real model.
    """
    try:
        clock = clock_of(upstream)
    except EndpointError:
        return None
    return clock.time_scale if clock else None


class Forward:
    """Lets the model at `upstream` (an address ending in `/v1`) answer.

    Args:
        key: The upstream's key, or None where it wants none.
        time_scale: That of another lab's endpoint, as `time_scale_of` says it: then times are
            its model seconds, a finished call's are those that it noted itself, and it is told
            the agents' names. None for a real model.
        paid: False if the answers of that other lab cost nothing.
        transport: How to reach the upstream, if not over the network.
    """

    def __init__(
        self,
        upstream: str,
        *,
        key: str | None,
        time_scale: float | None = None,
        paid: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ):
        self._upstream = upstream.rstrip("/")
        self._key = key
        self.paid = paid
        self._lab = time_scale is not None
        self._kept_back = _OWN_REQUEST_HEADERS if self._lab else {*_OWN_REQUEST_HEADERS, b"x-agent"}
        self.time_scale = 1.0 if time_scale is None else time_scale
        self._epoch = time.monotonic()
        self._client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
            timeout=httpx.Timeout(600, connect=10),
            transport=transport,
        )

    def now_s(self) -> float:
        """Seconds since the start; a real model's second is a second."""
        return round((time.monotonic() - self._epoch) * self.time_scale, 9)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        request = self._client.build_request(
            scope["method"],
            self._url(scope),
            headers=self._headers(scope),
            content=await read_body(scope, receive),
        )
        span.arrived_s = span.started_s = self.now_s()
        try:
            await unless_gone(receive, self._pass_on(request, send, span))
        finally:
            if span.end_s is None:
                span.end_s = self.now_s()

    async def _pass_on(self, request: httpx.Request, send: Send, span: Span) -> None:
        try:
            response = await self._client.send(request, stream=True)
        except httpx.TransportError as error:  # later, the client must see the answer break off
            raise self._unreachable(error) from None
        tail = b""
        try:
            times = in_headers(response.headers)
            take_over(span, times)
            content_type = response.headers.get("content-type", "application/json").encode()
            await start(send, response.status_code, content_type, _passed_back(response))
            async for piece in response.aiter_raw():
                if times is None and span.first_token_s is None:
                    span.first_token_s = self.now_s()
                tail = (tail + piece)[-65536:]  # the token counts come last
                if _LAST_EVENT.search(tail[-4096:]):  # after it, many a client does not wait
                    _note(span, response, tail)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await response.aclose()
        _note(span, response, tail)

    def _url(self, scope: Scope) -> str:
        query = scope["query_string"].decode()
        path = scope["path"].removeprefix("/v1")
        return f"{self._upstream}{path}{'?' + query if query else ''}"

    def _headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        kept = [(name, value) for name, value in scope["headers"] if name not in self._kept_back]
        kept.append((b"accept-encoding", b"identity"))  # so that token counts can be read
        if self._lab:
            kept.append((TIMES, b"1"))
        if self._key is not None:
            kept.append((b"authorization", f"Bearer {self._key}".encode()))
        return kept

    def _unreachable(self, error: httpx.TransportError) -> RequestError:
        return RequestError(
            502,
            f"Cannot reach the model at {self._upstream} ({type(error).__name__}); "
            "check OPENAI_BASE_URL and the network.",
            kind="server_error",
            code="upstream_unreachable",
        )


def _note(span: Span, response: httpx.Response, tail: bytes) -> None:
    span.status = response.status_code
    take_over(span, in_stream(tail))
    span.prompt_tokens = _last_number(_PROMPT_TOKENS, tail)
    span.completion_tokens = _last_number(_COMPLETION_TOKENS, tail)


def _passed_back(response: httpx.Response) -> Headers:
    return [
        (name.lower(), value)
        for name, value in response.headers.raw
        if name.lower() not in _OWN_RESPONSE_HEADERS
    ]


def _last_number(pattern: re.Pattern[bytes], text: bytes) -> int:
    found = pattern.findall(text)
    return int(found[-1]) if found else 0
