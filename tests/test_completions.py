"""ChatOpenAI's plain call, the short way: whatever openai's client says, it says."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import openai
import pytest

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.lab import Answer
from agentlab.lab._langchain import ShortCompletions

ASKS = "Name three rivers."
FAULTS: list[dict[str, Any]] = [
    {"kind": "error", "status": 400, "probability": 1.0},
    {"kind": "error", "status": 401, "probability": 1.0},
    {"kind": "error", "status": 429, "probability": 1.0, "retry_after_s": 3},
    {"kind": "quota", "probability": 1.0},
    {"kind": "error", "status": 500, "probability": 1.0},
    {"kind": "error", "status": 503, "probability": 1.0},
    {"kind": "reset", "probability": 1.0},
    {"kind": "broken", "probability": 1.0},
    {"kind": "truncated_json", "probability": 1.0},
    {"kind": "empty_choices", "probability": 1.0},
    {"kind": "html", "probability": 1.0},
]


def outcome(short: bool, **options: Any) -> tuple[str, str, Any]:
    """The answer, or the error's type, words, and HTTP status, by the short way or openai's own."""
    model = lab.chat_model(temperature=0, **options)
    if not short:
        model.async_client = model.root_async_client.chat.completions

    async def main() -> Any:
        return await model.ainvoke(ASKS)

    try:
        answer = run_virtual(main()).result
    except Exception as error:
        return type(error).__name__, _words(error), getattr(error, "status_code", None)
    metadata = {k: answer.response_metadata[k] for k in ("finish_reason", "model_name")}
    return "answer", answer.content, (answer.usage_metadata["total_tokens"], metadata)


def _words(error: Exception) -> str:
    return str(error).split("request_id")[0]


def test_an_answer_is_the_same(fresh_lab: None):
    """Text, token counts, finish reason and model."""
    assert outcome(True) == outcome(False)
    assert outcome(True)[0] == "answer"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.get("status", fault["kind"])))
def test_an_error_is_the_same(fresh_lab: None, fault: dict[str, Any]):
    """Type, words and status of whatever goes wrong."""
    with lab.configure(faults=[fault]):
        short = outcome(True)
    with lab.configure(faults=[fault]):
        long = outcome(False)
    assert short[0] != "answer"
    assert short == long


def test_a_time_out_is_the_same(fresh_lab: None):
    """A client that waits 2 model seconds for an answer of more raises APITimeoutError."""
    short, long = (outcome(way, timeout=2) for way in (True, False))
    assert short == long
    assert short[0] in ("APITimeoutError", "OpenAITimeoutError")


def test_with_retries_the_client_retries(fresh_lab: None):
    """max_retries=2 sends a failing call three times, as ever."""
    from agentlab.trace import trace

    fault = {"kind": "error", "status": 503, "probability": 1.0}
    with lab.configure(faults=[fault]), trace() as t:
        assert outcome(True, max_retries=2)[0] != "answer"
    assert t.requests == 3


def test_a_stream_goes_through_the_client(fresh_lab: None):
    """astream gives the same text, in pieces."""
    model = lab.chat_model(temperature=0)

    async def main() -> list[str]:
        return [chunk.text async for chunk in model.astream(ASKS)]

    pieces = run_virtual(main()).result
    assert len(pieces) > 3
    assert "".join(pieces) == outcome(True)[1]


def test_headers_are_there_for_whoever_asks(fresh_lab: None):
    """include_response_headers shows the endpoint's."""
    model = lab.chat_model(include_response_headers=True)

    async def main() -> Any:
        return await model.ainvoke(ASKS)

    headers = run_virtual(main()).result.response_metadata["headers"]
    assert "x-request-id" in {name.lower() for name in headers}


def test_an_answer_without_json_says_what_it_is():
    """As openai's client: text where the content type is another."""

    async def html(*_: Any, **__: Any) -> Answer:
        return Answer(200, httpx.Headers({"content-type": "text/html"}), b"<p>Sorry</p>")

    client = openai.AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key="x", max_retries=0)
    assert asyncio.run(ShortCompletions(client, html).create(model="m")) == "<p>Sorry</p>"


@pytest.mark.parametrize("status", [301, 307, 404, 503])
def test_whatever_is_no_success_is_an_error(status: int):
    """A redirection, too, which openai's client does not follow here."""

    async def no_success(*_: Any, **__: Any) -> Answer:
        return Answer(status, httpx.Headers({"location": "/other"}), b"")

    client = openai.AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key="x", max_retries=0)
    with pytest.raises(openai.APIStatusError) as error:
        asyncio.run(ShortCompletions(client, no_success).create(model="m"))
    assert error.value.status_code == status


