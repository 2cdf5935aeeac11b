"""The responses and embeddings routes, with OpenAI's own client and ChatOpenAI, in virtual time."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.endpoint.server.app import local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.settings import Settings

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}
ASKS = "What is the weather in Seoul?"


class Report(BaseModel):
    title: str
    risks: list[str]


def client() -> openai.AsyncOpenAI:
    app = local_app(Settings(), time_scale=1.0)
    http = httpx.AsyncClient(transport=InProcessTransport(app))
    return openai.AsyncOpenAI(
        base_url="http://127.0.0.1/v1", api_key="any", http_client=http, max_retries=0
    )


def respond(**fields: Any) -> Any:
    async def main() -> Any:
        return await client().responses.create(model="m", **fields)

    return run_virtual(main()).result


def test_a_text_takes_as_long_as_in_a_chat():
    """The same words, tokens and time as the same question on the chat route."""

    async def main() -> Any:
        asking = client()
        question: Any = [{"role": "user", "content": "Describe tides."}]
        chat = await asking.chat.completions.create(model="m", messages=question)
        return chat, await client().responses.create(model="m", input="Describe tides.")

    chat, response = run_virtual(main()).result
    assert response.output_text == chat.choices[0].message.content
    assert response.usage.output_tokens == chat.usage.completion_tokens
    assert response.status == "completed"


def test_a_stream_tells_the_whole_story():
    """Created first, deltas that add up to the text, the whole response last."""

    async def main() -> list[Any]:
        stream = await client().responses.create(model="m", input="Describe tides.", stream=True)
        return [happening async for happening in stream]

    events = run_virtual(main()).result
    kinds = [happening.type for happening in events]
    assert [kinds[0], kinds[-1]] == ["response.created", "response.completed"]
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == events[-1].response.output_text
    assert [e.sequence_number for e in events] == list(range(len(events)))


def test_a_tool_loop_ends():
    """A function_call, its output, a message."""
    call = respond(input=ASKS, tools=[WEATHER]).output[0]
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Seoul"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    items = [{"role": "user", "content": ASKS}, call.model_dump(), result]
    assert "sunny" in respond(input=items, tools=[WEATHER]).output_text


def test_a_streamed_call_adds_up():
    """The client's own accumulator rebuilds the arguments."""

    async def main() -> Any:
        async with client().responses.stream(model="m", input=ASKS, tools=[WEATHER]) as stream:  # type: ignore[list-item]
            async for _ in stream:
                pass
            return await stream.get_final_response()

    (call,) = run_virtual(main()).result.output
    assert json.loads(call.arguments) == {"city": "Seoul"}


def test_an_answer_keeps_to_a_pydantic_model():
    """text_format, with instructions."""

    async def main() -> Any:
        answer = await client().responses.parse(
            model="m", instructions="Be brief.", input="Assess tides.", text_format=Report
        )
        return answer.output_parsed

    assert isinstance(run_virtual(main()).result, Report)


def test_a_limit_makes_it_incomplete():
    """Status and reason say so."""
    response = respond(input="Describe tides.", max_output_tokens=5)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input"),
    ],
)
def test_what_it_cannot_do_is_refused(fields: dict[str, Any], param: str):
    """400, naming the field."""
    with pytest.raises(openai.BadRequestError) as error:
        respond(**fields)
    assert error.value.param == param


def test_chat_openai_speaks_responses(fresh_lab: None):
    """LangChain's client with use_responses_api."""

    async def main() -> Any:
        return await lab.chat_model(use_responses_api=True).ainvoke("Describe tides.")

    assert run_virtual(main()).result.text


def embed(**fields: Any) -> Any:
    async def main() -> Any:
        return await client().embeddings.create(model="e", **fields)

    return run_virtual(main())


def test_texts_that_share_words_lie_near_each_other():
    """Cosines: the same text 1, a shared word more than none."""
    texts = ["the tides of the sea", "tides in the sea at night", "quarterly accounting rules"]
    run = embed(input=texts)
    one, near, far = (item.embedding for item in run.result.data)

    def cosine(other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert cosine(one) == pytest.approx(1)
    assert cosine(near) > 0.4 > cosine(far)
    assert len(one) == 1536
    assert run.elapsed_s == 1.0  # the course preset's prefill


@pytest.mark.parametrize("given", ["tides", ["tides"], [[1, 2]], [1, 2]])
def test_every_kind_of_input_gets_a_vector(given: Any):
    """One text, several, or tokens; of the size asked for, in either format."""
    for encoding in ("float", "base64"):
        (item,) = embed(input=given, dimensions=64, encoding_format=encoding).result.data
        assert len(item.embedding) == (64 if encoding == "float" else 344)


@pytest.mark.parametrize("given", ["", [], ["a", 1], [""], None])
def test_a_wrong_input_is_refused(given: Any):
    """400, naming the field."""
    with pytest.raises(openai.BadRequestError) as error:
        embed(input=given)
    assert error.value.param.startswith("input")
