"""CrewAI's native LLM, agents and crews against the endpoint, over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from agentlab import lab
from agentlab.trace import trace

pytestmark = pytest.mark.filterwarnings("ignore")  # CrewAI's and its libraries' own


class Report(BaseModel):
    title: str
    risks: list[str]
    score: int


@pytest.fixture(scope="module")
def crewai() -> Iterator[Any]:
    """The package, silent, and the endpoint fast."""
    from agentlab.lab import crews  # noqa: F401, before crewai

    lab.configure(time_scale=20)
    import crewai

    yield crewai
    lab.configure()


def agent(crewai: Any, role: str, **options: Any) -> Any:
    options = {"llm": lab.crew_llm(), **options}
    return crewai.Agent(
        role=role, goal="do it well", backstory="You care.", max_retry_limit=0, **options
    )


def run(crewai: Any, agents: list[Any], *, process: str = "sequential", **task: Any) -> Any:
    """One task's crew; returns its output and the trace."""
    options = {"manager_llm": lab.crew_llm()} if process == "hierarchical" else {}
    asked = crewai.Task(**({"expected_output": "Two sentences"} | task))
    with trace() as t:
        crew = crewai.Crew(agents=agents, tasks=[asked], process=process, **options)
        return crew.kickoff(), t


def tides(crewai: Any) -> Any:
    from crewai.tools import tool

    @tool("get_tides")
    def get_tides(place: str) -> str:
        """High water at a place."""
        return f"{place}: 06:12 and 18:40"

    return get_tides


def test_call_and_acall(crewai: Any):
    """Both clients of the LLM get a text."""
    asked = "Describe tides in two sentences."
    assert lab.crew_llm().call(asked).count(".") == 2
    assert asyncio.run(lab.crew_llm().acall(asked)).count(".") == 2


def test_a_task_is_answered_in_one_request_in_the_form_expected(crewai: Any):
    """The expected output's form counts, not CrewAI's words around the task."""
    researcher = agent(crewai, "Researcher")
    output, t = run(
        crewai,
        [researcher],
        agent=researcher,
        description="Research tidal power.",
        expected_output="Three bullet points",
    )
    assert [line[:2] for line in output.raw.splitlines()] == ["- ", "- ", "- "]
    assert t.requests == 1


def test_a_tool_is_called_and_the_loop_ends(crewai: Any):
    """Native function calling: two requests, the tool's result in the answer."""
    sailor = agent(crewai, "Sailor", tools=[tides(crewai)])
    output, t = run(crewai, [sailor], agent=sailor, description="When are the tides in Incheon?")
    assert "Incheon: 06:12 and 18:40" in output.raw
    assert t.requests == 2


def test_output_pydantic(crewai: Any):
    """A task's output as a model."""
    writer = agent(crewai, "Writer")
    output, _ = run(
        crewai, [writer], agent=writer, description="Assess tides.", output_pydantic=Report
    )
    assert isinstance(output.pydantic, Report)


def test_a_manager_delegates_to_the_coworker_that_suits(crewai: Any):
    """Three requests: the manager hands on, the coworker answers, the manager passes it on."""
    coworkers = [agent(crewai, "Accountant"), agent(crewai, "Tides researcher")]
    output, t = run(
        crewai, coworkers, process="hierarchical", description="Write a report about tides."
    )
    assert t.requests == 3
    assert t.peak == 1
    assert output.raw.count(".") >= 1


def test_what_a_manager_delegates_in_one_turn_runs_in_parallel(crewai: Any):
    """Three requests, and each has begun before any has ended (CrewAI 1.15.30)."""
    from crewai import BaseLLM

    def delegation(topic: str) -> dict[str, Any]:
        words = {"coworker": topic, "task": f"Describe {topic}.", "context": ""}
        function = {"name": "delegate_work_to_coworker", "arguments": json.dumps(words)}
        return {"id": topic, "type": "function", "function": function}

    class Scripted(BaseLLM):  # type: ignore[misc]
        """Delegates three times, and then passes on what came back."""

        def supports_function_calling(self) -> bool:
            return True

        def call(self, messages: Any, *_: Any, **__: Any) -> Any:
            came_back = [each["content"] for each in messages if each["role"] == "tool"]
            return "\n".join(came_back) or [delegation(topic) for topic in topics]

    topics = ["tides", "winds", "currents"]
    slow = {"kind": "stall", "stall_s": 30, "probability": 1.0}
    with lab.configure(faults=[slow], time_scale=10), trace() as t:
        experts = [agent(crewai, role, llm=lab.crew_llm(agent=role)) for role in topics]
        options = {"process": "hierarchical", "manager_llm": Scripted(model="scripted")}
        task = crewai.Task(description="Describe all.", expected_output="A text")
        crewai.Crew(agents=experts, tasks=[task], **options).kickoff()
    assert sorted(span.agent for span in t.spans) == sorted(topics)
    assert t.peak == 3
