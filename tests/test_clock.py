"""Virtual time: exact, in one and the same order on every run, and never stuck in silence."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import operator
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Annotated, TypedDict

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.clock import is_virtual, run_virtual
from agentlab.errors import ConfigError, DeadlockError


async def sleeper(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@pytest.mark.parametrize("tasks", [1, 2, 4, 8, 16])
def test_tasks_of_two_seconds_in_a_row_and_together(tasks: int):
    """n tasks of 2 s take exactly 2 n s in a row, and 2 s together."""

    async def in_a_row() -> None:
        for _ in range(tasks):
            await asyncio.sleep(2)

    async def together() -> None:
        await asyncio.gather(*(asyncio.sleep(2) for _ in range(tasks)))

    assert run_virtual(in_a_row()).elapsed_s == 2.0 * tasks
    assert run_virtual(together()).elapsed_s == 2.0


def test_the_three_agents_take_37_and_15_seconds():
    """10, 15 and 12 s: one after the other, and at once; the results in the order given."""

    async def in_a_row() -> list[float]:
        return [await sleeper(seconds) for seconds in (10, 15, 12)]

    async def together() -> list[float]:
        return await asyncio.gather(*map(sleeper, (10, 15, 12)))

    one, other = run_virtual(in_a_row()), run_virtual(together())
    assert (one.elapsed_s, other.elapsed_s) == (37.0, 15.0)
    assert one.result == other.result == [10, 15, 12]


def test_sums_of_times_carry_no_dust():
    """Ten times a tenth is one; 0.1 and 0.2 are 0.3."""

    async def steps(*seconds: float) -> None:
        for step in seconds:
            await asyncio.sleep(step)

    assert run_virtual(steps(*[0.1] * 10)).elapsed_s == 1.0
    assert run_virtual(steps(0.1, 0.2)).elapsed_s == 0.3


WAITS_S = st.floats(0, 1e10) | st.floats(0, 1) | st.sampled_from([0.1, 0.2, 0.7, 1 / 3, 1e-9])


@given(st.lists(WAITS_S, min_size=1, max_size=30))
def test_no_sleep_ends_early_whatever_its_length(waits_s: list[float]):
    """Each sleep ends at its time, to the last bit, and at most a nanosecond's rounding later."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for wait_s in waits_s:
            end_s = loop.time() + wait_s
            await asyncio.sleep(wait_s)
            assert end_s <= loop.time() <= end_s + 1e-9 + 4 * math.ulp(end_s)

    run_virtual(main())


@given(st.lists(WAITS_S, min_size=1, max_size=30), WAITS_S, WAITS_S)
def test_deadlines_of_any_length_within_one_another(
    waits_s: list[float], outer_s: float, inner_s: float
):
    """Tasks under a time limit under another: the program ends when the first of them does."""

    async def limited(wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(wait_s), inner_s)

    async def main() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(outer_s):
                await asyncio.gather(*map(limited, waits_s))

    longest_s = min(outer_s, inner_s, max(waits_s))
    assert run_virtual(main()).elapsed_s == pytest.approx(longest_s, abs=1e-9)


