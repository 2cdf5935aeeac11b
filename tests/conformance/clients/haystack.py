"""haystack: generators, an agent, an embedder."""

import cells
from cells import MODEL, TOOLS, cell
from haystack.components.agents import Agent
from haystack.components.embedders import OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import create_tool_from_function
from pydantic import BaseModel

tools = [create_tool_from_function(tool) for tool in TOOLS.values()]


class Market(BaseModel):
    title: str
    risks: list[str]


def user(text):
    return [ChatMessage.from_user(text)]


for route, kind in {
    "chat": OpenAIChatGenerator,
    "Responses": OpenAIResponsesChatGenerator,
}.items():

    @cell("plain", 1, route)
    def _():
        assert kind(model=MODEL).run(user("Describe tides."))["replies"][0].text

    @cell("stream", 1, route)
    def _():
        chunks = []
        kind(model=MODEL, streaming_callback=chunks.append).run(user("Describe tides."))
        assert "".join(chunk.content for chunk in chunks)

    def ask(question):
        agent = Agent(chat_generator=kind(model=MODEL), tools=tools)
        return agent.run(user(question))["last_message"].text

    cells.tool_cells(ask, route)

    @cell("structured output", 1, route)
    def _():
        form = "response_format" if route == "chat" else "text_format"
        model = kind(model=MODEL, generation_kwargs={form: Market})
        text = model.run(user("Describe the market for tides."))["replies"][0].text
        assert Market.model_validate_json(text).risks


@cell("embedding", 1, "chat")
def _():
    embedder = OpenAITextEmbedder(model="text-embedding-3-small")
    assert len(embedder.run("tides")["embedding"]) == 1536
