"""OpenAI's own client: chat completions, Responses, text completions."""

import json

import cells
import openai
from cells import ASKS, MODEL, TOOLS, cell
from pydantic import BaseModel

client = openai.OpenAI()
CHAT_TOOLS = [{"type": "function", "function": cells.function(tool)} for tool in TOOLS.values()]
TOOLS_OF_RESPONSES = [{"type": "function", **cells.function(tool)} for tool in TOOLS.values()]
IN_WORDS = "Write a joke. Return the result as a JSON with 'setup' and 'punchline' keys."


class Market(BaseModel):
    title: str
    risks: list[str]


def chat(question, **fields):
    """Ask, call what is asked for, and ask again, until there is an answer."""
    messages = [{"role": "user", "content": question}]
    for _ in range(6):
        answer = client.chat.completions.create(
            model=MODEL, messages=messages, tools=CHAT_TOOLS, **fields
        )
        message = answer.choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message)
        for call in message.tool_calls:
            result = TOOLS[call.function.name](**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise AssertionError("the loop does not end")


def responses(question):
    """Do the same through Responses; the endpoint keeps the conversation."""
    given, previous = question, None
    for _ in range(6):
        answer = client.responses.create(
            model=MODEL, input=given, tools=TOOLS_OF_RESPONSES, previous_response_id=previous
        )
        asked = [item for item in answer.output if item.type == "function_call"]
        if not asked:
            return answer.output_text
        results = [TOOLS[item.name](**json.loads(item.arguments)) for item in asked]
        given = [
            {"type": "function_call_output", "call_id": item.call_id, "output": result}
            for item, result in zip(asked, results, strict=True)
        ]
        previous = answer.id
    raise AssertionError("the loop does not end")


cells.tool_cells(chat, "chat")
cells.tool_cells(responses, "Responses")


@cell("plain", 1, "chat")
def _():
    asked = [{"role": "user", "content": "Describe tides."}]
    answer = client.chat.completions.create(model=MODEL, messages=asked)
    assert answer.choices[0].message.content


@cell("stream", 1, "chat")
def _():
    asked = [{"role": "user", "content": "Describe tides."}]
    with client.chat.completions.stream(model=MODEL, messages=asked) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
    assert text == stream.get_final_completion().choices[0].message.content != ""


@cell("streamed tool call", 1, "chat")
def _():
    asked = [{"role": "user", "content": ASKS}]
    with client.chat.completions.stream(model=MODEL, messages=asked, tools=CHAT_TOOLS) as stream:
        kinds = {event.type for event in stream}
    assert "content.delta" not in kinds, "text before the call"
    assert stream.get_final_completion().choices[0].message.tool_calls


@cell("tool loop, allowed_tools", 2, "chat")
def _():
    allowed = [{"type": "function", "function": {"name": "get_weather"}}]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": allowed}}
    cells.asked_for_weather(chat(ASKS, tool_choice=choice))


@cell("structured output", 1, "chat")
def _():
    asked = [{"role": "user", "content": "Describe the market for tides."}]
    answer = client.chat.completions.parse(model=MODEL, messages=asked, response_format=Market)
    assert answer.choices[0].message.parsed.risks


@cell("JSON in words", 1, "chat")
def _():
    asked = [{"role": "user", "content": IN_WORDS}]
    answer = client.chat.completions.create(
        model=MODEL, messages=asked, response_format={"type": "json_object"}
    )
    joke = json.loads(answer.choices[0].message.content)
    assert set(joke) == {"setup", "punchline"}, joke


@cell("plain", 1, "Responses")
def _():
    answer = client.responses.create(model=MODEL, input="Describe tides.")
    assert answer.output_text


@cell("stream", 1, "Responses")
def _():
    with client.responses.stream(model=MODEL, input="Describe tides.") as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
    assert text == stream.get_final_response().output_text != ""


@cell("structured output", 1, "Responses")
def _():
    answer = client.responses.parse(
        model=MODEL, input="Describe the market for tides.", text_format=Market
    )
    assert answer.output_parsed.risks


@cell("second turn", 2, "Responses")
def _():
    first = client.responses.create(model=MODEL, input="Describe tides.")
    again = {"input": "And what do they cost?", "previous_response_id": first.id}
    assert client.responses.create(model=MODEL, **again).output_text


@cell("retrieve and delete", 1, "Responses")
def _():
    answer = client.responses.create(model=MODEL, input="Describe tides.")
    assert client.responses.retrieve(answer.id).output_text == answer.output_text
    client.responses.delete(answer.id)
    try:
        client.responses.retrieve(answer.id)
    except openai.NotFoundError:
        return
    raise AssertionError("a deleted response is still there")


@cell("plain", 1, "text completions")
def _():
    answer = client.completions.create(model=MODEL, prompt="Describe tides.", max_tokens=32)
    assert answer.choices[0].text


@cell("stream", 1, "text completions")
def _():
    asked = {"model": MODEL, "prompt": "Describe tides.", "max_tokens": 32}
    assert "".join(c.choices[0].text for c in client.completions.create(stream=True, **asked))
