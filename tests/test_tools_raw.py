"""The traps of lesson 09 with the frameworks alone: what the endpoint saw, and what tools ran.

Nothing of agentlab runs a tool here, or notes one. Measured with langgraph 1.2.22 (prebuilt 1.1.2),
openai 2.54.0 and crewai 1.15.30; another version that behaves otherwise fails here first.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from langchain_core.tools import StructuredTool
from langgraph._internal._config import DEFAULT_RECURSION_LIMIT
from langgraph.errors import GraphRecursionError
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent, tools_condition
from langgraph.types import RetryPolicy
from openai import AsyncOpenAI, BadRequestError

from agentlab import lab
from agentlab.trace import Trace, trace

pytestmark = [
    pytest.mark.filterwarnings("ignore:create_react_agent has been moved"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
]

TASK = "Tell the weather and the tides in Busan."
CITIES = "Tell the weather in Busan and in Seoul."


def asked(task: str = TASK) -> dict[str, Any]:
    return {"messages": [("user", task)]}


class Tools:
    """Weather of 4 s and tides of 2 s, which may fail; they keep what began, ended, or was cut."""

    def __init__(self, failures: int = 0, weather_s: float = 4):
        self.seen: list[str] = []
        self.running = self.peak = 0
        self._failures, self._weather_s = failures, weather_s

    async def weather(self, city: str) -> str:
        await self._take("weather", self._weather_s)
        return "rain"

    async def tides(self, city: str) -> str:
        await self._take("tides", 2)
        if self._failures:
            self._failures -= 1
            raise ConnectionError("no tides")
        return "high"

    async def _take(self, name: str, seconds: float) -> None:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await lab.sleep(seconds)
            self.seen.append(f"{name} ended")
        except asyncio.CancelledError:
            self.seen.append(f"{name} cancelled")
            raise
        finally:
            self.running -= 1

    def both(self) -> list[StructuredTool]:
        return [
            StructuredTool.from_function(coroutine=function, description=f"The {function.__name__}")
            for function in (self.weather, self.tides)
        ]


def graph(tools: Tools, *, choice: str = "auto", node: Any = None, **options: Any) -> Any:
    """A graph of one's own: model, tools, a conditional edge."""

    async def think(state: MessagesState) -> dict[str, Any]:
        model = lab.chat_model(temperature=0).bind_tools(tools.both(), tool_choice=choice)
        return {"messages": [await model.ainvoke(state["messages"])]}

    made = StateGraph(MessagesState).add_node("model", think)
    made.add_node("tools", node or ToolNode(tools.both()), **options)
    made.add_edge(START, "model").add_conditional_edges("model", tools_condition)
    return made.add_edge("tools", "model").compile()


def prebuilt(tools: Tools, **options: Any) -> Any:
    return create_react_agent(lab.chat_model(temperature=0), tools.both(), **options)


def watched(app: Any, config: dict[str, Any] | None = None) -> tuple[Any, Trace]:
    """What a run in virtual time ends with, half a minute after its beginning, and its trace."""

    async def main() -> Any:
        both = app.ainvoke(asked(), config), lab.sleep(30)
        return (await asyncio.gather(*both, return_exceptions=True))[0]

    return lab.simulate(main())


AGENTS: dict[str, Callable[[Tools], Any]] = {
    "graph": graph,
    "prebuilt": prebuilt,
    "v1": lambda tools: prebuilt(tools, version="v1"),
}


@pytest.mark.parametrize("agent", AGENTS)
def test_the_tools_of_a_turn_run_together(fresh_lab, agent):
    """Two requests, both tools in flight; from the first answer to the second request, 4 s."""
    tools = Tools()
    state, t = watched(AGENTS[agent](tools))
    assert state["messages"][-1].content == "What was found: rain.\nWhat was found: high."
    assert (tools.peak, t.requests, t.peak) == (2, 2, 1)
    assert t.spans[1].arrived_s - t.spans[0].end_s == pytest.approx(4)


