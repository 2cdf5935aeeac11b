"""Forwarding, against a second endpoint as the upstream, and against upstreams that misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import openai
import pytest
from classroom_process import small_preset

from agentlab.clock import run_virtual
from agentlab.endpoint import faults
from agentlab.endpoint.app import App
from agentlab.endpoint.door import OwnDoor
from agentlab.endpoint.faults import FaultPlan
from agentlab.endpoint.forward import Forward
from agentlab.endpoint.gate import Gate
from agentlab.endpoint.inprocess import InProcessTransport
from agentlab.endpoint.limits import Limits
from agentlab.endpoint.process import EndpointProcess
from agentlab.endpoint.serve import local_app
from agentlab.settings import Settings

HELLO = "Say hello and tell me in one sentence what you are."
KEY = "lab-key"
REAL_KEY = "real-secret-of-the-owner"
Application = Callable[[Any, Any, Any], Awaitable[None]]


class Upstream:
    """A local model that notes the headers it is sent."""

    def __init__(self) -> None:
        self.app = local_app(Settings(), time_scale=1.0)
        self.headers: list[dict[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers.append({k.decode(): v.decode() for k, v in scope["headers"]})
        await self.app(scope, receive, send)


def forwarding(upstream: Application, key: str | None = REAL_KEY) -> App:
    """An endpoint before `upstream`, in the same event loop."""
    transport = InProcessTransport(upstream)
    url = "http://127.0.0.1:1/v1"
    return App(Forward(url, key=key, transport=transport), door=OwnDoor(KEY))


def ask(endpoint: App, key: str = KEY, **fields: Any) -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": HELLO}], **fields}

    async def main() -> httpx.Response:
        asking = httpx.AsyncClient(
            transport=InProcessTransport(endpoint), base_url="http://127.0.0.1", timeout=None
        )
        headers = {"authorization": f"Bearer {key}", "x-agent": "writer"}
        return await asking.post("/v1/chat/completions", json=body, headers=headers)

    return run_virtual(main()).result


def test_the_upstreams_answer_comes_back_and_is_recorded():
    """Text, status and token counts; the agent's name in the record."""
    endpoint = forwarding(Upstream())
    answer = ask(endpoint)
    assert answer.json()["choices"][0]["message"]["content"].startswith("Hello!")
    (span,) = endpoint.recorder.since(0)
    assert (span.agent, span.status, span.completion_tokens) == ("writer", 200, 31)
    assert span.prompt_tokens == answer.json()["usage"]["prompt_tokens"]


def test_a_stream_is_passed_on_and_its_tokens_are_counted():
    """All of its events, and the usage of the last."""
    endpoint = forwarding(Upstream())
    options = {"stream": True, "stream_options": {"include_usage": True}}
    assert ask(endpoint, **options).text == ask(forwarding(Upstream()), **options).text
    (span,) = endpoint.recorder.since(0)
    assert span.completion_tokens == 31


def test_a_stream_is_not_held_back():
    """The first piece is there after 1 s, long before the answer's end."""
    endpoint = forwarding(Upstream())

    async def main() -> float:
        asking = httpx.AsyncClient(transport=InProcessTransport(endpoint), timeout=None)
        body = {"model": "m", "messages": [{"role": "user", "content": HELLO}], "stream": True}
        url, headers = "http://127.0.0.1/v1/chat/completions", {"authorization": f"Bearer {KEY}"}
        async with asking.stream("POST", url, json=body, headers=headers) as answer:
            await anext(answer.aiter_raw())
            return asyncio.get_running_loop().time()

    assert run_virtual(main()).result == 1.0


def before_a_lab(upstream: Application, time_scale: float = 1.0) -> App:
    """An endpoint before another lab's, which it knows for one."""
    transport, url = InProcessTransport(upstream), "http://127.0.0.1:1/v1"
    model = Forward(url, key="ada", time_scale=time_scale, transport=transport)
    return App(model, door=OwnDoor(KEY))


