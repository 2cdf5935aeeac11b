"""For unit tests and notebooks alike: no real model is asked, and nothing leaves this machine.

pytest's own process and every process it starts (workers, notebook kernels, endpoints) are guarded
by `tests/network_guard`; a single refused attempt fails the whole run, whoever swallowed the error.
What is started ends with the process that runs the tests, even if that is killed (`tests/reaper`).
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "tests"))
import reaper

GUARD = Path(__file__).parent / "tests" / "network_guard"

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes import the same module
os.environ["AGENTLAB_PROGRESS"] = "0"  # a moving bar has nothing to compare
# A pytest that a test starts has another pyproject.toml, or none; these take it four seconds.
SLOW = "nbval langsmith_plugin asyncio benchmark codspeed recording socket syrupy hypothesispytest"
os.environ["PYTEST_ADDOPTS"] = " ".join(f"-p no:{plugin}" for plugin in SLOW.split())
for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "AGENTLAB_LANGUAGE"):
    os.environ.pop(name, None)


def pytest_configure(config: pytest.Config) -> None:
    reaper.start()
    if "AGENTLAB_GUARD_LOG" in os.environ:
        return  # a worker: its controller has set everything up
    handle, log = tempfile.mkstemp(prefix="agentlab-guard-")
    os.close(handle)
    reaper.afterwards("rm", "-f", log)
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(GUARD), inherited]))
    os.environ["AGENTLAB_GUARD_LOG"] = log
    config.stash[LOG] = Path(log)
    runpy.run_path(str(GUARD / "sitecustomize.py"), run_name="network_guard")


LOG = pytest.StashKey[Path]()


def pytest_unconfigure() -> None:
    reaper.finish()


def pytest_sessionfinish(session: pytest.Session) -> None:
    log = session.config.stash.get(LOG, None)
    if log is None:
        return
    attempts = log.read_text(encoding="utf-8")
    log.unlink()
    if attempts:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nAttempts to leave this machine, all refused:\n{attempts}", file=sys.stderr)
