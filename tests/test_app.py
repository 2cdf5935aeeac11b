"""The application in virtual time: contract, physics and record, exact to the nanosecond."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import openai
import pytest

from agentlab.clock import run_virtual
from agentlab.endpoint.contract.asgi import MAX_BODY_BYTES
from agentlab.endpoint.contract.record import Recorder
from agentlab.endpoint.contract.seeded_random import Occurrences
from agentlab.endpoint.server.app import App, local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.settings import Settings

CHAT = "/v1/chat/completions"
HELLO = "Say hello and tell me in one sentence what you are."


def app(preset: str = "course", **settings: Any) -> App:
    return local_app(Settings(preset=preset, **settings), time_scale=1.0)


def client(served: App) -> httpx.AsyncClient:
    transport = InProcessTransport(served)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=None)


def question(text: str = HELLO, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def post(served: App, body: dict[str, Any], **options: Any) -> httpx.Response:
    """One question to `served`, in virtual time."""

    async def main() -> httpx.Response:
        return await client(served).post(CHAT, json=body, **options)

    return run_virtual(main()).result


def events(text: str) -> list[Any]:
    """The server-sent events of a stream; the last one must be [DONE]."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_an_answer_has_text_usage_and_a_request_id():
    """The greeting: 31 tokens, stopped by itself, billed as prompt and completion."""
    answer = post(app(), question())
    (choice,) = answer.json()["choices"]
    assert choice["message"]["content"].startswith("Hello!")
    assert choice["finish_reason"] == "stop"
    usage = answer.json()["usage"]
    assert usage["completion_tokens"] == 31
    assert usage["total_tokens"] == usage["prompt_tokens"] + 31
    assert answer.headers["x-request-id"] == "req_000001"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_cuts_the_answer_and_its_time(name: str):
    """Eleven tokens: finish_reason length, and 1 + 10 / 10 = 2 s."""
    served = app()
    answer = post(served, question(**{name: 11})).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 11
    assert served.recorder.since(0)[0].end_s == 2.0


def test_a_stop_string_ends_the_answer_before_it():
    """The text up to the stop string, which is not part of it."""
    whole = post(app(), question()).json()["choices"][0]["message"]["content"]
    cut = post(app(), question(stop=["no such text", " local"])).json()["choices"][0]
    assert cut["message"]["content"] == whole[: whole.index(" local")]
    assert cut["finish_reason"] == "stop"


def test_n_choices_are_written_side_by_side():
    """Three choices are billed three times, and take the time of the longest."""
    served = app()
    answer = post(served, question(n=3, max_tokens=11)).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 33
    assert served.recorder.since(0)[0].end_s == 2.0


def test_a_stream_comes_token_by_token_at_its_time():
    """The first after 1 s, then one each 0.1 s; then the end, the usage, and [DONE]."""

    async def main() -> tuple[list[float], str]:
        times, text = [], ""
        body = question(max_tokens=4, stream=True, stream_options={"include_usage": True})
        async with client(app()).stream("POST", CHAT, json=body) as answer:
            async for piece in answer.aiter_text():
                times.append(asyncio.get_running_loop().time())
                text += piece
        return times, text

    times, text = run_virtual(main()).result
    assert times == [1.0, 1.1, 1.2, 1.3, 1.3]
    sent = events(text)
    assert sent[0]["choices"][0]["delta"]["role"] == "assistant"
    assert sent[-2]["choices"][0]["finish_reason"] == "length"
    assert (sent[-1]["choices"], sent[-1]["usage"]["completion_tokens"]) == ([], 4)


def test_a_stream_without_usage_asked_for_carries_none():
    """As at OpenAI: no chunk with empty choices."""
    sent = events(post(app(), question(stream=True)).text)
    assert all(chunk["choices"] for chunk in sent)


def test_streamed_or_not_the_text_is_the_same():
    """The stream's pieces, joined, are the whole answer."""
    whole = post(app(), question("Name three rivers.")).json()["choices"][0]["message"]["content"]
    sent = events(post(app(), question("Name three rivers.", stream=True)).text)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in sent) == whole


def test_an_empty_answer_is_a_whole_answer():
    """Stopped before its first word: no tokens, a role, an end; streamed or not."""
    answer = post(app(), question(stop="Hello")).json()
    assert (answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]) == (
        "",
        0,
    )
    sent = events(post(app(), question(stop="Hello", stream=True)).text)
    assert sent[-1]["choices"][0]["finish_reason"] == "stop"


