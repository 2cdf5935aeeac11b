"""Calls placed on other processes, here or on other hosts, by Dask.

Limits, retries and journal stay here, one for all workers. Workers on loopback share the endpoint
here; all others ask a real model with their own key, and refuse a call for another model.
"""

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import AsyncExitStack
from tempfile import TemporaryDirectory
from typing import Any, Self
from uuid import uuid4

from distributed import Client, Reschedule, get_worker
from distributed.client import FutureCancelledError
from distributed.comm.addressing import get_address_host
from distributed.scheduler import KilledWorker

from agentlab import lab, settings
from agentlab._support.asyncio_tools import raise_if_cancelled_elsewhere, running_loop
from agentlab._support.fields import checked
from agentlab.endpoint.server.process import end_with_owner
from agentlab.errors import AgentLabError, ClusterLost, ConfigError, EndpointError
from agentlab.lab import Connection, Reply, connection
from agentlab.resilience import words

# Dask logs at length what an error here says, such as a scheduler that is gone.
for _part in ("batched", "client", "core"):
    logging.getLogger(f"distributed.{_part}").setLevel(logging.CRITICAL)

_NOTICED_S = 0.1  # how often a call on a worker looks whether anybody still waits for it
_STARTED_S = 120  # how long a cluster may take to be there

_Model = Connection | tuple[str, str]
"""What a call asks: an endpoint, or a real model's URL and name, with a key of the worker's own."""


class Cluster:
    """Workers that make calls: processes of this machine, or the workers of a scheduler.

    Args:
        address: A scheduler's, such as `tcp://10.0.0.1:8786`; None starts one here, on loopback,
            with so many `workers`, and Dask's pages if `dashboard` is set.
        calls_per_worker: The most calls in flight on each of these.

    Entering it is a ConfigError if nothing is there, or it cannot ask what answers here.
    """

    def __init__(
        self, address: str | None = None,
        *, workers: int = 2, calls_per_worker: int = 64, dashboard: bool = False,
    ) -> None:  # fmt: skip
        checked("workers", workers, least=1, whole=True)
        checked("calls_per_worker", calls_per_worker, least=1, whole=True)
        self._address, self._workers, self._calls = address, workers, calls_per_worker
        self._dashboard = dashboard and address is None
        self._open = AsyncExitStack()
        self._client: Any = None
        self._scheduler: Process | None = None
        self._here: list[Process] = []

    async def __aenter__(self) -> Self:
        if self._client is not None:
            raise ConfigError("this cluster is open already; enter another `Cluster()`")
        try:
            async with asyncio.timeout(_STARTED_S):
                await self._connect()
        except BaseException as error:
            await self.__aexit__()
            if isinstance(error, AgentLabError) or not isinstance(error, Exception):
                raise
            none = f"no cluster at {self._address or 'this machine'}: {words(error)}"
            cure = "start one with `dask scheduler` and `dask worker`, or leave the address out"
            raise ConfigError(f"{none}; {cure}") from None
        return self

    async def _connect(self) -> None:
        model = self._model()
        where = {"address": self._address}
        if self._address is None:
            temporary = TemporaryDirectory(prefix="agentlab-dask-", ignore_cleanup_errors=True)
            self._folder = self._open.enter_context(temporary)
            where = {"scheduler_file": f"{self._folder}/scheduler.json"}
            page = "--dashboard-address=127.0.0.1:0" if self._dashboard else "--no-dashboard"
            self._scheduler = await self._start("scheduler", "--port=0", page, "--preload")
        client: Any = Client(**where, asynchronous=True, set_as_default=False)  # type: ignore[no-untyped-call]
        self._open.push_async_callback(client.close)  # also if it cannot connect
        self._client = await client
        if self._scheduler is not None:
            await self.scale(self._workers)
        await client.wait_for_workers(1)
        await client.run(_turn_to, model)  # imports and starts what calls need, before any timer

    async def _start(self, kind: str, *options: str) -> Process:
        """Start what `dask scheduler` or `dask worker` starts in a terminal, on loopback."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dask", kind, "--host=127.0.0.1", "--protocol=tcp"),
            # The last option is a --preload, of this file: Dask calls its `dask_setup`.
            *(f"--scheduler-file={self._folder}/scheduler.json", *options, __name__),
            env={**os.environ, "DASK_TEMPORARY_DIRECTORY": self._folder},
            stdin=PIPE,  # it closes when this process ends, however that ends
            stdout=DEVNULL,
            stderr=DEVNULL,
            start_new_session=True,
        )
        self._open.push_async_callback(_ended, process)
        return process

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()
        self._client = self._scheduler = None
        self._here.clear()

    @property
    def client(self) -> Any:
        """Dask's own client, inside of the `async with` block."""
        if self._client is None:
            raise ConfigError("this cluster is not open; use `async with Cluster() as cluster`")
        if running_loop() not in (None, self._client.loop.asyncio_loop):
            raise ConfigError("this cluster was opened in another event loop; await it there")
        return self._client

    @property
    def dashboard(self) -> str | None:
        """The address of Dask's pages, which show workers and calls; None unless asked for."""
        return str(self.client.dashboard_link) if self._dashboard else None

    def _model(self) -> _Model:
        chosen = connection.current()
        if self._address is None:
            return lab.address()
        if chosen.real and chosen.upstream is not None:
            return chosen.upstream, chosen.model
        if not get_address_host(self._address).startswith(("127.", "localhost", "::1")):
            away = f"the workers of {self._address} are on other hosts and cannot ask what answers"
            cure = "set OPENAI_BASE_URL and OPENAI_API_KEY here and there, or leave the address out"
            raise ConfigError(f"{away} here, {lab.where()}; {cure}")
        return lab.address()

    async def scale(self, workers: int) -> None:
        """Start or kill processes until there are `workers` in a cluster that was started here."""
        checked("workers", workers, least=1, whole=True)
        if self._scheduler is None:
            raise ConfigError("only a cluster started here, by `async with Cluster()`, scales")
        while len(self._here) < workers:
            calls = ("--no-dashboard", "--memory-limit=0", f"--nthreads={self._calls}")
            self._here.append(await self._start("worker", *calls, "--preload-nanny"))
        while len(self._here) > workers:
            await _ended(self._here.pop())
        await self.client.wait_for_workers(workers, timeout=_STARTED_S)

    async def kill_scheduler(self) -> None:
        """Kill the scheduler of a cluster that was started here, to see what that costs."""
        if self._scheduler is not None:
            await _ended(self._scheduler)

    async def ask(self, prompt: str, *, agent: str = "agent", **options: Any) -> str:
        """Call `lab.ask` on some worker; see `reply`."""
        return (await self.reply(prompt, agent=agent, **options)).text

    async def reply(self, prompt: str, *, agent: str = "agent", **options: Any) -> Reply:
        """Call `lab.reply` on some worker; if that dies, on another one.

        Raises:
            ClusterLost: If the scheduler is gone.
            EndpointError: If four workers in turn died with this call in flight.
            ConfigError: If the worker would ask another model.
        """
        key = f"call-{uuid4().hex}"  # by its first word Dask learns how long a call takes
        given = {"prompt": prompt, "agent": agent, **options}
        future = self.client.submit(_reply, key, self._model(), given, key=key, pure=False)
        try:
            # On a busy machine Dask may cancel a call that nobody gave up.
            return await raise_if_cancelled_elsewhere(future)
        except FutureCancelledError as error:
            raise ClusterLost(f"the scheduler was lost while {agent!r} waited: {error}") from None
        except KilledWorker as error:
            died = f"workers that died while {agent!r} waited: {error.allowed_failures + 1}"
            raise EndpointError(f"{died}; ask again, and look at what kills them") from None
        finally:
            if not future.done():
                asyncio.ensure_future(future.cancel(force=True))  # noqa: RUF006
            future.release()


