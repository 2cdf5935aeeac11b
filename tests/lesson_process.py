"""The cells of a lesson in a process of their own: what a kernel does, without starting one.

A process is forked from a server of `multiprocessing`, which can have imported already what lessons
import. Where nothing can be forked, as on Windows, it is started and imports what it needs.
"""

from __future__ import annotations

import asyncio
import atexit
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

FORKS = "forkserver" in multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("forkserver" if FORKS else "spawn")


def import_first(modules: list[str]) -> None:
    """Have the server, if it has not begun yet, import these before it forks."""
    # No other thread may run where a process forks, and numpy brings some.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    CONTEXT.set_forkserver_preload(modules)


def printed_by(folder: Path, cells: list[str], timeout_s: float) -> Iterator[str]:
    """Yield what each cell prints, as soon as it has ended.

    Raises:
        RuntimeError: A cell failed, or ran for longer than `timeout_s`.
        EOFError: The process died.
    """
    received, sent = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_run, args=(folder, cells, dict(os.environ), sent))
    process.start()
    sent.close()
    try:
        for cell in cells:
            if not received.poll(timeout_s):
                raise RuntimeError(f"after {timeout_s:g} s this had not ended:\n{cell}")
            printed, failed = received.recv()
            if failed:
                raise RuntimeError(f"{failed} in this cell:\n{cell}\nwhich printed:\n{printed}")
            yield printed
        process.join(timeout_s)
    finally:
        process.kill()
        process.join()
        process.close()
        received.close()


def _run(folder: Path, cells: list[str], environment: dict[str, str], sent: Connection) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    try:
        asyncio.run(_run_cells(cells, sent))
    finally:
        sent.close()
        # A process of multiprocessing leaves that out, and what a lesson has started ends by it.
        atexit._run_exitfuncs()


async def _run_cells(cells: list[str], sent: Connection) -> None:
    """Run cells as a kernel does: inside of a loop, with the names of `__main__`."""
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.ast_node_interactivity = "none"  # a value at the end of a cell is shown, not printed
    for cell in cells:
        with capture_output() as said:
            code = shell.transform_cell(cell)
            result = await shell.run_cell_async(cell, transformed_cell=code)
        failed = result.error_before_exec or result.error_in_exec
        sent.send((said.stdout, repr(failed) if failed else ""))
        if failed:
            return
