"""LangGraph's `max_concurrency` on the dataflow: kept, reached, and no way to stand still."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.engines.langgraph import dataflow, graph
from agentlab.errors import ConfigError
from agentlab.trace import trace
from agentlab.workflow import Step, Workflow, random_workflow


def seconds(name: str, text: str, takes_s: int) -> Step:
    """A step whose answer is cut after so many seconds."""
    return Step(name, f"Describe {name} in ten paragraphs. {text}", max_tokens=10 * takes_s - 9)


TWO_CHAINS = Workflow(
    [
        seconds("a1", "", 2),
        seconds("a2", "{a1}", 3),
        seconds("a3", "{a2}", 4),
        seconds("b1", "", 5),
        seconds("b2", "{b1}", 1),
        seconds("b3", "{b2}", 2),
        seconds("join", "{a3} {b3}", 1),
    ]
)
"""Work 18 s, span 10 s; in supersteps 5 + 3 + 4 + 1 = 13 s."""


@pytest.mark.parametrize(
    ("limit", "makespan_s", "peak"),
    [(1, 18, 1), (2, 10, 2), (3, 10, 2), (8, 10, 2), (None, 10, 2), (0, 10, 2)],
)
def test_two_chains_take_what_a_limit_forces(fresh_lab, limit, makespan_s, peak):
    """One at a time is the work, two are the span; None and LangGraph's 0 are no limit."""
    config: Any = {"max_concurrency": limit}
    results, t = lab.simulate(dataflow(TWO_CHAINS).ainvoke({}, config))
    assert (t.makespan_s, t.peak, t.requests) == (makespan_s, peak, 7)
    assert list(results) == [step.name for step in TWO_CHAINS.steps]
    _, plain = lab.simulate(graph(TWO_CHAINS).compile().ainvoke({"inputs": {}}, config))
    assert t.makespan_s <= plain.makespan_s


@pytest.mark.parametrize("limit", range(1, 9))
@pytest.mark.parametrize("seed", range(0, 200, 8))
def test_any_graph_under_any_limit(fresh_lab, seed, limit):
    """It ends, keeps the limit, and takes no longer than Graham's bound for list scheduling."""
    w = random_workflow(seed)
    expected, one_by_one = lab.simulate(dataflow(w).ainvoke({}, {"max_concurrency": 1}))
    results, t = lab.simulate(dataflow(w).ainvoke({}, {"max_concurrency": limit}))
    plan = w.plan(t.seconds)
    assert (one_by_one.makespan_s, one_by_one.peak) == (plan.work_s, 1)
    assert results == expected
    assert t.peak <= limit
    assert plan.bound_s(limit) - 1e-6 <= t.makespan_s
    assert t.makespan_s <= plan.work_s / limit + (1 - 1 / limit) * plan.span_s + 1e-6
    if limit >= plan.peak:
        assert (t.makespan_s, t.peak) == (plan.span_s, plan.peak)


class Around(TypedDict):
    results: dict[str, str]


async def by_call(app, limit):
    return await app.ainvoke({}, {"max_concurrency": limit})


async def by_with_config(app, limit):
    return await app.with_config(max_concurrency=limit).ainvoke({})


async def by_call_over_with_config(app, limit):
    return await app.with_config(max_concurrency=7).ainvoke({}, {"max_concurrency": limit})


async def from_a_graph_around(app, limit):
    async def node(state: Around) -> Around:
        return {"results": await app.ainvoke({})}

    around = StateGraph(Around).add_node("flow", node).add_edge(START, "flow").compile()
    return (await around.ainvoke({"results": {}}, {"max_concurrency": limit}))["results"]


async def as_a_node(app, limit):
    around = StateGraph(dict).add_node("flow", app).add_edge(START, "flow").compile()
    return await around.ainvoke({}, {"max_concurrency": limit})


async def streamed(app, limit):
    parts = app.astream({}, {"max_concurrency": limit}, stream_mode=["updates", "custom"])
    *steps, last = [part async for _, part in parts]
    assert sorted(name for step in steps for name in step) == sorted(last["app"])
    return last["app"]


async def as_events(app, limit):
    events = app.astream_events({}, {"max_concurrency": limit}, version="v2")
    *_, last = [event async for event in events]
    return last["data"]["output"]


WAYS = [
    by_call,
    by_with_config,
    by_call_over_with_config,
    from_a_graph_around,
    as_a_node,
    streamed,
    as_events,
]


@pytest.mark.parametrize(("limit", "makespan_s"), [(1, 18), (2, 10)])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_limit_counts_wherever_it_comes_from(fresh_lab, way, limit, makespan_s):
    """By whatever way LangGraph hands a configuration on, and however its run is watched."""
    results, t = lab.simulate(way(dataflow(TWO_CHAINS), limit))
    assert (t.makespan_s, t.peak) == (makespan_s, limit)
    assert results == run_virtual(dataflow(TWO_CHAINS).ainvoke({})).result


@pytest.mark.parametrize("limit", [1, 2])
def test_a_graph_inside_a_step_has_the_limit(fresh_lab, limit):
    """As in LangGraph: it is handed on, and counts for each graph inside for itself."""

    async def leaf(state: Around) -> None:
        await lab.ask("Name a river.", agent="leaf", max_tokens=11)

    inner = StateGraph(Around).add_node("leaf", leaf)
    inner.add_conditional_edges(START, lambda state: [Send("leaf", state)] * 6, ["leaf"])
    app = inner.compile()

    async def ask(prompt: str, **options: Any) -> str:
        await app.ainvoke({"results": {}})
        return prompt

    one = Workflow([Step("only", "Ask six.")])
    _, t = lab.simulate(dataflow(one, ask=ask).ainvoke({}, {"max_concurrency": limit}))
    assert (t.peak, t.makespan_s) == (limit, 12 / limit)


