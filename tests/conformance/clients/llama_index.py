"""llama-index: its agents, its output parser, and OpenAILike."""

import cells
from cells import ASKS, BASE_URL, MODEL, TOOLS, cell
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.program import LLMTextCompletionProgram
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

llm = OpenAI(MODEL)


class Market(BaseModel):
    title: str
    risks: list[str]


@cell("plain", 1)
def _():
    assert llm.complete("Describe tides.").text


@cell("stream", 1)
def _():
    chunks = llm.stream_chat([ChatMessage("Describe tides.")])
    assert "".join(chunk.delta or "" for chunk in chunks)


async def ask(question):
    return str(await FunctionAgent(tools=[*TOOLS.values()], llm=llm).run(question))


cells.tool_cells(ask)


@cell("structured output", 1)
def _():
    assert llm.as_structured_llm(Market).complete("Describe the market for tides.").raw.risks


@cell("tool loop, Responses", 2)
async def _():
    agent = FunctionAgent(tools=[cells.get_weather], llm=OpenAIResponses(MODEL))
    cells.asked_for_weather(str(await agent.run(ASKS)))


@cell("ReActAgent", 2)
async def _():
    answer = await ReActAgent(tools=[cells.get_weather], llm=llm).run(ASKS)
    cells.asked_for_weather(str(answer))


@cell("PydanticOutputParser", 1)
def _():
    program = LLMTextCompletionProgram.from_defaults(
        output_parser=PydanticOutputParser(Market),
        prompt_template_str="Describe the market for {topic}.",
        llm=llm,
    )
    assert program(topic="tides").risks


@cell("text completion (OpenAILike's default)", 1)
def _():
    model = OpenAILike(MODEL, api_base=BASE_URL, api_key="any")
    assert model.complete("Describe tides.").text