def durations(endpoint: App) -> tuple[float | None, float | None, float | None]:
    (span,) = endpoint.recorder.since(0)
    after = span.shifted(span.arrived_s)
    return after.started_s, after.first_token_s, after.end_s


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
def test_another_labs_own_times_are_taken_over(fields: dict[str, Any]):
    """Queued 0, first token after 1 s, end after 4 s, to the digit, plain and streamed."""
    endpoint = before_a_lab(Upstream())
    assert ask(endpoint, **fields).status_code == 200
    assert durations(endpoint) == (0.0, 1.0, 4.0)


def test_a_wait_in_the_other_labs_queue_is_taken_over(tmp_path: Any):
    """One slot, two questions: the second one starts after 4 s and ends after 8."""
    upstream = local_app(Settings(preset=small_preset(tmp_path, slots=1)), time_scale=1.0)
    endpoint = before_a_lab(upstream)

    async def main() -> None:
        asking = httpx.AsyncClient(transport=InProcessTransport(endpoint), timeout=None)
        body = {"model": "m", "messages": [{"role": "user", "content": HELLO}]}
        url, headers = "http://127.0.0.1/v1/chat/completions", {"authorization": f"Bearer {KEY}"}
        await asyncio.gather(*(asking.post(url, json=body, headers=headers) for _ in range(2)))

    run_virtual(main())
    spans = [span.shifted(span.arrived_s) for span in endpoint.recorder.since(0)]
    assert [(s.started_s, s.first_token_s, s.end_s) for s in spans] == [(0, 1, 4), (4, 5, 8)]


def test_what_another_lab_refuses_has_taken_no_service():
    """As at home: no slot, no first token, an end."""
    endpoint = before_a_lab(Upstream())
    assert ask(endpoint, max_tokens=0).status_code == 400
    assert durations(endpoint) == (None, None, 0.0)


def test_what_has_no_words_has_no_first_token():
    """Embeddings are read only; their span has a start and an end, as at home."""
    endpoint = before_a_lab(Upstream())

    async def main() -> httpx.Response:
        asking = httpx.AsyncClient(transport=InProcessTransport(endpoint), timeout=None)
        headers = {"authorization": f"Bearer {KEY}"}
        url, body = "http://127.0.0.1/v1/embeddings", {"model": "m", "input": "tides"}
        return await asking.post(url, json=body, headers=headers)

    assert run_virtual(main()).result.status_code == 200
    assert durations(endpoint) == (0.0, None, 1.0)


def test_times_pass_through_a_lab_in_the_middle():
    """A lab before a lab before a lab: the times are those of the one that answers."""

    async def far(scope: Any, receive: Any, send: Any) -> None:
        headers = [(k, v) for k, v in scope["headers"] if k != b"authorization"]
        shown = [*headers, (b"authorization", f"Bearer {KEY}".encode())]
        await middle(scope | {"headers": shown}, receive, send)

    middle = before_a_lab(Upstream())
    endpoint = before_a_lab(far)
    assert ask(endpoint).status_code == 200
    assert durations(endpoint) == (0.0, 1.0, 4.0)


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
def test_nobody_else_is_told_the_times(fields: dict[str, Any]):
    """A client that does not ask for them gets OpenAI's headers and events alone."""
    answer = ask(forwarding(Upstream()), **fields)
    assert "x-lab-times" not in str(answer.headers) + answer.text
    assert "x-lab-times" not in str(ask(before_a_lab(Upstream()), **fields).headers)


def test_a_real_model_is_not_asked_for_a_labs_times():
    """It knows nothing of them, and is sent no header of the lab's own."""
    upstream = Upstream()
    ask(forwarding(upstream))
    assert "x-lab-times" not in upstream.headers[0]


def test_times_that_make_no_sense_are_passed_over():
    """The lab's own measure stands."""

    async def strange(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"x-lab-times", b'{"end_s": "soon"}')]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    endpoint = before_a_lab(strange)
    assert ask(endpoint).status_code == 200
    started_s, _, end_s = durations(endpoint)
    assert started_s == 0.0 and end_s is not None and 0.0 <= end_s < 60