@pytest.mark.parametrize("limit", [-1, 1.5, "4", float("nan"), [2]])
def test_what_is_no_limit_is_refused(fresh_lab, limit):
    """Before anything is asked, with the value and the way out."""
    with trace() as t, pytest.raises(ConfigError, match=r"max_concurrency=.*whole number from 1"):
        run_virtual(dataflow(TWO_CHAINS).ainvoke({}, {"max_concurrency": limit}))
    assert t.requests == 0


def failing(at: str):
    async def ask(prompt: str, *, agent: str, **options: Any) -> str:
        text = await lab.ask(prompt, agent=agent, **options)
        if agent == at:
            raise ValueError(f"no {at}")
        return text

    return ask


@pytest.mark.parametrize("seed", range(40))
def test_a_resumed_run_asks_nothing_again(fresh_lab, seed):
    """Whatever failed under whatever limit, and whatever limit the run goes on with."""
    w = random_workflow(seed)
    at = w.steps[seed % len(w.steps)].name
    first, then = [(1, 3), (2, 1), (3, None), (None, 2)][seed % 4]
    thread = {"configurable": {"thread_id": "1"}}
    kept = InMemorySaver()

    async def once(ask, given, limit):
        with trace() as t:
            config: Any = {**thread, "max_concurrency": limit}
            try:
                return await dataflow(w, ask=ask, checkpointer=kept).ainvoke(given, config), t
            except ValueError as error:
                return error, t

    async def twice():
        return [await once(failing(at), {}, first), await once(None, None, then)]

    (error, broken), (results, resumed) = run_virtual(twice()).result
    assert str(error) == f"no {at}"
    answered = {span.agent for span in broken.spans if span.status == 200} - {at}
    asked_again = [span.agent for span in resumed.spans]
    assert sorted(asked_again) == sorted({step.name for step in w.steps} - answered)
    assert results == run_virtual(dataflow(w).ainvoke({})).result
    assert resumed.peak <= (then or len(w.steps))


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_in_real_time(fresh_lab, limit):
    """The same on an ordinary loop: it ends, and no more than so many are asked together."""
    in_flight, peak = 0, 0

    async def ask(prompt: str, *, agent: str, **options: Any) -> str:
        nonlocal in_flight, peak
        in_flight += 1
        peak = max(peak, in_flight)
        for _ in range(20):
            await asyncio.sleep(0)
        in_flight -= 1
        return agent

    app = dataflow(TWO_CHAINS, ask=ask)
    results = asyncio.run(asyncio.wait_for(app.ainvoke({}, {"max_concurrency": limit}), 60))
    assert results == {step.name: step.name for step in TWO_CHAINS.steps}
    assert peak == min(limit, 2)


@pytest.mark.parametrize(("limit", "asked"), [(1, ["a1"]), (2, ["a1", "b1"]), (None, ["a1", "b1"])])
def test_a_failure_ends_the_run(fresh_lab, limit, asked):
    """What waits for a slot then is never asked, nor paid for, although a slot is free now."""
    app = dataflow(TWO_CHAINS, ask=failing("a1"))
    with trace() as t, pytest.raises(ValueError, match="no a1"):
        run_virtual(app.ainvoke({}, {"max_concurrency": limit}))
    assert [span.agent for span in t.spans] == asked
    assert t.makespan_s == 2


def test_an_interrupt_leaves_the_others_their_turn(fresh_lab):
    """A step that asks a person gives its slot back; resumed with the answer, it alone runs."""
    asked: list[str] = []

    async def ask(prompt: str, *, agent: str, **options: Any) -> str:
        if agent == "a1":
            return str(interrupt("Which river?"))
        asked.append(agent)
        await asyncio.sleep(1)
        return agent

    async def twice() -> dict[str, str]:
        app = dataflow(TWO_CHAINS, ask=ask, checkpointer=InMemorySaver())
        config: Any = {"configurable": {"thread_id": "1"}, "max_concurrency": 1}
        assert "__interrupt__" in await app.ainvoke({}, config)
        return await app.ainvoke(Command(resume="Elbe"), config)

    results, _ = lab.simulate(twice())
    assert results["a1"] == "Elbe"
    assert sorted(asked) == ["a2", "a3", "b1", "b2", "b3", "join"]


def test_langgraphs_own_limit_counts_in_each_graph_inside_a_graph(fresh_lab):
    """LangGraph 1.2, as lesson 02b says: three graphs of ten under one limit of 4 have peak 12."""

    class Notes(TypedDict):
        notes: Annotated[list[str], operator.add]

    async def one(job: Any) -> dict[str, list[str]]:
        return {"notes": [await lab.ask(f"Describe {job['topic']}.", max_tokens=5)]}

    def ten() -> Any:
        inner = StateGraph(Notes).add_node("one", one)
        jobs = [Send("one", {"topic": f"river {n}"}) for n in range(10)]
        return inner.add_conditional_edges(START, lambda _: jobs, ["one"]).compile()

    outer = StateGraph(Notes)
    for name in ("north", "east", "south"):
        outer.add_node(name, ten()).add_edge(START, name)
    _, t = lab.simulate(outer.compile().ainvoke({"notes": []}, {"max_concurrency": 4}))
    assert (t.requests, t.peak) == (30, 12)
