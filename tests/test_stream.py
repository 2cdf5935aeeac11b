"""Streams of calls: bounded, lazy, complete; and a memory budget that slows down."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from itertools import count

import pytest

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.errors import ConfigError, EndpointError
from agentlab.resilience import _amap as module
from agentlab.resilience import amap


def test_everything_comes_once_and_no_more_than_so_many_at_once():
    """100 items, 7 at once: 100 outcomes, peak 7, in ceil(100 / 7) rounds."""
    in_flight = peak = 0

    async def work(item: int) -> int:
        nonlocal in_flight, peak
        in_flight += 1
        peak = max(peak, in_flight)
        await lab.sleep(1)
        in_flight -= 1
        return item * 2

    async def main() -> list[tuple]:
        return [outcome async for outcome in amap(work, range(100), max_concurrency=7)]

    run = run_virtual(main())
    assert sorted(run.result) == [(n, 2 * n, None) for n in range(100)]
    assert (peak, run.elapsed_s) == (7, 15)


def test_an_error_is_an_outcome():
    """The others go on, and none is lost."""

    async def work(item: int) -> int:
        if item % 10 == 0:
            raise ValueError(item)
        return item

    async def main() -> list[tuple]:
        return [outcome async for outcome in amap(work, range(50), max_concurrency=3)]

    outcomes = run_virtual(main()).result
    assert len(outcomes) == 50
    assert [o.item for o in outcomes if o.error is not None] == [0, 10, 20, 30, 40]


def test_items_are_taken_lazily_and_leaving_cancels():
    """From an endless generator, 3 more than were needed are taken, and then cancelled."""
    taken, cancelled = [], []

    def items() -> Iterator[int]:
        for number in count():
            taken.append(number)
            yield number

    async def work(item: int) -> int:
        try:
            await lab.sleep(item + 1)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise
        return item

    async def main() -> None:
        async with aclosing(amap(work, items(), max_concurrency=4)) as outcomes:
            async for outcome in outcomes:
                if outcome.item == 5:
                    break

    run_virtual(main())
    assert len(taken) == 9
    assert cancelled == [6, 7, 8]


def test_a_memory_budget_slows_down_and_finishes(monkeypatch: pytest.MonkeyPatch):
    """Beyond it, one at a time; below it again, as many as before."""
    resident = iter([50.0] * 10 + [500.0] * 40)

    class Process:
        def memory_info(self) -> object:
            class Info:
                rss = next(resident, 50.0) * 1e6

            return Info

    monkeypatch.setattr(module.psutil, "Process", Process)
    running: list[int] = []
    now = 0

    async def work(item: int) -> None:
        nonlocal now
        now += 1
        running.append(now)
        await lab.sleep(1)
        now -= 1

    async def main() -> int:
        outcomes = amap(work, range(60), max_concurrency=5, max_memory_mb=100)
        return len([outcome async for outcome in outcomes])

    assert run_virtual(main()).result == 60
    assert running[0:5] == [1, 2, 3, 4, 5]
    assert running.count(1) > 10
    assert running[-1] > 1


def test_none_at_once_is_refused():
    """It would never end."""
    with pytest.raises(ConfigError, match="max_concurrency"):
        run_virtual(anext(amap(lab.ask, ["x"], max_concurrency=0)))


def test_a_call_that_ends_as_cancelled_is_an_outcome():
    """Nobody cancelled the stream, so the loop goes on; the error says what became of the item."""

    async def work(item: int) -> int:
        if item == 1:
            raise asyncio.CancelledError
        return item

    async def main() -> list[tuple]:
        return [outcome async for outcome in amap(work, range(3), max_concurrency=1)]

    first, second, third = run_virtual(main()).result
    assert (first.result, third.result) == (0, 2)
    assert isinstance(second.error, EndpointError)
