"""Plain functions along their parameters: exact times, any results, and what cannot run."""

from __future__ import annotations

import asyncio
import functools

import pytest
from meeting import hung_up

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.errors import ConfigError, StepError
from agentlab.learning import parallel
from agentlab.trace import trace


async def research(topic):
    await asyncio.sleep(10)
    return [f"notes on {topic}"]


async def costs(topic):
    await asyncio.sleep(15)
    return {"of": topic, "euro": 3}


def joined(research, costs):
    return (*research, costs["euro"])


async def summary(joined, topic):
    await asyncio.sleep(12)
    return f"{topic}: {joined}"


FOUR = [summary, joined, costs, research]


def test_it_takes_the_span_and_the_baseline_the_work():
    """10 and 15 s at once, then 12 s: 27 s; one after the other 37 s. The results are equal."""
    fast = run_virtual(parallel.run(FOUR, topic="tides"))
    slow = run_virtual(parallel.run_sequential(FOUR, topic="tides"))
    assert (fast.elapsed_s, slow.elapsed_s) == (27, 37)
    assert fast.result == slow.result


def test_results_may_be_anything():
    """The next function gets what one returned, whatever its type; the order is the graph's."""
    results = run_virtual(parallel.run(FOUR, topic="tides")).result
    assert list(results.items()) == [
        ("costs", {"of": "tides", "euro": 3}),
        ("research", ["notes on tides"]),
        ("joined", ("notes on tides", 3)),
        ("summary", "tides: ('notes on tides', 3)"),
    ]


def test_the_plan_says_the_same_before():
    """Work, span and critical path follow from the signatures and the times."""
    plan = parallel.graph(FOUR, inputs=["topic"]).plan(
        {"research": 10, "costs": 15, "joined": 0, "summary": 12}
    )
    assert (plan.work_s, plan.span_s, plan.peak) == (37, 27, 2)
    assert plan.critical_path == ["costs", "joined", "summary"]


def test_calls_of_agents_overlap_as_the_endpoint_saw(fresh_lab):
    """Two functions that ask are in flight at once; times of the trace make the plan."""

    async def left(topic):
        return await lab.ask(f"Describe {topic}.", agent="left", max_tokens=11)  # 2 s

    async def right(topic):
        return await lab.ask(f"Review {topic}.", agent="right", max_tokens=41)  # 5 s

    async def end(left, right):
        return await lab.ask(f"Join {left} {right}", agent="end", max_tokens=11)

    three = [left, right, end]
    results, t = lab.simulate(parallel.run(three, topic="seas"))
    assert results == lab.simulate(parallel.run_sequential(three, topic="seas"))[0]
    plan = parallel.graph(three, inputs=["topic"]).plan(t.seconds)
    assert (t.peak, t.makespan_s) == (2, plan.span_s) == (2, 7)


def test_over_real_http(fresh_lab):
    """The same on the real clock: equal results, and two in flight at once."""

    async def left():
        return await lab.ask("Describe seas.", agent="left", temperature=0)

    async def right():
        return await lab.ask("Review lakes.", agent="right", temperature=0)

    expected, _ = lab.simulate(parallel.run_sequential([left, right]))
    assert asyncio.run(parallel.run([left, right])) == expected
    assert asyncio.run(hung_up(parallel.run([left, right]), 2)).peak == 2


def test_a_default_is_kept_unless_its_name_is_known():
    """A parameter with a default value is an edge only where there is something of its name."""

    def start():
        return 1

    def end(start, more=10):
        return start + more

    def more():
        return 100

    assert asyncio.run(parallel.run([start, end]))["end"] == 11
    assert asyncio.run(parallel.run([start, end], more=20))["end"] == 21
    assert asyncio.run(parallel.run([end, start, more]))["end"] == 101


def test_methods_and_functions_that_return_awaitables():
    """A bound method is a function, and so is one that hands back a coroutine."""

    class Agent:
        def speak(self, topic):
            return research(topic)

    assert run_virtual(parallel.run([Agent().speak], topic="x")).result == {"speak": ["notes on x"]}


def test_parameters_may_have_any_name():
    """Not even a name that the module itself uses is taken."""

    def function(name, self):
        return f"{name} {self}"

    def needs(function):
        return function.upper()

    results = asyncio.run(parallel.run([function, needs], name="a", self="b"))
    assert results == {"function": "a b", "needs": "A B"}


async def slow_lake():
    await asyncio.sleep(5)
    return "lake"


