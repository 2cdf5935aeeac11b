"""What the unit tests share."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType
from typing import Any

import pytest
import reaper

# What takes longest begins first, so that no worker is left alone with it at the end.
LONGEST = (
    "exercises engine_dask border setup wheel bundle content_kill notebook_tools class_lessons "
    "attack_processes classroom_serve bench_real real_lessons book learning testing"
).split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem.removeprefix("test_"), len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n 3`, the tests of a file stay together: they share a cluster, a book or an import.

    The exercises of each lesson, which share nothing, are on their own.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if "own_hint[" in nodeid else nodeid.partition("::")[0]

    config.option.loadscopereorder = False  # by the number of tests
    return ByFile(config, log)


def pytest_collection_finish() -> None:
    """What is imported by now is no garbage: collecting looks at what the tests have made alone."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def fresh_lab() -> Iterator[ModuleType]:
    """The lab with the environment's settings, before and after the test."""
    from agentlab import lab

    lab.configure()
    yield lab
    lab.configure()


def programs() -> Path | None:
    """Where PostgreSQL's server programs are: Debian keeps them out of the path."""
    if (found := shutil.which("initdb")) is not None and shutil.which("pg_ctl") is not None:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return versions[-1] if versions else None


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A server of our own, on a socket in a folder; it refuses to run as root."""
    binaries = programs()
    if binaries is None:
        assert "AGENTLAB_NEEDS_POSTGRES" not in os.environ, "install postgresql"
        pytest.skip("PostgreSQL is not installed")
    folder = Path(mkdtemp(prefix="agentlab-pg-"))  # pytest's own folders are for one user only
    reaper.afterwards("rm", "-rf", str(folder))
    as_user: list[str] = []
    if os.geteuid() == 0:
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [*as_user, str(binaries / program), *arguments],
            check=True,
            cwd="/",
            stdout=subprocess.DEVNULL,
        )

    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "lab", "--auth=trust", "-E", "UTF8", "--locale=C")
    only_here = f"-c listen_addresses='' -k {folder}"
    run("pg_ctl", "-D", data, "-w", "-o", only_here, "-l", str(folder / "log"), "start")
    try:
        yield f"postgresql://lab@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture
def postgres(server: str) -> str:
    """Its database, empty."""
    import psycopg

    with psycopg.connect(server, autocommit=True) as database:
        database.execute("DROP TABLE IF EXISTS agentlab_steps, agentlab_jobs")
    return server


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "journal.sqlite")
    url: str = request.getfixturevalue("postgres")
    return url
