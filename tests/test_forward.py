"""Forwarding, against a second endpoint as the upstream, and against upstreams that misbehave."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import openai
import pytest
from classroom_process import small_preset
from serving import Connection, raw, serving

from agentlab.endpoint.middleware import fault_plan
from agentlab.endpoint.middleware.fault_plan import FaultPlan
from agentlab.endpoint.middleware.gate import Gate
from agentlab.endpoint.middleware.rate_limits import Limits
from agentlab.endpoint.middleware.server_timing import Clock
from agentlab.endpoint.server._forward import Forward, account_from
from agentlab.endpoint.server.app import App, Door, local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.endpoint.server.process import EndpointProcess
from agentlab.errors import ConfigError
from agentlab.settings import Settings
from agentlab.trace import Span, Trace

HELLO = "Say hello and tell me in one sentence what you are."
KEY = "lab-key"
REAL_KEY = "real-secret-of-the-owner"
SCALE = 1000.0
WORD = b'data: {"choices": [{"delta": {"content": "Hello"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}\n\n'
CHAT = "/v1/chat/completions"


class Upstream:
    """A local model, at a thousand times real speed, that notes the headers it is sent."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.app = local_app(settings or Settings(), time_scale=SCALE)
        self.headers: list[dict[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers.append({k.decode(): v.decode() for k, v in scope["headers"]})
        await self.app(scope, receive, send)


class Lab:
    """An endpoint before `url`, and a client of it."""

    def __init__(self, url: str, **options: Any):
        model = Forward(url, **({"key": REAL_KEY} | options))
        self.endpoint = App(model, door=Door(KEY))
        self.client = httpx.AsyncClient(
            transport=InProcessTransport(self.endpoint),
            base_url="http://127.0.0.1",
            headers={"x-agent": "writer", "expect": "100-continue"},
            timeout=None,
        )

    async def ask(self, key: str = KEY, path: str = CHAT, **fields: Any) -> httpx.Response:
        says = {} if "input" in fields else {"messages": [{"role": "user", "content": HELLO}]}
        body = {"model": "m", **says, **fields}
        return await self.client.post(path, json=body, headers={"authorization": f"Bearer {key}"})

    def stream(self) -> Any:
        headers, body = {"authorization": f"Bearer {KEY}"}, {"model": "m", "stream": True}
        return self.client.stream("POST", CHAT, json=body, headers=headers)

    @property
    def spans(self) -> list[Span]:
        return self.endpoint.recorder.since(0)


Use = Callable[[Lab], Awaitable[Any]]


def forwarding(upstream: Any, use: Use, **options: Any) -> Any:
    """What `use` makes of an endpoint before `upstream`: an application, or one of raw bytes."""
    server = raw if asyncio.iscoroutinefunction(upstream) else serving

    async def main() -> Any:
        async with asyncio.timeout(60), server(upstream) as url:
            return await use(Lab(url, **options))

    return asyncio.run(main())


def asked(upstream: Any, options: dict[str, Any] | None = None, **fields: Any) -> Any:
    """One answer, and its span."""

    async def use(lab: Lab) -> Any:
        answer = await lab.ask(**fields)
        return answer, lab.spans[0]

    return forwarding(upstream, use, **(options or {}))


def after_arrival(span: Span) -> tuple[float | None, float | None, float | None]:
    after = span.shifted(span.arrived_s)
    return after.started_s, after.first_token_s, after.end_s


def test_the_upstreams_answer_comes_back_and_is_recorded():
    """Text, status and token counts; the agent's name in the record."""
    answer, span = asked(Upstream())
    assert answer.json()["choices"][0]["message"]["content"].startswith("Hello!")
    assert (span.agent, span.status, span.completion_tokens) == ("writer", 200, 31)
    assert span.prompt_tokens == answer.json()["usage"]["prompt_tokens"]


def test_a_stream_is_passed_on_and_its_tokens_are_counted():
    """Its words are those of the plain answer, and the usage is that of its last event."""
    answer, span = asked(Upstream(), stream=True, stream_options={"include_usage": True})
    *events, done = answer.text.strip().split("\n\n")
    choices = [json.loads(event[5:])["choices"] for event in events]
    text = "".join(choice[0]["delta"].get("content") or "" for choice in choices if choice)
    plain, _ = asked(Upstream())
    assert text == plain.json()["choices"][0]["message"]["content"]
    assert (done, span.completion_tokens) == ("data: [DONE]", 31)


def step_by_step(*pieces: bytes) -> tuple[Any, list[asyncio.Event]]:
    """A stream whose pieces wait for their turn, and who gives it."""
    turns = [asyncio.Event() for _ in pieces]

    async def upstream(client: Connection) -> None:
        await client.request()
        await client.begin_stream()
        for piece, turn in zip(pieces, turns, strict=True):
            await turn.wait()
            await client.send(piece)

    return upstream, turns


async def first_tokens(lab: Lab, turns: list[asyncio.Event]) -> list[bool]:
    """After each piece that came, whether the first token was there."""
    seen = []
    async with lab.stream() as answer:
        pieces = answer.aiter_raw()
        for turn in turns:
            turn.set()
            assert await anext(pieces)
            seen.append(lab.spans[0].first_token_s is not None)
    return seen


def test_a_stream_is_not_held_back_and_its_first_token_is_its_first_word():
    """Each piece is there before the next is sent; comments, a role and nothing are no token."""
    role = b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n'
    upstream, turns = step_by_step(b"\n\n", b": PROCESSING\n\n", role, WORD, DONE)
    seen = forwarding(upstream, lambda lab: first_tokens(lab, turns))
    assert seen == [False, False, False, True, True]


def test_a_plain_answer_needs_no_length():
    """It ends with its connection; its tokens are counted."""

    async def upstream(client: Connection) -> None:
        await client.request()
        await client.send(b'HTTP/1.1 200 OK\r\n\r\n{"usage": {"completion_tokens": 3}}')

    answer, span = asked(upstream)
    assert (answer.status_code, span.completion_tokens, span.first_token_s) == (200, 3, None)


def test_the_first_token_of_a_plain_answer_is_not_known():
    """It came with all the others, at the end."""
    _, span = asked(Upstream())
    started_s, first_token_s, end_s = after_arrival(span)
    assert (started_s, first_token_s) == (0.0, None)
    assert end_s is not None and end_s > 0


BEFORE_A_LAB: dict[str, Any] = {"key": "ada", "clock": Clock(SCALE)}


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
def test_another_labs_own_times_are_taken_over(fields: dict[str, Any]):
    """Queued 0, first token after 1 s, end after 4 s, to the digit, plain and streamed.

    And how late the other lab was, by its own clock.
    """
    upstream = Upstream()
    _, span = asked(upstream, BEFORE_A_LAB, **fields)
    assert after_arrival(span) == (0.0, 1.0, 4.0)
    assert span.late_ms == upstream.app.recorder.since(0)[0].late_ms is not None


def test_a_wait_in_the_other_labs_queue_is_taken_over(tmp_path: Any):
    """One slot, eight questions: the same times as the other lab saw, a wait among them."""
    upstream = Upstream(Settings(preset=small_preset(tmp_path, slots=1)))

    async def use(lab: Lab) -> list[Span]:
        await asyncio.gather(*(lab.ask() for _ in range(8)))
        return lab.spans

    here = forwarding(upstream, use, **BEFORE_A_LAB)
    there = upstream.app.recorder.since(0)
    assert sorted(map(after_arrival, here)) == sorted(map(after_arrival, there))
    assert max(span.queued_s for span in here) > 0


def test_what_another_lab_refuses_has_taken_no_service():
    """As at home: no slot, no first token, an end."""
    answer, span = asked(Upstream(), BEFORE_A_LAB, max_tokens=0)
    assert (answer.status_code, span.started_s, span.first_token_s) == (400, None, None)
    assert span.end_s is not None


def test_what_has_no_words_has_no_first_token():
    """Embeddings are read only; their span has a start and an end, as at home."""
    answer, span = asked(Upstream(), BEFORE_A_LAB, path="/v1/embeddings", input="tides")
    assert answer.status_code == 200
    assert after_arrival(span) == (0.0, None, 1.0)


def test_times_pass_through_a_lab_in_the_middle():
    """A lab before a lab before a lab: the times are those of the one that answers."""

    async def use(middle: Lab) -> Any:
        async with serving(middle.endpoint) as url:
            far = Lab(url, key=KEY, clock=Clock(SCALE))
            assert (await far.ask()).status_code == 200
            return after_arrival(far.spans[0])

    assert forwarding(Upstream(), use, **BEFORE_A_LAB) == (0.0, 1.0, 4.0)


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
@pytest.mark.parametrize("options", [{}, BEFORE_A_LAB])
def test_nobody_else_is_told_the_times(fields: dict[str, Any], options: dict[str, Any]):
    """A client that does not ask for them gets them in no header, and of a real model nowhere."""
    answer, _ = asked(Upstream(), options, **fields)
    assert "x-lab-times" not in str(answer.headers) + ("" if options else answer.text)


def test_a_real_model_is_sent_no_header_of_the_labs():
    """Its own key; neither the lab's, nor the agent's name, nor what is between two neighbours."""
    upstream = Upstream()
    asked(upstream)
    (headers,) = upstream.headers
    assert headers["authorization"] == f"Bearer {REAL_KEY}"
    assert KEY not in json.dumps(headers)
    assert not {"x-agent", "x-lab-times", "expect"} & headers.keys()


@pytest.mark.parametrize("said", ['{"end_s": "soon"}', '{"end_s": -3}', "1"])
def test_times_that_make_no_sense_are_passed_over(said: str):
    """The lab's own measure stands."""

    async def strange(client: Connection) -> None:
        while await client.request():
            await client.send(
                f"HTTP/1.1 200 OK\r\nx-lab-times: {said}\r\ncontent-length: 2\r\n\r\n{{}}".encode()
            )

    _, span = asked(strange, BEFORE_A_LAB)
    started_s, _, end_s = after_arrival(span)
    assert started_s == 0.0 and end_s is not None and end_s >= 0.0


def test_an_upstream_that_wants_no_key_gets_none():
    """As with Ollama: no header at all."""
    upstream = Upstream()
    asked(upstream, {"key": None})
    assert "authorization" not in upstream.headers[0]


@pytest.mark.parametrize("key", ["", "wrong", REAL_KEY])
def test_without_the_labs_key_nothing_is_passed_on(key: str):
    """401 in OpenAI's shape, and the upstream hears nothing."""
    upstream = Upstream()

    async def use(lab: Lab) -> httpx.Response:
        return await lab.ask(key)

    answer = forwarding(upstream, use)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert upstream.headers == []


def test_the_owners_environment_chooses_the_account_and_a_client_does_not():
    """OPENAI_ORG_ID's header goes up with each question; another of a client's stays here."""
    upstream = Upstream()

    async def use(lab: Lab) -> None:
        lab.client.headers["openai-organization"] = "org-of-a-client"
        await lab.ask()

    forwarding(upstream, use, account=account_from({"OPENAI_ORG_ID": "org-of-the-owner"}))
    assert upstream.headers[0]["openai-organization"] == "org-of-the-owner"


def test_an_answer_that_came_compressed_is_read():
    """An upstream may pass over what encoding was asked for: words and counts are there."""

    async def zips(client: Connection) -> None:
        await client.request()
        body = gzip.compress(b'{"usage": {"completion_tokens": 3}}')
        head = f"HTTP/1.1 200 X\r\ncontent-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n"
        await client.send(head.encode() + body)

    answer, span = asked(zips)
    assert answer.json() == {"usage": {"completion_tokens": 3}}
    assert (span.status, span.completion_tokens) == (200, 3)


def test_the_real_key_is_nowhere_to_be_read():
    """Not in an answer, an error, the record, or what an object says of itself."""

    async def use(lab: Lab) -> str:
        answers = [await lab.ask(), await lab.ask("wrong"), await lab.ask(max_tokens=0)]
        said = [answer.text + str(answer.headers) for answer in answers]
        return "".join([*said, repr(lab.spans), repr(lab.endpoint), repr(lab.endpoint.model)])

    assert REAL_KEY not in forwarding(Upstream(), use)


def test_the_upstreams_errors_are_passed_on():
    """Status and words are the upstream's own."""
    answer, span = asked(Upstream(), max_tokens=0)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "max_tokens")
    assert span.status == 400


@pytest.mark.parametrize("count", ["-1", "1e9", "true", "null", '"9"', "1" + "0" * 30])
def test_a_count_that_is_none_is_not_recorded(count: str):
    """What is no whole number from 0 is 0; its neighbour stands."""

    async def upstream(client: Connection) -> None:
        await client.request()
        body = f'{{"usage": {{"prompt_tokens": 7, "completion_tokens": {count}}}}}'
        await client.answer(body.encode())

    _, span = asked(upstream)
    assert (span.prompt_tokens, span.completion_tokens) == (7, 0)


# ---------------------------------------------------------------- connections


async def _hangs_up(client: Connection) -> None:
    await client.request()


def test_an_upstream_that_cannot_be_reached_is_a_clear_error():
    """502 that names the address and what to check."""

    async def use() -> httpx.Response:
        with socket.socket() as taken:  # bound, and not listening
            taken.bind(("127.0.0.1", 0))
            return await Lab(f"http://127.0.0.1:{taken.getsockname()[1]}/v1").ask()

    answer = asyncio.run(use())
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_unreachable"
    assert "http://127.0.0.1:" in answer.json()["error"]["message"]
    assert "OPENAI_BASE_URL" in answer.json()["error"]["message"]


def test_an_upstream_that_dies_before_it_answers_is_a_clear_error():
    """502; what may have been read is not asked a second time."""
    requests = []

    async def dies(client: Connection) -> None:
        requests.append(await client.request())

    answer, span = asked(dies)
    assert (answer.status_code, span.status, len(requests)) == (502, 502, 1)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_breaks_off_is_not_made_to_look_whole(stream: bool):
    """The client sees a broken connection, the record a status of 0, and the endpoint lives on."""

    async def breaks_off(client: Connection) -> None:
        await client.request()
        if stream:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            await client.send(head + b"transfer-encoding: chunked\r\n\r\n5\r\ndata:\r\n")
        else:
            await client.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")

    async def use(lab: Lab) -> list[Span]:
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                await lab.ask(stream=stream)
        return lab.spans

    assert [span.status for span in forwarding(breaks_off, use)] == [0, 0]


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nconte"])
@pytest.mark.parametrize("before_a_lab", [False, True])
def test_nothing_is_asked_twice(begun: bytes, before_a_lab: bool):
    """A kept connection that ends as its second question comes: 502, which the client may repeat.

    What has been read may be paid for, and a lab may break off on purpose.
    """
    read: list[bytes] = []

    async def upstream(client: Connection) -> None:
        read.append(await client.request())
        await client.answer(b"{}")
        read.append(await client.request())
        await client.send(begun)

    async def thrice(lab: Lab) -> list[int]:
        return [(await lab.ask()).status_code for _ in range(3)]

    options = BEFORE_A_LAB if before_a_lab else {}
    assert forwarding(upstream, thrice, **options) == [200, 502, 200]
    assert len([request for request in read if request]) == 3


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_hangs_up_ends_the_upstreams_work(begun: bool):
    """Nobody pays for tokens that nobody waits for: the upstream's connection is closed."""
    asked_for, closed = asyncio.Event(), asyncio.Event()

    async def upstream(client: Connection) -> None:
        await client.request()
        if begun:
            await client.begin_stream()
            await client.send(WORD)
        asked_for.set()
        assert not await client.request()
        closed.set()

    async def use(lab: Lab) -> int | None:
        task = asyncio.create_task(lab.ask(stream=begun))
        await asked_for.wait()
        task.cancel()
        await asyncio.wait([task])
        await closed.wait()
        return lab.spans[0].status

    assert forwarding(upstream, use) == 499


def test_a_client_that_leaves_after_the_last_event_has_not_hung_up():
    """[DONE] was passed on: status 200 and the token counts, though the upstream takes its time."""
    gone = asyncio.Event()

    async def slow_to_end(client: Connection) -> None:
        await client.request()
        await client.begin_stream()
        await client.send(USAGE + DONE)
        await gone.wait()

    async def use(lab: Lab) -> Span:
        async with lab.stream() as answer:
            await anext(answer.aiter_raw())
        gone.set()
        return lab.spans[0]

    span = forwarding(slow_to_end, use)
    assert (span.status, span.completion_tokens) == (200, 3)


@pytest.mark.parametrize("ending", [None, WORD, USAGE + DONE])
def test_one_question_after_the_other_is_never_two_at_a_time(ending: bytes | None):
    """Over sockets, plain and streamed: peak 1, and no span is longer than its client waited."""

    async def upstream(client: Connection) -> None:
        while await client.request():
            if ending is None:
                await client.answer(b"{}")
            else:
                await client.answer(ending, kind="text/event-stream")

    async def use(lab: Lab) -> tuple[Trace, list[float]]:
        waited_s = []
        async with serving(lab.endpoint) as url, httpx.AsyncClient(trust_env=False) as client:
            for _ in range(10):
                began_s = time.monotonic()
                await client.post(
                    f"{url}/chat/completions", json={}, headers={"authorization": f"Bearer {KEY}"}
                )
                waited_s.append(time.monotonic() - began_s)
        return Trace(lab.spans), waited_s

    t, waited_s = forwarding(upstream, use)
    assert (t.peak, t.requests) == (1, 10)
    assert all(s.service_s <= waited for s, waited in zip(t.spans, waited_s, strict=True))


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_a_body_of_megabytes_is_passed_on():
    """Both ways."""

    async def upstream(client: Connection) -> None:
        await client.answer(b'"%d"' % len(await client.request()) + b" " * 3_000_000)

    answer, _ = asked(upstream, messages=[{"role": "user", "content": "x" * 3_000_000}])
    assert int(answer.json()) > 3_000_000


def test_the_environments_proxy_is_asked(monkeypatch: pytest.MonkeyPatch):
    """It gets the whole address; NO_PROXY leaves the host out."""

    async def proxy(client: Connection) -> None:
        first_line = (await client.request()).splitlines()[0]
        await client.answer(json.dumps(first_line.decode()).encode())

    async def main() -> Any:
        async with raw(proxy) as url:
            monkeypatch.setenv("http_proxy", url.removesuffix("/v1"))
            monkeypatch.setenv("no_proxy", "other.example")
            return (await Lab("http://model.example/v1").ask()).json()

    assert asyncio.run(main()) == "POST http://model.example/v1/chat/completions HTTP/1.1"
    monkeypatch.setenv("no_proxy", "model.example")
    assert Forward("http://model.example/v1", key=None)._proxy is None


def test_a_proxy_that_cannot_be_used_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch):
    """Not at the first question; its password stays unsaid."""
    monkeypatch.setenv("all_proxy", "socks5://me:secret@proxy.example:1080")
    with pytest.raises(ConfigError, match="cannot use the proxy") as refused:
        Forward("https://model.example/v1", key=None)
    assert "secret" not in str(refused.value)


