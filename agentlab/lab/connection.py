"""One connection: which model answers here, at which address, and how fast its time runs.

It is a process of its own, started by its first use; in virtual time it is in the event loop.
"""

import atexit
import logging
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx

from agentlab import settings
from agentlab._support.asyncio_tools import running_loop
from agentlab._support.system import allow_many_connections
from agentlab.clock import VirtualTimeLoop
from agentlab.endpoint.middleware.server_timing import clock_of
from agentlab.endpoint.server.process import EndpointProcess
from agentlab.errors import ConfigError, EndpointError
from agentlab.settings import Settings
from agentlab.trace import attach, detach

log = logging.getLogger("agentlab")
"""What a run did, or met, that nobody asked for; by default written to standard error."""


@cache
def say_once(about: str, line: str) -> None:
    """Log a line, unless it was logged before about the same address."""
    log.warning("%s", line)


@dataclass(frozen=True)
class Connection:
    """Where the model is, and how fast its time runs: what a client needs, here or elsewhere."""

    url: str  # ending in /v1
    key: str  # the lab's own for it
    time_scale: float  # model seconds that pass in a second
    model: str  # the name that clients send
    virtual: httpx.AsyncBaseTransport | None = None  # inside this event loop, in virtual time


class _here:
    """What this process has chosen, and what runs for it."""

    chosen: Settings | None = None
    shared: Connection | None = None
    endpoint: EndpointProcess | None = None


_lock = threading.RLock()


def connection() -> Connection:
    """Return where a question goes: the virtual loop's own model, or else the endpoint."""
    loop = running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        return address()
    # A model holds its loop: even in a weak dictionary of loops both would be kept forever.
    if Connection not in loop.belongings:
        from agentlab.endpoint.server.app import local_app
        from agentlab.endpoint.server.inprocess import InProcessTransport

        chosen, url = current(), "http://127.0.0.1/v1"
        app = local_app(chosen, time_scale=1.0)
        app.recorder.loop, app.recorder.zero_s = loop, loop.time() - app.model.now_s()
        attach(app.recorder)
        inside = InProcessTransport(app)
        loop.belongings[Connection] = Connection(url, "virtual", 1.0, chosen.model, inside)
    there: Connection = loop.belongings[Connection]
    return there


def address() -> Connection:
    """Return where this process's endpoint is, for other processes of this machine."""
    if _here.shared is not None:
        return _here.shared
    running = endpoint()
    return Connection(running.url, running.key, running.time_scale, running.settings.model)


def connect(shared: Connection) -> None:
    """Ask an endpoint that another process of this machine runs, from now on."""
    if shared != _here.shared:
        scale, model = shared.time_scale, shared.model
        _use(settings.from_environment(upstream=None, time_scale=scale, model=model), shared)


def base_url() -> str:
    """Return the endpoint's address, ending in `/v1`, for any OpenAI-compatible client."""
    return address().url


def api_key() -> str:
    """Return the lab's own key for the endpoint; it opens nothing else."""
    return address().key


def endpoint() -> EndpointProcess:
    """Return the endpoint of this process; start one where none runs."""
    with _lock:
        if _here.endpoint is None or not _here.endpoint.alive:
            stop()
            allow_many_connections()
            _here.endpoint = EndpointProcess(current())
            attach(_here.endpoint)
        return _here.endpoint


@atexit.register
def stop() -> None:
    """End the endpoint; the next question starts one. Do nothing where none runs."""
    with _lock:
        if _here.endpoint is not None:
            detach(_here.endpoint)  # a trace that is open reads the record while there is one
            _here.endpoint.stop()
        _here.endpoint = None


def current() -> Settings:
    """Return the settings of the endpoint that runs; else those chosen, or the environment's."""
    if _here.endpoint is not None and _here.endpoint.alive:
        return _here.endpoint.settings  # the environment may have changed since it began
    return _here.chosen or settings.from_environment()


class Configured(ExitStack[None]):
    """What `configure` returns: leaving its `with` block restores the settings before it."""

    def __repr__(self) -> str:
        return where()


def configure(**changes: Any) -> Configured:
    """Use the environment's settings with these `changes`, from now on or in a `with` block.

    `changes` are any fields of `agentlab.settings.Settings`. If one cannot work it is a
    ConfigError, and everything stays as it was. An endpoint that runs is stopped.

    `upstream=None` means no paid model: the local model of this machine answers, or else the class
    that `OPENAI_BASE_URL` names, if its model is free and nothing else is changed. Without it a
    class or a real model stays, behind these limits and faults.

    Example:
        with lab.configure(faults=[{"kind": "error", "status": 503, "probability": 0.1}]):
            await lab.ask("Name three rivers.")
    """
    from agentlab.endpoint.server.app import local_app

    chosen = settings.from_environment(**_keeping_the_class(changes))
    local_app(chosen, time_scale=chosen.time_scale)  # reads whatever files they name, or refuses
    configured = Configured()
    configured.callback(_use, _here.chosen)
    _use(chosen)
    return configured


def _keeping_the_class(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the changes, without an `upstream=None` that would turn away a free endpoint."""
    others = {name: value for name, value in changes.items() if name != "upstream"}
    shaping = any(value not in (None, []) for value in others.values())
    if changes.get("upstream", "") is not None or shaping:
        return changes
    try:
        upstream = settings.from_environment(**others).upstream
        clock = clock_of(upstream) if upstream else None
    except ConfigError:  # of the address, or it will be raised once more
        return changes
    except EndpointError as error:
        log.warning("%s; it may be a paid model, so the local model is used", error)
        return changes
    return changes if clock is None or clock.paid else others


def _use(chosen: Settings | None, shared: Connection | None = None) -> None:
    with _lock:
        stop()
        _here.chosen, _here.shared = chosen, shared


def where() -> str:
    """Say in one line which model answers, and how fast its time runs."""
    chosen, pace = current(), "{:g} model seconds pass in one second".format
    if chosen.upstream is None:
        return f"the local model, preset {chosen.preset}; {pace(chosen.time_scale)}"
    forwarded = f"{chosen.model} at {chosen.upstream}, through the lab's endpoint"
    try:
        clock = clock_of(chosen.upstream)
    except EndpointError:
        return f"{forwarded}; it does not answer now"
    if clock is None:
        return forwarded
    if clock.paid:
        return f"the class's endpoint at {chosen.upstream}, where {chosen.model} may be paid for"
    return f"the class's endpoint at {chosen.upstream}, the local model, {pace(clock.time_scale)}"
