"""Exploring schedules: what may be late, what keeps its order, how a failure is shrunk and told."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from agentlab import lab
from agentlab._support.schedule import Schedule
from agentlab.clock import run_virtual
from agentlab.errors import ConfigError, DeadlockError, RaceError
from agentlab.explore import Run, explore

Main = Callable[[], Coroutine[Any, Any, Any]]


@pytest.fixture(autouse=True)
def local_model():
    lab.configure(upstream=None)


def orders(main: Main, schedules: int = 300) -> Counter[tuple[Any, ...]]:
    """What a program returns under many schedules, and how often."""
    return Counter(tuple(run_virtual(main(), schedule=seed).result) for seed in range(schedules))


async def in_order_of_arrival(*events: Coroutine[Any, Any, object]) -> list[int]:
    """The places of events, in the order in which those who wait for them go on."""
    arrived: list[int] = []

    async def wait(place: int, event: Coroutine[Any, Any, object]) -> None:
        await event
        arrived.append(place)

    await asyncio.gather(*(wait(place, event) for place, event in enumerate(events)))
    return arrived


async def three_timers() -> list[int]:
    return await in_order_of_arrival(*(asyncio.sleep(1) for _ in range(3)))


async def three_yields() -> list[int]:
    return await in_order_of_arrival(*(asyncio.sleep(0) for _ in range(3)))


async def three_threads() -> list[int]:
    return await in_order_of_arrival(*(asyncio.to_thread(int) for _ in range(3)))


async def three_answers() -> list[int]:
    rivers = (lab.ask(f"Describe river {n}.", max_tokens=3) for n in range(3))
    return await in_order_of_arrival(*rivers)


@pytest.mark.parametrize("main", [three_timers, three_yields, three_threads, three_answers])
def test_events_of_one_instant_come_in_every_order(main: Main):
    """All six orders of three timers, yields, threads' results or answers are found."""
    assert set(orders(main)) == set(permutations(range(3)))


@pytest.mark.parametrize("main", [three_timers, three_yields, three_threads, three_answers])
def test_without_a_seed_it_is_todays_course(main: Main):
    """No schedule, and one in which nothing is late, run alike."""
    runs = [run_virtual(main(), schedule=schedule) for schedule in (None, Schedule())]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("seed", range(20))
def test_no_time_passes_while_events_are_late(seed: int):
    """A schedule changes orders, and neither results nor times of a program without a race."""

    async def main() -> list[str]:
        rivers = (lab.ask(f"Describe river {n}.", max_tokens=n) for n in range(1, 6))
        return await asyncio.gather(*rivers)

    assert run_virtual(main(), schedule=seed) == run_virtual(main())


def test_timers_of_different_instants_keep_their_order():
    """A tenth of a second apart, none overtakes another."""

    async def main() -> list[int]:
        return await in_order_of_arrival(*(asyncio.sleep(1 + n / 10) for n in range(5)))

    assert set(orders(main)) == {(0, 1, 2, 3, 4)}


def test_what_one_event_causes_keeps_its_order():
    """Tasks begin in the order in which they are made, and getters of a queue get in theirs."""

    async def main() -> list[str]:
        said: list[str] = []
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def getter(name: str) -> None:
            said.append(f"{name} begins")
            said.append(f"{name} has {await queue.get()}")

        tasks = [asyncio.create_task(getter(name)) for name in "abc"]
        await asyncio.sleep(1)
        for number in range(3):
            queue.put_nowait(number)
        await asyncio.gather(*tasks)
        return said

    begin = tuple(f"{name} begins" for name in "abc")
    assert set(orders(main)) == {(*begin, "a has 0", "b has 1", "c has 2")}


def test_a_seed_is_one_course():
    """The same seed gives the same order, again and again."""
    for seed in range(50):
        twice = [run_virtual(three_answers(), schedule=seed).result for _ in range(2)]
        assert twice[0] == twice[1]


async def loses_an_update() -> None:
    """Right in asyncio's own order, because the first payer's timer is set first."""
    account = {"euros": 0}

    async def pay(amount: int, after: int) -> None:
        for _ in range(after):
            await asyncio.sleep(1)
        has = account["euros"]
        await asyncio.sleep(1)
        account["euros"] = has + amount

    await asyncio.gather(pay(10, after=1), pay(5, after=2))
    assert account["euros"] == 15, account


