"""The engines against each other, and against what the graph allows."""

from __future__ import annotations

import asyncio
import json
import operator
from typing import Annotated, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt
from meeting import hung_up

from agentlab import engines, lab
from agentlab.clock import run_virtual
from agentlab.engines import langgraph
from agentlab.errors import ConfigError, StepError
from agentlab.resilience import Guard
from agentlab.trace import trace
from agentlab.workflow import Step, Workflow, random_workflow

VIRTUAL = [e for e in engines.ENGINES if e not in ("crewai", "dask")]  # which have their own files
PARALLEL = VIRTUAL[1:]


@pytest.mark.parametrize("seed", range(60))
def test_random_workflows(fresh_lab, seed):
    """On a random graph all engines give the same bytes; the parallel ones take the span exactly.

    So the makespan of asyncio, and of LangGraph's dataflow, is 1.00 of the critical path.
    """
    w = random_workflow(seed)
    expected, one_by_one = lab.simulate(engines.run(w, engine="sequential"))
    plan = w.plan(one_by_one.seconds)
    assert one_by_one.makespan_s == plan.work_s
    for engine in PARALLEL:
        results, t = lab.simulate(engines.run(w, engine=engine))
        assert json.dumps(results) == json.dumps(expected)
        assert (t.makespan_s, t.peak, t.requests) == (plan.span_s, plan.peak, len(w.steps))


@pytest.mark.parametrize("seed", range(0, 60, 6))
def test_plain_graph_runs_in_supersteps(fresh_lab, seed):
    """LangGraph's own graph gives the same answers, and takes exactly the sum of its supersteps."""
    w = random_workflow(seed)
    state, t = lab.simulate(langgraph.graph(w).compile().ainvoke({"inputs": {}}))
    assert state["results"] == run_virtual(engines.run(w)).result
    assert t.makespan_s == w.plan(t.seconds).supersteps_s


def test_over_real_http(fresh_lab):
    """The same on the real clock: equal results, and as many in flight as the graph allows."""
    w = Workflow.load("report")
    inputs = {"topic": "tides", "data": "heights"}
    lab.configure(preset="instant")
    expected = run_virtual(engines.run(w, inputs)).result
    for engine in VIRTUAL:
        with trace() as t:
            assert asyncio.run(engines.run(w, inputs, engine=engine)) == expected
        assert t.peak <= 1 or engine in PARALLEL
    lab.configure()
    for engine in PARALLEL:
        assert asyncio.run(hung_up(engines.run(w, inputs, engine=engine), 2)).peak == 2


TWO_CHAINS = Workflow(
    [
        Step("quick", "Name a river.", max_tokens=11),  # 2 s
        Step("after_quick", "Say more of {quick}", max_tokens=11),
        Step("slow", "Name a lake.", max_tokens=41),  # 5 s
        Step("last", "Join {after_quick} {slow}", max_tokens=11),
    ]
)


def failing(at, error):
    """`lab.ask`, but that the step `at` fails when its answer is there."""

    async def ask(prompt, *, agent, **rest):
        text = await lab.ask(prompt, agent=agent, **rest)
        if agent == at:
            raise error
        return text

    return ask


@pytest.mark.parametrize("engine", VIRTUAL)
def test_failure_keeps_what_is_paid_for(fresh_lab, engine):
    """A failed step is named, its error is the cause, and the finished answers are in the error."""
    error = ValueError("no lake")
    with pytest.raises(StepError, match=r"'slow'.*ValueError: no lake.*2 of 4 results") as caught:
        run_virtual(engines.run(TWO_CHAINS, engine=engine, ask=failing("slow", error)))
    assert caught.value.__cause__ is error
    assert caught.value.step == "slow"
    assert list(caught.value.results) == ["quick", "after_quick"]


@pytest.mark.parametrize("engine", PARALLEL)
def test_failure_cancels_what_is_in_flight(fresh_lab, engine):
    """When one step fails the others hang up at once, and none is started after it."""
    ask = failing("quick", ValueError("no river"))
    with trace() as t, pytest.raises(StepError):
        run_virtual(engines.run(TWO_CHAINS, engine=engine, ask=ask))
    assert [(span.agent, span.status) for span in t.spans] == [("quick", 200), ("slow", 499)]
    assert t.makespan_s == 2