def ask_all(served: App, texts: list[str], **fields: Any) -> list[str]:
    """Ask all at once; returns the answers in order."""

    async def main() -> list[str]:
        async with client(served) as asking:
            bodies = [question(text, **fields) for text in texts]
            answers = await asyncio.gather(*(asking.post(CHAT, json=body) for body in bodies))
        return [answer.json()["choices"][0]["message"]["content"] for answer in answers]

    return run_virtual(main()).result


def test_answers_do_not_depend_on_the_order_of_arrival():
    """Twenty questions, forwards and backwards: the same answer to each."""
    texts = [f"Describe the river number {number}." for number in range(20)]
    backwards = ask_all(app(), texts[::-1])[::-1]
    assert ask_all(app(), texts) == backwards


def test_service_times_do_not_depend_on_the_order_of_arrival():
    """With jitter, each question's own time is the same forwards and backwards."""

    def times(texts: list[str]) -> dict[str, float]:
        served = app("hosted-small")

        async def main() -> None:
            async with client(served) as asking:
                await asyncio.gather(
                    *(asking.post(CHAT, json=question(t), headers={"x-agent": t}) for t in texts)
                )

        run_virtual(main())
        return {span.agent: span.service_s for span in served.recorder.since(0)}

    texts = [f"question {number}" for number in range(20)]
    assert times(texts) == pytest.approx(times(texts[::-1]), abs=1e-8)


def test_another_seed_gives_another_answer():
    """The seed is part of every draw."""
    (one,), (other,) = (ask_all(app(seed=s), ["Describe a river at length."]) for s in (1, 2))
    assert one != other


def test_the_second_time_differs_except_at_temperature_zero():
    """Occurrence is part of the draw; temperature 0 takes the text out of it."""
    text = "Describe a river at length."
    one, two = ask_all(app(), [text, text])
    assert one != two
    one, two = ask_all(app(), [text, text], temperature=0)
    assert one == two


def test_a_retry_is_the_same_request_once_more():
    """The client's own retry gets the first occurrence's answer, and counts as attempt 2."""
    served = app()
    text = question("Describe a river at length.")

    async def main() -> list[str]:
        async with client(served) as asking:
            first = await asking.post(CHAT, json=text)
            again = await asking.post(CHAT, json=text, headers={"x-stainless-retry-count": "1"})
        return [a.json()["choices"][0]["message"]["content"] for a in (first, again)]

    first, again = run_virtual(main()).result
    assert first == again
    assert [span.attempt for span in served.recorder.since(0)] == [1, 2]


def test_a_client_that_hangs_up_frees_its_slot():
    """One slot; the first client gives up after 1 s, and the second is served from then on."""
    served = app("laptop-ollama")

    async def main() -> None:
        async with client(served) as asking:
            impatient = asyncio.create_task(asking.post(CHAT, json=question("a long story")))
            patient = asyncio.create_task(asking.post(CHAT, json=question("another story")))
            await asyncio.sleep(1)
            impatient.cancel()
            await patient

    run_virtual(main())
    first, second = served.recorder.since(0)
    assert (first.status, first.end_s, second.started_s, second.status) == (499, 1.0, 1.0, 200)


def test_a_client_that_waits_in_the_queue_can_hang_up():
    """It never gets a slot, and the record says so."""
    served = app("laptop-ollama")

    async def main() -> None:
        async with client(served) as asking:
            first = asyncio.create_task(asking.post(CHAT, json=question("a story")))
            second = asyncio.create_task(asking.post(CHAT, json=question("another")))
            await asyncio.sleep(0.5)
            second.cancel()
            await first

    run_virtual(main())
    waited = served.recorder.since(0)[1]
    assert (waited.status, waited.started_s, waited.end_s) == (499, None, 0.5)


def test_a_client_that_hangs_up_in_mid_stream_is_noted_with_what_it_got():
    """Gone after the third token: status 499, three tokens, and the endpoint lives on."""
    served = app()

    async def main() -> int:
        async with client(served) as asking:
            async with asking.stream("POST", CHAT, json=question(stream=True)) as answer:
                pieces = answer.aiter_raw()
                for _ in range(3):
                    await anext(pieces)
            return (await asking.post(CHAT, json=question())).status_code

    assert run_virtual(main()).result == 200
    first = served.recorder.since(0)[0]
    assert (first.status, first.completion_tokens, first.end_s) == (499, 3, 1.2)


