"""Calls placed on other processes, here or on other hosts, by Dask.

Dask only places calls. The driver, which is your program, keeps the limits, the retries, the rate
and the journal, so each of them is one for all workers. A worker brings its own event loop, on
which many calls wait at the same time.

Every call says which model it is for. Workers that are started here share the driver's endpoint.
So do the workers of another scheduler on loopback while the local model answers. All others ask a
real model themselves, with their own key, and refuse a call if their settings name another model.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from ipaddress import ip_address
from itertools import count
from typing import Any, NamedTuple, Self
from uuid import uuid4

from distributed import Client, Reschedule, get_worker
from distributed.client import FutureCancelledError
from distributed.comm.addressing import get_address_host
from distributed.protocol.pickle import dumps, loads
from distributed.scheduler import KilledWorker

from agentlab import lab, settings
from agentlab._support.asyncio_tools import raise_if_cancelled_elsewhere
from agentlab._support.numbers import checked
from agentlab.engines._dask_processes import LocalProcesses, kill
from agentlab.engines.asyncio import run as run
from agentlab.errors import ClusterLost, ConfigError, EndpointError
from agentlab.lab import Connection, Reply, connection
from agentlab.resilience import words

# Dask logs at length what an error here says: a scheduler that is gone, a value that is not sent.
for _part in ("batched", "client", "core", "protocol.pickle"):
    logging.getLogger(f"distributed.{_part}").setLevel(logging.CRITICAL)

_NOTICED_S = 0.1
"""How often a call on a worker looks whether anybody still waits for it."""


class _Upstream(NamedTuple):
    """A real model, which each worker asks with a key of its own."""

    url: str
    model: str


class Cluster:
    """Workers that make calls: processes of this machine, or the workers of a scheduler.

    Args:
        address: A scheduler's, such as `tcp://10.0.0.1:8786`; None starts one here, on loopback.
        workers: How many processes to start here.
        calls_per_worker: The most calls in flight on each of these.
        dashboard: Whether a scheduler that is started here serves Dask's pages, on loopback.

    Attributes:
        client: Dask's own, for whatever else it can do.

    Raises:
        ConfigError: On entering the block: if there is no scheduler at the address, if it is on
            another host while the local model answers here, which no other host can ask, or if
            a worker's settings name another model than those here.

    Example:
        async with Cluster(workers=2) as cluster:
            await cluster.ask("Name three rivers.", agent="geographer")
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int = 2,
        calls_per_worker: int = 64,
        dashboard: bool = False,
    ) -> None:
        checked("workers", workers, least=1, whole=True)
        checked("calls_per_worker", calls_per_worker, least=1, whole=True)
        self._address = address
        self._workers, self._calls = workers, calls_per_worker
        self._with_dashboard = dashboard and address is None
        self._numbers = count()
        self._name = uuid4().hex  # others may use the same scheduler
        self._open = AsyncExitStack()
        self.client: Any = None
        self._local: LocalProcesses | None = None
        self._elsewhere = False

    async def __aenter__(self) -> Self:
        try:
            where = self._address
            if where is None:
                self._local = LocalProcesses(self._calls, dashboard=self._with_dashboard)
                self._open.push_async_callback(self._local.close)
                await self._local.start(self._workers)
                where = self._local.address
            self._elsewhere = not await _is_loopback(where)
            model = self._model()
            self.client = await self._open.enter_async_context(
                Client(where, asynchronous=True, timeout=10, set_as_default=False)  # type: ignore[no-untyped-call]
            )
            await self.client.wait_for_workers(self._workers if self._local else 1, timeout=30)
            await self.client.run(_prepare, model)
        except BaseException as error:
            await self.__aexit__()
            if isinstance(error, OSError | TimeoutError | ValueError) and not isinstance(
                error, ConfigError
            ):
                raise ConfigError(
                    f"no cluster at {self._address or 'this machine'}: {error}; start one with "
                    "`dask scheduler` and `dask worker`, or leave the address out"
                ) from None
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()
        self.client = self._local = None

    @property
    def dashboard(self) -> str | None:
        """The address of Dask's pages, which show workers and calls; None unless asked for.

        Raises:
            ConfigError: Outside of the `async with` block.
        """
        self._inside()
        return str(self.client.dashboard_link) if self._with_dashboard else None

    def _inside(self) -> None:
        if self.client is None:
            raise ConfigError("this cluster is not open; use `async with Cluster() as cluster`")

    def _model(self) -> Connection | _Upstream:
        """Return which model answers here, as workers have to be told."""
        chosen = connection.current()
        if chosen.real and chosen.upstream is not None and self._local is None:
            return _Upstream(chosen.upstream, chosen.model)
        if self._elsewhere:
            raise ConfigError(
                f"the workers of {self._address} are on other hosts and cannot ask what answers "
                f"here, {lab.where()}; set OPENAI_BASE_URL and OPENAI_API_KEY here and there, or "
                "leave the address out"
            )
        return lab.address()

    async def scale(self, workers: int) -> None:
        """Start or kill processes of this machine until there are `workers` of them.

        Raises:
            ConfigError: If the cluster was not started here, or is not open.
        """
        self._inside()
        checked("workers", workers, least=1, whole=True)
        if self._local is None:
            raise ConfigError("only a cluster that was started here can be scaled")
        await self._local.scale(workers)
        await self.client.wait_for_workers(workers, timeout=30)

    async def kill_scheduler(self) -> None:
        """Kill the scheduler of a cluster that was started here, to see what that costs."""
        self._inside()
        if self._local is not None and self._local.scheduler is not None:
            await kill(self._local.scheduler)

    async def ask(self, prompt: str, *, agent: str = "agent", **options: Any) -> str:
        """Call `lab.ask` on some worker; see `reply`."""
        return (await self.reply(prompt, agent=agent, **options)).text

    async def reply(self, prompt: str, *, agent: str = "agent", **options: Any) -> Reply:
        """Call `lab.reply` on some worker; if that dies, on another one.

        Raises:
            ClusterLost: If the scheduler is gone.
            EndpointError: If worker after worker died with this call in flight: one more than
                the scheduler's `allowed-failures`, which is 3. The call may be innocent, so
                asking again may help.
            ConfigError: If the worker's settings name another model than those here, the cluster
                is not open, or the prompt or an option cannot be sent to another process.
        """
        self._inside()
        _check_sendable({"prompt": prompt, "agent": agent, **options})
        # One kind of task to Dask: it learns how long a call takes, and late workers get some.
        key = f"call-{self._name}-{next(self._numbers)}"
        future = self.client.submit(
            _reply, key, self._model(), prompt, agent, options, key=key, pure=False
        )
        try:
            # On a busy machine Dask may cancel a call that nobody gave up.
            return await raise_if_cancelled_elsewhere(future)
        except FutureCancelledError as error:
            raise ClusterLost(f"the scheduler was lost while {agent!r} waited: {error}") from None
        except KilledWorker as error:
            raise EndpointError(
                f"workers that died while {agent!r} waited: {error.allowed_failures + 1}, the last "
                f"one {error.last_worker.address}; ask again, and look at what kills them"
            ) from None
        finally:
            if not future.done():
                asyncio.ensure_future(future.cancel(force=True))  # noqa: RUF006
            future.release()