@pytest.mark.parametrize("engine", VIRTUAL)
def test_a_failure_leaves_no_cancellation_behind(fresh_lab, engine):
    """With one, a time limit around what the task does next fails (until Python 3.11.3)."""
    workflow = Workflow([Step("a", "Name a river."), Step("b", "Name a lake.")])

    async def main() -> tuple[type[Exception], int]:
        task = asyncio.current_task()
        try:
            await engines.run(workflow, engine=engine)
        except StepError as error:
            return type(error), task.cancelling()

    with fresh_lab.configure(faults=[{"kind": "error", "status": 400, "probability": 1}]):
        assert lab.simulate(main())[0] == (StepError, 0)


@pytest.mark.parametrize("engine", VIRTUAL)
def test_a_call_that_ends_as_cancelled_is_a_failure(fresh_lab, engine):
    """Nobody cancelled its step, so it is no quiet end: a task group would lose the answer."""
    ask = failing("slow", asyncio.CancelledError())
    with pytest.raises(StepError, match=r"'slow'.*EndpointError.*cancelled") as caught:
        run_virtual(engines.run(TWO_CHAINS, engine=engine, ask=ask))
    assert list(caught.value.results) == ["quick", "after_quick"]


@pytest.mark.parametrize("engine", VIRTUAL)
def test_wrong_inputs_ask_nothing(fresh_lab, engine):
    """A missing input is refused before anything is paid for."""
    with trace() as t, pytest.raises(ConfigError, match="takes the inputs"):
        run_virtual(engines.run(Workflow.load("report"), {"topic": "x"}, engine=engine))
    assert t.requests == 0


def test_unknown_engine_is_refused():
    """A misspelt engine gets the list to choose from."""
    with pytest.raises(ConfigError, match="no engine 'dsk'; choose one of sequential, asyncio"):
        asyncio.run(engines.run(TWO_CHAINS, engine="dsk"))


def test_what_is_no_workflow_is_refused():
    """Its name alone, for instance."""
    with pytest.raises(ConfigError, match=r"'report' is no Workflow; give Workflow\.load"):
        asyncio.run(engines.run("report"))


def in_turn(prompt, **rest):
    return f"answer to {prompt}"


@pytest.mark.parametrize("engine", VIRTUAL)
@pytest.mark.parametrize("ask", [lab.reply, in_turn])
def test_any_function_that_answers_may_ask(fresh_lab, engine, ask):
    """What is given as `ask` may return a Reply, or need no await: prompts and results get text."""
    results = run_virtual(engines.run(TWO_CHAINS, engine=engine, ask=ask)).result
    assert results == run_virtual(engines.run(TWO_CHAINS, engine="sequential", ask=ask)).result
    assert all(type(text) is str and "Reply(" not in text for text in results.values())


@pytest.mark.parametrize("engine", VIRTUAL)
def test_an_answer_that_is_no_text_is_refused(fresh_lab, engine):
    """It would stand in later prompts, and be taken for the result."""
    with pytest.raises(StepError, match=r"ConfigError: `ask` returned None; return a text"):
        run_virtual(engines.run(TWO_CHAINS, engine=engine, ask=lambda prompt, **rest: None))


def test_dataflow_resumes(fresh_lab):
    """After a failure, a run with a checkpointer asks only for what was not answered before."""
    config = {"configurable": {"thread_id": "1"}}
    kept = InMemorySaver()

    async def twice():
        broken = langgraph.dataflow(
            TWO_CHAINS, ask=failing("slow", ValueError("no lake")), checkpointer=kept
        )
        with pytest.raises(ValueError, match="no lake"):
            await broken.ainvoke({}, config)
        with trace() as resumed:
            mended = langgraph.dataflow(TWO_CHAINS, checkpointer=kept)
            return await mended.ainvoke(None, config), resumed

    results, resumed = run_virtual(twice()).result
    assert [span.agent for span in resumed.spans] == ["slow", "last"]
    assert results == run_virtual(engines.run(TWO_CHAINS)).result


