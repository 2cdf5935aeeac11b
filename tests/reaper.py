"""End what the tests have started once their process is gone, however that ended.

A test that is killed cannot tidy up. So each process that runs tests has a reaper: a process that
waits for its end. Whatever was started meanwhile, by whomever, carries a mark in its environment,
and the reaper ends all that do. Then it runs what was to be done `afterwards`.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
import sys
import time
from functools import cache

import psutil

MARK = "AGENTLAB_STARTED_BY_"
_LOOK_EVERY_S = 0.5
_GRACE_S = 3.0
_LOOKS = 20


@cache
def start() -> subprocess.Popen[str]:
    """Start the reaper of this process; what this process starts from now on ends with it."""
    mark = f"{MARK}{os.getpid()}_{secrets.token_hex(4)}"
    marked_by_none = {k: v for k, v in os.environ.items() if not k.startswith(MARK)}
    process = subprocess.Popen(
        [sys.executable, __file__, mark, str(os.getpid()), *map(str, _up_to_make())],
        env=marked_by_none,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    os.environ[mark] = "1"
    return process


def afterwards(*command: str) -> None:
    """Have a command run once this process is gone."""
    pipe = start().stdin
    assert pipe is not None
    print(json.dumps(command), file=pipe, flush=True)


def finish() -> None:
    """End what is left of what this process has started, now."""
    start().communicate()
    start.cache_clear()


def _up_to_make() -> list[int]:
    """The processes between this one and the `make` that runs it: without them nobody waits."""
    if "MAKELEVEL" not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
        return []
    parents = psutil.Process().parents()
    makes = [number for number, parent in enumerate(parents) if parent.name().endswith("make")]
    return [parent.pid for parent in parents[: makes[0] + 1]] if makes else []


def _wait(owners: list[psutil.Process]) -> list[list[str]]:
    """Wait until one of `owners` is gone, or has closed its pipe; returns what it has asked for."""
    said = b""
    while all(_runs(owner) for owner in owners):
        if not select.select([0], [], [], _LOOK_EVERY_S)[0]:
            continue
        if not (more := os.read(0, 65536)):
            break
        said += more
    return [json.loads(line) for line in said.split(b"\n")[:-1]]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if mark in process.environ() and _runs(process):
                found.append(process)
        except (psutil.Error, OSError):  # it is gone, or another user's
            continue
    return found


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.terminate()
        except psutil.Error:
            continue
    for process in psutil.wait_procs(processes, timeout=_GRACE_S)[1]:
        try:
            process.kill()
        except psutil.Error:
            continue


def main(mark: str, pids: list[int]) -> None:
    try:
        owners = [psutil.Process(pid) for pid in pids]
        commands = _wait(owners)
    except psutil.NoSuchProcess:
        owners, commands = [], []
    if owners and not all(map(_runs, owners)):
        _end([owner for owner in owners[:1] if _runs(owner)])  # its `make` was killed
    for _ in range(_LOOKS):
        if not (processes := _marked(mark)):
            break
        _end(processes)
        time.sleep(_LOOK_EVERY_S)  # for what was being started
    for command in commands:
        subprocess.run(command, stderr=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main(sys.argv[1], [int(pid) for pid in sys.argv[2:]])
