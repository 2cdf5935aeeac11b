"""How bytes reach the endpoint in real time: aiohttp, one session for each event loop.

httpx would do, but its connection pool looks at every connection for every request, so that N
requests at the same time cost N² (https://github.com/encode/httpcore/issues/928), and a task that
is cancelled twice leaves its connection open, so that the model goes on answering, and counting.
aiohttp's pool costs the same for each request, and closes immediately.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

import aiohttp
import httpx
from yarl import URL

from agentlab.errors import EndpointError
from agentlab.lab.connection import Answer

_Opened = tuple[aiohttp.ClientSession, AsyncGenerator[aiohttp.ClientSession]]

# A session belongs to one event loop: its connections, reused in another one, are dead.
_sessions: dict[asyncio.AbstractEventLoop, _Opened] = {}


async def session() -> aiohttp.ClientSession:
    """Return this event loop's session, with as many connections as there are requests."""
    loop = asyncio.get_running_loop()
    if loop not in _sessions:
        opened = _open()
        _sessions[loop] = (await anext(opened), opened)
    return _sessions[loop][0]


async def _open() -> AsyncGenerator[aiohttp.ClientSession]:
    # asyncio.run ends a loop's unfinished generators before it closes the loop: that is when
    # this session is closed, and forgotten.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(),
    ) as opened:
        try:
            yield opened
        finally:
            _sessions.pop(asyncio.get_running_loop(), None)


async def post(
    url: str, body: bytes, headers: Mapping[str, str], *, read_timeout_s: float | None = None
) -> Answer:
    """Send one POST in real time, and read the whole answer."""
    try:
        async with (await session()).post(
            URL(url, encoded=True),
            data=body,
            headers=headers,
            allow_redirects=False,  # wherever it leads, the endpoint would not see it
            timeout=aiohttp.ClientTimeout(sock_read=read_timeout_s),
        ) as response:
            return Answer(response.status, response.headers, await response.read())
    except TimeoutError:
        raise
    except aiohttp.ClientError as error:
        raise EndpointError(f"the endpoint broke off ({type(error).__name__}: {error})") from error


class AioTransport(httpx.AsyncBaseTransport):
    """Send the requests of clients that insist on httpx, such as openai's, over the session."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        limits_s = request.extensions.get("timeout", {})
        body = await request.aread()
        try:
            response = await (await session()).request(
                request.method,
                URL(str(request.url), encoded=True),
                data=body or None,
                headers=request.headers.multi_items(),
                allow_redirects=False,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(
                    sock_connect=limits_s.get("connect"), sock_read=limits_s.get("read")
                ),
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _as_httpx(error, request) from error
        return httpx.Response(
            response.status, headers=response.raw_headers, stream=_Body(response, request)
        )


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse, request: httpx.Request):
        self._response, self._request = response, request

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _as_httpx(error, self._request) from error

    async def aclose(self) -> None:
        self._response.close()  # one that was read to its end has given its connection back


_AS_HTTPX = {  # the first that fits
    aiohttp.ConnectionTimeoutError: httpx.ConnectTimeout,
    TimeoutError: httpx.ReadTimeout,
    aiohttp.ClientConnectorError: httpx.ConnectError,
    aiohttp.ClientOSError: httpx.ReadError,
    Exception: httpx.RemoteProtocolError,
}


def _as_httpx(error: Exception, request: httpx.Request) -> httpx.TransportError:
    kind = next(named for ours, named in _AS_HTTPX.items() if isinstance(error, ours))
    return kind(f"{type(error).__name__}: {error}", request=request)
