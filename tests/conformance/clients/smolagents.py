"""smolagents: the agent that calls tools, and the one that writes code."""

import cells
from cells import ASKS, BASE_URL, MODEL, cell
from smolagents import ChatMessage, CodeAgent, OpenAIModel, ToolCallingAgent, tool

model = OpenAIModel(MODEL, api_base=BASE_URL, api_key="any")
weather = tool(cells.get_weather)
question = [ChatMessage("user", [{"type": "text", "text": "Describe tides."}])]


@cell("plain", 1)
def _():
    assert model.generate(question).content


@cell("stream", 1)
def _():
    assert "".join(chunk.content or "" for chunk in model.generate_stream(question))


@cell("tool loop", 2)
def _():
    answer = ToolCallingAgent([weather], model, max_steps=5).run(ASKS, return_full_result=True)
    assert answer.state == "success", answer.state
    cells.asked_for_weather(str(answer.output))


@cell("CodeAgent")
def _():
    answer = CodeAgent([weather], model, max_steps=5).run(ASKS, return_full_result=True)
    assert answer.state == "success", answer.state
    cells.asked_for_weather(str(answer.output))
