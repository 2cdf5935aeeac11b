"""The calls that a conversation repeats are prompt tokens, in chats and in responses alike."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import msgspec
import openai
import pytest

from agentlab.clock import run_virtual
from agentlab.endpoint.contract.openai_json import decode
from agentlab.endpoint.contract.request import ChatRequest
from agentlab.endpoint.contract.tokens import count_tokens
from agentlab.endpoint.dialects.responses_request import ResponsesRequest, as_chat
from agentlab.endpoint.physics.prefixes import BLOCK_TOKENS
from agentlab.endpoint.server.app import local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.settings import Settings

Call = tuple[str, str, str, str]  # its id, "function" or "custom", its name, its arguments
Round = tuple[str, list[Call]]  # what the model said, and its calls
RESULT = "It was found in the archive. "
WEATHER: Call = ("call_1", "function", "get_weather", '{"city": "Seoul"}')
ASKED = "What is the weather in Seoul?"


def client(**settings: Any) -> openai.AsyncOpenAI:
    app = local_app(Settings(preset="vllm-1gpu", **settings), time_scale=1.0)
    http = httpx.AsyncClient(transport=InProcessTransport(app))
    address = "http://127.0.0.1/v1"
    return openai.AsyncOpenAI(base_url=address, api_key="any", http_client=http, max_retries=0)


def as_messages(asked: str, rounds: list[Round]) -> list[Any]:
    messages: list[Any] = [{"role": "user", "content": asked}]
    for text, calls in rounds:
        repeated = []
        for id, kind, name, arguments in calls:
            field = "input" if kind == "custom" else "arguments"
            repeated.append({"id": id, "type": kind, kind: {"name": name, field: arguments}})
        messages.append({"role": "assistant", "content": text or None, "tool_calls": repeated})
        messages += [{"role": "tool", "tool_call_id": id, "content": RESULT} for id, *_ in calls]
    return messages


def as_items(asked: str, rounds: list[Round]) -> list[Any]:
    items: list[Any] = [{"role": "user", "content": asked}]
    for text, calls in rounds:
        items += [{"role": "assistant", "content": text}] if text else []
        kinds = {"function": "function_call", "custom": "custom_tool_call"}
        for id, kind, name, arguments in calls:
            field = "input" if kind == "custom" else "arguments"
            items.append({"type": kinds[kind], "call_id": id, "name": name, field: arguments})
        for id, kind, *_ in calls:
            items.append({"type": f"{kinds[kind]}_output", "call_id": id, "output": RESULT})
    return items


def usages(*asked: dict[str, Any]) -> list[Any]:
    """What each request has used, one after the other; who sends `input` asks for a response."""

    async def main() -> list[Any]:
        ask, found = client(), []
        for fields in asked:
            kind: Any = ask.responses if "input" in fields else ask.chat.completions
            found.append((await kind.create(model="m", **fields)).usage)
        return found

    return run_virtual(main()).result


def read(asked: str, rounds: list[Round]) -> list[int]:
    """The prompt tokens of a conversation, in a chat and in a response."""
    chat, response = usages(
        {"messages": as_messages(asked, rounds)}, {"input": as_items(asked, rounds)}
    )
    return [chat.prompt_tokens, response.input_tokens]


def drawn(draw: random.Random) -> list[Round]:
    """A few rounds of calls of all kinds, some with a text before them."""
    words = ["Seoul", "부산의 날씨", "tides at 06:12", "SELECT name FROM users", "\n", "{}", ""]
    rounds: list[Round] = []
    for number in range(draw.randint(0, 4)):
        calls: list[Call] = []
        for other in range(draw.randint(1, 3)):
            said = " ".join(draw.choices(words, k=draw.randint(0, 4)))
            kind = draw.choice(["function", "custom"])
            name = draw.choice(["get_weather", "search", "transfer_to_refund_agent"])
            calls.append((f"call_{number}_{other}", kind, name, said))
        rounds.append((draw.choice(["", "I look it up.", "찾아봅니다."]), calls))
    return rounds


def test_a_call_counts_its_name_its_arguments_and_a_frame_around_each():
    """7 of the question, 8 of the call, 8 of the result, 3 around each, and 3 around them all."""
    named, given = count_tokens("get_weather"), count_tokens('{"city": "Seoul"}')
    assert (count_tokens(ASKED), named, given, count_tokens(RESULT)) == (7, 2, 6, 8)
    assert read(ASKED, []) == [3 + 3 + 7] * 2
    assert read(ASKED, [("", [WEATHER])]) == [13 + (3 + 2) + (3 + 6) + (3 + 8)] * 2


@pytest.mark.parametrize("seed", range(25))
def test_a_model_reads_the_calls_where_they_were_made(seed: int):
    """A text before its calls, each name before its arguments, the results after all of them."""
    rounds, expected = drawn(random.Random(seed)), [ASKED]
    for text, calls in rounds:
        expected += [text] if text else []
        expected += [said for _, _, *both in calls for said in both] + [RESULT] * len(calls)
    chat = {"model": "m", "messages": as_messages(ASKED, rounds)}
    response = {"model": "m", "input": as_items(ASKED, rounds)}
    same = as_chat(decode(msgspec.json.encode(response), ResponsesRequest), [])
    assert decode(msgspec.json.encode(chat), ChatRequest).texts == same.texts == expected


@pytest.mark.parametrize("seed", range(25))
def test_prompt_tokens_are_those_of_all_that_is_said(seed: int):
    """Counted from the rounds themselves; a message that only calls has no frame of its own."""
    rounds = drawn(random.Random(seed))
    frames, texts = 2, [ASKED]
    for text, calls in rounds:
        frames += bool(text) + 3 * len(calls)
        texts += [text, *(said for _, _, *both in calls for said in (*both, RESULT))]
    assert read(ASKED, rounds) == [3 * frames + sum(map(count_tokens, texts))] * 2


def test_a_custom_tools_input_counts_like_arguments():
    """The same text, whichever it is."""
    said = "SELECT name FROM users WHERE age > 30"
    function, custom = [("call_1", kind, "query", said) for kind in ("function", "custom")]
    assert read(ASKED, [("", [function])]) == read(ASKED, [("", [custom])])
    longer = (*custom[:3], said + " AND age < 60")
    more = count_tokens(longer[3]) - count_tokens(said)
    assert read(ASKED, [("", [longer])]) == [n + more for n in read(ASKED, [("", [custom])])]


def test_a_response_that_goes_on_counts_the_calls_that_are_kept():
    """With `previous_response_id` as many as if the client had sent them all."""
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
    tool["parameters"] = {"type": "object", "properties": {"city": {"type": "string"}}}

    async def main() -> list[int]:
        ask: Any = client().responses
        first = await ask.create(model="m", input=ASKED, tools=[tool])
        (call,) = first.output
        result = {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}
        kept = {"previous_response_id": first.id, "input": [result]}
        whole = {"input": [{"role": "user", "content": ASKED}, call.model_dump(), result]}
        both = [await ask.create(model="m", tools=[tool], **each) for each in (kept, whole)]
        said = (call.name, call.arguments, RESULT)
        more = 3 * 3 + sum(map(count_tokens, said))
        return [each.usage.input_tokens - first.usage.input_tokens - more for each in both]

    assert run_virtual(main()).result == [0, 0]


def history(city: str) -> list[Round]:
    """Two rounds of long results, of which the first was asked for a city."""
    first: Call = ("call_1", "function", "get_weather", f'{{"city": "{city}"}}')
    second: Call = ("call_2", "function", "search", '{"query": "tides"}')
    return [("It is long. " * 20, [first]), ("", [second])]


@pytest.mark.parametrize("shape", ["chat", "responses"])
def test_a_conversations_past_is_known_with_its_calls(shape: str):
    """Full blocks up to its end; with other arguments, only those before them."""

    def asked(rounds: list[Round]) -> dict[str, Any]:
        if shape == "chat":
            return {"messages": as_messages(ASKED, rounds), "max_tokens": 16}
        return {"input": as_items(ASKED, rounds), "max_output_tokens": 16}

    def cached(usage: Any) -> int:
        details = "prompt_tokens_details" if shape == "chat" else "input_tokens_details"
        return getattr(usage, details).cached_tokens

    def whole_blocks(*texts: str) -> int:
        return sum(map(count_tokens, texts)) // BLOCK_TOKENS * BLOCK_TOKENS

    seoul, busan = history("Seoul"), history("Busan")
    third: Call = ("call_3", "custom", "notes", "high tide at noon " * 9)
    found = usages(asked(seoul), asked([*seoul, ("", [third])]), asked(busan), asked(seoul[:1]))
    ((before, (first,)), (_, (second,))) = seoul
    past = (ASKED, before, first[2], first[3], RESULT, second[2], second[3], RESULT)
    assert first[3] != busan[0][1][0][3]
    assert [cached(usage) for usage in found] == [
        0,
        whole_blocks(*past),
        whole_blocks(ASKED, before, "get_weather", '{"city": "'),
        whole_blocks(*past[:5]),
    ]


def test_tools_come_before_the_conversation():
    """Who offers the same tools asks what is known already, up to its own words; others do not."""

    def offering(name: str, question: str) -> dict[str, Any]:
        said = {"name": name, "description": "Says how a city does. " * 30}
        tools = [{"type": "function", "function": said}]
        return {"messages": [{"role": "user", "content": question}], "tools": tools}

    asked = [
        offering("weather", "Hello"),
        offering("weather", "Hi, you"),
        offering("tides", "Hello"),
    ]
    plain, *found = usages({"messages": asked[0]["messages"]}, *asked)
    before = found[0].prompt_tokens - plain.prompt_tokens
    cached = [usage.prompt_tokens_details.cached_tokens for usage in found]
    assert cached == [0, before // BLOCK_TOKENS * BLOCK_TOKENS, 0]


def test_a_limit_of_tokens_counts_arguments_too():
    """Each of their tokens, so a long call leaves less of the limit."""

    async def left(rounds: list[Round]) -> int:
        ask = client(tokens_per_minute=10_000).chat.completions.with_raw_response
        answer = await ask.create(model="m", messages=as_messages(ASKED, rounds), max_tokens=1)
        return int(answer.headers["x-ratelimit-remaining-tokens"])

    async def main() -> list[int]:
        long: Call = (*WEATHER[:3], '{"city": "Seoul", "days": 3}')
        return [*await asyncio.gather(left([("", [WEATHER])]), left([("", [long])]))]

    short, long = run_virtual(main()).result
    assert short - long == count_tokens('{"city": "Seoul", "days": 3}') - count_tokens(WEATHER[3])
