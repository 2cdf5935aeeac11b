"""What the unit tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# No test asserts a time, and none fails because the machine is busy. (The rest is as it was: where
# CI is set, Hypothesis draws the same examples each time.)
settings.register_profile(
    "agentlab", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("agentlab")

# Dask's processes look at themselves fifty times a second, and a cluster lives through many tests.
os.environ |= {
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "60s",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}

# What takes longest begins first, so that no worker is left alone with it at the end. Ten thousand
# schedules leave much garbage, which is collected sooner in a process that has nothing else yet.
LONGEST = (
    "every_schedule exercises engine_dask border engine_crewai client_crewai sub_agents_raw "
    "tools_raw setup wheel bundle content_kill notebook_tools class_lessons attack_processes "
    "classroom_serve real_lessons compare proof book hosts bench_real learning testing"
).split()
# Each imports CrewAI, which takes six seconds: one worker has them all.
CREWAI = "border engine_crewai client_crewai sub_agents_raw tools_raw".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if " at 0x" in item.nodeid:  # `ids=str` of an object: no two of xdist's workers agree on it
            raise pytest.UsageError(f"name its case, the address changes: {item.nodeid}")
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem.removeprefix("test_"), len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With workers, the tests of a file stay together: they share a cluster, a book or an import.

    So do all files that import CrewAI.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "CrewAI" if Path(file).stem.removeprefix("test_") in CREWAI else file

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


@pytest.fixture
def where(tmp_path: Path) -> str:
    """Where a journal may lie."""
    return str(tmp_path / "journal.sqlite")
