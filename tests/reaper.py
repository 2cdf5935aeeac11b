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


def runs(pid: int) -> bool:
    """True until the process has ended, though nobody may have asked for its exit code yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def outlive(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those of `processes` that still run after so long; it waits no longer than it must."""
    end_s = time.monotonic() + seconds
    while (left := [each for each in processes if runs(each.pid)]) and time.monotonic() < end_s:
        time.sleep(0.05)
    return left


def _up_to_make() -> list[int]:
    """The processes from this one up to the outermost `make`: without them nobody waits."""
    if "MAKELEVEL" not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
        return []
    parents = psutil.Process().parents()
    makes = [number for number, parent in enumerate(parents) if parent.name().endswith("make")]
    return [parent.pid for parent in parents[: makes[-1] + 1]] if makes else []


def _wait(owners: list[int]) -> list[list[str]]:
    """Wait until one of `owners` is gone, or has closed its pipe; returns what it has asked for."""
    said = b""
    here = True
    while True:
        here = here and all(map(runs, owners))
        if select.select([0], [], [], _LOOK_EVERY_S if here else 0)[0]:
            if not (more := os.read(0, 65536)):
                break
            said += more
        elif not here:
            break
    return [json.loads(line) for line in said.split(b"\n")[:-1]]


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if mark in process.environ() and runs(process.pid):
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
    for process in outlive(processes, _GRACE_S):
        try:
            process.kill()
        except psutil.Error:
            continue


def main(mark: str, owner: int, makes: list[int]) -> None:
    commands = _wait([owner, *makes])
    if not all(map(runs, makes)) and runs(owner):  # `make` was killed, and nobody waits for it
        _end([psutil.Process(owner)])
    for _ in range(_LOOKS):
        if not (processes := _marked(mark)):
            break
        _end(processes)
        time.sleep(_LOOK_EVERY_S)  # for what was being started
    for command in commands:
        subprocess.run(command, stderr=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [int(pid) for pid in sys.argv[3:]])
