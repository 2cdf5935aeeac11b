"""The circuit breaker: opens, probes, closes; who waits is not lost."""

from __future__ import annotations

import asyncio

import pytest

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.errors import ModelError
from agentlab.resilience import Breaker, Guard, Retry


class Server:
    """Is down from 5 s to 15 s; keeps when it was asked, and when it answered."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.answered: list[float] = []

    async def __call__(self) -> str:
        self.asked.append(lab.now_s())
        await lab.sleep(0.1)
        if 5 <= lab.now_s() < 15:
            raise ModelError("down", status=503, code=None, request_id=None)
        self.answered.append(lab.now_s())
        return "fine"


def test_ten_seconds_down_lose_nothing():
    """Of 400 calls none is lost; at most a probe a second; recovery within 2 s."""
    server = Server()

    async def main() -> list[str]:
        guard = Guard(
            max_concurrency=4, breaker=Breaker(failures=3, open_s=1), retry=Retry(attempts=3)
        )
        return await asyncio.gather(*(guard.run(server) for _ in range(400)))

    assert run_virtual(main()).result == ["fine"] * 400
    while_open = [time for time in server.asked if 6.2 <= time < 15]
    assert 1 <= len(while_open) <= 9
    assert min(time for time in server.answered if time > 15) <= 17
    assert len(server.answered) == 400


def test_a_rate_limit_does_not_open_it():
    """429 a hundred times: still closed."""

    async def main() -> bool:
        breaker = Breaker(failures=2)
        for _ in range(100):
            with pytest.raises(ModelError):
                async with breaker.admitted():
                    raise ModelError("slow down", status=429, code=None, request_id=None)
        return breaker.is_open

    assert run_virtual(main()).result is False


def test_a_cancelled_probe_lets_another_probe():
    """The probe's place is free again at once."""

    async def main() -> float:
        breaker = Breaker(failures=1, open_s=1)
        with pytest.raises(TimeoutError):
            async with breaker.admitted():
                raise TimeoutError

        async def probe(seconds: float) -> None:
            async with breaker.admitted():
                await lab.sleep(seconds)

        first, second = (asyncio.create_task(probe(s)) for s in (100, 1))
        await lab.sleep(2)
        first.cancel()
        await second
        return lab.now_s()

    assert run_virtual(main()).result == 3


@pytest.mark.parametrize(
    ("error", "is_open"),
    [
        (KeyError("my own bug"), True),
        (asyncio.CancelledError(), True),
        (TimeoutError(), True),
        (ModelError("no key", status=401, code=None, request_id=None), False),
        (ModelError("slow down", status=429, code=None, request_id=None), False),
    ],
)
def test_only_an_answer_closes_it(error: BaseException, is_open: bool):
    """A probe that ends in the caller's own bug says nothing of the endpoint; a refusal does."""

    async def main() -> bool:
        breaker = Breaker(failures=1, open_s=1)
        for failure in (TimeoutError(), error):
            with pytest.raises(type(failure)):
                async with breaker.admitted():
                    raise failure
        return breaker.is_open

    assert run_virtual(main()).result is is_open


def test_after_a_bug_another_probe_comes_at_once():
    """The probe's place is free, and no further `open_s` passes."""

    async def main() -> float:
        breaker = Breaker(failures=1, open_s=1)
        for failure in (TimeoutError, KeyError):
            with pytest.raises(failure):
                async with breaker.admitted():
                    raise failure
        async with breaker.admitted():
            return lab.now_s()

    assert run_virtual(main()).result == 1


def test_a_bug_does_not_end_a_row_of_outages():
    """Outage, bug, outage: two outages in a row."""

    async def main() -> bool:
        breaker = Breaker(failures=2)
        for failure in (TimeoutError, KeyError, TimeoutError):
            with pytest.raises(failure):
                async with breaker.admitted():
                    raise failure
        return breaker.is_open

    assert run_virtual(main()).result is True