@given(st.lists(st.tuples(WAITS_S, WAITS_S), min_size=1, max_size=20))
def test_whoever_waits_for_the_rest_is_done(tasks: list[tuple[float, float]]):
    """Polling loops side by side, each until a time of its own: none spins."""

    async def poll(begin_s: float, for_s: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(begin_s)
        end_s = loop.time() + for_s
        while loop.time() < end_s:
            await asyncio.sleep(end_s - loop.time())

    async def main() -> None:
        await asyncio.gather(*(poll(*task) for task in tasks))

    last_s = max(begin_s + for_s for begin_s, for_s in tasks)
    assert run_virtual(main()).elapsed_s == pytest.approx(last_s, abs=1e-6)


def test_timers_of_one_instant_keep_their_order():
    """A hundred timers for second 1, set in order, run in order."""

    async def main() -> list[int]:
        ran: list[int] = []
        loop = asyncio.get_running_loop()
        for number in range(100):
            loop.call_at(1.0, ran.append, number)
        await asyncio.sleep(1.0)
        return ran

    assert run_virtual(main()).result == list(range(100))


def test_a_time_limit_strikes_at_its_time():
    """asyncio.timeout and wait_for both give up at exactly 3 s."""

    async def by_block() -> None:
        async with asyncio.timeout(3):
            await asyncio.sleep(5)

    async def by_call() -> None:
        await asyncio.wait_for(asyncio.sleep(5), 3)

    async def main(program: Callable[[], Awaitable[None]]) -> float:
        with pytest.raises(TimeoutError):
            await program()
        return asyncio.get_running_loop().time()

    assert run_virtual(main(by_block)).result == run_virtual(main(by_call)).result == 3.0


def test_a_semaphore_makes_waves():
    """Five tasks of 2 s, two at a time: three waves, 6 s."""

    async def main() -> None:
        places = asyncio.Semaphore(2)

        async def one() -> None:
            async with places:
                await asyncio.sleep(2)

        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(one())

    assert run_virtual(main()).elapsed_s == 6.0


def test_anyio_keeps_virtual_time():
    """Its sleeps and its time limits, which httpx builds on."""

    async def main() -> bool:
        with anyio.move_on_after(2) as scope:
            await anyio.sleep(10)
        return scope.cancelled_caught

    run = run_virtual(main())
    assert (run.result, run.elapsed_s) == (True, 2.0)


def test_what_runs_in_a_thread_takes_no_virtual_time():
    """to_thread and run_in_executor run at once, with their results, errors and context."""
    variable = contextvars.ContextVar("variable", default="unset")

    def fail() -> None:
        raise LookupError("from the thread")

    async def main() -> tuple[str, int]:
        variable.set("set")
        with pytest.raises(LookupError, match="from the thread"):
            await asyncio.to_thread(fail)
        loop = asyncio.get_running_loop()
        number = await loop.run_in_executor(None, lambda: 42)
        return await asyncio.to_thread(variable.get), number

    run = run_virtual(main())
    assert (run.result, run.elapsed_s) == (("set", 42), 0.0)


def test_it_runs_inside_a_running_loop():
    """As in a notebook's cell: the same result, and no thread is left behind."""

    async def cell() -> float:
        return run_virtual(sleeper(3600)).elapsed_s

    threads = threading.active_count()
    assert asyncio.run(cell()) == 3600.0
    assert threading.active_count() == threads


def test_it_sees_the_callers_context():
    """Context variables set in the cell are there in the virtual run."""
    variable = contextvars.ContextVar("variable", default="unset")

    async def read() -> str:
        return variable.get()

    async def cell() -> str:
        variable.set("from the cell")
        return run_virtual(read()).result

    assert asyncio.run(cell()) == "from the cell"


@pytest.mark.parametrize("inside", [False, True])
def test_errors_come_out_as_they_are(inside: bool):
    """The program's own error, in a script and in a running loop."""

    async def fail() -> None:
        await asyncio.sleep(1)
        raise LookupError("mine")

    async def cell() -> None:
        run_virtual(fail())

    with pytest.raises(LookupError, match="mine"):
        asyncio.run(cell()) if inside else run_virtual(fail())


def test_a_deadlock_is_an_error_that_names_who_waits():
    """A task that waits for an event nobody sets: name, function and line."""

    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.create_task(waits_for_ever(), name="the stuck one")

    with pytest.raises(DeadlockError, match="nothing can ever happen") as error:
        run_virtual(main())
    assert any("the stuck one" in line and ".py:" in line for line in error.value.waiting)


def test_tasks_left_over_are_cancelled_without_letting_time_pass():
    """The main task ends at 1 s; the other one is cancelled there, and may tidy up."""
    seen: list[float] = []

    async def left_over() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            seen.append(asyncio.get_running_loop().time())

    async def main() -> None:
        task = asyncio.create_task(left_over())
        await asyncio.sleep(1)
        assert not task.done()

    assert run_virtual(main()).elapsed_s == 1.0
    assert seen == [1.0]


def test_only_a_coroutine_can_be_run():
    """A function that was not called is told from one that was."""
    with pytest.raises(ConfigError, match=r"such as main\(\); got <function"):
        run_virtual(sleeper)  # type: ignore[arg-type]


def test_is_virtual_tells_the_loops_apart():
    """True inside a virtual run only."""

    async def ask() -> bool:
        return is_virtual()

    assert not is_virtual()
    assert not asyncio.run(ask())
    assert run_virtual(ask()).result


RANDOM_PROGRAM = """
import asyncio, random
from agentlab.clock import run_virtual

async def agent(name, log, places):
    draw = random.Random(name)
    for step in range(5):
        async with places:
            await asyncio.sleep(draw.choice([0.5, 1, 1, 2]))
            log.append((asyncio.get_running_loop().time(), name, step))

async def main():
    log, places = [], asyncio.Semaphore(3)
    await asyncio.gather(*(agent(name, log, places) for name in range(10)))
    return log

print(run_virtual(main()).result)
"""


def test_a_program_has_one_course_on_every_run():
    """Twenty runs in four processes with other hash seeds leave one and the same log."""
    logs = set()
    for seed in ("0", "1", "2", "3"):
        ran = subprocess.run(
            [sys.executable, "-c", f"for _ in range(5): exec({RANDOM_PROGRAM!r}, dict(globals()))"],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        logs.update(ran.stdout.splitlines())
    assert len(logs) == 1


def test_an_interrupt_ends_a_run_inside_a_notebook():
    """Ctrl-C while a virtual program spins: KeyboardInterrupt, and no thread is left."""
    code = """
import asyncio, signal, threading
from agentlab.clock import run_virtual

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

async def spin():
    print("spinning", flush=True)
    while True:
        await asyncio.sleep(1)

async def cell():
    try:
        run_virtual(spin())
    except KeyboardInterrupt:
        print("interrupted,", threading.active_count(), "thread", flush=True)

loop = asyncio.new_event_loop()
loop.run_until_complete(cell())
loop.close()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "spinning\n"
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()  # it would spin for ever
    assert said == "interrupted, 1 thread\n"


def test_an_interrupt_may_come_as_a_run_begins():
    """In the moment in which its thread has started, thirty times: no thread is left."""
    code = """
import asyncio, signal, threading
from agentlab.clock import run_virtual

signal.signal(signal.SIGINT, signal.default_int_handler)

async def spin():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    while True:
        await asyncio.sleep(1)

async def cell():
    try:
        run_virtual(spin())
    except KeyboardInterrupt:
        print("interrupted,", threading.active_count(), "thread", flush=True)

loop = asyncio.new_event_loop()
for _ in range(30):
    loop.run_until_complete(cell())
loop.close()
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.stdout == "interrupted, 1 thread\n" * 30, ran.stderr


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_program_may_interrupt_itself_inside_a_running_loop(error: type[BaseException]):
    """Its own error comes out, and none of the loop that it has closed."""

    async def program() -> None:
        raise error

    async def cell() -> None:
        with pytest.raises(error):
            run_virtual(program())

    asyncio.run(cell())


def test_ten_thousand_sleepers():
    """All at once take as long as the longest."""
    draw = random.Random(1)
    naps = [draw.randrange(1, 1000) for _ in range(10_000)]

    async def main() -> None:
        await asyncio.gather(*map(sleeper, naps))

    assert run_virtual(main()).elapsed_s == max(naps)


def test_langgraph_fans_out_in_virtual_time():
    """Sixteen Sends to a node of 2 s take exactly 2 s; a retry policy's wait is virtual too."""
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import RetryPolicy, Send

    class State(TypedDict):
        done: Annotated[list[int], operator.add]

    failed: set[int] = set()

    async def work(state: dict[str, int]) -> dict[str, list[int]]:
        await asyncio.sleep(2)
        if state["number"] == 3 and not failed:
            failed.add(3)
            raise ConnectionError("once")
        return {"done": [state["number"]]}

    policy = RetryPolicy(initial_interval=10, jitter=False, retry_on=ConnectionError)
    graph = StateGraph(State)
    graph.add_node("work", work, retry_policy=policy)
    graph.add_conditional_edges(START, lambda _: [Send("work", {"number": n}) for n in range(16)])
    graph.add_edge("work", END)
    app = graph.compile()
    once = run_virtual(app.ainvoke({"done": []}))
    again = run_virtual(app.ainvoke({"done": []}))
    assert sorted(once.result["done"]) == list(range(16))
    assert (once.elapsed_s, again.elapsed_s) == (2 + 10 + 2, 2.0)
