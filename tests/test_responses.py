"""The responses and embeddings routes, with OpenAI's own client and ChatOpenAI, in virtual time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import (
    EasyInputMessageParam,
    Response,
    ResponseCustomToolCallOutputParam,
    ResponseCustomToolCallParam,
    ResponseFunctionToolCallParam,
    ResponseOutputMessageParam,
    ResponseReasoningItemParam,
    ResponseStreamEvent,
)
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from openai.types.responses.response_input_param import FunctionCallOutput, Message
from pydantic import BaseModel, TypeAdapter

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.endpoint.server.app import local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.settings import Settings

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}
LOGPROBS = "message.output_text.logprobs"
NOTES = {"type": "custom", "name": "take_notes"}
MISSING = "missing_required_parameter"
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
    """Status and reason say so, and so does the item that it cut."""
    response = respond(input="Describe tides.", max_output_tokens=16)
    assert (response.status, response.output[0].status) == ("incomplete", "incomplete")
    assert response.incomplete_details.reason == "max_output_tokens"


def stream_of(**fields: Any) -> list[tuple[float, Any]]:
    """The events of a stream, each with the model second at which it came."""

    async def main() -> list[tuple[float, Any]]:
        stream = await client().responses.create(model="m", stream=True, **fields)
        return [(asyncio.get_running_loop().time(), event) async for event in stream]

    return run_virtual(main()).result


def test_an_item_is_closed_before_the_next_begins():
    """A client may start the first tool while the arguments of the second still come."""
    tools = [WEATHER, WEATHER | {"name": "get_population"}]
    events = stream_of(input="Get the weather and the population of Seoul.", tools=tools)
    kinds = [(event.type.removeprefix("response."), event) for _, event in events]
    order = [kind for kind, _ in kinds if kind.startswith("output_item")]
    assert order == ["output_item.added", "output_item.done"] * 2
    done_s, last_s = (
        [at_s for at_s, event in events if event.type == kind and event.output_index == 0][-1]
        for kind in ("response.output_item.done", "response.function_call_arguments.delta")
    )
    assert done_s == last_s < events[-1][0]


def test_every_event_is_one_of_openais():
    """Of words, calls, custom calls, cut answers; strictly, by the types of its client."""
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for fields in (
        {"input": "Describe tides."},
        {"input": "Describe tides.", "max_output_tokens": 16},
        {"input": ASKS, "tools": [WEATHER]},
        {"input": ASKS, "tools": [NOTES], "tool_choice": "required"},
    ):
        for _, event in stream_of(**fields):
            told = event.to_json()
            assert adapter.validate_json(told, strict=True).type == event.type


SENT: dict[str, Any] = {
    "instructions": "Be brief.",
    "max_output_tokens": 100,
    "max_tool_calls": 3,
    "metadata": {"a": "b"},
    "parallel_tool_calls": False,
    "prompt_cache_key": "k",
    "reasoning": {"effort": "low", "summary": "auto"},
    "safety_identifier": "s",
    "service_tier": "flex",
    "store": False,
    "temperature": 0.5,
    "text": {"format": {"type": "text"}, "verbosity": "low"},
    "tool_choice": {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "get_weather"}],
    },
    "tools": [WEATHER | {"description": "Weather", "strict": False}],
    "top_p": 0.9,
    "truncation": "auto",
    "user": "u",
}


def test_what_was_sent_is_echoed():
    """Strictly as OpenAI's type has it; what is not sent has OpenAI's defaults."""
    sent = respond(input="Describe tides.", **SENT)
    assert sent.to_dict().items() >= SENT.items()
    plain = respond(input="Describe tides.")
    assert (plain.store, plain.background, plain.truncation) == (True, False, "disabled")
    assert plain.to_dict()["text"] == {"format": {"type": "text"}, "verbosity": "medium"}
    for each in (sent, plain):
        Response.model_validate_json(each.to_json(), strict=True)


ACCEPTED: dict[str, Any] = SENT | {
    "background": False,
    "include": ["reasoning.encrypted_content"],
    "input": "Describe tides.",
    "model": "m",
    "previous_response_id": None,
    "prompt_cache_options": {},
    "prompt_cache_retention": "24h",
    "stream_options": None,
    "top_logprobs": 0,
}
REFUSED: dict[str, Any] = {
    "background": True,
    "context_management": [{"type": "compaction"}],
    "conversation": "conv_1",
    "moderation": {"model": "m"},
    "prompt": {"id": "p"},
    "top_logprobs": 2,
}
OF_OPENAI_3: dict[str, Any] = {"access_programs": [], "background_options": {}, "image": "x"}


def test_every_field_is_known():
    """Each of those in OpenAI's client, 2 or 3, is accepted, or refused by its name."""
    known = ResponseCreateParamsBase.__annotations__.keys() | OF_OPENAI_3.keys()
    assert known == ACCEPTED.keys() | REFUSED.keys() | OF_OPENAI_3.keys()
    assert respond(**{name: value for name, value in ACCEPTED.items() if name != "model"})
    for name, value in (REFUSED | OF_OPENAI_3).items():
        error = refusal({"input": "x", "extra_body": {name: value}})
        assert (error.param, error.code) == (name, "unsupported_parameter")
    error = refusal({"input": "x", "extra_body": {"foo": 1}})
    assert (error.param, error.code) == ("foo", "unknown_parameter")