def test_a_full_queue_is_refused_with_503():
    """One slot and 512 places, as Ollama has: the 514th is refused in OpenAI's shape."""
    served = app("laptop-ollama")

    async def main() -> list[httpx.Response]:
        async with client(served) as asking:
            bodies = [question(f"q {i}", max_tokens=1) for i in range(514)]
            return await asyncio.gather(*(asking.post(CHAT, json=body) for body in bodies))

    answers = run_virtual(main()).result
    assert [answer.status_code for answer in answers] == [200] * 513 + [503]
    assert answers[-1].json()["error"]["code"] == "queue_full"


def test_agents_are_named_in_any_language():
    """A header carries ASCII only; the name is unquoted."""
    served = app()
    post(served, question(), headers={"x-agent": "%EC%97%B0%EA%B5%AC%EC%9B%90"})
    assert served.recorder.since(0)[0].agent == "연구원"


BAD: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("GET", "/nowhere", {}, 404, "/v1/chat/completions"),
    ("POST", "/v1/audio/speech", {"json": {}}, 404, "/v1/audio/speech"),
    ("GET", CHAT, {}, 405, "use POST"),
    ("DELETE", "/v1/models", {}, 405, "use GET"),
    ("POST", CHAT, {"content": b"{broken"}, 400, "could not parse"),
    ("POST", CHAT, {"json": question(max_tokens="many")}, 400, "max_tokens"),
    ("POST", CHAT, {"content": b" " * (MAX_BODY_BYTES + 1)}, 413, "1,048,576 bytes"),
    ("GET", "/lab/spans?since=x", {}, 400, "whole number"),
    ("GET", "/lab/secrets", {}, 404, "/lab/spans"),
    ("GET", "/v1/models", {"headers": {"host": "evil.example"}}, 403, "evil.example"),
    ("GET", "/v1/models", {"headers": {"origin": "http://evil.example"}}, 403, "evil.example"),
    ("GET", "/v1/models", {"headers": {"origin": "null"}}, 403, "null"),
    ("GET", "/v1/models", {"headers": {"host": "[::1"}}, 403, "[::1"),
]


@pytest.mark.parametrize(("method", "path", "options", "status", "words"), BAD)
def test_a_bad_request_gets_a_clear_error(
    method: str, path: str, options: dict[str, Any], status: int, words: str
):
    """OpenAI's shape, a request id, and words that say what to do; and the next request works."""
    served = app()

    async def main() -> tuple[httpx.Response, httpx.Response]:
        async with client(served) as asking:
            bad = await asking.request(method, path, **options)
            return bad, await asking.post(CHAT, json=question())

    bad, good = run_virtual(main()).result
    assert bad.status_code == status
    assert set(bad.json()["error"]) == {"message", "type", "param", "code"}
    assert words in bad.json()["error"]["message"]
    assert bad.headers["x-request-id"].startswith("req_")
    assert good.status_code == 200


async def sent(method: str, path: str, **headers: str) -> httpx.Response:
    """The answer to a request without a body."""
    async with client(app("instant")) as asking:
        return await asking.request(method, path, headers=headers)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST"),
        ("HEAD", CHAT, "POST"),
        ("OPTIONS", CHAT, "POST"),
        ("PUT", "/v1/embeddings", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/models/m", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allowed: str):
    """405 with Allow, as HTTP has it (RFC 9110, 15.5.6)."""
    answer = run_virtual(sent(method, path)).result
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "path",
    ["/v1/modelsx", "/v1/models/", "/v1/models//", f"{CHAT}/", f"{CHAT}x", "/v1", "/v1/", "/", ""],
)
def test_a_route_is_that_route_and_no_other(path: str):
    """A letter or a slash too many is 404, which names those that there are."""
    answer = run_virtual(sent("GET", path)).result
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
    assert "/v1/models" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/org/any", "/lab/clock"])
def test_head_is_get_without_the_body(path: str):
    """The same status and headers, as monitors ask for them."""
    got, head = (run_virtual(sent(method, path)).result for method in ("GET", "HEAD"))
    assert (head.status_code, head.headers, head.content) == (200, got.headers, b"")


PAGE = "http://localhost:3000"


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/v1/models", "/nowhere"])
def test_a_page_of_this_machine_may_ask(path: str):
    """The browser asks first, with no key, and is told so: methods, headers, origin."""
    wanted = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-os",
    }
    answer = run_virtual(sent("OPTIONS", path, origin=PAGE, **wanted)).result
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"].split(",")[0] == "authorization"