@pytest.mark.parametrize(("agent", "peak"), [("graph", 2), ("prebuilt", 1), ("v1", 2)])
def test_a_limit_of_nodes_makes_only_todays_prebuilt_agent_serial(fresh_lab, agent, peak):
    """It sends each call to a node of its own; a ToolNode is one node."""
    tools = Tools()
    watched(AGENTS[agent](tools), {"max_concurrency": 1})
    assert tools.peak == peak


@pytest.mark.parametrize(
    ("agent", "sibling"), [("graph", "ended"), ("prebuilt", "cancelled"), ("v1", "ended")]
)
def test_a_failing_tool_ends_the_run_and_not_always_its_sibling(fresh_lab, agent, sibling):
    """One request is paid for and lost; a ToolNode's other tool runs on to its end."""
    tools = Tools(failures=1)
    error, t = watched(AGENTS[agent](tools))
    assert (type(error), t.requests) == (ConnectionError, 1)
    assert tools.seen == ["tides ended", f"weather {sibling}"]


def test_a_handled_error_is_told_to_the_model(fresh_lab):
    """Two requests, each tool once, and the answer has both."""
    tools = Tools(failures=1)
    node = ToolNode(tools.both(), handle_tool_errors=True)
    state, t = watched(graph(tools, node=node))
    assert t.requests == 2
    assert sorted(tools.seen) == ["tides ended", "weather ended"]
    assert "rain" in state["messages"][-1].content
    assert "no tides" in state["messages"][-1].content


def test_a_retried_node_runs_all_its_tools_again(fresh_lab):
    """The first turn is not asked for again, but the weather is; the first one runs on beside."""
    tools = Tools(failures=1)
    policy = RetryPolicy(initial_interval=1, jitter=False)
    state, t = watched(graph(tools, retry_policy=policy))
    assert "high" in state["messages"][-1].content
    assert t.requests == 2
    assert (tools.seen.count("weather ended"), tools.seen.count("tides ended")) == (2, 2)
    assert tools.peak == 3


class Blocking:
    """A tool that waits in real time until two are in it, or counts how many ever were."""

    def __init__(self) -> None:
        self.meeting = threading.Barrier(2, timeout=60)
        self.running = self.peak = 0

    def meets(self, city: str) -> str:
        """The weather in a city."""
        self.meeting.wait()
        return city

    async def blocks(self, city: str) -> str:
        """The weather in a city."""
        self.running += 1
        self.peak = max(self.peak, self.running)
        time.sleep(0.01)
        self.running -= 1
        return city


def test_ordinary_tools_run_in_threads_and_async_ones_that_block_do_not(fresh_lab):
    """The ordinary ones meet, or the barrier would break; of the others one runs at a time."""
    fresh_lab.configure(preset="instant")
    blocking = Blocking()
    for function in (blocking.meets, blocking.blocks):
        way = {"coroutine": function} if function == blocking.blocks else {"func": function}
        app = create_react_agent(lab.chat_model(), [StructuredTool.from_function(**way)])
        with trace() as t:
            state = asyncio.run(app.ainvoke(asked(CITIES)))
        assert t.requests == 2
        assert [m.content for m in state["messages"] if m.type == "tool"] == ["Busan", "Seoul"]
    assert blocking.peak == 1


def test_a_loop_without_an_end_is_paid_for_up_to_its_limit(fresh_lab):
    """Two steps per turn; each prompt is longer by the same turn, so the bill grows with n²."""
    runs = []
    for limit in (10, 20):
        error, t = watched(graph(Tools(), choice="any"), {"recursion_limit": limit})
        assert isinstance(error, GraphRecursionError)
        runs.append(t)
    assert [t.requests for t in runs] == [5, 10]
    assert 2 * runs[0].tokens < runs[1].tokens < 4 * runs[0].tokens
    sizes = [span.prompt_tokens for span in runs[1].spans]
    assert len({later - before for before, later in pairwise(sizes)}) == 1


