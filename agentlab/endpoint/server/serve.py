"""The application over HTTP, in this process, on loopback unless told otherwise.

What is over the bounds on a request's head and its time to arrive never comes to the application.
"""

import asyncio
import faulthandler
import gc
import logging
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from types import FrameType
from typing import Any

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from agentlab._support.system import allow_many_connections
from agentlab.endpoint.contract.asgi import RESET, Application
from agentlab.endpoint.contract.openai_json import RequestError, refusal
from agentlab.errors import EndpointError

HOST = "127.0.0.1"
MOST_HEAD_BYTES = 65_536  # of a request's head, and of what frames its body: chunk sizes, trailers
MOST_ARRIVAL_S = 30.0  # from a request's first byte to its last
_GRACE_S = 3.0  # from a signal to the end, at most


def serve(
    app: Application, port: int, *, announce: Callable[[str], None], host: str = HOST
) -> None:
    """Serve `app` until a signal comes; port 0 takes a free one, and a taken one an EndpointError.

    `announce` is called once with the address, ending in `/v1`, when clients can connect. A `host`
    other than loopback's lets the network in.
    """
    listener = _listen(host, port)
    allow_many_connections()
    gc.collect()
    gc.freeze()  # what was imported stays; a collection need not look at it again
    gc.set_threshold(5_000, 5, 5)  # each connection that ends leaves a reference cycle
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        proxy_headers=False,
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=300,  # longer than a learner thinks between two cells' requests
        timeout_graceful_shutdown=1,
    )
    url = f"http://{shown}:{listener.getsockname()[1]}/v1"
    _Server(config, lambda: announce(url)).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's own, which says when signals are heard, and ends within seconds of one."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]):
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            faulthandler.dump_traceback_later(_GRACE_S, file=2, exit=True)
        super().handle_exit(sig, frame)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is cut off is no fault


class _Protocol(HttpToolsProtocol):
    """uvicorn's own, with bounds on each request, and an extension that resets the connection."""

    _unfinished = False  # a request has begun to arrive
    _around_bytes = 0  # of that request, its body left out
    _arriving: asyncio.TimerHandle | None = None
    _answered: Any = None  # the cycle of the request that is being answered

    def connection_lost(self, exc: Exception | None) -> None:
        self.cycle = self._answered  # uvicorn tells only the last of a pipeline
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._around_bytes += len(data)
        super().data_received(data)
        if not self._unfinished:
            return
        # httptools puts a header together from its parts, each time all of it again.
        if self._around_bytes > MOST_HEAD_BYTES:
            self._refuse(refusal("headers_too_large", most_bytes=MOST_HEAD_BYTES))
        elif self._arriving is None:
            error = refusal("request_timeout", most_s=MOST_ARRIVAL_S)
            self._arriving = self.loop.call_later(MOST_ARRIVAL_S, self._refuse, error)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unfinished = True
        self.scope["extensions"] = {RESET: self._reset}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        head = chain(*self.headers) if self._around_bytes > MOST_HEAD_BYTES else ()
        if sum(len(each) + 2 for each in head) > MOST_HEAD_BYTES:  # it came in one piece
            self._refuse(refusal("headers_too_large", most_bytes=MOST_HEAD_BYTES))
            raise ValueError  # which stops the parser
        super().on_headers_complete()
        self._answered = self._answered if self.pipeline else self.cycle
        self.scope["raw_path"] = self.url.partition(b"?")[0]  # uvicorn's lacks host and fragment

    def on_body(self, body: bytes) -> None:
        self._around_bytes = max(0, self._around_bytes - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._unfinished, self._around_bytes = False, 0
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def on_response_complete(self) -> None:
        self._answered = self.pipeline[-1][0] if self.pipeline else self.cycle
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(RequestError(400, msg))

    def _refuse(self, error: RequestError) -> None:
        """Answer the request that arrives, if it can be answered, and close the connection."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        waiting = cycle is None or (cycle.response_complete and not cycle.more_body)
        if not waiting and (cycle.response_started or self.pipeline or not cycle.more_body):
            self.transport.abort()  # another answer is on its way
            return
        body = msgspec.json.encode(error.body)
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[error.status] + head % len(body) + body)
        self.transport.close()

    def _reset(self) -> None:
        self._answered.disconnected = True  # nobody is left to be told that there is no answer
        with suppress(OSError):  # without it the peer sees an end, not a reset
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=4096, dualstack_ipv6=both)
    except (OSError, OverflowError) as error:
        what, way = f"cannot listen on {host}:{port} ({error})", "choose another --port, or 0"
        raise EndpointError(f"{what}; {way} for one that is free") from None
