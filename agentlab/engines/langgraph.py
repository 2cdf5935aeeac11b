"""A workflow as native LangGraph: as a graph, and without the wait between supersteps."""

import asyncio
import operator
from functools import partial
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver as Saver
from langgraph.config import get_config
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.pregel import Pregel

from agentlab import lab
from agentlab.engines import Ask, answer
from agentlab.errors import ConfigError
from agentlab.workflow import Step, Workflow, begin


class State(TypedDict):
    """The state of the graph: the inputs, and step -> answer, merged as the answers come."""

    inputs: dict[str, str]
    results: Annotated[dict[str, str], operator.or_]


async def run(workflow: Workflow, values: dict[str, str], *, ask: Ask) -> dict[str, str]:
    """Run the `dataflow`; see `engines.run`. It takes the workflow's span."""
    return await dataflow(workflow, ask=ask).ainvoke(values)


def graph(workflow: Workflow, *, ask: Ask | None = None) -> StateGraph[State]:
    """Return the workflow as a graph that you can look at, extend and compile.

    LangGraph runs it in supersteps, each of which waits for its slowest step.
    """

    async def asked(step: Step, state: State) -> dict[str, dict[str, str]]:
        values = state["inputs"] | state.get("results", {})
        return {"results": {step.name: await answer(step, values, ask or lab.ask)}}

    drawn = StateGraph(State)
    for step in workflow.steps:
        drawn.add_node(step.name, partial(asked, step))
        drawn.add_edge(list(workflow.needs[step.name]) or START, step.name)
    for name in workflow.ends:
        drawn.add_edge(name, END)
    return drawn


def dataflow(
    workflow: Workflow, *, ask: Ask | None = None, checkpointer: Saver[str] | None = None
) -> Pregel[Any, Any, Any, Any]:
    """Return the workflow as a LangGraph entrypoint whose tasks wait for their own inputs only.

    With a `checkpointer`, which keeps finished answers, a run that failed is resumed by
    `await app.ainvoke(None, config)`, and asks for nothing that was answered before.

    Raises:
        ConfigError: When it runs with LangGraph's `max_concurrency`.
    """

    @entrypoint(checkpointer=checkpointer)
    async def app(inputs: dict[str, str]) -> dict[str, str]:
        values = workflow.given(inputs)
        if get_config().get("max_concurrency"):
            stands = "with max_concurrency LangGraph gives slots to steps that only wait"
            cure = "bound the calls: dataflow(workflow, ask=Guard(max_concurrency=...).ask)"
            raise ConfigError(f"{stands}, and may stand still; {cure}")

        async def call(name: str, given: dict[str, str]) -> str:
            return await answer(workflow.step(name), values | given, ask or lab.ask)

        def start(name: str, work: Any) -> Any:
            return task(name=name)(work)()

        # All begin now, in order: LangGraph finds an answer again by its task's number.
        answers = begin(workflow.needs, call, start)
        await asyncio.gather(*answers.values())
        return {name: answer.result() for name, answer in answers.items()}

    return app
