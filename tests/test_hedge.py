"""Hedging: the faster of two wins, the other is cancelled, and there are not too many."""

from __future__ import annotations

import asyncio
from random import Random
from statistics import quantiles

import pytest

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.errors import EndpointError
from agentlab.resilience import Guard, Hedge


class Calls:
    """Each call takes the next of the given times, or fails if it is negative."""

    def __init__(self, *times: float):
        self.times = list(times)
        self.cancelled = 0

    async def __call__(self) -> float:
        seconds = self.times.pop(0)
        try:
            await lab.sleep(abs(seconds))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if seconds < 0:
            raise ValueError(seconds)
        return seconds


@pytest.mark.parametrize(
    ("times", "result", "elapsed_s", "cancelled"),
    [
        ((1, 9), 1, 1, 0),
        ((9, 1), 1, 3, 1),
        ((5, 9), 5, 5, 1),
        ((-3, 1), 1, 3, 0),
        ((9, -1), 9, 9, 0),
    ],
)
def test_the_first_success_wins(times: tuple, result: float, elapsed_s: float, cancelled: int):
    """After 2 s a second is sent; whichever answers first is it; a failure leaves the other."""
    calls = Calls(*times)
    run = run_virtual(Hedge(after_s=2, share=1)(calls))
    assert (run.result, run.elapsed_s, calls.cancelled) == (result, elapsed_s, cancelled)


def test_if_both_fail_the_call_fails():
    """With an error of one of them."""
    with pytest.raises(ValueError, match="-"):
        run_virtual(Hedge(after_s=2, share=1)(Calls(-3, -4)))


def test_a_failure_before_the_delay_is_no_case_for_a_hedge():
    """Repeating is the retry's business: one request only."""
    calls = Calls(-1, 1)
    with pytest.raises(ValueError):
        run_virtual(Hedge(after_s=2, share=1)(calls))
    assert calls.times == [1]


def test_cancelling_leaves_nothing_behind():
    """Both requests are cancelled."""
    calls = Calls(9, 9)

    async def main() -> None:
        task = asyncio.create_task(Hedge(after_s=1, share=1)(calls))
        await lab.sleep(2)
        task.cancel()
        await asyncio.wait([task])

    run_virtual(main())
    assert calls.cancelled == 2


def test_it_cuts_the_tail_for_few_requests_more():
    """Lognormal latencies: p99 at most .7 of it, for at most 7% more requests."""
    draws = Random(5)

    async def call() -> None:
        await lab.sleep(draws.lognormvariate(0, 1))

    async def p99_s(hedge: Hedge | None) -> float:
        latencies = []
        for _ in range(5000):
            began_s = lab.now_s()
            await (hedge(call) if hedge else call())
            latencies.append(lab.now_s() - began_s)
        return quantiles(latencies, n=100)[98]

    hedge = Hedge(quantile=0.94)
    with_it, without = run_virtual(p99_s(hedge)).result, run_virtual(p99_s(None)).result
    assert with_it < 0.7 * without
    assert hedge.hedges <= 0.07 * hedge.calls


@pytest.mark.parametrize("seconds", [1, 3])
def test_a_call_that_ends_as_cancelled_has_failed(seconds: float):
    """Before the delay it is an error, which may be retried; after it, the hedge's answer wins."""
    calls = 0

    async def call() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            await lab.sleep(seconds)
            raise asyncio.CancelledError
        return "fine"

    hedged = Hedge(after_s=2, share=1)(call)
    if seconds == 3:
        assert run_virtual(hedged).result == "fine"
    else:
        with pytest.raises(EndpointError, match="cancelled by its own maker"):
            run_virtual(hedged)


def test_the_clients_own_queue_is_no_lateness():
    """Six calls of 10 s in one slot: each is answered 10 s after it was sent, so none is hedged."""
    hedge = Hedge(after_s=12, share=1.0)
    sent = 0

    async def call() -> None:
        nonlocal sent
        sent += 1
        await lab.sleep(10)

    async def main() -> None:
        guard = Guard(max_concurrency=1, hedge=hedge)
        await asyncio.gather(*(guard.run(call) for _ in range(6)))

    assert run_virtual(main()).elapsed_s == 60
    assert (hedge.hedges, sent) == (0, 6)


def test_what_is_late_after_the_queue_is_hedged():
    """The third of three waits 5 s for a slot; 6 s after it was sent, at 11 s, it is sent again."""
    hedge = Hedge(after_s=6, share=1.0)
    calls = Calls(5, 5, 9, 1)

    async def main() -> list[float]:
        guard = Guard(max_concurrency=2, hedge=hedge)
        return await asyncio.gather(*(guard.run(calls) for _ in range(3)))

    run = run_virtual(main())
    assert (run.result, run.elapsed_s) == ([5, 5, 1], 12)
    assert (hedge.hedges, calls.cancelled) == (1, 1)
