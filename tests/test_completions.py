"""ChatOpenAI's plain call, the short way: whatever openai's client says, it says."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest

from agentlab import lab
from agentlab.clock import run_virtual

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
    from agentlab.completions import ShortCompletions
    from agentlab.wire import Answer

    async def html(*_: Any, **__: Any) -> Answer:
        return Answer(200, httpx.Headers({"content-type": "text/html"}), b"<p>Sorry</p>")

    client = openai.AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key="x", max_retries=0)
    assert asyncio.run(ShortCompletions(client, html).create(model="m")) == "<p>Sorry</p>"
