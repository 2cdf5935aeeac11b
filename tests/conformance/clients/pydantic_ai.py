"""pydantic-ai, by chat completions and by Responses."""

import cells
from cells import ASKS, MODEL, TOOLS, cell
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel


class Market(BaseModel):
    title: str
    risks: list[str]


for route, kind in {"chat": OpenAIChatModel, "Responses": OpenAIResponsesModel}.items():
    plain = Agent(kind(MODEL))
    tools = Agent(kind(MODEL), tools=[*TOOLS.values()])

    @cell("plain", 1, route)
    async def _():
        assert (await plain.run("Describe tides.")).output

    @cell("stream", 1, route)
    async def _():
        async with plain.run_stream("Describe tides.") as stream:
            parts = [part async for part in stream.stream_text(delta=True, debounce_by=None)]
        assert "".join(parts)

    async def ask(question):
        return (await tools.run(question)).output

    cells.tool_cells(ask, route)

    for name, form in {
        "structured output": Market,
        "structured output, native": NativeOutput(Market),
        "structured output, prompted": PromptedOutput(Market),
    }.items():

        @cell(name, 1, route)
        async def _():
            agent = Agent(kind(MODEL), output_type=form)
            assert (await agent.run("Describe the market for tides.")).output.risks

    @cell("tools and structured output", 2, route)
    async def _():
        agent = Agent(kind(MODEL), tools=[cells.get_weather], output_type=Market)
        assert (await agent.run(ASKS)).output.title

    @cell("second turn", 2, route)
    async def _():
        first = await plain.run("Describe tides.")
        history = first.all_messages()
        assert (await plain.run("And what do they cost?", message_history=history)).output
