"""The transport without a socket: pieces at their times, time limits, hanging up, broken ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import openai
import pytest

from agentlab.clock import run_virtual
from agentlab.endpoint.server.inprocess import InProcessTransport

Send = Callable[[dict[str, Any]], Awaitable[None]]
START = {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b")]}


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=InProcessTransport(app), base_url="http://127.0.0.1", timeout=None
    )


def piece(data: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def three_pieces(scope: Any, receive: Any, send: Send) -> None:
    await send(START)
    for number, data in enumerate([b"one ", b"two ", b"three"]):
        await asyncio.sleep(1)
        await send(piece(data, more=number < 2))


async def silent(scope: Any, receive: Any, send: Send) -> None:
    await send(START)
    await send(piece(b"something"))
    await asyncio.sleep(100)


async def breaks_before(scope: Any, receive: Any, send: Send) -> None:
    raise LookupError("a bug in the application")


async def breaks_after(scope: Any, receive: Any, send: Send) -> None:
    await send(START)
    await send(piece(b"half an ans"))
    raise LookupError("a bug in the application")


def test_the_request_arrives_whole():
    """Method, path, query, headers in lower case, and the body."""
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Send) -> None:
        seen.update(scope, body=(await receive())["body"])
        await send(START)
        await send(piece(b"ok", more=False))

    async def main() -> httpx.Response:
        return await client(app).post("/v1/x?since=3", content=b"body", headers={"X-Agent": "a"})

    answer = run_virtual(main()).result
    assert (answer.text, answer.headers["x-a"]) == ("ok", "b")
    assert [seen[key] for key in ("method", "path", "query_string", "body")] == [
        "POST",
        "/v1/x",
        b"since=3",
        b"body",
    ]
    assert (b"x-agent", b"a") in seen["headers"]


def test_a_stream_is_passed_on_piece_by_piece():
    """Each piece at its own second, not all at the end."""

    async def main() -> list[tuple[float, bytes]]:
        clock = asyncio.get_running_loop().time
        async with client(three_pieces).stream("GET", "/") as answer:
            return [(clock(), data) async for data in answer.aiter_raw()]

    assert run_virtual(main()).result == [(1.0, b"one "), (2.0, b"two "), (3.0, b"three")]


def test_the_read_timeout_is_the_longest_silence():
    """1 s between pieces passes a limit of 1.5 s, though the whole takes 3 s; 0.5 s does not."""

    async def main(limit_s: float) -> float:
        answer = await client(three_pieces).get("/", timeout=limit_s)
        assert answer.content == b"one two three"
        return asyncio.get_running_loop().time()

    assert run_virtual(main(1.5)).result == 3.0
    with pytest.raises(httpx.ReadTimeout):
        run_virtual(main(0.5))


def test_hanging_up_tells_the_application():
    """A cancelled caller and a closed stream both deliver http.disconnect, at that time."""
    gone_s: list[float] = []

    async def app(scope: Any, receive: Any, send: Send) -> None:
        await receive()
        await send(START)
        await send(piece(b"begun"))
        assert (await receive())["type"] == "http.disconnect"
        gone_s.append(asyncio.get_running_loop().time())

    async def cancelled() -> None:
        task = asyncio.create_task(client(app).get("/"))
        await asyncio.sleep(2)
        task.cancel()
        await asyncio.wait([task])

    async def closed() -> None:
        async with client(app).stream("GET", "/"):
            await asyncio.sleep(3)

    run_virtual(cancelled())
    run_virtual(closed())
    assert gone_s == [2.0, 3.0]


def test_no_task_is_left_behind():
    """Not even by an application that does not listen."""

    async def main() -> int:
        async with client(silent).stream("GET", "/") as answer:
            await anext(answer.aiter_raw())
        return len(asyncio.all_tasks())

    assert run_virtual(main()).result == 1


@pytest.mark.parametrize("app", [breaks_before, breaks_after])
def test_an_applications_bug_comes_out_as_it_is(app: Any):
    """The traceback is worth more than a simulated error."""

    async def main() -> httpx.Response:
        return await client(app).get("/")

    with pytest.raises(LookupError, match="a bug"):
        run_virtual(main())


def test_an_answer_that_breaks_off_looks_like_a_cut_connection():
    """As over a socket: RemoteProtocolError."""

    async def half(scope: Any, receive: Any, send: Send) -> None:
        await send(START)
        await send(piece(b"half an ans"))

    async def main() -> httpx.Response:
        return await client(half).get("/")

    with pytest.raises(httpx.RemoteProtocolError, match="broke off"):
        run_virtual(main())


def test_openais_retries_and_their_pauses_are_virtual():
    """Two answers of 500 with retry-after of 8 s, then a good one: exactly 16 s."""
    calls: list[float] = []

    async def app(scope: Any, receive: Any, send: Send) -> None:
        calls.append(asyncio.get_running_loop().time())
        status = 500 if len(calls) < 3 else 200
        headers = [(b"retry-after-ms", b"8000"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send(piece(b'{"object": "list", "data": []}', more=False))

    async def main() -> None:
        asking = openai.AsyncOpenAI(
            base_url="http://127.0.0.1/v1", api_key="any", http_client=client(app), max_retries=2
        )
        await asking.models.list()

    assert run_virtual(main()).elapsed_s == 16.0
    assert calls == [0.0, 8.0, 16.0]