KINDS = {
    "message": [EasyInputMessageParam, Message, ResponseOutputMessageParam],
    "function_call": [ResponseFunctionToolCallParam],
    "function_call_output": [FunctionCallOutput],
    "custom_tool_call": [ResponseCustomToolCallParam],
    "custom_tool_call_output": [ResponseCustomToolCallOutputParam],
    "reasoning": [ResponseReasoningItemParam],
}


def test_every_field_of_an_item_is_known():
    """Those of OpenAI's client, on every kind of item that is taken; no others."""
    needed: dict[str, Any] = {"role": "user", "content": "x", "name": "f", "call_id": "c"}
    needed |= {"arguments": "{}", "input": "x", "output": "x"}
    items = []
    for kind, params in KINDS.items():
        names = {name for param in params for name in param.__annotations__}
        items.append({name: needed.get(name) for name in names} | {"type": kind})
    items[-1]["content"] = None
    items[1]["async"] = True  # as openai 3 sends it
    assert respond(input=items).output_text
    assert refusal({"input": [items[0] | {"foo": 1}]}).param == "input[0].foo"


def refusal(fields: dict[str, Any]) -> Any:
    with pytest.raises(openai.BadRequestError) as error:
        respond(**fields)
    return error.value


CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "x"}
SCHEMA = {"type": "objekt"}


def part(role: str, kind: str) -> dict[str, Any]:
    """A message of one part of this type."""
    return {"role": role, "content": [{"type": kind, "text": "x", "refusal": "x"}]}


