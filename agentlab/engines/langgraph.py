"""A workflow as native LangGraph: as a graph, and without the wait between supersteps.

`graph` is what a reader would draw: a node a step, an edge a need. LangGraph runs it in supersteps,
each of which waits for its slowest step. `dataflow` is the same workflow in LangGraph's functional
API, where every step starts as soon as its own inputs are there.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.pregel import Pregel

from agentlab import lab
from agentlab.engines.asking import Ask, Watch, answer
from agentlab.workflow import Step, Workflow


class State(TypedDict):
    """What the graph knows: the inputs of the run, and step -> answer, merged as they come."""

    inputs: dict[str, str]
    results: Annotated[dict[str, str], operator.or_]


class AskStep:
    """A node that asks a step's question; what it asks can be read in its `step`.

    Args:
        ask: Who answers; `lab.ask`, unless given.

    Example:
        graph = StateGraph(State)
        graph.add_node("notes", AskStep(Step("notes", "What is known about {topic}?")))
    """

    def __init__(self, step: Step, ask: Ask | None = None):
        self.step = step
        self._ask = ask

    async def __call__(self, state: State) -> dict[str, dict[str, str]]:
        values = state["inputs"] | state.get("results", {})
        return {"results": {self.step.name: await answer(self.step, values, self._ask or lab.ask)}}


async def run(
    workflow: Workflow,
    inputs: Mapping[str, str] | None = None,
    *,
    ask: Ask | None = None,
    progress: bool = False,
) -> dict[str, str]:
    """Run the `dataflow`; see `engines.run`. It takes the workflow's span."""
    given = workflow.given(inputs)
    watch = Watch(workflow, ask=ask, progress=progress)
    with watch.reported():
        await dataflow(workflow, ask=watch.ask).ainvoke(given)
    return watch.results


def graph(workflow: Workflow, *, ask: Ask | None = None) -> StateGraph[State]:
    """The workflow as a graph to look at, to add to, and to compile as you like.

    Args:
        ask: Who answers; `lab.ask`, unless given.

    Example:
        app = graph(workflow).compile()
        state = await app.ainvoke({"inputs": {"topic": "tides", "data": "heights"}})
        state["results"]["summary"]
    """
    drawn = StateGraph(State)
    for step in workflow.steps:
        drawn.add_node(step.name, AskStep(step, ask))
        drawn.add_edge(list(workflow.needs[step.name]) or START, step.name)
    for name in workflow.ends:
        drawn.add_edge(name, END)
    return drawn


def dataflow(
    workflow: Workflow,
    *,
    ask: Ask | None = None,
    checkpointer: BaseCheckpointSaver[str] | None = None,
) -> Pregel[Any, Any, Any, Any]:
    """The workflow as a LangGraph entrypoint whose tasks wait for their own inputs only.

    Args:
        ask: Who answers; `lab.ask`, unless given.
        checkpointer: Where finished answers are kept. With one, a run that failed goes on by
            `await app.ainvoke(None, config)`, and asks for nothing that was answered before.

    Example:
        app = dataflow(workflow)
        results = await app.ainvoke({"topic": "tides", "data": "heights"})
    """

    @entrypoint(checkpointer=checkpointer)
    async def app(inputs: dict[str, str]) -> dict[str, str]:
        values = workflow.given(inputs)
        answers: dict[str, asyncio.Future[str]] = {}

        def begin(step: Step) -> asyncio.Future[str]:
            async def when_ready() -> str:
                for need in workflow.needs[step.name]:
                    values[need] = await answers[need]
                return await answer(step, values, ask or lab.ask)

            as_task: Any = task(name=step.name)
            begun: asyncio.Future[str] = as_task(when_ready)()
            return begun

        # All are begun here and now, in the workflow's order: LangGraph knows a task by its
        # number, and by that finds its answer again when a run is resumed.
        for step in workflow.steps:
            answers[step.name] = begin(step)
        await asyncio.gather(*answers.values())
        return {name: answer.result() for name, answer in answers.items()}

    return app
