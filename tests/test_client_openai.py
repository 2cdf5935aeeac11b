"""OpenAI's own client against the endpoint: what it sends is answered, what it gets it can read."""

from __future__ import annotations

import json
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel, Field

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.endpoint.server.app import local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.settings import Settings

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 1},
            },
            "required": ["city", "unit", "days"],
        },
    },
}
TIDES = {"type": "function", "function": {"name": "tides", "description": "High water"}}
ASKS = [{"role": "user", "content": "What is the weather in Seoul for 3 days, in fahrenheit?"}]


class Market(BaseModel):
    title: str
    summary: str
    outlook: Literal["good", "mixed", "bad"]
    score: int = Field(ge=1, le=5)
    share: float = Field(gt=0, lt=1)
    risks: list[str] = Field(min_length=2, max_length=4)
    part: Market | None


def client(**settings: Any) -> openai.AsyncOpenAI:
    app = local_app(Settings(**settings), time_scale=1.0)
    http = httpx.AsyncClient(transport=InProcessTransport(app))
    return openai.AsyncOpenAI(
        base_url="http://127.0.0.1/v1", api_key="any", http_client=http, max_retries=0
    )


def chat(**fields: Any) -> Any:
    """One chat completion, in virtual time."""

    async def main() -> Any:
        return await client().chat.completions.create(model="m", **{"messages": ASKS, **fields})

    return run_virtual(main()).result


def arguments(answer: Any) -> list[tuple[str, Any]]:
    calls = answer.choices[0].message.tool_calls or []
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


def test_a_tool_that_the_prompt_names_is_called_with_what_the_prompt_says():
    """City, unit and number come from the question; the reason is tool_calls, the text null."""
    answer = chat(tools=[WEATHER, TIDES])
    assert arguments(answer) == [
        ("get_weather", {"city": "Seoul", "unit": "fahrenheit", "days": 3})
    ]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    assert answer.usage.completion_tokens > 5


def test_a_tool_loop_ends():
    """After the results the model speaks, and says what they were."""
    called = chat(tools=[WEATHER]).choices[0].message
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "sunny, 24"}
    messages = [*ASKS, called.model_dump(exclude_none=True), result]
    answer = chat(messages=messages, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "stop"
    assert "sunny, 24" in answer.choices[0].message.content


@pytest.mark.parametrize(
    ("fields", "called"),
    [
        ({}, ["get_weather"]),
        ({"tool_choice": "auto"}, ["get_weather"]),
        ({"tool_choice": "none"}, []),
        ({"tool_choice": {"type": "function", "function": {"name": "tides"}}}, ["tides"]),
        ({"messages": [{"role": "user", "content": "Hello"}]}, []),
        ({"messages": [{"role": "user", "content": "Hello"}], "tool_choice": "required"},
         ["get_weather"]),
        ({"messages": [{"role": "user", "content": "Weather and tides in Busan?"}]},
         ["get_weather", "tides"]),
        ({"messages": [{"role": "user", "content": "Weather and tides in Busan?"}],
          "parallel_tool_calls": False}, ["get_weather"]),
        ({"messages": [{"role": "user", "content": "부산의 weather 알려줘"}]}, ["get_weather"]),
    ],
)  # fmt: skip
def test_tool_choice(fields: dict[str, Any], called: list[str]):
    """auto, required, none, by name, several at once or one at a time."""
    assert [name for name, _ in arguments(chat(tools=[WEATHER, TIDES], **fields))] == called


def test_required_calls_another_tool_before_it_repeats_one():
    """A loop that must call works through the tools it has."""
    first = chat(tools=[WEATHER, TIDES], tool_choice="required").choices[0].message
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "sunny"}
    messages = [*ASKS, first.model_dump(exclude_none=True), result]
    again = chat(messages=messages, tools=[WEATHER, TIDES], tool_choice="required")
    assert [name for name, _ in arguments(again)] == ["tides"]


