"""The model that answers here: which one is chosen, and the endpoint that runs for it.

The endpoint is started by its first use and ends with this process.
"""

from __future__ import annotations

import atexit
import threading
from typing import Any, NamedTuple

from agentlab import settings
from agentlab._support.sockets import allow_many_connections
from agentlab.endpoint.app import local_app
from agentlab.endpoint.process import EndpointProcess
from agentlab.endpoint.times import clock_of
from agentlab.errors import ConfigError, EndpointError
from agentlab.notices import log
from agentlab.settings import Settings
from agentlab.trace import attach, detach

_SHAPING = (
    "preset", "time_scale", "seed", "requests_per_minute", "tokens_per_minute", "capacity",
    "faults", "replay",
)  # fmt: skip
"""The settings that only a model of one's own follows; a learner cannot shape the class's."""

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
    """Use the environment's settings with these `changes`, from now on or in a `with` block.

    An endpoint that runs is stopped; the next question starts one. Virtual runs follow, too.

    `upstream=None` means no model that is paid for. So it keeps a class's endpoint, if one is named
    by `OPENAI_BASE_URL` and its own model is the local one. Anything else gives way to the local
    model of this machine: a real model, and a class behind which one stands. So does the class if
    `changes` shape the model (`preset`, `time_scale`, `seed`, a limit, `capacity`, `faults`,
    `replay`), because that is the teacher's to do. Without `upstream=None` a class or a real model
    stays; limits and faults then stand in front of it, and the others act in virtual time only.

    Args:
        changes: Any field of `agentlab.settings.Settings`: `preset`, `time_scale`, `seed`,
            `requests_per_minute`, `tokens_per_minute`, `capacity`, `faults`, `record`, `replay`,
            `upstream` (None for nothing that is paid for), `model`.

    Raises:
        ConfigError: If a setting cannot work; everything stays as it was.

    Example:
        lab.configure(upstream=None)
        lab.configure(preset="laptop-ollama", time_scale=50)
        with lab.configure(faults=[{"kind": "error", "status": 503, "probability": 0.1}]):
            await lab.ask("Name three rivers.")
    """
    before, chosen = _chosen, settings.from_environment(**_keeping_the_class(changes))
    local_app(chosen, time_scale=chosen.time_scale)  # reads whatever files they name, or refuses
    _use(chosen)
    return Configured(before)


def _keeping_the_class(changes: dict[str, Any]) -> dict[str, Any]:
    """The changes, without an `upstream=None` that would turn away an endpoint that is free."""
    shaping = any(changes.get(name) not in (None, []) for name in _SHAPING)
    if changes.get("upstream", "") is not None or shaping:
        return changes
    others = {name: value for name, value in changes.items() if name != "upstream"}
    try:
        upstream = settings.from_environment(**others).upstream
        clock = clock_of(upstream) if upstream else None
    except ConfigError:  # of the address, or it will be raised once more
        return changes
    except EndpointError as error:
        log.warning("%s; it may be one that is paid for, so the local model is used", error)
        return changes
    return changes if clock is None or clock.paid else others


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
        return _behind(chosen.upstream, chosen.model)
    return (
        f"the local model, preset {chosen.preset}; "
        f"{chosen.time_scale:g} model seconds pass in one second"
    )


def _behind(upstream: str, model: str) -> str:
    forwarded = f"{model} at {upstream}, through the lab's endpoint"
    try:
        clock = clock_of(upstream)
    except EndpointError:
        return f"{forwarded}; it does not answer now"
    if clock is None:
        return forwarded
    if clock.paid:
        return f"the class's endpoint at {upstream}, where {model} may be paid for"
    return (
        f"the class's endpoint at {upstream}, the local model, "
        f"{clock.time_scale:g} model seconds pass in one second"
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