# ---------------------------------------------------------------- parameters that are refused


class Picky:
    """A server that refuses some parameters, in OpenAI's words; and what it was asked."""

    def __init__(self, *refused: str):
        self._refused = refused
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = json.loads((await receive())["body"])
        self.asked.append(body)
        for name in self._refused:
            if name in body:
                code = {"param": name, "code": "unsupported_parameter", "message": "No."}
                await self._answer(send, 400, {"error": code})
                return
        await self._answer(send, 200, {"usage": {"completion_tokens": 3}})

    async def _answer(self, send: Any, status: int, body: Any) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


def test_a_refused_parameter_is_left_out_once_and_from_then_on():
    """Two questions, three requests, two spans; each answer says what was left out."""
    upstream = Picky("temperature")

    async def use(lab: Lab) -> tuple[Any, list[Span]]:
        return [await lab.ask(temperature=0, seed=1) for _ in range(2)], lab.spans

    answers, spans = forwarding(upstream, use)
    assert [answer.headers["x-lab-left-out"] for answer in answers] == ["temperature"] * 2
    assert ["temperature" in body for body in upstream.asked] == [True, False, False]
    assert all(body["seed"] == 1 for body in upstream.asked)
    assert [(span.status, span.completion_tokens) for span in spans] == [(200, 3)] * 2