def test_streamed_tool_calls_add_up_to_the_whole_ones():
    """Names and ids come once, arguments in pieces, by index; finish_reason last."""
    messages = [{"role": "user", "content": "Weather and tides in Busan?"}]
    fields: Any = {"model": "m", "messages": messages, "tools": [WEATHER, TIDES]}

    async def main() -> Any:
        stream = await client().chat.completions.create(stream=True, **fields)
        calls: dict[int, list[str]] = {}
        async for chunk in stream:
            for call in chunk.choices[0].delta.tool_calls or []:
                if call.id:
                    calls[call.index] = [call.id, call.function.name, ""]
                calls[call.index][2] += call.function.arguments
        return calls, chunk.choices[0].finish_reason

    streamed, reason = run_virtual(main()).result
    whole = chat(messages=messages, tools=[WEATHER, TIDES]).choices[0].message.tool_calls
    assert [(c.id, c.function.name, c.function.arguments) for c in whole] == [
        tuple(call) for call in streamed.values()
    ]
    assert (len(streamed), reason) == (2, "tool_calls")


def test_a_limit_cuts_arguments_short():
    """finish_reason length, as a real model's; the arguments are no JSON then."""
    answer = chat(tools=[WEATHER], max_completion_tokens=6)
    assert answer.choices[0].finish_reason == "length"
    with pytest.raises(json.JSONDecodeError):
        arguments(answer)


def test_an_answer_keeps_to_a_pydantic_model():
    """parse() returns the model: ranges, literals, lengths, a model within itself."""

    async def main() -> Any:
        asked: Any = [{"role": "user", "content": "Analyse the market for tidal power."}]
        answer = await client().chat.completions.parse(
            model="m", messages=asked, response_format=Market
        )
        return answer.choices[0].message.parsed

    market = run_virtual(main()).result
    assert market.title == "The market for tidal power"
    assert 2 <= len(market.risks) <= 4


def test_json_object_gives_an_object():
    """Valid JSON, with the keys that the prompt names."""
    asked = [{"role": "user", "content": "Describe tides in JSON with the keys size and place."}]
    answer = chat(messages=asked, response_format={"type": "json_object"})
    assert set(json.loads(answer.choices[0].message.content)) == {"size", "place"}


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"response_format": {"type": "json_object"}}, "messages", "word 'json'"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "Missing"),
        ({"response_format": {"type": "json_schema",
                              "json_schema": {"name": "x", "schema": {"type": "objekt"}}}},
         "response_format", "Invalid schema for response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "strict": True, "schema": {"type": "object", "properties": {}}}}},
         "response_format", "additionalProperties"),
        ({"response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"type": "string", "not": {}}}}},
         "response_format", "cannot fill this schema"),
        ({"tools": []}, "tools", "length >= 1"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "y"}}},
         "tool_choice", "not among the tools"),
        ({"tool_choice": "auto"}, "tool_choice", "only allowed when 'tools'"),
        ({"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]},
         "messages[0].role", "waits for a result"),
        ({"messages": [*ASKS, {"role": "assistant", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}]},
         "messages[2]", "these calls: c"),
        ({"functions": [{"name": "f"}]}, "functions", "not supported"),
        ({"logprobs": True}, "logprobs", "not supported"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_a_bad_request_error(fields: dict[str, Any], param: str, words: str):
    """The client raises BadRequestError, which says what and where."""
    with pytest.raises(openai.BadRequestError, match=words) as error:
        chat(**fields)
    assert error.value.param == param


def test_the_same_seed_gives_the_same_answer():
    """The client's own seed is part of what is asked."""
    asked = [{"role": "user", "content": "Describe tides."}]
    texts = [chat(messages=asked, seed=s).choices[0].message.content for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_the_blocking_client_works_over_http(fresh_lab: None):
    """The same contract in a process of its own: text, tools, a list of models."""
    lab.configure(preset="instant")
    with openai.OpenAI(base_url=lab.base_url(), api_key=lab.api_key(), max_retries=0) as blocking:
        answer = blocking.chat.completions.create(model="m", messages=ASKS, tools=[WEATHER])  # type: ignore[call-overload]
        assert [name for name, _ in arguments(answer)] == ["get_weather"]
        assert [model.id for model in blocking.models.list()] == ["local"]
