"""What does a framework add to each turn of an agent with tools, where no call takes time?

    python tools/per_turn.py [--rounds 30] [--turns 1 2 4 8]

Every way asks the same local model on the preset `instant`, over HTTP, with the same seven tools:
as many requests as turns, and in each but the last, one call of a tool. In each round every way is
measured with every number of turns, in an order that is drawn. A line through a round's times gives
what a turn costs, and what a run costs beside its turns. The table has the median of the rounds,
and their quartiles; what is added is the difference to the hand loop of the same round. The
processor's time is that of this process, without the endpoint's; other programs disturb it less.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import warnings
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from importlib.metadata import distributions
from time import perf_counter, process_time
from typing import Any

import msgspec
import numpy as np

from agentlab import engines, lab
from agentlab.trace import trace
from agentlab.workflow import Step, Workflow

NAMES = ("harbour", "market", "museum", "castle", "bridge", "garden", "library")
TURNS = (1, 2, 4, 8)
HAND = "hand loop"
Run = Callable[[], Awaitable[Any]]
Pair = tuple[float, float]  # milliseconds on the wall's clock, and of the processor
Measured = dict[str, dict[int, list[Pair]]]  # way -> turns -> each round


@cache
def tool(name: str) -> Callable[..., Any]:
    """Return a tool that answers immediately."""

    async def look(topic: str) -> str:
        return f"The {name} of {topic} is open."

    look.__name__, look.__doc__ = name, f"Look up the {name} of a topic."
    return look


def task(turns: int) -> str:
    """Return what makes the local model ask for one tool after the other, and then answer."""
    wanted = ", then ".join(f"the {name} of 'Busan'" for name in NAMES[: turns - 1])
    return f"Look up {wanted}." if wanted else "Describe Busan in one sentence."


def schema(name: str) -> dict[str, Any]:
    topic = {"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]}
    about = {"name": name, "description": f"Look up the {name} of a topic.", "parameters": topic}
    return {"type": "function", "function": about}


def by_hand(turns: int) -> Run:
    """Return the loop itself: ask, call, ask again."""
    forms = [schema(name) for name in NAMES]

    async def run() -> str:
        said: list[dict[str, Any]] = []
        while True:
            reply = await lab.reply(task(turns), tools=forms, turns=said, temperature=0)
            if not reply.tool_calls:
                return reply.text
            said.append({"role": "assistant", "content": None, "tool_calls": reply.tool_calls})
            for call in reply.tool_calls:
                given = msgspec.json.decode(call.function.arguments)
                told = await tool(call.function.name)(**given)
                said.append({"role": "tool", "tool_call_id": call.id, "content": told})

    return run


def by_engine(engine: str, turns: int) -> Run:
    workflow = Workflow([Step("guide", task(turns), tools=NAMES)])
    tools = {name: tool(name) for name in NAMES}
    return lambda: engines.run(workflow, engine=engine, tools=tools)


def by_chat_model(turns: int) -> Run:
    """Return a loop by hand on LangChain's ChatOpenAI: what its client and messages cost."""
    from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage

    model = lab.chat_model(temperature=0).bind_tools([schema(name) for name in NAMES])

    async def run() -> str:
        said: list[AnyMessage] = [HumanMessage(task(turns))]
        while True:
            said.append(reply := await model.ainvoke(said))
            if not reply.tool_calls:
                return str(reply.text)
            for call in reply.tool_calls:
                told = await tool(call["name"])(**call["args"])
                said.append(ToolMessage(told, tool_call_id=call["id"]))

    return run


def by_graph(turns: int, *, prebuilt: bool) -> Run:
    """Return LangGraph's prebuilt agent, or a graph of two nodes."""
    from langchain_core.tools import StructuredTool
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, create_react_agent, tools_condition

    model = lab.chat_model(temperature=0)
    tools = [StructuredTool.from_function(coroutine=tool(name)) for name in NAMES]
    able = model.bind_tools(tools)

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await able.ainvoke(state["messages"])]}

    if prebuilt:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has moved to the package langchain
            app: Any = create_react_agent(model, tools)
    else:
        drawn = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask")
        drawn.add_node("tools", ToolNode(tools)).add_edge("tools", "ask")
        app = drawn.add_conditional_edges("ask", tools_condition).compile()
    start = {"messages": [("user", task(turns))]}
    return lambda: app.ainvoke(start, {"recursion_limit": 100})


def by_crew(turns: int) -> Run:
    """Return a crew of one agent with one task."""
    llm = lab.crew_llm(temperature=0)
    from crewai import Agent, Crew, Task
    from crewai.tools import tool as crew_tool

    def plain(name: str) -> Any:
        def look(topic: str) -> str:
            return f"The {name} of {topic} is open."

        look.__doc__ = f"Look up the {name} of a topic."
        return crew_tool(name)(look)

    words: Any = {"role": "Guide", "goal": "Know.", "backstory": "A guide.", "max_retry_limit": 0}
    guide = Agent(llm=llm, tools=[plain(name) for name in NAMES], **words)
    asked = Task(description=task(turns), expected_output="A text.", agent=guide)
    crew = Crew(agents=[guide], tasks=[asked])
    return crew.akickoff


