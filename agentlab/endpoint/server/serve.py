"""Serve the endpoint in this process, over HTTP, on loopback unless told otherwise."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from agentlab._support.asyncio_tools import allow_many_connections
from agentlab.endpoint.contract.asgi import Application
from agentlab.endpoint.server._http_bounds import Protocol, surviving
from agentlab.errors import EndpointError

HOST = "127.0.0.1"
_GRACE_S = 3.0
"""From a signal to the end, at most: for answers on their way."""


def serve(
    app: Application, port: int, *, announce: Callable[[str], None], host: str = HOST
) -> None:
    """Serve `app` until a signal comes; port 0 takes a free one.

    `announce` is called once with the address, ending in `/v1`, when clients can connect. A `host`
    other than loopback's lets the network in.

    Raises:
        EndpointError: If the port is taken or not allowed, or the address is not this machine's.
    """
    listener = _listen(host, port)
    allow_many_connections()
    gc.collect()
    gc.freeze()  # what was imported stays; a collection need not look at it again
    gc.set_threshold(100_000)  # a request makes hundreds of objects, hardly any in a circle
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listener.getsockname()[1]}/v1"
    config = uvicorn.Config(
        surviving(app),
        http=Protocol,
        ws="none",
        proxy_headers=False,
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=300,  # longer than a learner thinks between two cells' requests
        timeout_graceful_shutdown=1,
    )
    _Server(config, lambda: announce(url)).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's own, which ends within seconds of a signal whatever its event loop is doing."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]):
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            _end_now(sig)
        super().handle_exit(sig, frame)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is cut off is no fault
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, lambda *_: _end_now(sig))
            signal.setitimer(signal.ITIMER_REAL, _GRACE_S)
        faulthandler.dump_traceback_later(2 * _GRACE_S, file=2, exit=True)  # if Python stands still


def _end_now(sig: int) -> None:
    """End with the exit code that `sig` would have had in the end: 0 after Ctrl-C."""
    if sig == signal.SIGTERM:
        signal.signal(sig, signal.SIG_DFL)
        signal.raise_signal(sig)
    os._exit(0)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if os.name == "posix":  # elsewhere the option would let two servers share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise EndpointError(
            f"cannot listen on {host}:{port} ({reason}); "
            "choose another --port, or 0 for one that is free"
        ) from None
    listener.listen(4096)
    return listener
