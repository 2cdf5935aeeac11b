"""LangChain's ChatOpenAI over the lab's transport, mostly in virtual time."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import openai
import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, Field

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.trace import trace

ASKS = "What is the weather in Seoul?"


class Market(BaseModel):
    """The state of a market."""

    title: str
    outlook: Literal["good", "mixed", "bad"]
    score: int = Field(ge=1, le=5)
    risks: list[str]


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: sunny"


def test_no_thread_builds_openais_model(fresh_lab: None, monkeypatch: pytest.MonkeyPatch):
    """It is built with the client: several threads would disturb each other at the first answer."""
    monkeypatch.setattr(ChatCompletion, "__pydantic_complete__", False)
    lab.chat_model()
    assert ChatCompletion.__pydantic_complete__


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output(fresh_lab: None, method: Any):
    """Every method that ChatOpenAI has gives the model, in Korean, too."""

    async def main() -> Any:
        model = lab.chat_model().with_structured_output(Market, method=method)
        shape = '{"title": "x", "outlook": "good|mixed|bad", "score": 3, "risks": ["y"]}'
        return await model.ainvoke(f"조력 발전 시장을 분석하세요. 다음 JSON 형식으로 답변: {shape}")

    market = run_virtual(main()).result
    assert isinstance(market, Market)
    assert market.risks


def test_tools_are_called_and_the_loop_ends(fresh_lab: None):
    """bind_tools, a call, its result, an answer: two requests."""

    async def main() -> Any:
        model = lab.chat_model(agent="weather").bind_tools([get_weather])
        first = await model.ainvoke(ASKS)
        (call,) = first.tool_calls
        result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
        return call, await model.ainvoke([("user", ASKS), first, result])

    with trace() as t:
        call, last = run_virtual(main()).result
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Seoul"})
    assert "Seoul: sunny" in last.content
    assert [span.agent for span in t.spans] == ["weather", "weather"]


def test_streamed_tool_calls_add_up(fresh_lab: None):
    """Chunks add up to what invoke returns, usage included."""

    async def main() -> Any:
        model = lab.chat_model().bind_tools([get_weather])
        chunks = [chunk async for chunk in model.astream(ASKS)]
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        return whole, len(chunks)

    whole, chunks = run_virtual(main()).result
    assert [call["args"] for call in whole.tool_calls] == [{"city": "Seoul"}]
    assert chunks > 3
    assert whole.usage_metadata["output_tokens"] > 0


def test_an_agent_of_langgraphs_runs_to_its_end(fresh_lab: None):
    """Its own loop of model and tools: two requests, and the tool's result in the answer."""
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    model = lab.chat_model().bind_tools([get_weather])

    async def ask(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode([get_weather]))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", tools_condition)
    graph.add_edge("tools", "ask")
    with trace() as t:
        run = run_virtual(graph.compile().ainvoke({"messages": [("user", ASKS)]}))
    assert t.requests == 2
    assert "Seoul: sunny" in run.result["messages"][-1].content


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "error", "status": 400}, openai.BadRequestError),
        ({"kind": "error", "status": 401}, openai.AuthenticationError),
        ({"kind": "error", "status": 429, "retry_after_s": 3}, openai.RateLimitError),
        ({"kind": "quota"}, openai.RateLimitError),
        ({"kind": "error", "status": 503}, openai.InternalServerError),
        ({"kind": "reset"}, openai.APIConnectionError),
        ({"kind": "broken"}, openai.APIConnectionError),
        ({"kind": "truncated_json"}, json.JSONDecodeError),
    ],
    ids=lambda value: str(value.get("status", value["kind"])) if isinstance(value, dict) else "",
)
def test_what_goes_wrong_is_openais_own_error(fresh_lab: None, fault: Any, error: Any):
    """The lab's transport hides nothing of what its client makes of a fault."""

    async def main() -> Any:
        return await lab.chat_model().ainvoke(ASKS)

    with lab.configure(faults=[{**fault, "probability": 1.0}]), pytest.raises(error):
        run_virtual(main())


def test_a_time_out_is_kept_in_virtual_time(fresh_lab: None):
    """A client that waits 2 model seconds for an answer that takes longer gives up."""

    async def main() -> Any:
        return await lab.chat_model(timeout=2).ainvoke(ASKS)

    with pytest.raises(openai.APITimeoutError):
        run_virtual(main())


def test_a_request_carries_its_key_and_no_cookie(fresh_lab: None):
    """What one answer leaves behind, the next request does not take along."""
    message = {"role": "assistant", "content": "Danube."}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    about = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    completion = json.dumps({**about, "choices": [choice]}).encode()
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append((await reader.readuntil(b"\r\n\r\n")).lower())
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(completion)}\r\nConnection: close\r\n"
        head += "Set-Cookie: a=b\r\nContent-Type: application/json\r\n\r\n"
        writer.write(head.encode() + completion)
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        model = lab.chat_model(base_url=url, api_key="sk-mine")
        async with server:
            for _ in range(2):
                assert (await model.ainvoke(ASKS)).content == "Danube."

    asyncio.run(main())
    assert [b"authorization: bearer sk-mine" in head for head in received] == [True, True]
    assert b"cookie" not in b"".join(received)
