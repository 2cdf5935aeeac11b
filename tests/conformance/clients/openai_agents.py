"""OpenAI's Agents SDK: Responses by default, and chat completions."""

import cells
from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from cells import MODEL, TOOLS, cell
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(True)


class Market(BaseModel):
    title: str
    risks: list[str]


for route, model in {
    "Responses": MODEL,
    "chat": OpenAIChatCompletionsModel(MODEL, AsyncOpenAI()),
}.items():
    plain = Agent("helper", model=model)
    tools = Agent("helper", model=model, tools=[function_tool(tool) for tool in TOOLS.values()])
    typed = Agent("helper", model=model, output_type=Market)

    @cell("plain", 1, route)
    async def _():
        assert (await Runner.run(plain, "Describe tides.")).final_output

    @cell("stream", 1, route)
    async def _():
        result = Runner.run_streamed(plain, "Describe tides.")
        kinds = [
            event.data.type async for event in result.stream_events() if hasattr(event, "data")
        ]
        assert result.final_output
        assert "response.output_text.delta" in kinds

    async def ask(question):
        return (await Runner.run(tools, question)).final_output

    cells.tool_cells(ask, route)

    @cell("structured output", 1, route)
    async def _():
        assert (await Runner.run(typed, "Describe the market for tides.")).final_output.risks

    @cell("second turn", 2, route)
    async def _():
        session = SQLiteSession("a conversation")
        await Runner.run(plain, "Describe tides.", session=session)
        assert (await Runner.run(plain, "What do they cost?", session=session)).final_output

    @cell("handoff", 2, route)
    async def _():
        expert = Agent("expert", model=model, handoff_description="Knows everything of tides")
        desk = Agent("desk", "Hand off to the expert.", model=model, handoffs=[expert])
        result = await Runner.run(desk, "Transfer me to the expert: describe tides.")
        assert result.last_agent is expert
        assert "assistant" not in result.final_output, result.final_output


@cell("second turn, previous_response_id", 2, "Responses")
async def _():
    agent = Agent("helper", model=MODEL)
    first = await Runner.run(agent, "Describe tides.")
    again = {"previous_response_id": first.last_response_id}
    assert (await Runner.run(agent, "And what do they cost?", **again)).final_output
