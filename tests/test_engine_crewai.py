"""The CrewAI engine, on the real clock: CrewAI's threads keep no virtual time."""

from __future__ import annotations

import asyncio
import threading

import pytest
from meeting import hung_up
from recipes import recipe

from agentlab import engines
from agentlab.clock import run_virtual
from agentlab.errors import ConfigError, StepError
from agentlab.trace import AGENT, trace
from agentlab.workflow import Step, Workflow, random_workflow

pytestmark = pytest.mark.filterwarnings("ignore")  # CrewAI's and its libraries' own


@pytest.mark.parametrize("seed", range(4))
def test_results_equal_the_others(fresh_lab, seed):
    """On random workflows its answers are those of the sequential engine, to the byte."""
    w = random_workflow(seed)
    expected = run_virtual(engines.run(w, engine="sequential")).result
    fresh_lab.configure(preset="instant")
    with trace() as t:
        assert asyncio.run(engines.run(w, engine="crewai")) == expected
    assert t.requests == len(w.steps)


def test_no_cap_on_what_runs_at_once(fresh_lab):
    """Sixty-four steps that need each other not at all are in flight all at once."""
    w = Workflow([Step(f"s{n}", f"Describe lake {n} in ten paragraphs.") for n in range(64)])
    assert asyncio.run(hung_up(engines.run(w, engine="crewai"), 64)).peak == 64


def test_a_step_starts_as_soon_as_its_own_inputs_are_there(fresh_lab):
    """No supersteps: what follows the quick branch is asked before the slow branch has ended."""
    w = Workflow(
        [
            Step("quick", "Describe a river in ten paragraphs.", max_tokens=2),
            Step("after_quick", "In ten paragraphs: {quick}", max_tokens=2),
            Step("slow", "Describe a lake in ten paragraphs.", max_tokens=90),
            Step("last", "In ten paragraphs: {after_quick} {slow}", max_tokens=2),
        ]
    )
    with trace() as t:
        asyncio.run(engines.run(w, engine="crewai"))
    spans = {span.agent: span for span in t.spans}
    assert spans["quick"].end_s <= spans["after_quick"].arrived_s < spans["slow"].end_s
    assert spans["last"].arrived_s >= spans["slow"].end_s


def test_failure_cancels_what_is_in_flight(fresh_lab):
    """As with the other engines, though a Flow by itself would let the siblings run on."""

    async def ask(prompt, *, agent, **rest):
        text = await fresh_lab.ask(prompt, agent=agent, **rest)
        if agent == "quick":
            raise ValueError("no river")
        return text

    w = Workflow(
        [
            Step("quick", "Describe a river in ten paragraphs.", max_tokens=11),
            Step("slow", "Describe a lake in ten paragraphs.", max_tokens=90),
            Step("last", "In ten paragraphs: {quick} {slow}"),
        ]
    )

    async def main():
        with pytest.raises(StepError, match=r"'quick'.*ValueError: no river"):
            await engines.run(w, engine="crewai", ask=ask)
        await fresh_lab.ask("Describe the sea.", agent="later", max_tokens=2)  # time to notice

    with trace() as t:
        asyncio.run(main())
    seen = {span.agent: span.status for span in t.spans}
    assert seen == {"quick": 200, "slow": 499, "later": 200}


def test_virtual_time_is_refused(fresh_lab):
    """Inside run_virtual it says why not, before anything is asked."""
    with trace() as t, pytest.raises(ConfigError, match="keep real time"):
        run_virtual(engines.run(random_workflow(1), engine="crewai"))
    assert t.requests == 0


@pytest.mark.parametrize(
    "names", [("state", "kickoff"), ("조사", "요약"), ("café", "cafe"), ("a", "ask_a")]
)
def test_a_step_may_have_any_name(fresh_lab, names):
    """Not even the name of something that a Flow has is taken, and it may be of any language."""
    fresh_lab.configure(preset="instant")
    first, second = names
    w = Workflow([Step(first, "Describe it."), Step(second, f"Begin with {{{first}}}.")])
    assert tuple(asyncio.run(engines.run(w, engine="crewai"))) == names


async def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def tides(city: str) -> dict[str, str]:
    """The tides in a city."""
    return {"high_water": "14:10"}


TOOLS = {"weather": weather, "tides": tides, "search_history": lambda query: [query]}


def test_steps_with_tools_answer_as_on_the_other_engines(fresh_lab):
    """To the byte, and with as many requests; the trace has the same tools."""
    w, inputs = Workflow.load("trip"), {"city": "Busan"}
    expected, other = fresh_lab.simulate(engines.run(w, inputs, tools=TOOLS))
    fresh_lab.configure(preset="instant")
    with trace() as t:
        assert asyncio.run(engines.run(w, inputs, engine="crewai", tools=TOOLS)) == expected
    assert t.requests == other.requests == 5
    used = [[(s.agent, s.name) for s in each.tools if s.operation != AGENT] for each in (t, other)]
    assert (
        sorted(used[0])
        == sorted(used[1])
        == [
            ("conditions", "tides"),
            ("conditions", "weather"),
            ("history", "search_history"),
        ]
    )


@pytest.mark.parametrize("failing", [False, True])
def test_a_crews_own_tools_are_heard(fresh_lab, failing):
    """CrewAI 1.15 runs the tools of one answer at the same time: two wait for each other.

    Their spans lie between the requests, on the endpoint's clock; a failure is noted as such.
    """
    from crewai import Agent, Crew, Task
    from crewai.tools import tool

    meeting = threading.Barrier(2, timeout=60)

    @tool("weather")
    def weather(place: str) -> str:
        """The weather of a place."""
        meeting.wait()
        return "rain"

    @tool("tides")
    def tides(place: str) -> str:
        """The tides of a place."""
        meeting.wait()
        if failing:
            raise ValueError("no tides")
        return "high"

    fresh_lab.configure(preset="instant")
    guide = Agent(
        role="Guide", goal="Know.", backstory="A guide.", tools=[weather, tides],
        llm=fresh_lab.crew_llm(agent="guide"), max_retry_limit=0,
    )  # fmt: skip
    task = Task(
        description="Tell the weather and the tides in Busan.",
        expected_output="A text.",
        agent=guide,
    )
    with trace() as t, recipe("heard")("guide"):
        asyncio.run(Crew(agents=[guide], tasks=[task]).akickoff())
    first, second = t.spans
    error = "ValueError: no tides" if failing else None
    assert sorted((s.name, s.agent, s.fault) for s in t.tools) == [
        ("tides", "guide", error),
        ("weather", "guide", None),
    ]
    for heard in t.tools:
        assert first.arrived_s - 0.5 < heard.started_s <= heard.end_s < second.arrived_s + 0.5
    assert [len(turn.tools) for turn in t.turns["guide"]] == [2, 0]
    with trace() as later:
        pass
    assert later.tools == []