def test_a_race_is_found_shrunk_and_told():
    """One late event remains; the message has the seed, both tasks, and their lines."""
    with pytest.raises(RaceError) as caught:
        explore(loses_an_update)
    error = caught.value
    assert len(error.late) == 1 and set(error.late.values()) == {1}
    assert isinstance(error.__cause__, AssertionError)
    code = loses_an_update.__code__.co_firstlineno
    assert f"seed {error.seed} fails: AssertionError: " in str(error)
    assert "1 of 5 events late; the others in asyncio's order" in str(error)
    where = f"(test_explore.py:{code + 6}, await asyncio.sleep(1))"
    assert f"pay 1 {where} comes after pay 2 {where}" in str(error)


def test_a_seed_runs_it_again_with_the_programs_own_error():
    """For a debugger: the AssertionError itself, from its own line."""
    with pytest.raises(RaceError) as caught:
        explore(loses_an_update)
    with pytest.raises(AssertionError, match="euros") as again:
        explore(loses_an_update, seed=caught.value.seed)
    assert type(again.value) is AssertionError


def test_a_program_without_a_race_passes():
    """It returns how many schedules were run, and the events of the longest."""

    async def pay_in_turn() -> None:
        account, lock = {"euros": 0}, asyncio.Lock()

        async def pay(amount: int, after_s: float) -> None:
            await asyncio.sleep(after_s)
            async with lock:
                has = account["euros"]
                await asyncio.sleep(1)
                account["euros"] = has + amount

        await asyncio.gather(pay(10, 1), pay(5, 2))
        assert account["euros"] == 15

    assert explore(pay_in_turn, runs=200) == (201, 4)


def test_a_program_that_fails_in_its_own_order_is_told_so():
    """No seed is blamed."""

    async def wrong() -> None:
        assert await lab.ask("Name a river.", max_tokens=1) == "no"

    with pytest.raises(RaceError, match="fails in asyncio's own order: AssertionError"):
        explore(wrong)


def test_a_deadlock_is_a_failure():
    """Two locks, taken in two orders: only some schedules hang, and one is found."""

    async def two_locks() -> None:
        locks = asyncio.Lock(), asyncio.Lock()

        async def both(first: int, *, after: int) -> None:
            for _ in range(after):
                await asyncio.sleep(1)
            async with locks[first]:
                await asyncio.sleep(1)
                async with locks[1 - first]:
                    pass

        await asyncio.gather(both(0, after=1), both(1, after=2))

    with pytest.raises(RaceError) as caught:
        explore(two_locks)
    assert isinstance(caught.value.__cause__, DeadlockError)
    assert len(caught.value.late) == 1


def test_a_program_that_is_not_the_same_twice_is_refused():
    """Chance of its own: the seed that failed passes when it is run again."""
    draws = iter([0, 0, 1] + [0] * 1000)

    async def chancy() -> None:
        await asyncio.sleep(1)
        assert next(draws) == 0

    with pytest.raises(ConfigError, match="seed 1 failed, and did not when it was run again"):
        explore(chancy)


def test_a_coroutine_is_no_program():
    """main() instead of main: it could be run only once."""
    program: Any = three_timers()
    with pytest.raises(ConfigError, match="such as main and not main"):
        explore(program)
    program.close()


def test_an_async_function_that_takes_a_run_is_no_program():
    """Nothing would await it, so that it would pass whatever it does."""

    async def program(run: Run) -> None:
        raise AssertionError

    with pytest.raises(ConfigError, match="write def instead of async def"):
        explore(program)


