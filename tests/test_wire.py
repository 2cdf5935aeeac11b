"""Real time's way to the endpoint: loops, cancelling, hanging up, broken connections."""

from __future__ import annotations

import asyncio
import gc
import warnings
import weakref
from typing import Any

import httpx
import pytest

from agentlab import lab
from agentlab.errors import EndpointError
from agentlab.lab import _http
from agentlab.lab._http import session
from agentlab.lab._transport import LabTransport
from agentlab.trace import trace

ASKS = "Describe tides at length."


def test_each_loop_has_its_own_session_and_closes_it(fresh_lab: None):
    """Two asyncio.run in a row send two requests, and leave nothing open behind."""
    with warnings.catch_warnings(), trace() as t:
        warnings.simplefilter("error")
        for _ in range(2):
            asyncio.run(lab.ask(ASKS, max_tokens=2))
        gc.collect()
    assert t.requests == 2


def test_nothing_of_a_loop_is_left(fresh_lab: None):
    """Neither it nor its session are kept when it has ended."""

    async def main() -> tuple[weakref.ref[Any], weakref.ref[Any]]:
        await lab.ask(ASKS, max_tokens=2)
        return weakref.ref(asyncio.get_running_loop()), weakref.ref(await session())

    gone = [ended for _ in range(3) for ended in asyncio.run(main())]
    gc.collect()
    assert [ended() for ended in gone] == [None] * 6
    assert _http._sessions == {}


def test_connections_are_used_again(fresh_lab: None):
    """Ten questions one after the other take one connection."""

    async def main() -> int:
        for _ in range(10):
            await lab.ask(ASKS, max_tokens=1)
        connector: Any = (await session()).connector
        return sum(len(held) for held in connector._conns.values())

    assert asyncio.run(main()) == 1


@pytest.mark.parametrize("by", ["ask", "chat_model", "openai"])
def test_who_is_cancelled_twice_hangs_up_all_the_same(fresh_lab: None, by: str):
    """LangGraph cancels twice; the endpoint sees the client go (499) before its answer is done."""

    async def main() -> None:
        model = lab.chat_model(max_retries=1 if by == "openai" else 0)
        asking = lab.ask(ASKS) if by == "ask" else model.ainvoke(ASKS)
        task = asyncio.ensure_future(asking)
        while not t.spans:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        while t.spans[0].status is None:
            await asyncio.sleep(0.01)

    with lab.configure(time_scale=1), trace() as t:
        asyncio.run(main())
    assert [span.status for span in t.spans] == [499]


def test_a_thousand_at_once_are_in_flight_at_once(fresh_lab: None):
    """No pool makes calls wait: the endpoint counts all of them."""

    async def main() -> None:
        asked = asyncio.gather(*(lab.ask(ASKS, max_tokens=2000) for _ in range(1000)))
        while t.peak < 1000 and not asked.done():
            await asyncio.sleep(0.1)
        asked.cancel()

    with lab.configure(time_scale=1), trace() as t:
        asyncio.run(main())
        assert (t.requests, t.peak) == (1000, 1000)


@pytest.mark.parametrize("kind", ["reset", "broken"])
def test_a_broken_connection_is_an_endpoint_error(fresh_lab: None, kind: str):
    """In real time as in virtual time."""
    with lab.configure(faults=[{"kind": kind, "probability": 1.0}]):
        with pytest.raises(EndpointError, match="broke off"):
            asyncio.run(lab.ask(ASKS))
        with pytest.raises(EndpointError, match="broke off"):
            lab.simulate(lab.ask(ASKS))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "reset"}, httpx.ReadError),
        ({"kind": "broken"}, httpx.RemoteProtocolError),
        ({"kind": "stall", "stall_s": 60}, httpx.ReadTimeout),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_httpx_clients_get_httpxs_errors(fresh_lab: None, fault: dict[str, Any], error: Any):
    """A reset, an answer that breaks off, and silence are three errors, not one."""

    async def main() -> None:
        patience = httpx.Timeout(60, read=5 if fault["kind"] == "stall" else 60)
        async with httpx.AsyncClient(transport=LabTransport(), timeout=patience) as client:
            asked = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": ASKS}]}
            url, key = lab.base_url(), lab.api_key()
            await client.post(
                f"{url}/chat/completions", json=asked, headers={"authorization": f"Bearer {key}"}
            )

    with lab.configure(faults=[{**fault, "probability": 1.0}]), pytest.raises(error):
        asyncio.run(main())


def test_nobody_there_is_a_connect_error(fresh_lab: None):
    """A closed port."""

    async def main() -> None:
        async with httpx.AsyncClient(transport=LabTransport()) as client:
            await client.get("http://127.0.0.1:9/")

    with pytest.raises(httpx.ConnectError):
        asyncio.run(main())