def test_the_real_key_goes_upstream_and_the_labs_does_not():
    """The upstream sees its own key, and neither the lab's nor the agent's name."""
    upstream = Upstream()
    ask(forwarding(upstream))
    (headers,) = upstream.headers
    assert headers["authorization"] == f"Bearer {REAL_KEY}"
    assert KEY not in json.dumps(headers)
    assert "x-agent" not in headers


def test_an_upstream_that_wants_no_key_gets_none():
    """As with Ollama: no header at all."""
    upstream = Upstream()
    ask(forwarding(upstream, key=None))
    assert "authorization" not in upstream.headers[0]


@pytest.mark.parametrize("key", ["", "wrong", REAL_KEY])
def test_without_the_labs_key_nothing_is_passed_on(key: str):
    """401 in OpenAI's shape, and the upstream hears nothing."""
    upstream = Upstream()
    answer = ask(forwarding(upstream), key=key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert upstream.headers == []


def test_the_real_key_is_nowhere_to_be_read():
    """Not in an answer, an error, the record, or what an object says of itself."""
    upstream = Upstream()
    endpoint = forwarding(upstream)
    answers = [ask(endpoint), ask(endpoint, key="wrong"), ask(endpoint, max_tokens=0)]
    said = [answer.text + str(answer.headers) for answer in answers]
    said += [repr(endpoint.recorder.since(0)), repr(endpoint), repr(endpoint.model)]
    assert REAL_KEY not in "".join(said)


def test_the_upstreams_errors_are_passed_on():
    """Status and words are the upstream's own."""
    endpoint = forwarding(Upstream())
    answer = ask(endpoint, max_tokens=0)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "max_tokens")
    assert endpoint.recorder.since(0)[0].status == 400


async def _unreachable(scope: Any, receive: Any, send: Any) -> None:
    raise httpx.ConnectError("refused")


