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
from agentlab.endpoint.middleware.bucket import Bucket
from agentlab.endpoint.middleware.rate_limits import a_minutes
from agentlab.errors import ConfigError, ModelError
from agentlab.lab import on_headers
from agentlab.resilience import Guard, RateLimit
from agentlab.resilience._rate_limit import window_s


def paced(per_s: float, burst: float) -> RateLimit:
    """Return a limit that keeps any bucket, of requests and of tokens."""
    limit = RateLimit()
    limit._buckets |= {"requests": Bucket(per_s, burst), "tokens": Bucket(per_s, burst)}
    return limit


async def times(take: Any, many: int) -> list[float]:
    """When each of so many that ask at once is let through."""

    async def one() -> float:
        await take()
        return round(asyncio.get_running_loop().time(), 6)

    return sorted(await asyncio.gather(*(one() for _ in range(many))))


def test_the_bound_is_reached_exactly():
    """1,000 at 50 a second with a burst of 20 take (1000 - 20) / 50 = 19.6 s."""

    async def main() -> list[float]:
        return await times(paced(per_s=50, burst=20).wait, 1000)

    assert run_virtual(main()).result[-1] == 19.6


@settings(max_examples=100)
@given(per_s=st.floats(0.01, 1000), burst=st.integers(1, 8), many=st.integers(1, 40))
def test_it_lets_through_when_aiolimiter_does(per_s: float, burst: int, many: int):
    """The oracle: the same bucket in another hand, at any rate."""

    async def main() -> tuple[list[float], list[float]]:
        mine = await times(paced(per_s, burst).wait, many)
        began = asyncio.get_running_loop().time()
        theirs = await times(AsyncLimiter(burst, burst / per_s).acquire, many)
        return mine, [time - began for time in theirs]

    mine, theirs = run_virtual(main()).result
    # aiolimiter wakes its waiters up 10 ms late at most, and a waiter that is late delays the next
    assert mine == pytest.approx(theirs, abs=0.01 * many)


