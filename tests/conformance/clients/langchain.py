"""LangChain's ChatOpenAI, alone and in an agent; ReAct in the words of LangChain's own prompt."""

import cells
from cells import ASKS, MODEL, TOOLS, cell
from langchain.agents import create_agent
from langchain_classic.agents import AgentExecutor, create_react_agent
from langchain_classic.agents.mrkl import prompt as mrkl
from langchain_core.output_parsers import PydanticOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel


class Market(BaseModel):
    title: str
    risks: list[str]


ROUTES = {
    "chat": ChatOpenAI(model=MODEL),
    "Responses": ChatOpenAI(model=MODEL, use_responses_api=True),
    "Responses, previous_response_id": ChatOpenAI(model=MODEL, use_previous_response_id=True),
}
for route, model in ROUTES.items():
    agent = create_agent(model, [*TOOLS.values()])

    def ask(question):
        return agent.invoke({"messages": [("user", question)]})["messages"][-1].text

    @cell("plain", 1, route)
    def _():
        assert model.invoke("Describe tides.").text

    @cell("stream", 1, route)
    def _():
        assert "".join(chunk.text for chunk in model.stream("Describe tides."))

    cells.tool_cells(ask, route)

    @cell("structured output", 1, route)
    def _():
        assert model.with_structured_output(Market).invoke("The market for tides?").risks

    @cell("second turn", 2, route)
    def _():
        first = model.invoke("Describe tides.")
        talk = [("user", "Describe tides."), first, ("user", "And what do they cost?")]
        assert model.invoke(talk).text


@cell("PydanticOutputParser", 1, "chat")
def _():
    parser = PydanticOutputParser(pydantic_object=Market)
    ask = f"Describe the market for tides.\n{parser.get_format_instructions()}"
    assert (ROUTES["chat"] | parser).invoke(ask).risks


@cell("ReAct", 2, "chat")
def _():
    parts = [mrkl.PREFIX, "{tools}", mrkl.FORMAT_INSTRUCTIONS, mrkl.SUFFIX]
    prompt = PromptTemplate.from_template("\n\n".join(parts))
    tools = [tool(cells.get_weather)]
    react = create_react_agent(ROUTES["chat"], tools, prompt)
    executor = AgentExecutor(agent=react, tools=tools, max_iterations=5)
    cells.asked_for_weather(executor.invoke({"input": ASKS})["output"])


@cell("text completion", 1, "chat")
def _():
    assert OpenAI(model=MODEL).invoke("Describe tides.")