async def _breaks_off(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise RuntimeError


def test_an_upstream_that_cannot_be_reached_is_a_clear_error():
    """502 that names the address and what to check."""
    answer = ask(forwarding(_unreachable))
    assert answer.status_code == 502
    assert "http://127.0.0.1:1/v1" in answer.json()["error"]["message"]
    assert "OPENAI_BASE_URL" in answer.json()["error"]["message"]


def test_an_answer_that_breaks_off_is_not_made_to_look_whole():
    """The client sees a broken connection, and the endpoint lives on."""
    endpoint = forwarding(_breaks_off)
    with pytest.raises(httpx.RemoteProtocolError):
        ask(endpoint)
    assert endpoint.recorder.since(0)[0].status != 200


def test_a_client_that_hangs_up_ends_the_upstreams_work():
    """Nobody pays for tokens that nobody waits for."""
    upstream = Upstream()
    endpoint = forwarding(upstream)

    async def main() -> None:
        asking = httpx.AsyncClient(transport=InProcessTransport(endpoint), timeout=None)
        body = {"model": "m", "messages": [{"role": "user", "content": HELLO}]}
        url, headers = "http://127.0.0.1/v1/chat/completions", {"authorization": f"Bearer {KEY}"}
        task = asyncio.create_task(asking.post(url, json=body, headers=headers))
        await asyncio.sleep(2)
        task.cancel()
        await asyncio.wait([task])

    run_virtual(main())
    (span,) = upstream.app.recorder.since(0)
    assert (span.status, span.end_s) == (499, 2.0)
    assert endpoint.recorder.since(0)[0].status == 499


def test_two_processes_over_real_sockets(monkeypatch: pytest.MonkeyPatch):
    """A lab whose upstream is another endpoint: the answer, the record, and the key's secrecy."""
    upstream = EndpointProcess(Settings(time_scale=100))
    monkeypatch.setenv("OPENAI_API_KEY", REAL_KEY)
    endpoint = EndpointProcess(Settings(upstream=upstream.url))
    try:
        answer = httpx.post(
            f"{endpoint.url}/chat/completions",
            json={"model": "m", "messages": [{"role": "user", "content": HELLO}]},
            headers={"authorization": f"Bearer {endpoint.key}"},
            trust_env=False,
        )
        assert answer.json()["choices"][0]["message"]["content"].startswith("Hello!")
        assert [span.status for span in endpoint.since(0)] == [200]
        assert upstream.since(0)[0].completion_tokens == 31
        assert REAL_KEY not in repr(vars(endpoint))
    finally:
        endpoint.stop()
        upstream.stop()


def test_another_makers_server_is_forwarded_to(monkeypatch: pytest.MonkeyPatch):
    """llmock, over real sockets: text, a stream with its token counts, a tool call, an error."""
    port = _free_port()
    command = [sys.executable, "-m", "llmock.cli", "serve", "--port", str(port)]
    with subprocess.Popen([*command, "--response-style", "echo", "--log-level", "error"]) as other:
        endpoint = EndpointProcess(Settings(upstream=f"http://127.0.0.1:{port}/v1"))
        client = openai.OpenAI(base_url=endpoint.url, api_key=endpoint.key, max_retries=5)
        try:
            asked: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Tides?"}]}
            whole = client.chat.completions.create(**asked)
            options = {"include_usage": True}
            chunks = list(
                client.chat.completions.create(stream=True, stream_options=options, **asked)
            )
            tool = {"type": "function", "function": {"name": "get_tides", "parameters": {}}}
            called = client.chat.completions.create(tools=[tool], **asked)
            with pytest.raises(openai.APIStatusError):
                client.get("/no/such/route", cast_to=object)
            spans = [span for span in endpoint.since(0) if span.status != 502]  # while it started
        finally:
            client.close()
            endpoint.stop()
            other.kill()
    assert "Tides?" in whole.choices[0].message.content
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert called.choices[0].message.tool_calls[0].function.name == "get_tides"
    assert [span.status for span in spans] == [200, 200, 200]
    assert spans[1].completion_tokens == whole.usage.completion_tokens > 0


def test_limits_and_faults_stand_before_a_real_model():
    """A request a minute, and the second one's fault: 200, then 429; without a key, 401."""

    async def main() -> list[int]:
        upstream = InProcessTransport(local_app(Settings(preset="instant"), time_scale=1.0))
        model = Forward("http://127.0.0.1:1/v1", key=None, transport=upstream)
        plan = FaultPlan(faults.load([{"kind": "error", "status": 503, "calls": [1]}]), seed=7)
        app = App(Gate(model, Limits(2, None), plan), door=OwnDoor(KEY))
        client = httpx.AsyncClient(transport=InProcessTransport(app))
        body = {"model": "m", "messages": [{"role": "user", "content": HELLO}]}
        keys = ["wrong", KEY, KEY, KEY]
        url = "http://127.0.0.1/v1/chat/completions"
        sent = [
            await client.post(url, json=body, headers={"authorization": f"Bearer {key}"})
            for key in keys
        ]
        return [answer.status_code for answer in sent]

    assert run_virtual(main()).result == [401, 503, 200, 429]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_client_that_leaves_after_the_last_event_has_not_hung_up():
    """[DONE] was passed on: status 200 and the token counts, though the upstream takes its time."""

    async def slow_to_end(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        body = b'data: {"usage": {"completion_tokens": 3}}\n\ndata: [DONE]\n\n'
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await asyncio.sleep(60)
        await send({"type": "http.response.body", "body": b""})

    async def main() -> App:
        endpoint = forwarding(slow_to_end)
        client = httpx.AsyncClient(transport=InProcessTransport(endpoint), timeout=None)
        headers = {"authorization": f"Bearer {KEY}"}
        url = "http://127.0.0.1/v1/chat/completions"
        async with client.stream("POST", url, json={"stream": True}, headers=headers) as answer:
            async for _ in answer.aiter_raw():
                break
        return endpoint

    (span,) = run_virtual(main()).result.recorder.since(0)
    assert (span.status, span.completion_tokens) == (200, 3)
