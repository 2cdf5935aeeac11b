"""Serve the endpoint in this process, over HTTP, on loopback unless told otherwise."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from functools import cache
from types import FrameType

import msgspec
import uvicorn

from agentlab._support.asyncio_tools import allow_many_connections
from agentlab.endpoint import faults, presets
from agentlab.endpoint.another import clock_of
from agentlab.endpoint.app import App
from agentlab.endpoint.batch import Queue
from agentlab.endpoint.door import OwnDoor
from agentlab.endpoint.faults import Fault, FaultPlan
from agentlab.endpoint.forward import Forward
from agentlab.endpoint.gate import Gate
from agentlab.endpoint.http import Model
from agentlab.endpoint.inprocess import Application
from agentlab.endpoint.limits import Limits
from agentlab.endpoint.local import LocalModel
from agentlab.endpoint.protocol import Protocol, surviving
from agentlab.endpoint.recording import Recording, Replay
from agentlab.endpoint.replies import Replies
from agentlab.errors import EndpointError
from agentlab.settings import DATA, Settings, account_from, key_from
from agentlab.trace import Span

HOST = "127.0.0.1"
_GRACE_S = 3.0
"""From a signal to the end, at most: for answers on their way."""


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


def local_app(
    settings: Settings, *, time_scale: float, on_end: Callable[[Span], object] | None = None
) -> App:
    """The model on this machine that `settings` describe, at a time scale of its own.

    Raises:
        ConfigError: If the preset, the fault plan or the recording is missing or wrong.
    """
    preset = presets.load(settings.preset)
    limits = Limits(
        _either(settings.requests_per_minute, preset.requests_per_minute),
        _either(settings.tokens_per_minute, preset.tokens_per_minute),
    )
    model: Model
    if settings.replay is not None:
        model = Replay(settings.replay, time_scale=time_scale)
    else:
        model = local_model(preset, settings, time_scale=time_scale)
    plan = [*faults.load(settings.faults), *preset.faults]
    return App(
        _guarded(model, limits, plan, settings),
        on_end=on_end,
        max_body_bytes=settings.longest_body_bytes,
    )


def local_model(
    preset: presets.Preset,
    settings: Settings,
    *,
    time_scale: float,
    queue: Queue | None = None,
    epoch: float | None = None,
) -> LocalModel:
    """The model that `preset` and `settings` describe; `queue` and `epoch` as it takes them."""
    return LocalModel(
        msgspec.structs.replace(preset.physics, capacity=settings.capacity),
        _replies(),
        seed=settings.seed,
        time_scale=time_scale,
        queue_full_status=preset.queue_full_status.value if preset.queue_full_status else 503,
        context_tokens=preset.context_tokens.value if preset.context_tokens else None,
        queue=queue,
        epoch=epoch,
    )


def real_model(settings: Settings) -> Forward:
    """The model at `settings.upstream`. Only here is its key read, from the environment.

    Raises:
        ConfigError: If the key can be none.
    """
    upstream, leave_out = settings.upstream, settings.leave_out
    assert upstream is not None
    try:
        clock = clock_of(upstream)
    except EndpointError:  # what cannot be reached now is taken for a real model
        clock = None
    key = key_from(learner=clock is not None)
    if clock is None:
        return Forward(upstream, key=key, account=account_from(), leave_out=leave_out)
    return Forward(
        upstream, key=key, time_scale=clock.time_scale, paid=clock.paid, leave_out=leave_out
    )


def build_app(
    settings: Settings, *, lab_key: str, on_end: Callable[[Span], object] | None = None
) -> App:
    """The application that `settings` ask for: the local model, or one that forwards.

    Raises:
        ConfigError: If the preset, the fault plan or the recording is missing or wrong.
    """
    if settings.upstream is None or not settings.real:
        return local_app(settings, time_scale=settings.time_scale, on_end=on_end)
    model = real_model(settings)
    limits = Limits(settings.requests_per_minute, settings.tokens_per_minute)
    plan = faults.load(settings.faults)
    return App(
        _guarded(model, limits, plan, settings),
        door=OwnDoor(lab_key),
        on_end=on_end,
        max_body_bytes=settings.longest_body_bytes,
    )


def _guarded(model: Model, limits: Limits, plan: list[Fault], settings: Settings) -> Model:
    """The model behind a recorder and a gate, where there is anything for them to do."""
    if settings.record is not None:
        model = Recording(model, settings.record)
    return Gate(model, limits, FaultPlan(plan, settings.seed)) if limits or plan else model


def _either(chosen: int | None, preset: presets.Figure[int] | None) -> int | None:
    """What the settings say, where they do; 0 lifts the preset's limit."""
    if chosen is not None:
        return chosen
    return preset.value if preset else None


def serve(
    app: Application, port: int, *, announce: Callable[[str], None], host: str = HOST
) -> None:
    """Serve `app` until a signal comes; port 0 takes a free one.

    `announce` is called once with the address, ending in `/v1`, when clients can connect.

    Args:
        host: The address to listen on; anything but loopback's lets the network in.

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


@cache
def _replies() -> Replies:
    return Replies.load(DATA / "replies")


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
