"""What every client of the lab sends through: the endpoint's process, or virtual time.

Time-outs are model seconds on either clock: a client that waits at most 5 s for a model that
runs at ten times real speed waits half a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar

import aiohttp
import httpx

from agentlab import wire
from agentlab.clock import VirtualTimeLoop, is_virtual
from agentlab.endpoint.app import local_app
from agentlab.endpoint.inprocess import InProcessTransport
from agentlab.errors import ConfigError, EndpointError
from agentlab.notices import say_once
from agentlab.settings import Settings
from agentlab.trace import attach
from agentlab.wire import AioTransport, Answer

on_headers: ContextVar[Callable[[Mapping[str, str]], None] | None] = ContextVar(
    "on_headers", default=None
)
"""Whom to tell the headers of every answer to this task's requests, whichever client sent them."""

# Blocking calls come from many threads: a connection each, and no pool to wait for.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=0)


class LabTransport(httpx.AsyncBaseTransport):
    """Over HTTP in an ordinary event loop; to a local model of its own in each virtual one.

    Args:
        settings: Says how the model behaves, whenever it is asked.
        time_scale: Says how many model seconds pass in a second, in an ordinary event loop.
    """

    def __init__(self, settings: Callable[[], Settings], time_scale: Callable[[], float]):
        self._settings, self._time_scale = settings, time_scale
        self._http = AioTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if is_virtual():
            response = await self._virtual_model().handle_async_request(request)
        else:
            _scale_timeouts(request, self._time_scale)
            response = await self._http.handle_async_request(request)
        _tell(response.headers, str(request.url))
        return response

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        read_timeout_s: float | None = None,
    ) -> Answer:
        """Send one POST, past httpx; return the whole answer.

        Args:
            read_timeout_s: How long the endpoint may send nothing, in model seconds.

        Raises:
            TimeoutError: If it sent nothing for longer than that.
            EndpointError: If the connection could not be made, or broke off.
        """
        try:
            if is_virtual():
                answer = await self._post_virtually(url, body, headers, read_timeout_s)
            else:
                scaled_s = _real_s(read_timeout_s, self._time_scale)
                answer = await wire.post(url, body, headers, read_timeout_s=scaled_s)
            _tell(answer.headers, url)
            return answer
        except httpx.ReadTimeout as error:
            raise TimeoutError(str(error)) from None
        except (aiohttp.ClientError, httpx.TransportError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise EndpointError(
                f"the endpoint broke off ({type(error).__name__}: {error})"
            ) from error

    async def _post_virtually(
        self, url: str, body: bytes, headers: Mapping[str, str], read_timeout_s: float | None
    ) -> Answer:
        request = httpx.Request(
            "POST",
            url,
            headers=headers,
            content=body,
            extensions={"timeout": {"read": read_timeout_s}},
        )
        response = await self._virtual_model().handle_async_request(request)
        try:
            return Answer(response.status_code, response.headers, await response.aread())
        finally:
            await response.aclose()

    def _virtual_model(self) -> InProcessTransport:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        # With the loop, and not in a dictionary of loops: a model holds its loop, so that even a
        # weak one would keep both for ever.
        if self not in loop.belongings:
            app = local_app(self._settings(), time_scale=1.0)
            attach(app.recorder)
            loop.belongings[self] = InProcessTransport(app)
        model: InProcessTransport = loop.belongings[self]
        return model


class BlockingTransport(httpx.BaseTransport):
    """For calls that block their thread: over HTTP only, for virtual time cannot wait for them."""

    def __init__(self, time_scale: Callable[[], float]):
        self._time_scale = time_scale
        self._http = httpx.HTTPTransport(limits=_LIMITS, trust_env=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if is_virtual():
            raise ConfigError(
                "a call that blocks (invoke, stream) takes no virtual time; "
                "use ainvoke or astream instead"
            )
        _scale_timeouts(request, self._time_scale)
        return self._http.handle_request(request)


def _tell(headers: Mapping[str, str], url: str) -> None:
    if left_out := headers.get("x-lab-left-out"):
        say_once(url, f"left out, because the model does not take it: {left_out}")
    if (listener := on_headers.get()) is not None:
        listener(headers)


def _scale_timeouts(request: httpx.Request, time_scale: Callable[[], float]) -> None:
    timeouts = request.extensions.get("timeout", {})
    # the others wait for this machine, not for the model
    scaled = timeouts | {"read": _real_s(timeouts.get("read"), time_scale)}
    request.extensions = request.extensions | {"timeout": scaled}


def _real_s(model_s: float | None, time_scale: Callable[[], float]) -> float | None:
    return None if model_s is None else model_s / time_scale()
