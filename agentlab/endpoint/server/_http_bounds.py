"""HTTP as uvicorn reads it, with bounds on the bytes around a body and on the time to arrive.

What is refused here never comes to the application; the answer has OpenAI's shape all the same.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from contextlib import suppress
from traceback import extract_tb

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from agentlab.endpoint.contract.asgi import RESET, Application, Receive, Scope, Send, respond
from agentlab.endpoint.contract.openai_json import RequestError

MOST_HEAD_BYTES = 65_536  # of a request's head, and of what frames its body: chunk sizes, trailers
MOST_ARRIVAL_S = 30.0  # from a request's first byte to its last
_LINGER_S = 2.0  # a refusal is lost if the connection is closed while its client still sends

_logger = logging.getLogger("uvicorn.error")


class Protocol(HttpToolsProtocol):
    """uvicorn's own, with bounds, and an extension that resets the connection."""

    _in_head = _in_body = _refused = False
    _around_bytes = 0  # of the request that arrives, its body left out
    _header_bytes = 0
    _arriving: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # A client that asks nothing is let go, too.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._around_bytes += len(data)
        super().data_received(data)
        if not self._in_head and not self._in_body:
            self._around_bytes = 0
        # httptools puts a header together from its parts, each time all of it again.
        elif self._around_bytes > MOST_HEAD_BYTES:
            self._refuse_head()
        elif self._arriving is None:
            self._arriving = self.loop.call_later(MOST_ARRIVAL_S, self._too_slow)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._header_bytes = True, 0
        self.scope["extensions"] = {RESET: self._reset}  # type: ignore[dict-item]

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MOST_HEAD_BYTES:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        if not self._refused:
            super().on_headers_complete()
            self.scope["raw_path"] = self.url.partition(b"?")[0]  # uvicorn's lacks host, fragment
            self._in_head, self._in_body = False, True

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            self._around_bytes = max(0, self._around_bytes - len(body))
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._refused:
            super().on_message_complete()
            self._in_body, self._around_bytes = False, 0
            self._stop_timer()

    def send_400_response(self, msg: str) -> None:
        self._refuse(RequestError(400, msg))

    def _refuse_head(self) -> None:
        message = f"The request's headers are over {MOST_HEAD_BYTES:,} bytes; send fewer."
        self._refuse(RequestError(431, message, code="headers_too_large"))

    def _too_slow(self) -> None:
        self._arriving = None
        if self.pipeline or (self._in_head and not self._idle):
            # Nothing is read while an earlier request is being answered.
            self._arriving = self.loop.call_later(MOST_ARRIVAL_S, self._too_slow)
        else:
            message = f"The request was not there after {MOST_ARRIVAL_S:g} s; send it faster."
            self._refuse(RequestError(408, message, code="request_timeout"))

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self, error: RequestError) -> None:
        """Answer the request that arrives, if it can be answered, and read no other."""
        if self._refused:
            return
        self._refused = True
        self._stop_timer()
        begun = self._in_body and not self.pipeline and not self.cycle.response_started
        if not (begun if self._in_body else self._idle):
            self.transport.abort()
            return
        if begun:  # nobody is left to be answered by the application
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = msgspec.json.encode(error.body)
        self.transport.write(
            STATUS_LINE[error.status]
            + b"content-type: application/json\r\nconnection: close\r\ncontent-length: "
            + b"%d\r\n\r\n%b" % (len(body), body)
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _reset(self) -> None:
        self.cycle.disconnected = True  # nobody is left to be told that there is no answer
        with suppress(OSError):  # without it the peer sees an end, not a reset
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def surviving(app: Application) -> Application:
    """Return `app`, but an unforeseen error makes a line in the log, and an answer 500."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:
            at = extract_tb(error.__traceback__)[-1]
            what, where = f"{type(error).__name__}: {error}"[:300], f"{at.filename}:{at.lineno}"
            _logger.error("%s %.100r: %r (%s)", scope["method"], scope["path"], what, where)
            failed = RequestError(500, "The endpoint failed.", kind="server_error")
            try:
                await respond(send, 500, failed.body)
            except RuntimeError:  # the answer had begun
                scope["extensions"][RESET]()

    return answer
