"""Calls placed on other processes, here or on other hosts, by Dask.

Dask only places calls. The driver, which is your program, keeps the limits, the retries, the rate
and the journal, so each of them is one for all workers. A worker brings its own event loop, on
which many calls wait at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from itertools import count
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from distributed import Client, Reschedule, get_worker
from distributed.client import FutureCancelledError

from agentlab import lab
from agentlab.cancelling import never_cancelled_from_within
from agentlab.engines import asyncio as here
from agentlab.engines.asking import Ask
from agentlab.engines.dask_processes import LocalProcesses
from agentlab.errors import ClusterLost, ConfigError
from agentlab.lab import Address, Reply
from agentlab.workflow import Workflow

# What it logs when a scheduler is gone, at length, is said by an error here.
for _part in ("batched", "client", "core"):
    logging.getLogger(f"distributed.{_part}").setLevel(logging.CRITICAL)

_NOTICED_S = 0.1
"""How often a call on a worker looks whether anybody still waits for it."""


class Cluster:
    """Workers that make calls: processes of this machine, or whoever joined a scheduler.

    Args:
        address: A scheduler's, such as `tcp://10.0.0.1:8786`; None starts one here, on loopback.
        workers: How many processes to start here.
        calls_per_worker: The most calls in flight on each of these.
        dashboard: Whether a scheduler that is started here serves Dask's pages, on loopback.

    Raises:
        ConfigError: If there is no scheduler at the address.

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
        if min(workers, calls_per_worker) < 1:
            raise ConfigError(
                f"a cluster needs workers and calls_per_worker >= 1: {workers}, {calls_per_worker}"
            )
        self._address = address
        self._workers = workers
        self._calls = calls_per_worker
        self._with_dashboard = dashboard
        self._numbers = count()
        self._name = uuid4().hex  # others may use the same scheduler
        self._open = AsyncExitStack()
        self.client: Any = None
        """Dask's own, for whatever else it can do."""
        self._local: LocalProcesses | None = None

    async def __aenter__(self) -> Self:
        try:
            where = self._address
            if where is None:
                self._local = LocalProcesses(self._calls, dashboard=self._with_dashboard)
                self._open.push_async_callback(self._local.close)
                await self._local.start(self._workers)
                where = self._local.address
            self.client = await self._open.enter_async_context(
                Client(where, asynchronous=True, timeout=10, set_as_default=False)  # type: ignore[no-untyped-call]
            )
            await self.client.wait_for_workers(self._workers if self._local else 1, timeout=30)
            await self.client.run(_nothing)  # imports what calls need, outside of any timer
        except BaseException as error:
            await self._open.aclose()
            if isinstance(error, ConfigError) or not isinstance(
                error, OSError | TimeoutError | ValueError
            ):
                raise
            raise ConfigError(
                f"no cluster at {self._address or 'this machine'}: {error}; start one with "
                "`dask scheduler` and `dask worker`, or leave the address out"
            ) from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    @property
    def dashboard(self) -> str | None:
        """The address of Dask's pages: workers and calls as they come; None without them."""
        if self._local is not None and not self._with_dashboard:
            return None
        return str(self.client.dashboard_link)

    async def scale(self, workers: int) -> None:
        """Start or end processes of this machine until there are so many.

        Raises:
            ConfigError: If the cluster is another's.
        """
        if self._local is None or workers < 1:
            raise ConfigError(
                f"only a cluster that was started here can be scaled, to 1 or more; got {workers}"
            )
        await self._local.scale(workers)
        await self.client.wait_for_workers(workers, timeout=30)

    async def behead(self) -> None:
        """Kill the scheduler of a cluster that was started here, to see what that costs."""
        if self._local is not None:
            await self._local.behead()

    async def ask(self, prompt: str, *, agent: str = "agent", **options: Any) -> str:
        """`lab.ask`, on some worker."""
        return (await self.reply(prompt, agent=agent, **options)).text

    async def reply(self, prompt: str, *, agent: str = "agent", **options: Any) -> Reply:
        """`lab.reply`, on some worker; if that dies, on another one.

        Raises:
            ClusterLost: If the scheduler is.
        """
        # One kind of task to Dask: it learns how long a call takes, and who joins late gets some.
        key = f"call-{self._name}-{next(self._numbers)}"
        future = self.client.submit(
            _reply,
            key,
            lab.address(),
            prompt,
            agent,
            options,
            key=key,
            pure=False,
        )
        try:
            # On a busy machine Dask may cancel a call that nobody gave up.
            return await never_cancelled_from_within(future)
        except FutureCancelledError as error:
            raise ClusterLost(f"the scheduler was lost while {agent!r} waited: {error}") from None
        finally:
            if not future.done():
                asyncio.ensure_future(future.cancel(force=True))  # noqa: RUF006
            future.release()


def _nothing() -> None:
    """Being here takes this module, and all that it imports."""


async def _reply(
    key: str, address: Address | None, prompt: str, agent: str, options: dict[str, Any]
) -> Reply:
    """On the worker: ask, unless nobody waits for it any more."""
    if address is not None:
        lab.connect(address)
    asking = asyncio.ensure_future(lab.reply(prompt, agent=agent, **options))
    worker = get_worker()
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


async def run(
    workflow: Workflow,
    inputs: Mapping[str, str] | None = None,
    *,
    ask: Ask | None = None,
    progress: bool = False,
) -> dict[str, str]:
    """Run a workflow with each of its calls on some worker; see `engines.run`.

    Without an `ask`, which would be a `Cluster`'s, workers are started for this run alone.
    """
    if ask is not None:
        return await here.run(workflow, inputs, ask=ask, progress=progress)
    async with Cluster() as cluster:
        return await here.run(workflow, inputs, ask=cluster.ask, progress=progress)