CHATS_TOOL = {"type": "function", "function": {"name": "get_weather"}}
FORM = {"type": "json_schema", "name": "r", "strict": True, "schema": SCHEMA}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": []}, "input", "empty_array"),
        ({}, "input", MISSING),
        ({"input": [{"type": "computer_call"}]}, "input[0].type", "invalid_value"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role", "invalid_value"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "invalid_value"),
        ({"input": [{"role": "user"}]}, "input[0].content", MISSING),
        (
            {"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
            "input[0].content[0].type",
            "invalid_value",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            "input[0].content[0].text",
            MISSING,
        ),
        ({"input": [OUTPUT]}, "input[0]", None),
        ({"input": [{"role": "user", "content": "x"}, CALL]}, "input", None),
        ({"input": "x", "max_output_tokens": 15}, "max_output_tokens", "integer_below_min_value"),
        ({"input": "x", "text": {"format": FORM}}, "text.format", "invalid_json_schema"),
        ({"input": "x", "text": {"format": {}}}, "text.format.type", MISSING),
        ({"input": "x", "text": {"format": {"type": "json_object"}}}, "input", "invalid_value"),
        ({"input": "x", "text": {"verbosity": "loud"}}, "text.verbosity", "invalid_value"),
        (
            {"input": "x", "include": ["message.output_text.logprobs"]},
            "include[0]",
            "invalid_value",
        ),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools[0].name", MISSING),
        (
            {"input": "x", "tools": [WEATHER | {"parameters": {"type": "objekt"}}]},
            "tools[0].parameters",
            "invalid_function_parameters",
        ),
        ({"input": "x", "tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"input": [part("assistant", "input_text")]}, "input[0].content[0].type", "invalid_value"),
        (
            {"input": [part("user", "input_text"), part("user", "output_text")]},
            "input[1].content[0].type",
            "invalid_value",
        ),
        (
            {"instructions": "x", "input": [part("system", "refusal")]},
            "input[0].content[0].type",
            "invalid_value",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "detail": "ultra"}]}]},
            "input[0].content[0].detail",
            "invalid_value",
        ),
        (
            {"input": [CALL, OUTPUT | {"output": [{"type": "output_text", "text": "x"}]}]},
            "input[1].output[0].type",
            "invalid_value",
        ),
        ({"input": "x", "reasoning": {"effort": "galactic"}}, "reasoning.effort", "invalid_value"),
        ({"input": "x", "reasoning": {"summary": "long"}}, "reasoning.summary", "invalid_value"),
        ({"input": "x", "tools": [CHATS_TOOL]}, "tools[0].name", MISSING),
        ({"input": "x", "tools": [{"type": "custom", "custom": {}}]}, "tools[0].name", MISSING),
        (
            {"input": "x", "tools": [WEATHER], "tool_choice": CHATS_TOOL},
            "tool_choice.name",
            MISSING,
        ),
    ],
)
def test_what_is_wrong_is_refused_in_this_routes_words(
    fields: dict[str, Any], param: str, code: str | None
):
    """400, with OpenAI's code, and the field as the client calls it: never as a chat does."""
    error = refusal(fields)
    assert (error.param, error.code) == (param, code)
    for word in ("messages", "response_format", "max_completion_tokens", ".function"):
        assert word not in error.message.split("Supported values")[0]


def test_who_speaks_decides_the_parts_of_a_message():
    """The list of those that the role has, in OpenAI's words; both of the assistant's are taken."""
    error = refusal({"input": [part("assistant", "input_text")]})
    said = "Invalid value: 'input_text'. Supported values are: 'output_text' and 'refusal'."
    assert said in error.message
    spoken = [part("user", "input_text"), part("assistant", "output_text")]
    spoken.append(part("assistant", "refusal"))
    preferences: Any = {"effort": "xhigh", "summary": "auto"}
    assert respond(input=[*spoken, part("user", "input_text")], reasoning=preferences).output_text


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("messages", [{"role": "user", "content": "x"}], "input"),
        ("max_tokens", 99, "max_output_tokens"),
        ("response_format", {"type": "text"}, "text.format"),
        ("reasoning_effort", "low", "reasoning.effort"),
    ],
)
def test_what_only_a_chat_takes_is_told_its_place_here(name: str, value: Any, place: str):
    """In OpenAI's words; null asks for nothing, as everywhere."""
    error = refusal({"extra_body": {name: value}})
    assert (error.param, error.code) == (name, "unsupported_parameter")
    moved = f"'{name}'. In the Responses API, this parameter has moved to '{place}'."
    assert f"Unsupported parameter: {moved}" in error.message
    assert respond(input="x", extra_body={name: None}).output_text


@pytest.mark.parametrize("beside", [[], [WEATHER]])
@pytest.mark.parametrize(
    "kind", ["web_search", "file_search", "mcp", "computer", "code_interpreter", "shell"]
)
def test_a_tool_of_openais_own_is_refused(kind: str, beside: list[Any]):
    """Alone, and beside a function; and so is the choice of one."""
    error = refusal({"input": "x", "tools": [*beside, {"type": kind}]})
    assert (error.param, error.code) == (f"tools[{len(beside)}].type", "invalid_value")
    error = refusal({"input": "x", "tools": [WEATHER], "tool_choice": {"type": kind}})
    assert error.param == "tool_choice.type"


def test_only_allowed_tools_are_called():
    """The others are offered, and not called."""
    other = WEATHER | {"name": "get_population"}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function"}]}
    allowed["tools"] = [{"type": "function", "name": "get_population"}]
    response = respond(input=ASKS, tools=[WEATHER, other], tool_choice=allowed)
    assert [call.name for call in response.output] == ["get_population"]


