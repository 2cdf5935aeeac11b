"""Whatever is sent: a valid answer or an error in OpenAI's shape; whatever the order: the same."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from agentlab.clock import run_virtual
from agentlab.endpoint.contract.request import ChatRequest
from agentlab.endpoint.dialects.embeddings import EmbeddingRequest
from agentlab.endpoint.dialects.responses import ResponsesRequest
from agentlab.endpoint.server.app import local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.endpoint.server.process import EndpointProcess
from agentlab.settings import Settings

MODELS: dict[str, tuple[Any, Any]] = {
    "/v1/chat/completions": (ChatRequest, ChatCompletion),
    "/v1/responses": (ResponsesRequest, Response),
    "/v1/embeddings": (EmbeddingRequest, CreateEmbeddingResponse),
}

scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
keywords = st.sampled_from(["type", "enum", "anyOf", "minimum", "maxLength", "$ref", "required"])
schemas = st.recursive(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "number", "integer", "boolean", "null", "object"])},
        optional={
            "enum": st.lists(scalars, max_size=3),
            "minimum": st.integers(-5, 5),
            "maximum": st.integers(-5, 5),
            "multipleOf": st.sampled_from([1, 0.5, 3]),
            "minLength": st.integers(0, 30),
            "maxLength": st.integers(0, 30),
            "pattern": st.sampled_from(["^a+$", "[0-9]{3}", "("]),
            "format": st.sampled_from(["date", "uuid", "colour"]),
            "$ref": st.sampled_from(["#", "#/nowhere", "#/properties/a", "http://x.invalid/"]),
            "not": st.just({}),
        },
    )
    | st.dictionaries(keywords, anything, max_size=2),
    lambda inner: (
        st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.dictionaries(st.sampled_from("abc"), inner),
            },
            optional={"required": st.lists(st.sampled_from("abcd"), max_size=2)},
        )
        | st.fixed_dictionaries(
            {"type": st.just("array"), "items": inner},
            optional={"minItems": st.integers(0, 4), "uniqueItems": st.booleans()},
        )
        | st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)})
    ),
    max_leaves=6,
)
words = st.sampled_from(
    [
        "Weather in Seoul?",
        "Answer in JSON",
        "조력 발전을 분석하세요",
        "",
        "Action Input: Final Answer:",
    ]
) | st.text(max_size=30)
tools = st.lists(
    st.fixed_dictionaries(
        {"type": st.just("function")},
        optional={
            "function": st.fixed_dictionaries(
                {"name": st.sampled_from(["get_weather", "f", "not a name"])},
                optional={"parameters": schemas | anything, "strict": st.booleans()},
            ),
            "name": st.just("get_weather"),
            "parameters": schemas,
        },
    ),
    max_size=2,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": words},
        optional={
            "tool_call_id": st.just("c"),
            "tool_calls": st.just([{"id": "c", "function": {"name": "f", "arguments": "{}"}}]),
        },
    ),
    min_size=1,
    max_size=4,
)
form = {"name": st.just("x"), "schema": schemas, "strict": st.booleans()}
bodies = st.fixed_dictionaries(
    {"model": st.just("m")},
    optional={
        "messages": messages | anything,
        "input": words | messages | anything,
        "tools": tools,
        "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function"}]),
        "response_format": st.fixed_dictionaries(
            {"type": st.sampled_from(["text", "json_object", "json_schema"])},
            optional={"json_schema": st.fixed_dictionaries(form)},
        ),
        "text": st.fixed_dictionaries({"format": st.fixed_dictionaries(form)}),
        "n": st.integers(-1, 3),
        "max_tokens": st.integers(-1, 9),
        "max_output_tokens": st.integers(-1, 9),
        "stop": st.lists(st.text(max_size=2), max_size=5) | st.text(max_size=2),
        "temperature": st.floats(-1, 3),
        "dimensions": st.integers(-1, 9),
        "stream": st.just(False),
    },
)


@settings(max_examples=150)
@given(path=st.sampled_from(list(MODELS)), body=bodies | anything)
def test_any_body_gets_a_valid_answer_or_a_clear_error(path: str, body: Any):
    """200 that OpenAI's own types accept, or 4xx with a message; never a failure of our own."""

    asked, answered = MODELS[path]
    if isinstance(body, dict) and "model" in body:  # what is unknown is refused, as is anything
        body = {name: body[name] for name in body if name in asked.__struct_fields__}

    async def main() -> httpx.Response:
        app = local_app(Settings(preset="instant"), time_scale=1.0)
        async with httpx.AsyncClient(transport=InProcessTransport(app)) as client:
            content = json.dumps(body).encode()
            return await client.post(f"http://127.0.0.1{path}", content=content)

    answer = run_virtual(main()).result
    if answer.status_code == 200:
        answered.model_validate(answer.json())
    else:
        assert 400 <= answer.status_code < 500
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]


async def ask_in_order(endpoint: EndpointProcess, order: list[int]) -> dict[int, Any]:
    """What each of the questions got; all are sent at once, in this order."""

    async def one(client: httpx.AsyncClient, number: int) -> Any:
        prompt = f"Describe river number {number}."
        body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
        headers = {"x-agent": str(number)}
        answer = await client.post(f"{endpoint.url}/chat/completions", json=body, headers=headers)
        said = answer.json()
        said.pop("created", None)  # the time of day
        return answer.status_code, said

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
        answers = await asyncio.gather(*(one(client, number) for number in order))
    return dict(zip(order, answers, strict=True))


def test_neither_order_nor_process_changes_an_answer_or_its_time():
    """200 shuffled requests at once, in two processes: the same bytes, faults, service times."""
    seen = []
    for shuffle in (1, 2):
        order = list(range(200))
        random.Random(shuffle).shuffle(order)
        endpoint = EndpointProcess(
            Settings(
                preset="hosted-small", time_scale=1000, requests_per_minute=0, tokens_per_minute=0
            )
        )
        try:
            answers = asyncio.run(ask_in_order(endpoint, order))
            while None in [span.end_s for span in endpoint.since(0)]:
                time.sleep(0.01)  # a client may have its answer before the endpoint notes it
            times = {span.agent: span.service_s for span in endpoint.since(0)}
        finally:
            endpoint.stop()
        seen.append((answers, times))
    assert seen[0] == seen[1]
    assert len(set(seen[0][1].values())) > 150  # jitter makes nearly all of them differ