@pytest.mark.parametrize("origin", [PAGE, "http://127.0.0.1:8000", "https://[::1]:9"])
@pytest.mark.parametrize("body", [question(), question(stream=True), question(n=0)])
def test_a_page_of_this_machine_may_read(origin: str, body: dict[str, Any]):
    """Answers, streams and errors, with their headers."""
    answer = post(app("instant"), body, headers={"origin": origin})
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-expose-headers"] == "*"
    assert answer.headers["vary"] == "origin"


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "GET", "HEAD"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost.evil.example"])
def test_a_foreign_page_may_neither_ask_nor_read(method: str, origin: str):
    """403, and no header that would show the page even that."""
    answer = run_virtual(sent(method, CHAT, origin=origin)).result
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_no_page_no_headers_for_pages():
    """Programs are sent what they were sent before."""
    answer = post(app("instant"), question())
    assert not {"vary", "access-control-allow-origin"} & set(answer.headers)


def test_an_answer_has_openais_headers():
    """Its version, who is billed, and how long it took on the client's clock: 1.3 s."""
    headers = post(app(), question(max_tokens=4)).headers
    assert headers["openai-version"] == "2020-10-01"
    assert headers["openai-organization"] == "agentlab"
    assert headers["openai-processing-ms"] == "1300"


def test_a_container_that_gives_its_host_as_this_machine_is_let_in():
    """The name host.docker.internal is refused; with a Host header of this machine it works."""

    async def main() -> int:
        http = httpx.AsyncClient(transport=InProcessTransport(app("instant")))
        outside: Any = {"base_url": "http://host.docker.internal:8000/v1", "api_key": "any"}
        asking = openai.AsyncOpenAI(**outside, http_client=http)
        with pytest.raises(openai.PermissionDeniedError, match="is not this machine"):
            await asking.models.list()
        named = asking.with_options(default_headers={"Host": "127.0.0.1"})
        return len((await named.models.list()).data)

    assert run_virtual(main()).result == 1


def test_a_body_that_only_claims_to_be_short_is_measured():
    """A stream of pieces over the limit is refused as well, content-length or not."""

    async def pieces() -> Any:
        for _ in range(33):
            yield b" " * 2**20

    async def main() -> int:
        return (await client(app()).post(CHAT, content=pieces())).status_code

    assert run_virtual(main()).result == 413


def test_refused_requests_are_recorded():
    """The observer sees what failed: no start, no tokens, the status."""
    served = app()
    post(served, question(max_tokens=0))
    (span,) = served.recorder.since(0)
    assert (span.status, span.started_s, span.completion_tokens) == (400, None, 0)


def test_models_are_listed_and_any_name_is_known():
    """Clients look names up; the local model answers to all of them."""
    served = app()

    async def main() -> tuple[Any, Any]:
        async with client(served) as asking:
            listed = (await asking.get("/v1/models")).json()
            return listed, (await asking.get("/v1/models/org/any-name")).json()

    listed, one = run_virtual(main()).result
    assert (listed["object"], one["id"]) == ("list", "org/any-name")


def run_scaled(scale: float, work: Callable[[App], Awaitable[float]]) -> float:
    served = local_app(Settings(), time_scale=scale)
    return run_virtual(work(served)).result  # type: ignore[arg-type]


def test_the_time_scale_shortens_the_loops_time_and_not_the_models():
    """At scale 10 an answer of 4 s is there after .4 s of the loop's clock; the span says 4 s."""

    async def work(served: App) -> float:
        await client(served).post(CHAT, json=question())
        return asyncio.get_running_loop().time()

    assert run_scaled(10, work) == 0.4


def test_a_request_that_comes_slowly_has_not_waited_for_a_slot():
    """A body that takes 5 s to come: no second in the queue, and an answer 4 s after its end."""
    served = app()

    async def receive() -> dict[str, Any]:
        if not arriving:
            await asyncio.Event().wait()
        await asyncio.sleep(5)
        return arriving.pop()

    async def send(event: dict[str, Any]) -> None:
        pass

    arriving = [{"type": "http.request", "body": json.dumps(question()).encode()}]
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}
    assert run_virtual(served(scope, receive, send)).elapsed_s == 9.0
    (span,) = served.recorder.since(0)
    assert (span.arrived_s, span.queued_s, span.end_s) == (5.0, 0.0, 9.0)


@pytest.mark.parametrize(("text", "temperature", "texts"), [(HELLO, 1, 1), ("Tides?", 0, 1),
                                                            ("Tides?", 1, 3)])  # fmt: skip
