"""The model that answers here: which one is chosen, and the endpoint that runs for it.

The endpoint is started by its first use and ends with this process.
"""

from __future__ import annotations

import atexit
import threading
from typing import Any, NamedTuple

from agentlab import settings
from agentlab.endpoint.process import EndpointProcess
from agentlab.endpoint.serve import allow_many_connections, local_app
from agentlab.settings import Settings
from agentlab.trace import attach, detach

_lock = threading.RLock()
_chosen: Settings | None = None
_shared: Address | None = None
_endpoint: EndpointProcess | None = None


class Configured:
    """What `configure` returns: leaving its `with` block restores the settings before it."""

    def __init__(self, before: Settings | None):
        self._before = before

    def __enter__(self) -> None:
        return

    def __exit__(self, *problem: object) -> None:
        _use(self._before)

    def __repr__(self) -> str:
        return where()


def configure(**changes: Any) -> Configured:
    """From now on, or in a `with` block, use the environment's settings with these `changes`.

    An endpoint that runs is stopped; the next question starts one. Virtual runs follow, too.

    Args:
        changes: Any field of `agentlab.settings.Settings`: `preset`, `time_scale`, `seed`,
            `requests_per_minute`, `tokens_per_minute`, `capacity`, `faults`, `record`, `replay`,
            `upstream` (None for the local model), `model`.

    Raises:
        ConfigError: If a setting cannot work; everything stays as it was.

    Example:
        lab.configure(preset="laptop-ollama", time_scale=50)
        with lab.configure(faults=[{"kind": "error", "status": 503, "probability": 0.1}]):
            await lab.ask("Name three rivers.")
    """
    before, chosen = _chosen, settings.from_environment(**changes)
    local_app(chosen, time_scale=chosen.time_scale)  # reads whatever files they name, or refuses
    _use(chosen)
    return Configured(before)


def _use(chosen: Settings | None) -> None:
    global _chosen, _shared
    with _lock:
        stop()
        _shared = None
        _chosen = chosen


def stop() -> None:
    """End the endpoint; the next question starts one. Does nothing where none runs."""
    global _endpoint
    with _lock:
        if _endpoint is not None:
            detach(_endpoint)  # a trace that is open reads the record while there is one
            _endpoint.stop()
        _endpoint = None


atexit.register(stop)


class Address(NamedTuple):
    """Where an endpoint is, and how fast its time runs: what another process needs to share it."""

    url: str
    key: str
    time_scale: float
    model: str


def address() -> Address:
    """Of the endpoint that runs here, for other processes of this machine."""
    chosen = current()
    time_scale = endpoint().time_scale if chosen.real else chosen.time_scale
    return Address(base_url(), api_key(), time_scale, chosen.model)


def connect(shared: Address) -> None:
    """Ask an endpoint that another process of this machine runs, from now on."""
    global _shared
    if shared != _shared:
        there = settings.from_environment(
            upstream=None, time_scale=shared.time_scale, model=shared.model
        )
        _use(there)
        _shared = shared


def base_url() -> str:
    """The endpoint's address, ending in `/v1`, for any OpenAI-compatible client."""
    return _shared.url if _shared else endpoint().url


def api_key() -> str:
    """The lab's own key for the endpoint; it opens nothing else."""
    return _shared.key if _shared else endpoint().key


def where() -> str:
    """Which model answers, in one line.

    Example:
        >>> where()  # doctest: +SKIP
        'the local model, preset course; 10 model seconds pass in one second'
    """
    chosen = current()
    if chosen.replay is not None:
        return (
            f"the recording {chosen.replay}; {chosen.time_scale:g} model seconds pass in one second"
        )
    if chosen.upstream is not None:
        return f"{chosen.model} at {chosen.upstream}, through the lab's endpoint"
    return (
        f"the local model, preset {chosen.preset}; "
        f"{chosen.time_scale:g} model seconds pass in one second"
    )


def current() -> Settings:
    """The chosen settings; or else those of the endpoint that runs, or the environment's."""
    running = _endpoint
    if _chosen is not None:
        return _chosen
    if running is not None and running.alive:  # the environment may have changed since it began
        return running.settings
    return settings.from_environment()


def endpoint() -> EndpointProcess:
    """The endpoint of this process; it is started where none runs.

    Raises:
        EndpointError: If it does not start, with what it said.
    """
    global _endpoint
    with _lock:
        if _endpoint is None or not _endpoint.alive:
            stop()
            allow_many_connections()
            _endpoint = EndpointProcess(current())
            attach(_endpoint)
        return _endpoint