def by_agents_sdk(turns: int) -> Run:
    """Return an agent of OpenAI's Agents SDK, on the client that lies under `ChatOpenAI`."""
    from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, RunConfig, Runner
    from agents import function_tool as sdk_tool

    client = lab.chat_model().root_async_client
    guide = Agent(
        name="Guide",
        model=OpenAIChatCompletionsModel(lab.current().model, client),
        model_settings=ModelSettings(temperature=0),
        tools=[sdk_tool(tool(name)) for name in NAMES],
    )
    untraced = RunConfig(tracing_disabled=True)
    return lambda: Runner.run(guide, task(turns), run_config=untraced)


def by_pydantic_ai(turns: int) -> Run:
    """Return an agent of pydantic-ai, on the same client."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(openai_client=lab.chat_model().root_async_client)
    model = OpenAIChatModel(lab.current().model, provider=provider)
    tools = [tool(name) for name in NAMES]
    guide = Agent(model, tools=tools, model_settings={"temperature": 0}, retries=0)
    return lambda: guide.run(task(turns))


WAYS: dict[str, Callable[[int], Run]] = {
    HAND: by_hand,
    "engine asyncio": lambda turns: by_engine("asyncio", turns),
    "engine langgraph": lambda turns: by_engine("langgraph", turns),
    "engine crewai": lambda turns: by_engine("crewai", turns),
    "engine openai-agents": lambda turns: by_engine("openai-agents", turns),
    "engine pydantic-ai": lambda turns: by_engine("pydantic-ai", turns),
    "ChatOpenAI, hand loop": by_chat_model,
    "LangGraph, own graph": lambda turns: by_graph(turns, prebuilt=False),
    "LangGraph, create_react_agent": lambda turns: by_graph(turns, prebuilt=True),
    "CrewAI, agent with tools": by_crew,
    "Agents SDK, agent with tools": by_agents_sdk,
    "pydantic-ai, agent with tools": by_pydantic_ai,
}


async def measure(turns: Sequence[int], rounds: int) -> tuple[Measured, dict[str, list[int]]]:
    """Return the times, and way -> the requests of its warm-up runs, by number of turns."""
    runs = {(way, many): make(many) for way, make in WAYS.items() for many in turns}
    requests: dict[str, list[int]] = {way: [] for way in WAYS}
    for (way, _), run in runs.items():
        with trace() as t:
            await run()
        requests[way].append(t.requests)
    times: Measured = {way: {many: [] for many in turns} for way in WAYS}
    for _ in range(rounds):
        gc.collect()
        for way, many in random.sample(list(runs), len(runs)):
            began_s, busy_s = perf_counter(), process_time()
            await runs[way, many]()
            took_s, busy_s = perf_counter() - began_s, process_time() - busy_s
            times[way][many].append((took_s * 1000, busy_s * 1000))
    return times, requests


def fitted(times: dict[int, list[Pair]]) -> tuple[Any, Any]:
    """Return what a turn costs, and a run beside its turns: two rows each, a column per round."""
    points = np.array(list(times.values()))  # by turns, round, and clock
    lines = [np.polyfit(list(times), points[:, :, clock], 1) for clock in (0, 1)]
    return tuple(np.swapaxes(lines, 0, 1))


def table(times: Measured) -> str:
    """Return a Markdown table with a line for each way."""

    def shown(values: Any) -> str:
        return "{1:.2f} ({0:.2f} to {2:.2f})".format(*np.quantile(values, [0.25, 0.5, 0.75]))

    hand, _ = fitted(times[HAND])
    columns = ["way", "ms per turn", "added per turn", "added processor time", "ms per run"]
    lines = [f"| {' | '.join(columns)} |", "|---|---:|---:|---:|---:|"]
    for way, its in times.items():
        turn, rest = fitted(its)
        added = ["", ""] if way == HAND else [shown(each) for each in turn - hand]
        lines.append(f"| {' | '.join([way, shown(turn[0]), *added, shown(rest[0])])} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table with the versions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--turns", type=int, nargs="+", default=TURNS)
    given = parser.parse_args()
    if len({*given.turns}) < 2 or not 1 <= min(given.turns) <= max(given.turns) <= len(NAMES) + 1:
        parser.error(f"--turns: give two numbers at least, from 1 to {len(NAMES) + 1}")
    with lab.configure(preset="instant", upstream=None):  # whatever key is set
        times, requests = asyncio.run(measure(given.turns, given.rounds))
    if odd := {way: counts for way, counts in requests.items() if counts != [*given.turns]}:
        raise SystemExit(f"not comparable: {odd} requests for {given.turns} turns")
    print(table(times))
    named = "langgraph langchain-core langchain-openai crewai openai openai-agents".split()
    named.append("pydantic-ai-slim")
    print(", ".join(f"{n} {one.version}" for n in named for one in distributions(name=n)))


if __name__ == "__main__":
    main()