async def _ended(process: Process) -> None:
    """Have a scheduler or worker kill itself and what it has started."""
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()


def dask_setup(_service: object) -> None:
    """End with the process that started this one. Dask calls this in each of these processes."""

    def end_the_group() -> None:
        if hasattr(os, "killpg"):
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    end_with_owner(end_the_group)


def _turn_to(model: _Model, dask_worker: Any) -> None:
    """Make this worker ask this model from now on, or refuse to ask another one instead."""
    if isinstance(model, Connection):
        lab.connect(model)
        return
    own = settings.from_environment()
    if not own.real or (own.upstream, own.model) != model:
        its = f"{own.model} at {own.upstream}" if own.real else "its local model"
        would = f"worker {dask_worker.address} would ask {its}, not {model[1]} at {model[0]}"
        cure = "set OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL there as they are here"
        raise ConfigError(f"{would}; {cure}")
    if connection.current() != own:  # another driver had turned it to an endpoint on loopback
        lab.configure()
    lab.base_url()  # starts what forwards to it


async def _reply(key: str, model: _Model, given: dict[str, Any]) -> Reply:
    """Ask on this worker, as long as somebody waits for the answer: Dask ends no coroutine."""
    worker = get_worker()

    async def ask() -> Reply:
        # With no `await` between: another driver's call must not turn the worker away again.
        _turn_to(model, worker)
        return await lab.reply(**given)

    asking = asyncio.ensure_future(ask())
    try:
        while not asking.done():
            await asyncio.wait([asking], timeout=_NOTICED_S)
            task = worker.state.tasks.get(key)
            if not asking.done() and (task is None or task.state == "cancelled"):
                raise Reschedule  # a cancellation would be taken for the call's own failure
        return await asking
    finally:
        asking.cancel()  # does nothing to what is done
