"""Waits of every kind in virtual time: each ends, none early, and what cannot be seen is told."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx
import pytest
from aiolimiter import AsyncLimiter

from agentlab import lab
from agentlab.clock import HORIZON_S, run_virtual
from agentlab.endpoint.middleware.bucket import Bucket
from agentlab.errors import ConfigError, DeadlockError
from agentlab.resilience import RateLimit

ODD_S = [
    1 / 3, 0.1 + 0.2, 2 / 3, 1e-9, 7e-10, 4e-10, 1e-12, 5e-324, 1e6 / 7, math.pi, 2**23,
    2**23 + 1 / 3, 1e7 / 3, 2.0**39, 1e10 + 0.1, 1e11 / 3, 9.9e11,
]  # fmt: skip


def now_s() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("end_s", ODD_S)
def test_a_wait_for_the_rest_ends(end_s: float):
    """A loop that looks at the clock, and waits for what is left."""

    async def main() -> float:
        while now_s() < end_s:
            await asyncio.sleep(end_s - now_s())
        return now_s()

    assert run_virtual(main()).result == pytest.approx(end_s, abs=1e-9, rel=1e-12)


@pytest.mark.parametrize("begin_s", [0.0, 0.1, 0.2, 1 / 3, 1e6 / 7, 2.0**23, 1e10 + 0.1])
@pytest.mark.parametrize("wait_s", [0.1, 0.2, 1 / 3, 1e-9, 3e-10, 1e5 / 7])
def test_no_timer_runs_before_its_time(begin_s: float, wait_s: float):
    """To the last bit: a sleep, a timer set for an instant, and a time limit."""

    async def main() -> list[float]:
        await asyncio.sleep(begin_s)
        early = []
        for wait in (asyncio.sleep, _timer_for, _limited):
            ends_s = now_s() + wait_s
            await wait(wait_s)
            early.append(min(now_s() - ends_s, 0.0))
        return early

    assert run_virtual(main()).result == [0.0, 0.0, 0.0]


async def _timer_for(wait_s: float) -> None:
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    loop.call_at(loop.time() + wait_s, over.set_result, None)
    await over


async def _limited(wait_s: float) -> None:
    try:
        async with asyncio.timeout(wait_s):
            await asyncio.Event().wait()
    except TimeoutError:
        return


@pytest.mark.parametrize("before_s", [0.1, 0.2, 0.3, 0.7, 1 / 7, 2.0**24])
@pytest.mark.parametrize("pause_s", [0.1, 0.2, 0.6, 1 / 3, 1e-10, 86_400.1])
def test_a_pause_ends(before_s: float, pause_s: float):
    """A rate's pause, from any time on, and `lab.sleep_until` at its end."""

    async def main() -> float:
        pace = RateLimit()
        await asyncio.sleep(before_s)
        pace.pause(pause_s)
        await pace.wait()
        await lab.sleep_until(before_s + pause_s)
        return now_s()

    assert run_virtual(main()).result == pytest.approx(before_s + pause_s)


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.7, 1 / 3, 3, 7, 9.99, 1000 / 7, 1e6 / 3, 1e9 / 7])
@pytest.mark.parametrize("whose", ["ours", "aiolimiter"])
def test_a_limiter_serves_everybody(whose: str, rate: float):
    """Forty who come together, at rates that floats cannot say."""

    async def main() -> float:
        ours = RateLimit()
        ours._buckets["requests"] = Bucket(rate, 3)
        take: Callable[[], Awaitable[Any]] = (
            ours.wait if whose == "ours" else AsyncLimiter(3, 3 / rate).acquire
        )
        await asyncio.gather(*(take() for _ in range(40)))
        return now_s()

    assert run_virtual(main()).result == pytest.approx(37 / rate, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("outer_s", [0.3, 1 / 3, 1e5 / 3, 2.0**23 + 0.1])
@pytest.mark.parametrize("inner_s", [0.1 + 0.2, 1 / 3, 1e5 / 3, math.inf])
def test_nested_deadlines_end(outer_s: float, inner_s: float):
    """A time limit within a time limit, however close together."""

    async def main() -> float:
        with anyio.move_on_after(outer_s):
            try:
                await asyncio.wait_for(asyncio.sleep(math.inf), inner_s)
            except TimeoutError:
                await asyncio.sleep(outer_s)
        return now_s()

    assert run_virtual(main()).result == pytest.approx(outer_s)


@pytest.mark.parametrize("wait_s", [math.inf, 1.1e12, 1e15, 1e300, 2.0**63])
def test_what_lies_beyond_the_horizon_is_no_hang(wait_s: float):
    """Infinity is no timer; and beyond a trillion seconds is an error, which names who waits."""
    with pytest.raises(DeadlockError, match=r"ever happen|virtual time ends"):
        run_virtual(asyncio.sleep(wait_s))


@pytest.mark.parametrize("limit_s", [math.inf, 1e15, 1e300, float(2**63), None])
def test_a_time_limit_that_never_strikes_does_no_harm(limit_s: float | None):
    """Programs say "no limit" in many ways."""

    async def main() -> float:
        async with asyncio.timeout(limit_s):
            await asyncio.wait_for(asyncio.sleep(2), limit_s)
        return now_s()

    assert run_virtual(main()).result == 2.0


@pytest.mark.parametrize("at_s", [HORIZON_S, HORIZON_S / 3, 8_388_607.0, 8_388_608.0, 1e7])
def test_far_times_are_reached(at_s: float):
    """Up to the horizon itself, and a little wait there still ends."""

    async def main() -> float:
        await asyncio.sleep(at_s * 0.999)
        await asyncio.sleep(1e-9)
        await lab.sleep_until(at_s)
        return now_s()

    assert run_virtual(main()).result == at_s


@pytest.mark.parametrize("when", [math.nan, -math.nan])
def test_no_number_is_no_time(when: float):
    """A timer at nan would be at the top of the heap for ever."""

    async def main() -> None:
        asyncio.get_running_loop().call_at(when, print)

    with pytest.raises(ConfigError, match="needs a time"):
        run_virtual(main())


@pytest.mark.parametrize("when", [-math.inf, -1.0, 0.0, -0.0])
@pytest.mark.parametrize("now", [0.0, 2.5, 1 / 3, 2.0**30])
def test_a_time_that_is_over_comes_immediately(when: float, now: float):
    """A timer for the past, or for now, runs now."""

    async def main() -> float:
        await asyncio.sleep(now)
        over = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_at(when, over.set_result, None)
        await over
        return now_s()

    assert run_virtual(main()).result == now


@pytest.mark.parametrize("poll_s", [0.0, 1e-15, 1e-30, 5e-324])
def test_who_polls_without_waiting_does_not_spin_for_ever(poll_s: float):
    """The clock never moves while somebody is always ready: it is told, or ends."""

    async def main() -> None:
        other = asyncio.create_task(asyncio.sleep(1e-5))
        while not other.done():
            await asyncio.sleep(poll_s)

    try:
        run_virtual(main())
    except (DeadlockError, RuntimeWarning) as error:
        assert "poll" in str(error)


async def _connect(address: tuple[str, int]) -> None:
    await asyncio.open_connection(*address)


async def _bare_socket(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as client:
        client.setblocking(False)
        await asyncio.get_running_loop().sock_recv(client, 1)


async def _httpx(address: tuple[str, int]) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.get(f"http://{address[0]}:{address[1]}/")


async def _anyio(address: tuple[str, int]) -> None:
    async with await anyio.connect_tcp(*address):
        pass


async def _serve(address: tuple[str, int]) -> None:
    await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)


async def _process(address: tuple[str, int]) -> None:
    await asyncio.create_subprocess_exec("true")


async def _reader(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as client:
        asyncio.get_running_loop().add_reader(client, print)


@pytest.mark.parametrize(
    "waits", [_connect, _bare_socket, _httpx, _anyio, _serve, _process, _reader]
)
def test_a_socket_waited_for_is_an_error(waits: Callable[[Any], Awaitable[None]]):
    """No time-out of a clock that jumped: a ConfigError that says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        async def main() -> None:
            await asyncio.wait_for(waits(server.getsockname()), 5)

        with pytest.raises((ConfigError, ExceptionGroup)) as error:
            run_virtual(main())
    inner: Any = error.value
    while isinstance(inner, ExceptionGroup):
        (inner,) = inner.exceptions
    assert isinstance(inner, ConfigError)
    assert "real time" in str(inner)


async def _langchains_limiter() -> None:
    from langchain_core.rate_limiters import InMemoryRateLimiter

    limiter = InMemoryRateLimiter(requests_per_second=5)
    for _ in range(3):
        await limiter.aacquire()


async def _own_limiter() -> None:
    begun_s, polls = time.monotonic(), 0
    while time.monotonic() < begun_s + 0.5 or polls < 2000:  # a slow machine does fewer in a while
        await asyncio.sleep(0.01)
        polls += 1


@pytest.mark.parametrize("polls", [_langchains_limiter, _own_limiter])
def test_who_polls_a_real_clock_is_told(polls: Callable[[], Awaitable[None]]):
    """Thousands of seconds of waiting for what takes none: a warning that names the line."""

    async def main() -> None:
        await polls()

    with pytest.warns(RuntimeWarning, match=r"waits of 0\.\d+ s in a row.*monotonic") as said:
        run_virtual(main())
    assert len(said) == 1


@pytest.mark.parametrize(
    "blocks",
    [
        lambda: time.sleep(2),
        lambda: threading.Event().wait(2),
    ],
    ids=["sleep", "wait"],
)
@pytest.mark.parametrize("how", ["in the loop", "to_thread"])
def test_a_call_that_blocks_is_told(blocks: Callable[[], Any], how: str):
    """In the event loop, or handed to a thread that is none: a warning at the very line."""

    async def main() -> None:
        if how == "to_thread":
            await asyncio.to_thread(blocks)
        else:
            blocks()
        await asyncio.sleep(1)

    with pytest.warns(RuntimeWarning, match="waited in real time") as said:
        run_virtual(main())
    assert said[0].filename == __file__


@pytest.mark.parametrize("after_s", [0.0, 0.01])
def test_a_thread_that_answers_is_told(after_s: float):
    """A thread of the program's own calls into the loop, whose clock jumped meanwhile."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        answered = threading.Event()

        def answer() -> None:
            time.sleep(after_s)
            with pytest.warns(RuntimeWarning, match="a thread answers"):
                loop.call_soon_threadsafe(print)
            answered.set()

        threading.Thread(target=answer).start()
        answered.wait(60)

    run_virtual(main())


@pytest.mark.parametrize("many", [1, 999, 5000])
def test_who_only_works_hard_is_told_nothing(many: int):
    """Warnings are errors here: waits of many lengths, and computing, are nothing to warn of."""

    async def main() -> None:
        for number in range(many):
            await asyncio.sleep(0.1 + number % 2)
        sorted(range(100_000), key=lambda number: -number)

    run_virtual(main())
