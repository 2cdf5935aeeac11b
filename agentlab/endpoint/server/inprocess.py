"""An ASGI application without a socket: an httpx transport that runs it in the caller's own loop.

Unlike httpx's own it streams, keeps the client's read timeout, and says when the client hangs up.
"""

import asyncio
from collections.abc import AsyncIterator

import httpx

from agentlab.endpoint.contract.asgi import RESET, Application, Message


class InProcessTransport(httpx.AsyncBaseTransport):
    """Lets `app` answer, in the event loop that asks; an error of its own comes out as it is."""

    def __init__(self, app: Application):
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(self._app, request, await request.aread())
        try:
            start = await exchange.next_event()
        except BaseException:
            await exchange.aclose()
            raise
        return httpx.Response(start["status"], headers=start["headers"], stream=exchange)


class _Exchange(httpx.AsyncByteStream):
    """One request on its way through the application; also the body of its answer."""

    def __init__(self, app: Application, request: httpx.Request, body: bytes):
        self._request = request
        self._unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._sent: asyncio.Queue[Message | None] = asyncio.Queue()
        self._gone, self._reset = asyncio.Event(), asyncio.Event()
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "raw_path": request.url.raw_path.partition(b"?")[0],
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": ("127.0.0.1", 0),
            "extensions": {RESET: self._reset.set},
        }
        self._answering = asyncio.ensure_future(app(scope, self._receive, self._sent.put))
        # None after the last event: the application has ended, well or not.
        self._answering.add_done_callback(lambda _: self._sent.put_nowait(None))

    async def _receive(self) -> Message:
        if self._unread:
            return self._unread.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def next_event(self) -> Message:
        patience_s = self._request.extensions.get("timeout", {}).get("read")
        try:
            async with asyncio.timeout(patience_s):
                event = await self._sent.get()
        except TimeoutError:
            message = f"nothing was received for {patience_s:g} s"
            raise httpx.ReadTimeout(message, request=self._request) from None
        if event is not None:
            return event
        if self._reset.is_set():
            raise httpx.ReadError("connection reset by the endpoint", request=self._request)
        if not self._answering.cancelled() and (error := self._answering.exception()):
            raise error
        raise httpx.RemoteProtocolError("the answer broke off", request=self._request)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            event = await self.next_event()
            if event["type"] == "http.response.body":
                more = event.get("more_body", False)
                yield b"" if self._request.method == "HEAD" else event.get("body", b"")

    async def aclose(self) -> None:
        """Hang up, and wait until the application has noticed, or make it."""
        self._gone.set()
        if not self._answering.done():
            await asyncio.wait([self._answering], timeout=1)
        self._answering.cancel()
        await asyncio.gather(self._answering, return_exceptions=True)
