"""Hostile and odd inputs, by area: one file an area, one test a kind, one parameter an input.

Each kind is tried with its first and its last input; `--all-inputs`, which `make attack` gives,
tries them all. A summary counts, by area, what was tried and what failed.
"""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HUNG_S = 120
"""Nothing here takes more than a few seconds, on a busy machine, either."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-inputs", action="store_true", help="every hostile input of each kind")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all-inputs", default=False):
        return
    kinds: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if _is_attack(item.nodeid):
            kinds[_kind(item.nodeid)].append(item)
    kept = {id(item) for tried in kinds.values() for item in (tried[0], tried[-1])}
    items[:] = [item for item in items if not _is_attack(item.nodeid) or id(item) in kept]


@pytest.fixture(autouse=True)
def ends() -> Iterator[None]:
    """What hangs fails, and the next input is tried."""

    def hung(*_: Any) -> None:
        raise AssertionError(f"it hangs: not over after {HUNG_S} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(HUNG_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    tried: dict[str, list[bool]] = defaultdict(list)
    kinds: dict[str, set[str]] = defaultdict(set)
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            if _is_attack(report.nodeid):
                area = Path(report.nodeid.partition("::")[0]).stem.removeprefix("test_attack_")
                tried[area].append(outcome == "passed")
                kinds[area].add(_kind(report.nodeid))
    if not tried:
        return
    rows = [
        (area, len(kinds[area]), len(ends), ends.count(False))
        for area, ends in sorted(tried.items())
    ]
    rows.append(("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
    terminalreporter.write_line(f"\n{'hostile inputs':<18}{'kinds':>7}{'tried':>7}{'failed':>8}")
    for area, many_kinds, many, failed in rows:
        terminalreporter.write_line(f"{area:<18}{many_kinds:>7}{many:>7}{failed:>8}")


def _is_attack(nodeid: str) -> bool:
    return "/attack/" in f"/{nodeid}"


def _kind(nodeid: str) -> str:
    return nodeid.partition("[")[0]