def test_the_same_bytes_again_are_a_request_of_their_own(text: str, temperature: int, texts: int):
    """Three times: three ids and three records, and new words only where chance has a say."""
    served = app()

    async def main() -> list[Any]:
        asking = client(served)
        body = question(text, temperature=temperature)
        return [(await asking.post(CHAT, json=body)).json() for _ in range(3)]

    answers = run_virtual(main()).result
    assert len({answer["id"] for answer in answers}) == 3
    assert len({answer["choices"][0]["message"]["content"] for answer in answers}) == texts
    assert [span.status for span in served.recorder.since(0)] == [200, 200, 200]


@pytest.mark.parametrize(
    ("path", "body", "slices"),
    [
        (CHAT, question("a b " * 250_000), 1_000_000 // 16_384),
        ("/v1/responses", {"model": "m", "input": "a b " * 250_000}, 1_000_000 // 16_384),
        ("/v1/embeddings", {"model": "m", "input": ["a b " * 4000] * 25}, 400_000 // 16_384 + 20),
        ("/v1/embeddings", {"model": "m", "input": ["x"] * 2048}, 2048 * 1536 // 12_000),
        (CHAT, question("List ten items.", n=128), 2),
    ],
    ids=["chat", "responses", "embedding", "embeddings", "choices"],
)
def test_a_long_request_keeps_nobody_waiting(path: str, body: dict[str, Any], slices: int):
    """The event loop turns so many times more often than while a short one is answered."""

    async def turns(path: str, body: dict[str, Any]) -> int:
        turned = 0

        async def count() -> None:
            nonlocal turned
            while True:
                turned += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        answer = await client(app("instant", tokens_per_minute=10**9)).post(path, json=body)
        counting.cancel()
        assert answer.status_code == 200
        return turned

    short = run_virtual(turns(CHAT, question())).result
    assert run_virtual(turns(path, body)).result >= short + slices


def test_all_bodies_together_have_a_bound():
    """Of 65 bodies that are nearly there, the 65th is refused; when one has gone, it is let in."""
    served = App(app("instant").model, max_body_bytes=1000)
    whole = json.dumps(question()).encode().ljust(1000)

    async def main() -> tuple[list[int], int]:
        go_on = asyncio.Event()

        def half(sent: int) -> tuple[Any, Any, list[int]]:
            pieces = [whole[:sent], whole[sent:]]
            statuses: list[int] = []

            async def receive() -> dict[str, Any]:
                if len(pieces) == 1:
                    await go_on.wait()
                if not pieces:
                    await asyncio.get_running_loop().create_future()
                return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

            async def send(message: dict[str, Any]) -> None:
                statuses.extend([message["status"]] if "status" in message else [])

            return receive, send, statuses

        scope = {
            "type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b"",
        }  # fmt: skip
        waiting = [half(999) for _ in range(64)]
        tasks = [
            asyncio.create_task(served(dict(scope), receive, send)) for receive, send, _ in waiting
        ]
        await asyncio.sleep(0)
        receive, send, refused = half(999)
        await served(dict(scope), receive, send)
        go_on.set()
        await asyncio.gather(*tasks)
        late = half(999)
        await served(dict(scope), late[0], late[1])
        return [*refused, *late[2]], sum(statuses == [200] for _, _, statuses in waiting)

    assert run_virtual(main()).result == ([503, 200], 64)


def test_requests_that_are_no_longer_recorded_are_gone():
    """The record keeps the newest; who asks for what was before gets 410, and says what is kept."""
    served = app("instant")
    served.recorder = Recorder(keep=2)

    async def main() -> tuple[httpx.Response, httpx.Response]:
        asking = client(served)
        for _ in range(3):
            await asking.post(CHAT, json=question())
        return await asking.get("/lab/spans?since=0"), await asking.get("/lab/spans?since=1")

    old, new = run_virtual(main()).result
    assert old.status_code == 410
    assert "the newest 2 are kept" in old.json()["error"]["message"]
    assert len(new.json()["spans"]) == 2


def test_the_oldest_requests_are_forgotten():
    """Of four different requests with room for two, the first counts anew."""
    seen = Occurrences(keep=2)
    assert [seen.next(key) for key in (b"a", b"a", b"b", b"a", b"c", b"d", b"a")] == [
        0, 1, 0, 2, 0, 0, 0,
    ]  # fmt: skip
