"""What every client of the lab sends through: the endpoint's process, or virtual time.

Time-outs are model seconds on either clock: a client that waits at most 5 s for a model that
runs at ten times real speed waits half a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar

import httpx

from agentlab.clock import is_virtual
from agentlab.errors import ConfigError, EndpointError
from agentlab.lab._model_time import model_seconds_a_second
from agentlab.lab.connection import Answer, Connection, connection, say_once

on_headers: ContextVar[Callable[[Mapping[str, str]], None] | None] = ContextVar(
    "on_headers", default=None
)
"""Whom to tell the headers of every answer to this task's requests, whichever client sent them."""


async def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    read_timeout_s: float | None = None,
    there: Connection | None = None,
) -> Answer:
    """Send one POST, past httpx; return the whole answer.

    Args:
        read_timeout_s: How long the endpoint may send nothing, in model seconds.
        there: The connection that is asked, where the caller knows it.

    Raises:
        TimeoutError: If it sent nothing for longer than that.
        EndpointError: If the connection could not be made, or broke off.
    """
    there = there or connection()
    if there.virtual is None:
        from agentlab.lab import _http  # aiohttp takes a while, and virtual time does without it

        real_s = read_timeout_s and read_timeout_s / there.time_scale
        answer = await _http.post(url, body, headers, read_timeout_s=real_s)
    else:
        limit = {"timeout": {"read": read_timeout_s}}
        request = httpx.Request("POST", url, headers=headers, content=body, extensions=limit)
        answer = await _answered(there.virtual, request)
    _tell(answer.headers, url)
    return answer


async def _answered(model: httpx.AsyncBaseTransport, request: httpx.Request) -> Answer:
    try:
        response = await model.handle_async_request(request)
        try:
            return Answer(response.status_code, response.headers, await response.aread())
        finally:
            await response.aclose()
    except httpx.ReadTimeout as error:
        raise TimeoutError(str(error)) from None
    except httpx.TransportError as error:
        raise EndpointError(f"the endpoint broke off ({type(error).__name__}: {error})") from error


class LabTransport(httpx.AsyncBaseTransport):
    """Send over HTTP in an ordinary event loop, and to its own local model in a virtual one."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if is_virtual():
            there = connection().virtual
            assert there is not None
            response = await there.handle_async_request(request)
        else:
            from agentlab.lab._http import AioTransport

            _scale_timeouts(request)
            response = await AioTransport().handle_async_request(request)
        _tell(response.headers, str(request.url))
        return response


def before_blocking(request: httpx.Request) -> None:
    """Refuse, in virtual time, a call that blocks its thread; elsewhere scale its time-out.

    Raises:
        ConfigError: In virtual time, which cannot wait for such a call.
    """
    if is_virtual():
        raise ConfigError(
            "a call that blocks (invoke, stream) takes no virtual time; "
            "use ainvoke or astream instead"
        )
    _scale_timeouts(request)


def _tell(headers: Mapping[str, str], url: str) -> None:
    if left_out := headers.get("x-lab-left-out"):
        say_once(url, f"left out, because the model does not take it: {left_out}")
    if (listener := on_headers.get()) is not None:
        listener(headers)


def _scale_timeouts(request: httpx.Request) -> None:
    """Turn the read time-out into real seconds; the others wait for this machine."""
    timeouts = request.extensions.get("timeout", {})
    if timeouts.get("read") is not None:
        timeouts = timeouts | {"read": timeouts["read"] / model_seconds_a_second()}
        request.extensions = request.extensions | {"timeout": timeouts}