def test_a_custom_tool_takes_a_text():
    """A custom_tool_call, its output, a message."""
    call = respond(input=ASKS, tools=[NOTES], tool_choice="required").output[0]
    assert (call.type, call.name) == ("custom_tool_call", "take_notes")
    assert call.input
    result = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "noted: x"}
    items = [{"role": "user", "content": ASKS}, call.model_dump(), result]
    assert "noted" in respond(input=items, tools=[NOTES]).output_text


def test_a_result_may_come_after_other_items():
    """Wherever it stands after its call, it answers that call."""
    between = {"role": "assistant", "content": "One moment."}
    items = [{"role": "user", "content": ASKS}, CALL, between, OUTPUT | {"output": "sunny"}]
    assert respond(input=items).output_text


def test_what_a_model_reasoned_may_come_back():
    """As clients send it with the next request; it says nothing to the local model."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"}
    items = [{"role": "user", "content": "Describe tides."}, thought]
    items.append({"role": "user", "content": "Go on."})
    include = ["reasoning.encrypted_content"]
    assert respond(input=items, include=include, store=False).output_text


def test_no_depth_is_an_error_of_the_endpoints():
    """A schema that is nested too deeply is the client's mistake, at every depth."""

    async def main() -> set[int]:
        app = local_app(Settings(preset="instant"), time_scale=1.0)
        statuses = set()
        async with httpx.AsyncClient(transport=InProcessTransport(app)) as http:
            for depth in [60, *range(850, 1000)]:
                schema = '{"a":' * depth + "1" + "}" * depth
                body = '{"model":"m","input":"x","tools":[{"type":"function","name":"f",'
                body += f'"parameters":{{"type":"object","a":{schema}}}}}]}}'
                url = "http://127.0.0.1/v1/responses"
                statuses.add((await http.post(url, content=body)).status_code)
        return statuses

    assert run_virtual(main()).result == {400, 200}


def test_a_prompt_over_the_context_is_an_input_that_is_too_long():
    """The error names the input, not messages, which nobody sent."""

    async def main() -> Any:
        app = local_app(Settings(preset="vllm-1gpu"), time_scale=1.0)
        http = httpx.AsyncClient(transport=InProcessTransport(app))
        body = {"model": "m", "input": "x", "max_output_tokens": 200_000}
        return (await http.post("http://127.0.0.1/v1/responses", json=body)).json()["error"]

    error = run_virtual(main()).result
    assert (error["param"], error["code"]) == ("input", "context_length_exceeded")


def test_chat_openai_speaks_responses(fresh_lab: None):
    """LangChain's client with use_responses_api."""

    async def main() -> Any:
        return await lab.chat_model(use_responses_api=True).ainvoke("Describe tides.")

    assert run_virtual(main()).result.text


def embed(**fields: Any) -> Any:
    async def main() -> Any:
        return await client().embeddings.create(model="e", **fields)

    return run_virtual(main())


@pytest.mark.parametrize(
    "texts",
    [
        ["the tides of the sea", "tides in the sea at night", "quarterly accounting rules"],
        ["서울의 날씨가 어때?", "서울 날씨 알려 줘", "분기 회계 규칙"],
        ["밀물은 달의 인력 때문이다", "달의 인력이 밀물을 만든다", "회계 규칙을 정리해라"],
        ["東京の天気を教えてください", "東京は明日の天気がよい", "会計規則をまとめる"],
        ["今天北京的天气怎么样", "北京天气今天很好", "季度会计规则"],
        ["オーストラリアの旅行", "オーストラリア旅行", "データベースの設計"],
    ],
)
def test_texts_that_share_words_lie_near_each_other(texts: list[str]):
    """Cosines: the same text 1, a shared word more than none; also where spaces part no words."""
    run = embed(input=texts)
    one, near, far = (item.embedding for item in run.result.data)

    def cosine(other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert cosine(one) == pytest.approx(1)
    assert cosine(near) > 0.25 > 0.15 > cosine(far)
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
