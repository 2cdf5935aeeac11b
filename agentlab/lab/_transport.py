"""How clients reach the model: over HTTP in real time, inside the event loop in virtual time."""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar

import httpx

from agentlab.clock import is_virtual
from agentlab.errors import ConfigError, EndpointError
from agentlab.lab._model_time import model_seconds_a_second
from agentlab.lab.connection import connection, say_once

on_headers: ContextVar[Callable[[Mapping[str, str]], None] | None] = ContextVar(
    "on_headers", default=None
)
"""Whom to tell the headers of every answer to this task's requests, whichever client sent them."""


async def post(url: str, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
    """Send one POST, past httpx's client; return the whole answer, or raise an EndpointError."""
    request = httpx.Request("POST", url, headers=headers, content=body)
    try:
        async with aclosing(await LabTransport().handle_async_request(request)) as response:
            await response.aread()
    except httpx.RequestError as error:
        raise EndpointError(f"the endpoint broke off ({type(error).__name__}: {error})") from error
    return response


class LabTransport(httpx.AsyncBaseTransport):
    """Send over HTTP in an ordinary event loop, and to its own local model in a virtual one."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if is_virtual():
            there = connection().virtual
            assert there is not None
            response = await there.handle_async_request(request)
        else:
            from agentlab.lab._http import over_http  # aiohttp takes a while to import

            _scale_timeouts(request)
            response = await over_http(request)
        if left_out := response.headers.get("x-lab-left-out"):
            say_once(str(request.url), f"left out, as the model does not take it: {left_out}")
        if (listener := on_headers.get()) is not None:
            listener(response.headers)
        return response


def before_blocking(request: httpx.Request) -> None:
    """Refuse, in virtual time, a call that blocks its thread; elsewhere scale its time-out."""
    if is_virtual():
        raise ConfigError("what blocks takes no virtual time; use ainvoke or astream instead")
    _scale_timeouts(request)


def _scale_timeouts(request: httpx.Request) -> None:
    """Turn the read time-out into real seconds; the others wait for this machine."""
    timeouts = request.extensions.get("timeout", {})
    if timeouts.get("read") is not None:
        timeouts["read"] /= model_seconds_a_second()