@settings(max_examples=100)
@given(data=st.data(), per_s=st.floats(0.05, 50), burst=st.floats(1, 20))
def test_cancelled_waiters_change_nothing_for_the_others(
    data: st.DataObject, per_s: float, burst: float
):
    """Whoever is cancelled, whenever: in order, and exactly as if they had never asked.

    The oracle gives each of those who are left a share of an exact bucket, in order.
    """
    asked_s = sorted(data.draw(st.lists(st.floats(0, 20), min_size=1, max_size=40)))
    stays = data.draw(st.lists(st.booleans(), min_size=len(asked_s), max_size=len(asked_s)))
    through: list[tuple[int, float]] = []

    async def main() -> None:
        bucket, loop = paced(per_s, burst), asyncio.get_running_loop()

        async def one(number: int) -> None:
            await bucket.wait()
            through.append((number, loop.time()))

        tasks = []
        for number, at_s in enumerate(asked_s):
            await asyncio.sleep(at_s - loop.time())
            tasks.append(asyncio.create_task(one(number)))
            await asyncio.sleep(0)
            if not stays[number]:
                tasks[-1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run_virtual(main())
    level, at_s = burst, 0.0
    numbers = [number for number, _ in through]
    assert numbers == sorted(numbers)
    assert set(numbers) >= {number for number, stay in enumerate(stays) if stay}
    for number, served_s in through:
        # the bucket is continuous, so when the share is there follows from the one before
        level = min(burst, level + (max(asked_s[number], at_s) - at_s) * per_s)
        at_s = max(asked_s[number], at_s)
        if level < 1:
            at_s += (1 - level) / per_s
            level = 1.0
        level -= 1
        assert served_s == pytest.approx(at_s, abs=1e-6)


def test_old_waiters_go_first_and_nobody_exceeds_the_limit():
    """1/s: eleven wait, nine of them are cancelled, ten come later: one a second, in order."""

    async def main() -> list[tuple[str, float]]:
        bucket, through = paced(1, 1), []

        async def one(name: str) -> None:
            await bucket.wait()
            through.append((name, asyncio.get_running_loop().time()))

        old = [asyncio.create_task(one(f"old{n}")) for n in range(11)]
        await asyncio.sleep(0.5)
        for task in old[1:10]:
            task.cancel()
        new = [asyncio.create_task(one(f"new{n}")) for n in range(10)]
        await asyncio.wait([*old, *new])
        return through

    names = ["old0", "old10", *(f"new{n}" for n in range(10))]
    assert run_virtual(main()).result == [(name, float(n)) for n, name in enumerate(names)]


def test_who_gives_up_waiting_gives_back():
    """A cancelled taker's share goes to those who come later."""

    async def main() -> float:
        bucket = paced(per_s=1, burst=1)
        await bucket.wait()
        waiting = asyncio.create_task(bucket.wait())
        await asyncio.sleep(0.5)
        waiting.cancel()
        await asyncio.wait([waiting])
        await bucket.wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(main()).result == 1.0


def test_who_gives_up_waiting_for_tokens_gives_the_request_back():
    """Ten who wait for tokens are cancelled: the one that needs none is let through immediately."""

    async def main() -> float:
        pace = RateLimit(requests_per_minute=11, tokens_per_minute=60)
        await pace.wait(tokens=60)
        waiting = [asyncio.create_task(pace.wait(tokens=60)) for _ in range(10)]
        await asyncio.sleep(0.5)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await pace.wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(main()).result == 0.5


def test_more_than_it_holds_is_refused():
    """Waiting for it would never end."""
    with pytest.raises(ConfigError, match="never"):
        run_virtual(paced(1, 10).wait(tokens=11))


@pytest.mark.parametrize("told", [True, False], ids=["told", "from headers"])
def test_under_a_limit_of_the_endpoints_nobody_is_refused(fresh_lab: None, told: bool):
    """Target 11: at least .97 of the bound's goodput, at most 1% of the requests answered 429."""
    many, per_minute = 600, 120
    bound_s = (many - per_minute) / (per_minute / 60)

    async def main() -> None:
        guard = Guard(
            rate_limit=RateLimit(requests_per_minute=per_minute if told else None), deadline_s=None
        )
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
        pace = RateLimit(requests_per_minute=60)
        await asyncio.gather(*(pace.wait() for _ in range(60)))
        waiting = asyncio.create_task(pace.wait())
        await lab.sleep(0.5)
        pace.pause(10)
        await waiting
        return lab.now_s()

    assert run_virtual(main()).result == 10.5


def test_tokens_are_paced_too(fresh_lab: None):
    """A limit of 6,000 tokens a minute: nobody is refused, and it takes what it must."""

    async def main() -> None:
        guard = Guard(rate_limit=RateLimit(tokens_per_minute=6000), deadline_s=None)
        calls = (
            guard.run(lambda n=n: lab.ask(f"{n}", max_tokens=100), tokens=150) for n in range(100)
        )
        await asyncio.gather(*calls)

    with lab.configure(tokens_per_minute=6000):
        _, t = lab.simulate(main())
    assert [span.status for span in t.spans] == [200] * 100
    assert t.makespan_s >= (100 * 150 - 6000) / 100


@settings(max_examples=200)
@given(before=st.floats(0, 1e5), pause=st.floats(0, 1e5))
def test_a_pause_of_any_length_ends_when_it_should(before: float, pause: float):
    """Whatever the floats: it ends, and neither early nor late by more than their rounding."""

    async def main() -> float:
        pace = RateLimit()
        await lab.sleep(before)
        pace.pause(pause)
        await pace.wait()
        return lab.now_s()

    assert run_virtual(main()).result == pytest.approx(before + pause, abs=1e-8)


@pytest.mark.parametrize(
    ("limit", "left", "reset_s", "window"),
    [
        (14_400, 14_399, 6.0, 86_400),
        (14_400, 14_300, 599.9, 86_400),
        (500, 499, 0.12, 60),
        (7_000, 6_999, 0.009, 60),
        (30, 29, 2.0, 60),
        (10, 9, 0.1, 1),
        (1_000, 990, 36.0, 3_600),
        (500, 500, 0.0, 60),
        (500, 400, None, 60),
        (500, 499, 1.7e9, 86_400),
    ],
)
def test_a_limits_window_is_read_from_its_reset(
    limit: float, left: float, reset_s: float | None, window: float
):
    """(limit - remaining) / reset is the rate; the rounding of the reset does not change it."""
    assert window_s(limit, left, reset_s) == window


@pytest.mark.parametrize("said", ["nan", "inf", "-5", "many", ""])
def test_a_limit_that_is_no_number_is_not_learned(said: str):
    """A foreign header is read before it is obeyed."""
    pace = RateLimit()
    for what in ("limit", "remaining"):
        headers = {f"x-ratelimit-{w}-requests": "10" for w in ("limit", "remaining")}
        pace.learn(headers | {f"x-ratelimit-{what}-requests": said})

    async def main() -> float:
        await asyncio.gather(*(pace.wait() for _ in range(100)))
        return lab.now_s()

    assert run_virtual(main()).result == 0.0


@pytest.mark.parametrize("hint", [True, False], ids=["Retry-After", "no hint"])
def test_a_minutes_limit_beside_a_days_is_learned_from_refusals(hint: bool):
    """30 a minute, of which the headers tell only 14,400 a day: each call is refused once at most.

    The bound is (150 - 30) / .5 = 240 s.
    """
    requests = admitted = 0
    minute = a_minutes(30)

    async def call() -> None:
        nonlocal requests, admitted
        requests += 1
        wait_s = minute.wait_s(1, lab.now_s())
        admitted += not wait_s
        tell = on_headers.get()
        assert tell is not None
        headers = {
            "limit": "14400",
            "remaining": f"{14_400 - admitted}",
            "reset": f"{6 * admitted}s",
        }
        tell({f"x-ratelimit-{what}-requests": value for what, value in headers.items()})
        if wait_s:
            raise ModelError(
                "Slow down",
                status=429,
                code=None,
                request_id=None,
                retry_after_s=wait_s * hint or None,
            )
        minute.take(1, lab.now_s())
        await lab.sleep(1)

    async def main() -> float:
        guard = Guard(rate_limit=RateLimit())
        await asyncio.gather(*(guard.run(call) for _ in range(150)))
        return lab.now_s()

    assert run_virtual(main()).result < 1.02 * 240
    assert requests <= 150 + 120


def test_a_guard_keeps_a_rate_of_tokens_that_it_was_told(fresh_lab: None):
    """60 questions of some 60 tokens at 1,500 a minute: `ask` and `around` refuse nobody."""

    async def main() -> None:
        guard = Guard(rate_limit=RateLimit(tokens_per_minute=1500))
        ask = guard.around(lab.ask)
        words = "word " * 40
        await asyncio.gather(
            *(guard.ask(f"{words}{n}", max_tokens=15) for n in range(30)),
            *(ask(f"{words}{n}", system="Be brief.", max_tokens=15) for n in range(30)),
        )

    with lab.configure(tokens_per_minute=1500):
        _, t = lab.simulate(main())
    assert [span.status for span in t.spans] == [200] * 60


def test_what_no_limit_admits_is_sent_once(fresh_lab: None):
    """411 tokens under a limit of 100: one request, and the endpoint's own words."""

    async def main() -> None:
        await Guard().ask("word " * 400, max_tokens=10)

    with lab.configure(tokens_per_minute=100):
        error, t = lab.simulate(main(), catch=ModelError)
    assert "Requested 411" in str(error)
    assert t.requests == 1


def test_a_pace_serves_one_event_loop_after_the_other():
    """Callers wait in two runs, each with a loop and a clock of its own."""
    pace = RateLimit(60)

    async def main() -> None:
        await asyncio.gather(*(pace.wait() for _ in range(63)))

    for _ in range(2):
        run_virtual(main())