def test_what_one_model_refuses_another_is_still_asked():
    """Learned by the model's name."""
    upstream = Picky("temperature")

    async def use(lab: Lab) -> None:
        await lab.ask(temperature=0)
        await lab.ask(temperature=0, model="another")

    forwarding(upstream, use)
    assert ["temperature" in body for body in upstream.asked] == [True, False, True, False]


@pytest.mark.parametrize(
    ("name", "other"),
    [("max_completion_tokens", "max_tokens"), ("max_tokens", "max_completion_tokens")],
)
def test_a_limit_is_sent_by_its_other_name(name: str, other: str):
    """And not lost: an answer costs money."""
    upstream = Picky(name)
    answer, _ = asked(upstream, **{name: 9})
    assert answer.status_code == 200
    assert [body.get(other) for body in upstream.asked] == [None, 9]


def test_at_most_four_more_requests_are_made():
    """The fifth refusal is the client's."""
    names = ["temperature", "seed", "top_p", "user", "store"]
    upstream = Picky(*names)
    answer, span = asked(upstream, **dict.fromkeys(names, 1))
    assert (answer.status_code, span.status, len(upstream.asked)) == (400, 400, 5)


def test_what_the_settings_leave_out_is_never_sent():
    """From the first question on; a limit goes by its other name."""
    upstream = Picky("temperature", "max_completion_tokens")
    left_out = {"leave_out": ["temperature", "max_completion_tokens"]}
    answer, _ = asked(upstream, left_out, temperature=0, max_completion_tokens=9)
    (body,) = upstream.asked
    assert (body["max_tokens"], body.keys() & {*left_out["leave_out"]}) == (9, set())
    assert answer.headers["x-lab-left-out"] == "max_completion_tokens, temperature"


