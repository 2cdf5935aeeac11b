"""Compare `agentlab.explore` with simloom: which bugs are found, in how many schedules, how fast.

Needs simloom (Apache-2.0, Python 3.12 or later) beside the base of this package, in an environment
of its own:

    uv venv -p 3.12 DIR; uv pip install -p DIR simloom . && DIR/bin/python tools/explorers.py

The last two programs are right in asyncio, which keeps the order in which tasks are made and in
which getters of a queue wait. A failure there is a false alarm.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any

from agentlab.clock import run_virtual

SCHEDULES = 1000
Program = Callable[[], Coroutine[Any, Any, None]]


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def lost_update_over_a_yield() -> None:
    """Three tasks add one, three times each, and yield between reading and writing."""
    total = 0

    async def add() -> None:
        nonlocal total
        for _ in range(3):
            seen = total
            await asyncio.sleep(0)
            total = seen + 1

    await asyncio.gather(*(add() for _ in range(3)))
    assert total == 9


async def lost_update_over_a_timer() -> None:
    """Two payments meet at one instant; right if the first comes first."""
    euros = 0

    async def pay(amount: int, after: int) -> None:
        nonlocal euros
        for _ in range(after):
            await asyncio.sleep(1)
        has = euros
        await asyncio.sleep(1)
        euros = has + amount

    await asyncio.gather(pay(10, 1), pay(5, 2))
    assert euros == 15


async def check_then_act() -> None:
    """A flag is looked at, and set one turn later."""
    busy, inside, most = False, 0, 0

    async def enter(after: int) -> None:
        nonlocal busy, inside, most
        await _turns(after)
        if not busy:
            await asyncio.sleep(0)
            busy, inside = True, inside + 1
            most = max(most, inside)
            await asyncio.sleep(0)
            busy, inside = False, inside - 1

    await asyncio.gather(*(enter(n + 1) for n in range(4)))
    assert most <= 1


async def torn_publication() -> None:
    """A reader looks twice while a writer is between its two steps; ten others keep it busy."""
    pointer, ready, torn = False, False, 0

    async def write() -> None:
        nonlocal pointer, ready
        await _turns(2)
        pointer = True
        await _turns(4)
        ready = True

    async def read() -> None:
        nonlocal torn
        await _turns(6)
        for _ in range(2):
            torn += pointer and not ready
            await asyncio.sleep(0)

    await asyncio.gather(write(), read(), *(_turns(8) for _ in range(10)))
    assert torn < 2


async def starvation() -> None:
    """One task makes fourteen turns while the other makes none."""
    renewed = 0

    async def renew() -> None:
        nonlocal renewed
        for _ in range(20):
            await asyncio.sleep(0)
            renewed += 1

    async def work() -> None:
        await _turns(14)
        assert renewed > 0

    await asyncio.gather(work(), renew())


async def two_locks_in_two_orders() -> None:
    """Each of two tasks holds the lock that the other one waits for."""
    locks = asyncio.Lock(), asyncio.Lock()

    async def both(first: int, after: int) -> None:
        for _ in range(after):
            await asyncio.sleep(1)
        async with locks[first]:
            await asyncio.sleep(1)
            async with locks[1 - first]:
                pass

    async with asyncio.timeout(100):
        await asyncio.gather(both(0, 1), both(1, 2))


async def swallowed_cancellation() -> None:
    """An answer and a cancellation come together, and the waiter prefers the answer."""

    async def victim() -> str:
        work = asyncio.ensure_future(asyncio.sleep(1, "answer"))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if work.done():
                return work.result()
            raise

    task = asyncio.create_task(victim())
    await asyncio.sleep(1)
    cancelled = task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    assert not (cancelled and outcome == "answer")


async def tasks_begin_in_order() -> None:
    """No bug: asyncio begins tasks in the order in which they are made."""
    begun: list[int] = []

    async def begin(number: int) -> None:
        begun.append(number)

    await asyncio.gather(*(begin(n) for n in range(3)))
    assert begun == [0, 1, 2]


async def getters_get_in_order() -> None:
    """No bug: asyncio's queue serves those who wait in the order in which they came."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    got: list[tuple[int, int]] = []

    async def get(number: int) -> None:
        got.append((number, await queue.get()))

    getters = [asyncio.create_task(get(n)) for n in range(3)]
    await asyncio.sleep(1)
    for number in range(3):
        queue.put_nowait(number)
    await asyncio.gather(*getters)
    assert got == [(0, 0), (1, 1), (2, 2)]


PROGRAMS: list[Program] = [
    lost_update_over_a_yield,
    lost_update_over_a_timer,
    check_then_act,
    torn_publication,
    starvation,
    two_locks_in_two_orders,
    swallowed_cancellation,
    tasks_begin_in_order,
    getters_get_in_order,
]


def ours(program: Program) -> list[int]:
    failed = []
    for seed in range(SCHEDULES):
        try:
            run_virtual(program(), schedule=seed)
        except Exception:
            failed.append(seed)
    return failed


def simlooms(program: Program, scheduler: str | None) -> list[int]:
    simloom: Any = importlib.import_module("simloom")
    found = simloom.explore(program, runs=SCHEDULES, stop_on_failure=False, scheduler=scheduler)
    return [failure.seed for failure in found.failures]


def main() -> None:
    tools: dict[str, Callable[[Program], list[int]]] = {
        "agentlab": ours,
        "simloom, random": lambda program: simlooms(program, None),
        "simloom, pct": lambda program: simlooms(program, "pct:d=2,k=64"),
    }
    print(
        f"Of {SCHEDULES:,} schedules so many fail (the first one's seed); milliseconds for each.\n"
    )
    print("| program |", " | ".join(tools), "|\n| --- |", "---: | " * len(tools))
    for program in PROGRAMS:
        cells = []
        for run in tools.values():
            began_s = perf_counter()
            failed = run(program)
            each_ms = 1000 * (perf_counter() - began_s) / SCHEDULES
            seed = f" ({failed[0]})" if failed else ""
            cells.append(f"{len(failed):,}{seed}; {each_ms:.1f}")
        print(f"| {program.__name__.replace('_', ' ')} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
