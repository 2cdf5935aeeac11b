"""HTTP by aiohttp, as a transport of httpx's.

In httpx's own pool N requests at the same time cost N²
(https://github.com/encode/httpcore/issues/928), and a task that is cancelled twice leaves its
connection open, so that the model goes on answering.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import httpx
from yarl import URL

# A session belongs to one event loop: its connections, reused in another one, are dead.
_sessions: dict[asyncio.AbstractEventLoop, tuple[aiohttp.ClientSession, AsyncGenerator[Any]]] = {}


async def session() -> aiohttp.ClientSession:
    """Return this event loop's session, with as many connections as there are requests."""
    loop = asyncio.get_running_loop()
    if loop not in _sessions:
        opened = _open()
        _sessions[loop] = (await anext(opened), opened)
    return _sessions[loop][0]


async def _open() -> AsyncGenerator[aiohttp.ClientSession]:
    # asyncio.run ends a loop's unfinished generators before it closes the loop, and so this one.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(),
    ) as opened:
        try:
            yield opened
        finally:
            _sessions.pop(asyncio.get_running_loop(), None)


async def over_http(request: httpx.Request) -> httpx.Response:
    limits = request.extensions.get("timeout", {})
    within = aiohttp.ClientTimeout(sock_connect=limits.get("connect"), sock_read=limits.get("read"))
    body, url = await request.aread() or None, URL(str(request.url), encoded=True)
    # Wherever a redirect leads, the endpoint would not see it.
    how: Any = {"allow_redirects": False, "auto_decompress": False, "timeout": within}
    how["headers"] = request.headers.multi_items()
    try:
        response = await (await session()).request(request.method, url, data=body, **how)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _as_httpx(error, request) from error
    stream = _Body(response, request)
    return httpx.Response(response.status, headers=response.raw_headers, stream=stream)


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
    TimeoutError: httpx.ReadTimeout,
    aiohttp.ClientConnectorError: httpx.ConnectError,
    aiohttp.ClientOSError: httpx.ReadError,
    Exception: httpx.RemoteProtocolError,
}


def _as_httpx(error: Exception, request: httpx.Request) -> httpx.TransportError:
    kind = next(named for ours, named in _AS_HTTPX.items() if isinstance(error, ours))
    return kind(f"{type(error).__name__}: {error}", request=request)