def test_without_asserts_it_says_so(tmp_path: Path):
    """Under python -O it would find nothing, and look like a pass."""
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio\nfrom agentlab.explore import explore\n\n"
        "async def main():\n    await asyncio.sleep(1)\n    assert False\n\nexplore(main, runs=2)\n"
    )
    command = [sys.executable, "-O", "-W", "always", str(script)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "script.py:8: RuntimeWarning: python -O leaves every assert out" in ran.stderr


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"runs": 0}, "runs must be a whole number, at least 1; got 0"),
        ({"runs": 2.5}, "runs must be a whole number"),
        ({"seed": "7"}, "a schedule's seed must be a whole number"),
        ({"seed": -1}, "a schedule's seed must be a whole number"),
        ({"seed": True}, "a schedule's seed must be a whole number"),
        ({"faults": [{"kind": "nope"}]}, "kind: should be"),
    ],
)
def test_wrong_arguments_are_no_race(wrong: dict[str, Any], says: str):
    """A ConfigError of its own; and so is a schedule that is no seed."""
    with pytest.raises(ConfigError, match=says):
        explore(three_timers, **wrong)
    if "seed" in wrong:
        with pytest.raises(ConfigError, match=says):
            program = three_timers()
            try:
                run_virtual(program, schedule=wrong["seed"])
            finally:
                program.close()


def test_faults_differ_by_seed():
    """The endpoint fails by each seed's own chance: other numbers of requests."""
    seen = set()

    def program(run: Run) -> None:
        async def main() -> None:
            await asyncio.gather(
                *(lab.ask(f"River {n}?") for n in range(9)), return_exceptions=True
            )

        _, t = run(main())
        seen.add(tuple(span.status for span in t.spans))

    explore(program, runs=20, faults=[{"kind": "error", "status": 503, "probability": 0.3}])
    assert len(seen) > 10


def test_killed_as_by_a_power_cut():
    """No `finally` runs, at whatever turn; and what was written before stays."""
    steps = Counter[int]()

    def program(run: Run) -> None:
        life: list[int | str] = []

        async def main() -> None:
            try:
                for number in range(5):
                    await asyncio.sleep(1)
                    life.append(number)
            finally:
                life.append("cleaned")

        killed = run.until_killed(main())
        assert life == [*range(5), "cleaned"][: len(life)]
        assert killed == ("cleaned" not in life)
        steps[len(life)] += 1

    explore(program, runs=200)
    assert set(steps) == {0, 1, 2, 3, 4, 6}


KILLED_AND_GONE = """
import asyncio

from agentlab.explore import explore


async def waiting(lock):
    async with lock:  # which wakes the next one when it is left
        try:
            await asyncio.sleep(1)
        finally:
            print("cleaned up")


def program(run):
    async def main():
        lock = asyncio.Lock()
        await asyncio.gather(*(waiting(lock) for _ in range(4)))

    run.until_killed(main())


explore(program, runs=20)
print("the end")
"""


def test_a_killed_program_stays_dead_when_python_ends(tmp_path: Path):
    """No task of it is closed then: nothing is printed after what the script prints last."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED_AND_GONE)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("cleaned up\nthe end\n")


def test_a_failure_after_a_kill_says_at_which_turn():
    """A batch that notes a question as answered before it is: only a kill shows it."""

    def program(run: Run) -> None:
        noted: list[int] = []
        answered: list[int] = []

        async def batch() -> None:
            for number in range(len(noted), 3):
                noted.append(number)
                await lab.ask(f"River {number}?", max_tokens=2)
                answered.append(number)

        if run.until_killed(batch()):
            run(batch())
        assert answered == [0, 1, 2], answered

    with pytest.raises(RaceError, match=r"\n  killed at turn \d+\n"):
        explore(program, runs=200)


def test_the_callers_random_numbers_are_left_alone():
    """A schedule draws from its own seed."""
    random.seed(1)
    first = random.random()
    random.seed(1)
    run_virtual(three_timers(), schedule=7)
    assert random.random() == first


STRANGERS = """
import asyncio


async def two_payers():
    account = {"euros": 0}

    async def pay(amount, after):
        for _ in range(after):
            await asyncio.sleep(1)
        has = account["euros"]
        await asyncio.sleep(1)
        account["euros"] = has + amount

    await asyncio.gather(pay(10, 1), pay(5, 2))
    assert account["euros"] == 15


def test_the_account(explore):
    explore(two_payers, runs=100)
"""


@pytest.mark.parametrize(
    ("options", "says"), [([], "RaceError"), (["--explore-seed=0"], "assert 5")]
)
def test_a_stranger_explores_in_their_suite(tmp_path: Path, options: list[str], says: str):
    """The fixture finds the race; with the seed, the test's own assertion fails."""
    (tmp_path / "test_strangers.py").write_text(STRANGERS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and says in done.stdout, done.stdout
    if options:
        assert "RaceError" not in done.stdout
