"""CrewAI: an agent, crews with tools, a manager and memory."""

import cells
from cells import BASE_URL, MODEL, TOOLS, cell
from crewai import LLM, Agent, Crew, Process, Task
from crewai.tools import tool
from pydantic import BaseModel

llm = LLM(model=f"openai/{MODEL}", base_url=BASE_URL, api_key="any")
tools = [tool(name)(function) for name, function in TOOLS.items()]


class Market(BaseModel):
    title: str
    risks: list[str]


def agent(role, **fields):
    return Agent(role=role, goal="Help", backstory="You help.", llm=llm, **fields)


def crew(description, who, tools=(), output=None, **fields):
    task = Task(
        description=description,
        expected_output="A short text.",
        agent=who,
        tools=[*tools],
        output_pydantic=output,
    )
    return Crew(agents=[who], tasks=[task], **fields).kickoff()


@cell("plain", 1)
def _():
    assert crew("Describe tides.", agent("Researcher")).raw


@cell("stream", 1)
def _():
    streaming = crew("Describe tides.", agent("Researcher"), stream=True)
    assert "".join(chunk.content for chunk in streaming)
    assert streaming.result.raw


cells.tool_cells(lambda question: crew(question, agent("Assistant"), tools).raw)


@cell("structured output")
def _():
    asked = "Describe the market for tides."
    assert crew(asked, agent("Analyst"), output=Market).pydantic.risks


@cell("hierarchical")
def _():
    task = Task(description="Describe tides.", expected_output="A short text.")
    answer = Crew(
        agents=[agent("Researcher"), agent("Writer")],
        tasks=[task],
        process=Process.hierarchical,
        manager_llm=llm,
    ).kickoff()
    assert answer.raw


@cell("memory")
def _():
    embedder = {"provider": "openai", "config": {"model_name": "text-embedding-3-small"}}
    answer = crew("Describe tides.", agent("Researcher"), memory=True, embedder=embedder).raw
    assert "No relevant memories" not in answer, answer
    assert answer