async def river():
    await asyncio.sleep(2)
    return "river"


async def broken(river):
    raise ValueError("no river")


async def last(broken, slow_lake):
    return "never"


def test_failure_keeps_the_results_and_names_the_function():
    """StepError carries the step, its cause, and what had ended by then, as the engines' does."""
    with pytest.raises(StepError, match=r"'broken' failed .*no river\); .* has 1 of 4") as e:
        run_virtual(parallel.run([river, slow_lake, broken, last]))
    assert (e.value.step, e.value.results) == ("broken", {"river": "river"})
    assert isinstance(e.value.__cause__, ValueError)


def test_the_first_failure_counts():
    """What a sibling raises when it is cancelled is a consequence, not the cause."""

    async def sulks():
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            raise RuntimeError("interrupted") from None

    with pytest.raises(StepError, match="'broken' failed"):
        run_virtual(parallel.run([sulks, river, broken]))


def test_the_baseline_fails_alike():
    """One after the other the lake's result is there before the failure, and so it is kept."""
    with pytest.raises(StepError, match="2 of 4") as caught:
        run_virtual(parallel.run_sequential([river, slow_lake, broken, last]))
    assert caught.value.results == {"river": "river", "slow_lake": "lake"}


def test_failure_hangs_up_on_the_siblings(fresh_lab):
    """The sibling in flight is cancelled at once, as the endpoint sees; nothing starts after."""

    async def quick():
        await lab.ask("Name a river.", agent="quick", max_tokens=11)
        raise ValueError("no river")

    async def slow():
        return await lab.ask("Name a lake.", agent="slow", max_tokens=41)

    async def never(quick):
        return await lab.ask("Go on.", agent="never")

    with trace() as t, pytest.raises(StepError):
        run_virtual(parallel.run([quick, slow, never]))
    assert [(span.agent, span.status) for span in t.spans] == [("quick", 200), ("slow", 499)]
    assert t.makespan_s == 2


def test_cancelling_the_run_cancels_the_functions():
    """A deadline around the whole run ends it then, and is a TimeoutError, no StepError."""

    async def main():
        async with asyncio.timeout(3):
            await parallel.run([river, slow_lake])

    with pytest.raises(TimeoutError):
        run_virtual(main())


def test_a_function_stays_in_the_loop():
    """A plain function sees the event loop's own thread, so it may touch what lives there."""

    def where():
        return asyncio.get_running_loop() is not None

    assert asyncio.run(parallel.run([where])) == {"where": True}


def takes_any(*args):
    """For the refusals below."""


def needs_itself(needs_itself):
    """For the refusals below."""


@pytest.mark.parametrize(
    ("functions", "inputs", "says"),
    [
        ([river, river], {}, "'river' is given twice"),
        ([broken], {}, "function 'broken' needs 'river', which is no function and no input"),
        ([needs_itself], {}, "these functions wait for each other forever: needs_itself -> needs"),
        ([river], {"topic": "x"}, "no function uses the input 'topic'"),
        ([river, broken], {"river": "x"}, "'river' is given twice"),
        ([takes_any], {}, "function 'takes_any' needs 'args', which is no function and no input"),
        ([lambda: 1], {}, "is no function with a name"),
        ([functools.partial(river)], {}, "is no function with a name"),
        (["river"], {}, "'river' is no function with a name"),
    ],
)
@pytest.mark.parametrize("run", [parallel.run, parallel.run_sequential])
def test_what_cannot_run_is_refused_before_it_runs(run, functions, inputs, says):
    """The message names the function, what is wrong, and the way out."""
    called = []

    def first():
        called.append(1)

    with pytest.raises(ConfigError, match=says):
        asyncio.run(run([first, *functions], **inputs))
    assert called == []


@pytest.mark.parametrize("run", [parallel.run, parallel.run_sequential])
@pytest.mark.parametrize("is_async", [True, False])
def test_a_cancellation_from_inside_is_a_failure(run, is_async):
    """Nobody cancelled the run, so it is no quiet end with results missing and no error."""

    async def late():
        raise asyncio.CancelledError

    def max_concurrency():
        raise asyncio.CancelledError

    a = late if is_async else max_concurrency
    a.__name__ = "a"

    async def b(a):
        return 1

    async def c():
        return 2

    with pytest.raises(StepError, match=r"'a' failed .*cancelled by its own maker") as caught:
        run_virtual(run([c, a, b]))
    assert caught.value.results == {"c": 2}
