"""Real clients and OpenAI's own types find nothing to object to in the local model.

Many more clients are tried by `make conformance`; these are the ones that every run tries.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from agentlab.clock import run_virtual
from agentlab.endpoint.server.app import local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tools"), str(ROOT / "tests" / "conformance")]  # they are no packages
import conformance  # noqa: E402
from langchain_suite import *  # noqa: E402, F403  LangChain's standard tests, and their fixtures

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"name": "get_weather", "description": "The weather", "parameters": PARAMETERS}
MARKET = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "score": {"type": "integer"}},
    "required": ["title", "score"],
    "additionalProperties": False,
}
FORM = {"name": "market", "strict": True, "schema": MARKET}
BEYOND = {"store"}  # OpenAI sends it, though its types do not name it
ASKS = "What is the weather in Seoul and in Busan?"
CHAT: dict[str, dict[str, Any]] = {
    "plain": {},
    "several choices": {"n": 2},
    "cut short": {"max_tokens": 16},
    "tools": {"tools": [{"type": "function", "function": WEATHER}]},
    "JSON": {"response_format": {"type": "json_object"}},
    "a schema": {"response_format": {"type": "json_schema", "json_schema": FORM}},
}
RESPONSES: dict[str, dict[str, Any]] = {
    "plain": {},
    "echoed": {
        "instructions": "Be brief.",
        "metadata": {"who": "me"},
        "text": {"verbosity": "low"},
        "temperature": 0.5,
        "top_p": 0.5,
        "user": "me",
    },
    "not kept": {"store": False},
    "cut short": {"max_output_tokens": 16},
    "tools": {"tools": [{"type": "function", "strict": True, **WEATHER}]},
    "a schema": {"text": {"format": {"type": "json_schema", **FORM}}},
}


@pytest.fixture(scope="module", autouse=True)
def endpoint() -> Iterator[str]:
    """A served endpoint that clients find in their environment."""
    with conformance.served() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", url)
        patch.setenv("OPENAI_API_KEY", "any")
        yield url


def test_openais_client_finds_nothing_missing(endpoint: str):
    """Each cell of its script passes, with the version that the course has."""
    script = ROOT / "tests" / "conformance" / "clients" / "openai.py"
    cells = conformance.run(conformance.Client("openai", script, "course", ["openai"]), endpoint)
    assert [cell for cell in cells if cell.reason] == []


def said(path: str, **fields: Any) -> str:
    """The body of an answer, in virtual time; a GET where there is nothing to send."""

    async def main() -> str:
        transport = InProcessTransport(local_app(Settings(), time_scale=1.0))
        async with httpx.AsyncClient(transport=transport, timeout=None) as http:
            url = f"http://127.0.0.1/v1/{path}"
            answer = await (http.post(url, json=fields) if fields else http.get(url))
        assert answer.status_code == 200, answer.text
        return answer.text

    return run_virtual(main()).result


def events(body: str) -> list[str]:
    """What stands behind `data:` in a stream, without its end mark."""
    sent = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [data for data in sent if data != "[DONE]"]


def unknown(value: Any, path: str = "") -> list[str]:
    """The fields that OpenAI's types do not name, anywhere inside."""
    if isinstance(value, list):
        return [found for item in value for found in unknown(item, f"{path}[]")]
    if not isinstance(value, BaseModel):
        return []
    named = [
        found for name, inner in value if name not in (value.model_extra or {})
        for found in unknown(inner, f"{path}.{name}")
    ]  # fmt: skip
    return [f"{path}.{name}" for name in (value.model_extra or {}).keys() - BEYOND] + named


def check(kind: Any, body: str) -> None:
    """Hold JSON against one of OpenAI's types: no conversion, no field more or less."""
    assert unknown(adapter(kind).validate_json(body, strict=True)) == []


adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)  # building one takes half a second


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", CHAT)
def test_chat_completions_are_of_openais_type(case: str, stream: bool):
    """Answers and chunks, with usage."""
    asked = {"model": "m", "messages": [{"role": "user", "content": f"{ASKS} As JSON."}]}
    if not stream:
        check(ChatCompletion, said("chat/completions", **asked, **CHAT[case]))
        return
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = events(said("chat/completions", **asked, **options, **CHAT[case]))
    assert len(chunks) > 3
    for chunk in chunks:
        check(ChatCompletionChunk, chunk)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", RESPONSES)
def test_responses_are_of_openais_type(case: str, stream: bool):
    """Answers, and every event of a stream."""
    body = said("responses", model="m", input=ASKS, stream=stream, **RESPONSES[case])
    if not stream:
        check(Response, body)
        return
    for event in events(body):
        check(ResponseStreamEvent, event)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_text_completions_are_of_openais_type(stream: bool):
    """Answers and chunks are of one type; OpenAI sends a null where a chunk ends nothing."""
    body = said("completions", model="m", prompt="Tides are", max_tokens=16, stream=stream)
    *chunks, last = events(body) if stream else [body]
    for chunk in chunks:
        assert '"finish_reason":null' in chunk
        check(Completion, chunk.replace('"finish_reason":null', '"finish_reason":"stop"'))
    check(Completion, last)


def test_embeddings_and_models_are_of_openais_type():
    """Plain numbers; a model by its name."""
    check(CreateEmbeddingResponse, said("embeddings", model="text-embedding-3-small", input="a"))
    check(Model, said("models/gpt-4o-mini"))


def test_the_page_has_a_row_for_each_client():
    """In the version that is pinned, so it was written after the pins were changed."""
    page = conformance.PAGE.read_text(encoding="utf-8")
    listed = tomllib.loads((conformance.SOURCE / "clients.toml").read_text())
    assert [client.name for client in conformance.clients()] == [*listed]
    for client in conformance.clients():
        assert f"| {client.title} |" in page


def test_the_table_says_what_failed_and_how_often_it_asked():
    """A row per route; a dash where nothing was tried; the reason below."""
    cells = [
        conformance.Cell("chat", "plain", 1, None),
        conformance.Cell("chat", "memory", 4, "4 requests,\nnot 1"),
    ]
    page = conformance.page([("a 1.0", cells), ("b 2.0", None)])
    assert "| a 1.0 | chat | pass (1) | – | – | – | – | – | – | memory **fail** (4) |" in page
    assert "| b 2.0 | not run: there was no Node | –" in page
    assert "- a 1.0, chat, memory: `4 requests, not 1`" in page


def test_a_script_that_breaks_off_is_a_cell_that_failed(endpoint: str, tmp_path: Path):
    """What it had tried before is kept, and the last line of its error is the reason."""
    script = tmp_path / "script.py"
    script.write_text(
        "from cells import cell\ncell('plain', 0)(lambda: None)\nraise SystemExit('no key')\n"
    )
    plain, broken = conformance.run(conformance.Client("x", script, "course", ["x"]), endpoint)
    assert (plain.cell, plain.reason) == ("plain", None)
    assert (broken.cell, broken.reason) == ("script", "exit code 1: no key")


def test_a_client_that_cannot_be_installed_is_a_cell_that_failed(monkeypatch: pytest.MonkeyPatch):
    """The others are examined all the same."""

    def fail(client: conformance.Client) -> None:
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(conformance, "prepare", fail)
    (cell,) = conformance.examine(conformance.Client("x", Path(), "pip", ["x==1"])) or ()
    assert "exit status 1" in (cell.reason or "")
