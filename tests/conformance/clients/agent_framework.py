"""Microsoft's Agent Framework: Responses by default, and chat completions."""

import cells
from agent_framework import Agent
from agent_framework.openai import OpenAIChatClient, OpenAIChatCompletionClient
from cells import ASKS, BASE_URL, MODEL, TOOLS, cell
from pydantic import BaseModel


class Market(BaseModel):
    title: str
    risks: list[str]


for route, kind in {"Responses": OpenAIChatClient, "chat": OpenAIChatCompletionClient}.items():
    client = kind(model=MODEL, base_url=BASE_URL, api_key="any")
    plain = Agent(client, "Be of help.")
    tools = Agent(client, "Be of help.", tools=[*TOOLS.values()])

    @cell("plain", 1, route)
    async def _():
        assert (await plain.run("Describe tides.")).text

    @cell("stream", 1, route)
    async def _():
        parts = [update async for update in plain.run("Describe tides.", stream=True)]
        assert any(part.text for part in parts)

    async def ask(question):
        return (await tools.run(question)).text

    cells.tool_cells(ask, route)

    @cell("streamed tool loop", 2, route)
    async def _():
        parts = [update.text async for update in tools.run(ASKS, stream=True)]
        cells.asked_for_weather("".join(parts))

    @cell("structured output", 1, route)
    async def _():
        answer = await plain.run(
            "Describe the market for tides.", options={"response_format": Market}
        )
        assert answer.value.risks

    @cell("second turn", 2, route)
    async def _():
        session = plain.create_session()
        await plain.run("Describe tides.", session=session)
        assert (await plain.run("And what do they cost?", session=session)).text
