"""The client's rate limit: exact in virtual time, against aiolimiter, and against the endpoint."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiolimiter import AsyncLimiter
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.errors import ConfigError
from agentlab.resilience.guard import Guard
from agentlab.resilience.pace import Pace, TokenBucket


async def times(take: Any, many: int) -> list[float]:
    """When each of so many that ask at once is let through."""

    async def one() -> float:
        await take()
        return round(asyncio.get_running_loop().time(), 6)

    return sorted(await asyncio.gather(*(one() for _ in range(many))))


def test_the_bound_is_reached_exactly():
    """1,000 at 50 a second with a burst of 20 take (1000 - 20) / 50 = 19.6 s."""

    async def main() -> list[float]:
        return await times(TokenBucket(per_s=50, burst=20).take, 1000)

    assert run_virtual(main()).result[-1] == 19.6


@settings(max_examples=25, deadline=None)
@given(
    per_s=st.sampled_from([0.5, 1, 4, 16]),
    burst=st.sampled_from([1, 2, 8]),
    many=st.integers(1, 40),
)
def test_it_lets_through_when_aiolimiter_does(per_s: float, burst: int, many: int):
    """The oracle: the same bucket in another hand.

    At powers of two; at others it waits, in sums of rounding errors, for less than a nanosecond.
    """

    async def main() -> tuple[list[float], list[float]]:
        mine = await times(TokenBucket(per_s, burst).take, many)
        began = asyncio.get_running_loop().time()
        theirs = await times(AsyncLimiter(burst, burst / per_s).acquire, many)
        return mine, [time - began for time in theirs]

    mine, theirs = run_virtual(main()).result
    assert mine == pytest.approx(theirs, abs=0.01)


def test_who_gives_up_waiting_gives_back():
    """A cancelled taker's share goes to those who come later."""

    async def main() -> float:
        bucket = TokenBucket(per_s=1, burst=1)
        await bucket.take()
        waiting = asyncio.create_task(bucket.take())
        await asyncio.sleep(0.5)
        waiting.cancel()
        await asyncio.wait([waiting])
        await bucket.take()
        return asyncio.get_running_loop().time()

    assert run_virtual(main()).result == 1.0


def test_more_than_it_holds_is_refused():
    """Waiting for it would never end."""
    with pytest.raises(ConfigError, match="never"):
        run_virtual(TokenBucket(1, 10).take(11))


@pytest.mark.parametrize("told", [True, False], ids=["told", "from headers"])
def test_under_a_limit_of_the_endpoints_nobody_is_refused(fresh_lab: None, told: bool):
    """Target 11: at least .97 of the bound's goodput, at most 1% of the requests answered 429."""
    many, per_minute = 600, 120
    bound_s = (many - per_minute) / (per_minute / 60)

    async def main() -> None:
        guard = Guard(pace=Pace(requests_per_minute=per_minute if told else None), deadline_s=None)
        await guard.ask("first", max_tokens=1)  # tells the limit
        await asyncio.gather(*(guard.ask(f"{n}", max_tokens=1) for n in range(many - 1)))

    with lab.configure(requests_per_minute=per_minute):
        _, t = lab.simulate(main())
    refused = sum(span.status == 429 for span in t.spans)
    assert sum(span.ok for span in t.spans) == many
    assert refused <= 0.01 * t.requests
    assert bound_s / (t.makespan_s - 1) >= 0.97


def test_a_pause_holds_those_who_wait_for_their_share():
    """Refused at 0.5 s for 10 s: who would have been let through at 1 s waits until 10.5 s."""

    async def main() -> float:
        pace = Pace(requests_per_minute=60, burst_s=1)
        await pace.wait()
        waiting = asyncio.create_task(pace.wait())
        await lab.sleep(0.5)
        pace.pause(10)
        await waiting
        return lab.now_s()

    assert run_virtual(main()).result == 10.5


def test_tokens_are_paced_too(fresh_lab: None):
    """A limit of 6,000 tokens a minute: nobody is refused, and it takes what it must."""

    async def main() -> None:
        guard = Guard(pace=Pace(tokens_per_minute=6000), deadline_s=None)
        calls = (
            guard.run(lambda n=n: lab.ask(f"{n}", max_tokens=100), tokens=150) for n in range(100)
        )
        await asyncio.gather(*calls)

    with lab.configure(tokens_per_minute=6000):
        _, t = lab.simulate(main())
    assert [span.status for span in t.spans] == [200] * 100
    assert t.makespan_s >= (100 * 150 - 6000) / 100
