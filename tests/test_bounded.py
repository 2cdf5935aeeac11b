"""However many requests come, of whatever kind, the endpoint holds no more memory for them."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tracemalloc
from itertools import count, pairwise
from types import FrameType
from typing import Any

import httpx
import psutil
import pytest

from agentlab.clock import run_virtual
from agentlab.endpoint.answers.answer import Heard, hear
from agentlab.endpoint.contract.record import Recorder
from agentlab.endpoint.contract.seeded_random import Occurrences
from agentlab.endpoint.dialects.responses import Stored
from agentlab.endpoint.server import app, local_model
from agentlab.endpoint.server.process import EndpointProcess
from agentlab.settings import Settings

CHAT, ANY_LENGTH = "/v1/chat/completions", b"99"


async def ask(
    served: app.App, body: Any, *, path: str = CHAT, host: bytes = b"localhost", **more: Any
) -> None:
    """Send one request, as a server would; with `leaves`, the client hangs up after it."""
    data = body if isinstance(body, bytes) else json.dumps({"model": "m", **body}).encode()
    events = [{"type": "http.request", "body": data}]
    headers = [(b"host", host), (b"content-length", more.get("length", ANY_LENGTH))]
    headers.append((b"x-agent", more.get("agent", b"agent")))

    async def receive() -> dict[str, Any]:
        if not events and not more.get("leaves"):
            await asyncio.Event().wait()
        return events.pop() if events else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        more.get("sent", []).append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    await served(scope | {"extensions": {}, "query_string": b""}, receive, send)


async def ask_in_every_way(served: app.App, number: int) -> None:
    """Send a request of each kind; `number` makes it another than all before."""
    said = f"Question {number}: describe tides."
    asked = {"messages": [{"role": "user", "content": said}]}
    await ask(served, asked)
    await ask(served, asked | {"stream": True}, agent=b"agent %d" % number)
    await ask(served, asked | {"temperature": 0})
    await ask(served, asked | {"messages": said})  # refused
    await ask(served, asked, length=b"99999999")  # so is a body that is too long
    await ask(served, asked, host=b"other%d.example" % number)  # and a foreign page
    await ask(served, said.encode())  # what is no JSON
    await ask(served, asked, path=f"/v1/other{number}")
    await ask(served, {"input": said}, path="/v1/responses")
    await ask(served, {"input": said}, path="/v1/embeddings")
    await ask(served, asked | {"stream": True}, leaves=True)


def test_memory_does_not_grow_with_the_number_of_requests(monkeypatch: pytest.MonkeyPatch):
    """Errors, streams and hang-ups among them; what is kept by design is kept in small numbers."""
    monkeypatch.setattr(local_model, "_MOST_KNOWN", 8)
    monkeypatch.setattr(Occurrences.__init__, "__defaults__", (8,))
    monkeypatch.setattr(Stored.__init__, "__defaults__", (8 * 2**16,))  # eight responses
    numbers = count()

    async def held_bytes(rounds: int) -> int:
        for number in (next(numbers) for _ in range(rounds)):
            await ask_in_every_way(served, number)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async def growth_bytes() -> int:
        for number in range(300):  # fills the caches of what is read from a prompt
            await ask(served, {"messages": [{"role": "user", "content": f"Describe {number}."}]})
        await held_bytes(100)  # fills all others
        held = [await held_bytes(100) for _ in range(3)]
        # A cache's table may double while it fills, but in one stretch only.
        return min(after - before for before, after in pairwise(held))

    faults = [{"kind": "error", "probability": 0.1}]
    served = app.build_app(Settings(preset="course", time_scale=1, faults=faults))
    served.recorder = Recorder(keep=8)
    tracemalloc.start()
    try:
        assert run_virtual(growth_bytes()).result < 100 * 300  # bytes a round
    finally:
        tracemalloc.stop()


async def connect(port: int, times: int) -> None:
    """Open so many connections, a hundred at a time; ask something over each, and close it."""

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await reader.readline()).endswith(b"200 OK\r\n")
        writer.close()

    for _ in range(times // 100):
        await asyncio.gather(*(one() for _ in range(100)))


def test_connections_that_have_ended_leave_no_memory_behind():
    """They are reference cycles, which the server collects before there are many."""
    endpoint = EndpointProcess(Settings(preset="instant"))
    try:
        port, memory = httpx.URL(endpoint.url).port, psutil.Process(endpoint.pid).memory_info
        assert port is not None
        asyncio.run(connect(port, 2000))
        before = memory().rss
        asyncio.run(connect(port, 4000))
        assert (memory().rss - before) / 4000 < 2000  # bytes
    finally:
        endpoint.stop()


def test_long_answers_are_not_kept(monkeypatch: pytest.MonkeyPatch):
    """A cache that is bounded in number only could hold a gigabyte of them."""
    known: list[Heard] = []

    def noted(*heard: Any) -> Heard:
        known.append(hear(*heard))
        return known[-1]

    monkeypatch.setattr(local_model, "hear", noted)
    served = app.build_app(Settings(preset="instant"))
    asked = {"messages": [{"role": "user", "content": "Describe tides."}], "temperature": 0}
    for choices in (1, 128):
        asyncio.run(ask(served, asked | {"n": choices}))
    assert [len(each.fixed.choices) for each in known if each.fixed] == [1]


def test_a_request_that_comes_again_is_answered_as_if_it_were_read_again():
    """Same bytes, or the same with a space more: the words of its occurrence."""
    said: dict[bytes, list[Any]] = {}
    body = b'{"model": "m", "messages": [{"role": "user", "content": "Describe tides."}]}'
    for space in (b"", b" "):
        served = app.build_app(Settings(preset="instant"))
        said[space] = []
        for number in range(4):
            sent: list[Any] = []
            asyncio.run(ask(served, body + space * number, sent=sent))
            said[space].append(json.loads(sent[1]["body"])["choices"])
    assert said[b""] == said[b" "] and said[b""][0] != said[b""][1]


async def calls(served: app.App, said: str) -> int:
    """The functions written in Python that are called, or go on, until a question is answered."""
    entered = 0

    def count_call(frame: FrameType, event: str, argument: object) -> None:
        nonlocal entered
        entered += event == "call"

    sys.setprofile(count_call)
    try:
        await ask(served, {"messages": [{"role": "user", "content": said}]})
    finally:
        sys.setprofile(None)
    return entered


def test_a_plain_question_takes_few_calls():
    """A machine that is busy changes no count: of the course's prompt, another again, a new one."""
    served = app.build_app(Settings(preset="instant"))
    course = "Research: what is parallel processing for AI agents?"
    new = [f"Question {number}: describe tides in two sentences." for number in range(2)]

    async def counted() -> list[int]:
        for said in (course, new[0]):
            await ask(served, {"messages": [{"role": "user", "content": said}]})
        return [await calls(served, said) for said in (course, *new)]

    for entered, most in zip(asyncio.run(counted()), (65, 105, 175), strict=True):
        assert entered <= most