def test_the_prebuilt_agent_ends_with_an_apology(fresh_lab):
    """No error says that the limit was reached; and by default it is out of reach."""
    tools = Tools()
    model = lab.chat_model(temperature=0).bind_tools(tools.both(), tool_choice="any")
    state, t = watched(create_react_agent(model, tools.both()), {"recursion_limit": 10})
    assert state["messages"][-1].content == "Sorry, need more steps to process this request."
    assert (t.requests, DEFAULT_RECURSION_LIMIT) == (5, 10_007)


# The wire itself, by OpenAI's client


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}


@pytest.fixture
def after_two_calls(fresh_lab) -> Iterator[Callable[..., Awaitable[Any]]]:
    """Ask for the weather of two cities, and go on with what the given function makes of it."""
    fresh_lab.configure(preset="instant")

    async def run(results: Callable[[list[Any]], list[tuple[str, str]]]) -> Any:
        async with AsyncOpenAI(base_url=lab.base_url(), api_key=lab.api_key()) as client:
            messages: list[Any] = [{"role": "user", "content": CITIES}]
            chat = client.chat.completions
            first = (await chat.create(model="any", messages=messages, tools=[WEATHER])).choices[0]
            calls = first.message.tool_calls
            assert calls is not None
            assert [json.loads(c.function.arguments)["city"] for c in calls] == ["Busan", "Seoul"]
            messages.append(first.message)
            for id, text in results(calls):
                messages.append({"role": "tool", "tool_call_id": id, "content": text})
            second = await chat.create(model="any", messages=messages, tools=[WEATHER])
            return second.choices[0].message.content

    return run


def test_results_may_come_in_any_order(after_two_calls):
    """Their ids say whose they are."""
    ends = after_two_calls(lambda calls: [(calls[1].id, "snow"), (calls[0].id, "rain")])
    assert "snow" in asyncio.run(ends)


def test_results_of_each_other_are_taken_without_a_word(after_two_calls):
    """Status 200: nobody can know that Busan got Seoul's."""
    with trace() as t:
        asyncio.run(after_two_calls(lambda c: [(c[0].id, "snow"), (c[1].id, "rain")]))
    assert [span.status for span in t.spans] == [200, 200]


def test_a_call_without_a_result_is_refused(after_two_calls):
    """Status 400, as by OpenAI; the client does not repeat it."""
    with trace() as t, pytest.raises(BadRequestError, match="tool messages have to follow"):
        asyncio.run(after_two_calls(lambda calls: [(calls[0].id, "rain")]))
    assert [span.status for span in t.spans] == [200, 400]


# CrewAI, on the real clock


@pytest.mark.filterwarnings("ignore")  # CrewAI's and its libraries' own
@pytest.mark.parametrize("failing", [False, True])
def test_a_crew_runs_the_tools_of_a_turn_together_and_tells_failures(fresh_lab, failing):
    """Both are in flight, two requests; an error is told to the model, in the order of calls."""
    fresh_lab.configure(preset="instant")
    llm = lab.crew_llm(temperature=0)  # before crewai, which it silences
    from crewai import Agent, Crew, Task
    from crewai.tools import tool

    meeting = threading.Barrier(2, timeout=60)

    @tool("weather")
    def weather(city: str) -> str:
        """The weather in a city."""
        meeting.wait()
        return "rain"

    @tool("tides")
    def tides(city: str) -> str:
        """The tides in a city."""
        meeting.wait()
        if failing:
            raise ConnectionError("no tides")
        return "high"

    words = {"role": "Guide", "goal": "Know.", "backstory": "A guide.", "max_retry_limit": 0}
    guide = Agent(llm=llm, tools=[weather, tides], **words)
    task = Task(description=TASK, expected_output="A text.", agent=guide)
    with trace() as t:
        result = asyncio.run(Crew(agents=[guide], tasks=[task]).akickoff())
    assert t.requests == 2
    assert result.raw.index("rain") < result.raw.index("no tides" if failing else "high")