COMPLETION = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Danube."},
            }
        ],
    }
).encode()


async def on_the_wire(short: bool, options: dict[str, Any], asked: dict[str, Any]) -> list[bytes]:
    """Every byte that two questions of one model send, as a bare socket receives them."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None
        received.append(head + await reader.readexactly(int(length[1])))
        about = f"HTTP/1.1 200 OK\r\nContent-Length: {len(COMPLETION)}\r\nConnection: close\r\n"
        about += "Set-Cookie: a=b\r\nContent-Type: application/json\r\n\r\n"
        writer.write(about.encode() + COMPLETION)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    path = options.pop("path", "/v1")
    model = lab.chat_model(base_url=f"http://127.0.0.1:{port}{path}", **options)
    if not short:
        model.async_client = model.root_async_client.chat.completions
    question = asked.pop("input", ASKS)
    async with server:
        for _ in range(2):
            assert (await model.bind(**asked).ainvoke(question)).content == "Danube."
    return [request.replace(str(port).encode(), b"PORT") for request in received]


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "another key": ({"api_key": "sk-other"}, {}),
    "a key that is fetched": ({"api_key": lambda: "sk-fetched"}, {}),
    "organization": ({"organization": "org-x"}, {}),
    "headers": ({"default_headers": {"X-Mine": "1", "Accept": "text/plain"}}, {}),
    "query": ({"default_query": {"api-version": "2024-06-01", "q": "a b&c/d"}}, {}),
    "a path with signs": ({"path": "/a%20b/v1/"}, {}),
    "sampling": ({"temperature": 1e-7, "top_p": 0.5, "seed": 3, "n": 1}, {}),
    "penalties": ({"frequency_penalty": 0.1, "presence_penalty": 1, "logit_bias": {"5": 1}}, {}),
    "limits": ({"max_tokens": 5, "stop": ["\n", "e"]}, {}),
    "a time-out": ({"timeout": 5}, {}),
    "time-outs": ({"timeout": httpx.Timeout(7.5, read=2.5)}, {}),
    "none": ({"timeout": None}, {}),
    "retries": ({"max_retries": 2}, {}),
    "logprobs": ({"logprobs": True, "top_logprobs": 2}, {}),
    "reasoning": ({"reasoning_effort": "low", "verbosity": "low"}, {}),
    "a body of one's own": ({"extra_body": {"ignore_eos": True}}, {}),
    "model_kwargs": ({"model_kwargs": {"user": "me"}, "store": False}, {}),
    "headers that are shown": ({"include_response_headers": True}, {}),
    "tools": ({}, {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False}),
    "a form": ({}, {"response_format": SCHEMA}),
    "letters": ({}, {"input": '한국의 강 \u2028 \U0001f30a "\\ \x7f'}),
    "headers of one call": ({}, {"extra_headers": {"X-Once": "1"}}),
}


@pytest.mark.parametrize(("options", "asked"), OPTIONS.values(), ids=OPTIONS)
def test_the_short_way_sends_what_openais_client_sends(
    fresh_lab: None, options: dict[str, Any], asked: dict[str, Any]
):
    """Byte for byte, headers and key included, for the first question and the next one."""
    short, long = (
        asyncio.run(on_the_wire(way, dict(options), dict(asked))) for way in (True, False)
    )
    assert short == long
    assert len(short) == 2


def test_a_client_that_is_changed_sends_what_it_is_changed_to(fresh_lab: None):
    """A new key is in the next request."""
    sent: list[str] = []

    async def post(url: str, body: bytes, headers: httpx.Headers, **_: Any) -> Answer:
        sent.append(headers["authorization"])
        return Answer(200, httpx.Headers({"content-type": "application/json"}), COMPLETION)

    client = openai.AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key="a", max_retries=0)
    completions = ShortCompletions(client, post)
    for key in "aab":
        client.api_key = key
        asyncio.run(completions.create(model="m", messages=[]))
    assert sent == ["Bearer a", "Bearer a", "Bearer b"]


def test_a_client_of_ones_own_is_left_alone(fresh_lab: None):
    """What it adds to a request, only it can send."""
    model = lab.chat_model(http_async_client=httpx.AsyncClient())
    assert model.async_client is not None
    assert not isinstance(model.async_client, ShortCompletions)
