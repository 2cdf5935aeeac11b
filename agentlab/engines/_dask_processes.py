"""Dask's scheduler and workers as processes of this machine, which end with the one they serve.

They are what `dask scheduler` and `dask worker` start in a terminal. Each has its own process
group, so that killing one kills whatever it has started.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from agentlab._support.owned import end_with_owner
from agentlab.errors import ConfigError

_HERE = ("--host", "127.0.0.1", "--protocol", "tcp")
_START_S = 30


class LocalProcesses:
    """A scheduler, and any number of workers.

    Args:
        calls_per_worker: The most calls in flight on each.
        dashboard: Whether the scheduler serves its pages, on loopback.

    Attributes:
        address: The scheduler's, once `start` has returned.
    """

    def __init__(self, calls_per_worker: int, *, dashboard: bool = False):
        self._calls = calls_per_worker
        self._page = ("--dashboard-address", "127.0.0.1:0") if dashboard else ("--no-dashboard",)
        self._folder = TemporaryDirectory(prefix="agentlab-dask-")
        self.scheduler: Process | None = None
        self.workers: list[Process] = []
        self.address = ""

    async def start(self, workers: int) -> None:
        """Start the scheduler, and the workers.

        Raises:
            ConfigError: If the scheduler does not come up.
        """
        file = Path(self._folder.name) / "scheduler.json"
        own = ("--port", "0", "--scheduler-file", str(file), "--preload", __name__)
        self.scheduler = await _started("scheduler", *_HERE, *self._page, *own)
        try:
            async with asyncio.timeout(_START_S):
                while not self.address:
                    if (code := self.scheduler.returncode) is not None:
                        raise ConfigError(f"Dask's scheduler ended at its start, exit code {code}")
                    with suppress(FileNotFoundError, ValueError):  # not there yet, or half of it
                        self.address = json.loads(file.read_text())["address"]
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise ConfigError(f"Dask's scheduler did not start within {_START_S} s") from None
        await self.scale(workers)

    async def scale(self, workers: int) -> None:
        """Start or kill workers until there are `workers` of them."""
        while len(self.workers) < workers:
            calls = ("--nworkers", "1", "--nthreads", str(self._calls), "--memory-limit", "0")
            own = ("--no-dashboard", "--preload-nanny", __name__)
            self.workers.append(await _started("worker", self.address, *_HERE, *calls, *own))
        for process in self.workers[workers:]:
            await kill(process)
        del self.workers[workers:]

    async def close(self) -> None:
        """Kill all of them; the driver has cancelled before what was in flight."""
        for process in (*self.workers, self.scheduler):
            if process is not None:
                await kill(process)
        self.workers.clear()
        self._folder.cleanup()


async def _started(*arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dask", *arguments),
        stdin=PIPE,  # it closes when this process ends, however that ends
        stdout=DEVNULL,
        stderr=DEVNULL,
        start_new_session=True,
    )


async def kill(process: Process) -> None:
    """Kill a process and its group, and wait until it has ended."""
    if process.stdin is not None:
        process.stdin.close()
    with suppress(ProcessLookupError):  # it has ended by itself
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    await process.wait()


def dask_setup(_service: object) -> None:
    """End with the process that started this one. Dask calls this in each of these processes."""

    def end_the_group() -> None:
        if hasattr(os, "killpg"):
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    end_with_owner(end_the_group)
