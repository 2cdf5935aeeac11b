"""What every client of the lab sends through: the endpoint's process, or virtual time.

Time-outs are model seconds on either clock: a client that waits at most 5 s for a model that
runs at ten times real speed waits half a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

import httpx

from agentlab.clock import is_virtual
from agentlab.endpoint.inprocess import InProcessTransport
from agentlab.endpoint.serve import local_app
from agentlab.errors import ConfigError
from agentlab.settings import Settings
from agentlab.trace import attach

# A connection a request, and as many as there are requests: a pool would tie the client to one
# event loop (reused in another, it sends requests twice), and a limit would make calls wait here.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=0)


class LabTransport(httpx.AsyncBaseTransport):
    """Over HTTP in an ordinary event loop; to a local model of its own in each virtual one.

    Args:
        settings: Says how the model behaves, whenever it is asked.
    """

    def __init__(self, settings: Callable[[], Settings]):
        self._settings = settings
        self._http = httpx.AsyncHTTPTransport(limits=_LIMITS, trust_env=False)
        self._models: WeakKeyDictionary[asyncio.AbstractEventLoop, InProcessTransport] = (
            WeakKeyDictionary()
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if is_virtual():
            return await self._virtual_model().handle_async_request(request)
        _scale_timeouts(request, self._settings())
        return await self._http.handle_async_request(request)

    def _virtual_model(self) -> InProcessTransport:
        loop = asyncio.get_running_loop()
        if loop not in self._models:
            app = local_app(self._settings(), time_scale=1.0)
            attach(app.recorder)
            self._models[loop] = InProcessTransport(app)
        return self._models[loop]


class BlockingTransport(httpx.BaseTransport):
    """For calls that block their thread: over HTTP only, for virtual time cannot wait for them."""

    def __init__(self, settings: Callable[[], Settings]):
        self._settings = settings
        self._http = httpx.HTTPTransport(limits=_LIMITS, trust_env=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if is_virtual():
            raise ConfigError(
                "a call that blocks (invoke, stream) takes no virtual time; "
                "inside run_virtual use ainvoke or astream"
            )
        _scale_timeouts(request, self._settings())
        return self._http.handle_request(request)


def _scale_timeouts(request: httpx.Request, settings: Settings) -> None:
    if settings.real:
        return
    timeouts = request.extensions.get("timeout", {})
    if timeouts.get("read") is not None:  # the others wait for this machine, not for the model
        scaled = timeouts | {"read": timeouts["read"] / settings.time_scale}
        request.extensions = request.extensions | {"timeout": scaled}