# ---------------------------------------------------------------- processes


def test_two_processes_over_real_sockets(monkeypatch: pytest.MonkeyPatch):
    """A lab whose upstream is another endpoint: the answer, the record, and the key's secrecy."""
    upstream = EndpointProcess(Settings(time_scale=100))
    monkeypatch.setenv("OPENAI_API_KEY", REAL_KEY)
    endpoint = EndpointProcess(Settings(upstream=upstream.url, leave_out=["seed"]))
    try:
        answer = httpx.post(
            f"{endpoint.url}/chat/completions",
            json={"model": "m", "messages": [{"role": "user", "content": HELLO}], "seed": 1},
            headers={"authorization": f"Bearer {endpoint.key}"},
            trust_env=False,
            timeout=60,
        )
        assert answer.json()["choices"][0]["message"]["content"].startswith("Hello!")
        assert [span.status for span in endpoint.since(0)] == [200]
        assert upstream.since(0)[0].completion_tokens == 31
        assert answer.headers["x-lab-left-out"] == "seed"
        assert 0 < endpoint.cpu_s() <= endpoint.cpu_s()
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
        async with serving(local_app(Settings(preset="instant"), time_scale=1.0)) as url:
            lab = Lab(url)
            plan = FaultPlan(
                fault_plan.load([{"kind": "error", "status": 503, "calls": [1]}]), seed=7
            )
            lab.endpoint.model = Gate(lab.endpoint.model, Limits(2, None), plan)
            return [(await lab.ask(key)).status_code for key in ["wrong", KEY, KEY, KEY]]

    assert asyncio.run(main()) == [401, 503, 200, 429]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