def _check_sendable(values: Mapping[str, Any]) -> None:
    """Refuse what cannot be sent before Dask does, which logs a traceback and its own classes."""
    for name, value in values.items():
        try:
            loads(dumps(value))  # type: ignore[no-untyped-call]
        except Exception as error:
            raise ConfigError(
                f"{name} is of type {type(value).__name__} and cannot be sent to another process "
                f"({words(error)}); give plain data such as text and numbers"
            ) from None


async def _is_loopback(address: str) -> bool:
    """Return whether only this machine reaches the scheduler's address."""
    host = get_address_host(address)
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return all(ip_address(where[0]).is_loopback for *_, where in found)


def _prepare(model: Connection | _Upstream, dask_worker: Any) -> None:
    """Import what calls need and start what they ask, on every worker, outside of any timer."""
    _turn_to(model, dask_worker.address)
    lab.base_url()


def _turn_to(model: Connection | _Upstream, worker: str) -> None:
    """Make this worker ask this model from now on, or refuse to ask another one instead."""
    if isinstance(model, Connection):
        lab.connect(model)
        return
    own = settings.from_environment()
    if not own.real or (own.upstream, own.model) != model:
        its = f"{own.model} at {own.upstream}" if own.real else "its local model"
        raise ConfigError(
            f"worker {worker} would ask {its}, not {model.model} at {model.url}; set "
            "OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL there as they are here"
        )
    if connection.current() != own:  # another driver had turned it to an endpoint on loopback
        lab.configure()


async def _reply(
    key: str, model: Connection | _Upstream, prompt: str, agent: str, options: dict[str, Any]
) -> Reply:
    """Ask on this worker, as long as somebody waits for the answer."""
    worker = get_worker()

    async def ask() -> Reply:
        # With no `await` between: another driver's call must not turn the worker away again.
        _turn_to(model, worker.address)
        return await lab.reply(prompt, agent=agent, **options)

    asking = asyncio.ensure_future(ask())
    try:
        while not asking.done():
            await asyncio.wait([asking], timeout=_NOTICED_S)
            task = worker.state.tasks.get(key)
            if not asking.done() and (task is None or task.state == "cancelled"):
                # Not a cancellation: after a broken connection Dask may want this call again
                # before it has seen it end, and would take that for the call's own failure.
                raise Reschedule
        return await asking
    finally:
        asking.cancel()  # does nothing to what is done