def test_progress_bar_counts_steps(fresh_lab, capsys, monkeypatch):
    """With progress=True a bar counts the steps, and is gone at the end; without, there is none."""
    run_virtual(engines.run(TWO_CHAINS))
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("AGENTLAB_PROGRESS")
    run_virtual(engines.run(TWO_CHAINS, progress=True))
    shown = capsys.readouterr().err
    assert "workflow" in shown
    assert shown.rstrip(" ").endswith("\r")


def test_system_and_limit_reach_the_model(fresh_lab):
    """What a step says of its role and its length is what is asked."""
    seen = {}

    async def ask(prompt, **rest):
        seen.update(rest, prompt=prompt)
        return "ok"

    step = Step("poet", "Write of {place}.", system="You are terse.", max_tokens=9)
    w = Workflow([step], inputs=["place"])
    assert asyncio.run(engines.run(w, {"place": "Rome"}, ask=ask)) == {"poet": "ok"}
    assert seen == {
        "prompt": "Write of Rome.",
        "agent": "poet",
        "system": "You are terse.",
        "max_tokens": 9,
        "temperature": 0.0,
    }


async def through_the_call(app, limit):
    return await app.ainvoke({}, {"max_concurrency": limit})


async def through_with_config(app, limit):
    return await app.with_config(max_concurrency=limit).ainvoke({})


async def from_a_graph_around(app, limit):
    class Nothing(TypedDict):
        nothing: str

    async def inner(state):
        await app.ainvoke({})
        return {}

    around = StateGraph(Nothing).add_node("inner", inner).add_edge(START, "inner")
    return await around.compile().ainvoke({"nothing": ""}, {"max_concurrency": limit})


@pytest.mark.parametrize("way", [through_the_call, through_with_config, from_a_graph_around])
def test_dataflow_takes_no_limit_of_langgraphs(fresh_lab, way):
    """With one it would stand still, because steps that wait take slots; it names another way."""
    app = langgraph.dataflow(TWO_CHAINS)
    with trace() as t, pytest.raises(ConfigError, match=r"ask=Guard\(max_concurrency=\.\.\.\)"):
        run_virtual(way(app, 1))
    assert t.requests == 0
    results, t = lab.simulate(
        langgraph.dataflow(TWO_CHAINS, ask=Guard(max_concurrency=1).ask).ainvoke({})
    )
    assert (t.requests, t.peak) == (4, 1)
    assert results == run_virtual(engines.run(TWO_CHAINS)).result


def test_an_interrupt_leaves_the_others_their_turn(fresh_lab):
    """A step may ask a person; resumed with the answer, only what waited for it runs."""
    asked = []

    async def ask(prompt, *, agent, **options):
        if agent == "quick":
            return interrupt("Which river?")
        asked.append(agent)
        return agent

    async def twice():
        app = langgraph.dataflow(TWO_CHAINS, ask=ask, checkpointer=InMemorySaver())
        config = {"configurable": {"thread_id": "1"}}
        assert "__interrupt__" in await app.ainvoke({}, config)
        assert asked == ["slow"]
        return await app.ainvoke(Command(resume="Elbe"), config)

    results, _ = lab.simulate(twice())
    assert results["quick"] == "Elbe"
    assert asked == ["slow", "after_quick", "last"]


def test_langgraphs_own_limit_counts_in_each_graph_inside_a_graph(fresh_lab):
    """LangGraph 1.2, as lesson 02b says: three graphs of ten under one limit of 4 have peak 12."""

    class Notes(TypedDict):
        notes: Annotated[list[str], operator.add]

    async def one(job):
        return {"notes": [await lab.ask(f"Describe {job['topic']}.", max_tokens=5)]}

    def ten():
        inner = StateGraph(Notes).add_node("one", one)
        jobs = [Send("one", {"topic": f"river {n}"}) for n in range(10)]
        return inner.add_conditional_edges(START, lambda _: jobs, ["one"]).compile()

    outer = StateGraph(Notes)
    for name in ("north", "east", "south"):
        outer.add_node(name, ten()).add_edge(START, name)
    _, t = lab.simulate(outer.compile().ainvoke({"notes": []}, {"max_concurrency": 4}))
    assert (t.requests, t.peak) == (30, 12)
