"""Slots that a limiter changes, and the limit that finds the knee: fair, safe, never starving."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from agentlab import lab
from agentlab.bench import trial
from agentlab.bench.trial import TUNING, Fixed
from agentlab.errors import ConfigError, ModelError
from agentlab.lab import Reply
from agentlab.resilience import Guard, RateLimit, Retry
from agentlab.resilience.limiters import Adaptive, _adaptive
from agentlab.resilience.limiters._estimates import Lengths, Level, Served, summary, worth
from agentlab.resilience.limiters._slots import Held, Sample, Slots


class Told:
    """A limiter that does as it is told, and keeps what it was taught."""

    def __init__(self, limit: int):
        self.limit = limit
        self.samples: list[Sample] = []

    def update(self, sample: Sample) -> int:
        self.samples.append(sample)
        return self.limit


def error(status: int, retry_after_s: float | None = None) -> ModelError:
    return ModelError("no", status=status, code=None, request_id=None, retry_after_s=retry_after_s)


async def hold(slots: Slots, seconds: float, then: Exception | None = None) -> float:
    """Hold a slot for so long; returns when it was taken."""
    async with slots.taken():
        began_s = lab.now_s()
        await lab.sleep(seconds)
        if then is not None:
            raise then
        return began_s


# --- slots


def test_first_come_first_served():
    """Five calls of 1 s on two slots begin at 0, 0, 1, 1, 2, in the order of their asking."""

    async def main() -> list[float]:
        slots = Slots(Fixed(2))
        return await asyncio.gather(*(hold(slots, 1) for _ in range(5)))

    assert lab.simulate(main())[0] == [0, 0, 1, 1, 2]


def test_nobody_overtakes_who_waits():
    """One comes just as a slot is freed for another that waited longer."""

    async def main() -> list[str]:
        slots, order = Slots(Fixed(1)), []

        async def named(name: str) -> None:
            async with slots.taken():
                order.append(name)
                await lab.sleep(1)
            if name == "first":  # again, at the very instant of leaving
                await named("again")

        await asyncio.gather(named("first"), named("second"))
        return order

    assert lab.simulate(main())[0] == ["first", "second", "again"]


def test_more_slots_are_taken_when_the_next_call_ends():
    """One slot that becomes three at 1 s: the other three begin at 1."""

    async def main() -> list[float]:
        told = Told(1)
        slots = Slots(told)
        calls = [asyncio.create_task(hold(slots, 1)) for _ in range(4)]
        await lab.sleep(0.5)
        told.limit = 3
        return await asyncio.gather(*calls)

    assert lab.simulate(main())[0] == [0, 1, 1, 1]


def test_a_lower_limit_cancels_nothing():
    """Three slots that become one: three are served to their end, then one at a time."""

    async def main() -> list[float]:
        told = Told(3)
        slots = Slots(told)
        calls = [asyncio.create_task(hold(slots, 1)) for _ in range(5)]
        await lab.sleep(0.5)
        told.limit = 1
        return await asyncio.gather(*calls)

    assert lab.simulate(main())[0] == [0, 0, 0, 1, 2]


@pytest.mark.parametrize("when_s", [0.5, 1.0, 1.5])
def test_cancelling_loses_no_slot(when_s: float):
    """Whether it waits, is just being called, or holds one: afterwards all slots are there."""

    async def main() -> tuple[int, list[float]]:
        slots = Slots(Fixed(1))
        calls = [asyncio.create_task(hold(slots, 1)) for _ in range(3)]
        await lab.sleep(when_s)
        calls[1].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        began_s = lab.now_s()
        after = await asyncio.gather(*(hold(slots, 1) for _ in range(2)))
        return slots._held, [at_s - began_s for at_s in after]

    assert lab.simulate(main())[0] == (0, [0, 1])


def test_called_and_cancelled_in_one_instant():
    """The slot that was given to it goes to the next one."""

    async def main() -> float:
        slots = Slots(Fixed(1))
        first = asyncio.create_task(hold(slots, 1))
        second, third = (asyncio.create_task(hold(slots, 1)) for _ in range(2))
        await asyncio.wait([first])
        second.cancel()
        return await third

    assert lab.simulate(main())[0] == 1


def test_what_the_limiter_learns():
    """Answers, and refusals for load; neither a mistake of the caller's nor a cancelled call."""

    async def main() -> list[Sample]:
        told = Told(9)
        slots = Slots(told)
        calls = [
            asyncio.create_task(hold(slots, seconds, then))
            for seconds, then in ((1, None), (2, error(429)), (3, error(400)), (4, error(500)))
        ]
        calls.append(asyncio.create_task(hold(slots, 5, TimeoutError())))
        calls.append(asyncio.create_task(hold(slots, 9)))
        await lab.sleep(6)
        calls[-1].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return told.samples

    assert lab.simulate(main())[0] == [
        Sample(1, 1, 1, refused=False),
        Sample(2, 2, 2, refused=True),
        Sample(5, 5, 5, refused=True),
    ]


def test_a_refused_slot_rests():
    """Refused at 1 s and asked to wait 5 s: one of the two slots is empty until 6 s."""

    async def main() -> list[Any]:
        slots = Slots(Fixed(2))
        calls = [hold(slots, 1, error(429, 5)), hold(slots, 3), hold(slots, 9), hold(slots, 9)]
        return await asyncio.gather(*calls, return_exceptions=True)

    assert lab.simulate(main())[0][1:] == [0, 3, 6]


def test_time_before_sending_is_not_the_endpoints(fresh_lab: None):
    """A guard that waits for its pace teaches its limiter what the endpoint took: 1 s each."""
    told = Told(9)

    async def main() -> None:
        guard = Guard(limit=told, rate_limit=RateLimit(requests_per_minute=1))
        await asyncio.gather(*(guard.ask(f"River {n}?", max_tokens=1) for n in range(3)))

    lab.simulate(main())
    assert [(s.ended_s, s.took_s) for s in told.samples] == [(1, 1), (61, 1), (121, 1)]


# --- evidence


def level(limit: int, *took_s: float) -> Level:
    """A level with answers of which nobody knows the length."""
    return Level(limit, Lengths(), answers=[Sample(0.0, s, limit) for s in took_s])


def learned(lengths: Lengths, limit: int, answers: list[Sample]) -> Level:
    """The level of these answers, which also tell how much longer the longer ones take."""
    level = Level(limit, lengths)
    for answer in answers:
        lengths.add(answer)
        level.add(answer)
    return level


def of_lengths(*tokens: float, slots: int, limit: int) -> list[Sample]:
    """Answers at 10 tokens a second, that wait for a slot as Little's law says."""
    wait_s = max(0.0, limit / slots - 1) * sum(tokens) / len(tokens) / 10
    return [Sample(0.0, wait_s + each / 10, limit, tokens=each) for each in tokens]


def test_what_is_due_to_an_answers_length_is_taken_out():
    """Answers of 1 s and .1 s a token, of 10 to 70 tokens: each would take 5 s if it had 40."""
    lengths = Lengths()
    some = [Sample(0.0, 1 + tokens / 10, 1, tokens=tokens) for tokens in (10, 70, 30, 50)]
    learned(lengths, 1, some)
    assert [lengths.even(answer) for answer in some] == pytest.approx([5.0] * 4)


@pytest.mark.parametrize("tokens", [[5.0] * 3, [30.0, 20.0, 10.0], [None] * 3, [5.0, None, None]])
def test_where_longer_ones_take_no_longer_answers_count_as_they_are(tokens: list[float | None]):
    """Equally long ones, long ones that are quicker, and those of which nobody knows."""
    lengths = Lengths()
    some = [Sample(0.0, s, 1, tokens=n) for s, n in zip([1.0, 2.0, 4.0], tokens, strict=True)]
    learned(lengths, 1, some)
    assert [lengths.even(answer) for answer in some] == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("long", [1, 4, 8])
def test_lengths_that_differ_hide_no_load(long: int):
    """Twelve slots, some answers ten times as long: 12 calls are worth all that 6 are, 24 nothing.

    So it is from sixteen answers each, if all long ones come last, or are only with one limit.
    """
    lengths, none, some = Lengths(), [100.0] * 16, [100.0] * (16 - long) + [1000.0] * long
    levels = {
        limit: learned(lengths, limit, of_lengths(*tokens, slots=12, limit=limit))
        for limit, tokens in ((6, some), (12, none), (24, some))
    }
    assert worth(levels[6], levels[12]) == pytest.approx(1.0, abs=0.35)
    assert worth(levels[6], levels[24]) < 0.6


@dataclass
class Counted:
    completion_tokens: int


class Odd:
    """An answer that cannot be asked."""

    @property
    def usage(self) -> Any:
        raise RuntimeError("not yet")


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        (Odd(), None),
        ("Rivers carry water, and more than that.", 9.0),
        (Reply("Rivers", prompt_tokens=9, completion_tokens=70), 70.0),
        (SimpleNamespace(usage_metadata={"input_tokens": 9, "output_tokens": 71}), 71.0),
        (SimpleNamespace(usage=Counted(72)), 72.0),
        ({"completion_tokens": 73}, 73.0),
        (SimpleNamespace(usage=Counted(-1)), None),
        ({"completion_tokens": float("nan")}, None),
        ({"completion_tokens": "many"}, None),
        ({"completion_tokens": 1e300}, None),
        (None, None),
    ],
)
def test_how_long_an_answer_is(answer: Any, tokens: float | None):
    """Its usage says so, as each client has it, or its text; what cannot be is not believed."""

    async def main() -> float | None:
        slot = Held(1)
        slot.answered(answer)
        return slot.tokens

    assert lab.simulate(main())[0] == tokens


def test_a_guard_tells_how_long_answers_are(fresh_lab: None):
    """Those of 5 and of 50 tokens, whichever comes first."""
    told = Told(9)

    async def main() -> None:
        guard = Guard(limit=told)
        await asyncio.gather(*(guard.ask("Describe tides.", max_tokens=n) for n in (50, 5)))

    lab.simulate(main())
    assert [sample.tokens for sample in told.samples] == [5, 50]


@pytest.mark.parametrize(("slower", "value"), [(1.0, 1.0), (2.0, 0.0), (2**0.5, 0.5), (4.0, -1.0)])
def test_what_twice_as_many_are_worth(slower: float, value: float):
    """As long: all; twice as long: nothing; four times as long: less than nothing."""
    few, many = level(8, *[1.0] * 10), level(16, *[slower] * 10)
    assert worth(few, many) == pytest.approx(value)


@pytest.mark.parametrize("long", [0, 12, 30])
def test_a_wait_is_worth_what_littles_law_says_whatever_the_lengths(long: int):
    """Sixteen calls where twelve are served: each waits a third of the mean, which brings nothing.

    So it is if some answers are ten times as long, and if all of those come last.
    """
    took_s = [0.9, 1.0, 1.1, 1.2] * 25
    took_s[100 - long :] = [10.0] * long
    wait_s = sum(took_s) / 100 / 3
    few, many = level(12, *took_s), level(16, *(s + wait_s for s in took_s))
    assert worth(few, many) == pytest.approx(0.0, abs=0.25 if long else 1e-9)
    assert worth(few, level(16, *took_s)) == 1.0


def test_long_answers_among_short_ones_hardly_disturb():
    """Twelve of a hundred take ten times as long; with eight of them more it is nearly the same."""
    some, more = (summary([1.0] * (100 - n) + [10.0] * n) for n in (12, 20))
    assert more.typical_s - some.typical_s < 0.03 * some.mean_s
    assert (some.p95, round(some.mean_s, 2)) == (10.0, 2.08)


def test_what_faded_counts_a_quarter():
    """Of eight answers the latest two are left."""
    some = level(4, *[1.0] * 6, *[3.0] * 2)
    some.fade()
    assert (some.count, some.known.typical_s) == (2, 3.0)


def test_the_first_answers_are_kept_as_they_were():
    """So that a drift that is slow shows: full with 128 answers of 1 s, and then 3 s each."""
    some = level(4, *[1.0] * 128)
    for _ in range(200):
        some.add(Sample(0.0, 3.0, 4))
    assert (some.first.known.typical_s, some.known.typical_s) == (1.0, 3.0)


def test_joined_levels_are_all_their_answers():
    """Mean and number of both, at a limit between."""
    one, two = level(1, 1.0), level(4, 1.0, 1.0, 1.0)
    both = one.joined(two)
    assert (both.count, both.known.typical_s) == (4, 1.0)
    assert both.log_limit == pytest.approx(0.75 * two.log_limit)


def test_littles_law_counts_what_is_served():
    """Ten answers a second of .8 s each: 8 in flight."""
    served = Served()
    for n in range(100):
        served.add(Sample(n / 10, 0.8, 99), keep_s=6)
    assert served.in_flight(9.9, window_s=5) == pytest.approx(8, rel=0.03)


def test_what_is_forgotten_is_not_counted_as_idle():
    """Asked about 50 s where 6 are kept: it gives the average of these."""
    served = Served()
    for n in range(1000):
        served.add(Sample(n / 10, 0.8, 99), keep_s=6)
    assert served.in_flight(99.9, window_s=50) == pytest.approx(8, rel=0.03)


@pytest.mark.parametrize("took_s", [0.0, 1.0])
def test_memory_does_not_grow_with_answers(took_s: float):
    """Twenty thousand, without a refusal: what is kept is a few answers per slot, or none."""
    limit = Adaptive(most=20)
    kept = []
    for n in range(20_000):
        limit.update(Sample(n * took_s / 20, took_s, min(20, limit.limit)))
        if n % 1000 == 999:
            kept.append(len(pickle.dumps(limit)))
    assert max(kept) < 1.5 * kept[0] + 2000
    assert max(kept) < 40_000


# --- the limit


def test_one_refusal_changes_nothing():
    """One in 32 answers may come for any reason, at whatever limit."""
    limit = Adaptive(8)
    assert limit.update(Sample(1.0, 1.0, 1)) == 8
    assert limit.update(Sample(2.0, 0.0, 2, refused=True)) == 8
    for n in range(2, 40):
        limit.update(Sample(n + 1.0, 1.0, 1))
    assert limit.update(Sample(41.0, 0.0, 2, refused=True)) == 8


def test_the_second_refusal_ends_a_trial():
    """Of 4 calls, a while after the first."""
    limit = Adaptive()
    for n in range(4):
        limit.update(Sample(n + 1.0, 1.0, 1))
    assert limit.update(Sample(4.5, 0.0, 4, refused=True)) == 4
    limit.update(Sample(5.0, 1.0, 1))
    assert limit.update(Sample(6.0, 0.0, 2, refused=True)) == 1
    assert limit.history[-1] == (6.0, 1, "a refusal")


@pytest.mark.parametrize("most, first", [(1000, 4), (3, 3), (1, 1)])
def test_the_climb_begins_with_four(most: int, first: int):
    """After as many answers as are needed at all; between 1 call and 2 they would tell little."""
    limit = Adaptive(most=most)
    assert [limit.update(Sample(n + 1.0, 1.0, 1)) for n in range(2)] == [1, first]


def test_the_climb_goes_on_after_four_answers():
    """To 8 once four answers took no longer; back to 1 once four took four times as long."""
    for took_s, then in ((1.0, [4, 4, 4, 8]), (4.0, [4, 4, 4, 1])):
        limit = Adaptive()
        for n in range(2):
            limit.update(Sample(n + 1.0, 1.0, 1))
        after = [limit.update(Sample(10.0 + n, took_s, 4)) for n in range(2, 2 + len(then))]
        assert after == then


def test_history_is_every_change_and_ends(monkeypatch: pytest.MonkeyPatch):
    """What was seen from outside, from when the first call was sent; the oldest are forgotten."""
    scenario = next(s for s in TUNING if s.name == "6 slots, halved")
    limit = Adaptive()
    seen = trial.run(limit, scenario).limits
    assert [(change.time_s, change.limit) for change in limit.history] == list(seen)
    assert {change.why for change in limit.history} >= {"climbing", "answers take longer"}
    monkeypatch.setattr(_adaptive, "_CHANGES", 3)
    short = Adaptive()
    trial.run(short, scenario)
    assert list(short.history) == list(limit.history)[-3:]


@pytest.mark.parametrize("in_flight", [1, 2])
def test_trials_that_nobody_asks_for_become_rare(in_flight: int):
    """A loop that sends so many at a time, for 2,000 answers: few changes of the limit."""
    limit = Adaptive(in_flight)
    for n in range(2000):
        limit.update(Sample(ended_s=n + 1.0, took_s=1.0, in_flight=in_flight))
    assert len(limit.history) < 2000 / 10


def test_it_says_what_it_is_at():
    """Limit, bounds, in flight when the latest call was sent, answers without refusals."""
    limit = Adaptive(3, most=9)
    limit.update(Sample(1.0, 1.0, 2))
    limit.update(Sample(2.0, 0.0, 3, refused=True))
    limit.update(Sample(4.0, 0.0, 3, refused=True))
    assert repr(limit) == "<Adaptive: limit 1, within 1 to 9; 3 in flight, answers seen: 1>"


async def closed_loop(
    ask: Callable[[int], Awaitable[Any]], agents: int, until_s: float
) -> list[float]:
    """So many agents ask one question after the other; returns when answers came."""
    came: list[float] = []

    async def agent(number: int) -> None:
        count = 0
        while lab.now_s() < until_s:
            await ask(number * 10_000 + count)
            came.append(lab.now_s())
            count += 1

    await asyncio.gather(*(agent(n) for n in range(agents)))
    return came


def adapt(
    agents: int, until_s: float, tokens: int = 6, **configured: Any
) -> tuple[Adaptive, list[float], Any]:
    """A closed loop through the whole client: the limit, when answers came, the trace."""
    limit = Adaptive()

    async def main() -> list[float]:
        guard = Guard(limit=limit, retry=Retry(attempts=1000), deadline_s=None)
        return await closed_loop(
            lambda n: guard.ask(f"Name river {n}.", max_tokens=tokens + n % 11), agents, until_s
        )

    with lab.configure(**configured):
        came, t = lab.simulate(main())
    return limit, came, t


def test_it_finds_the_slots(fresh_lab: None):
    """Eight slots, answers of 1.5 to 2.5 s: nearly 4 a second after a minute, 7 to 11 in flight."""
    limit, came, t = adapt(24, 200, capacity=[{"from_s": 0, "slots": 8}])
    assert 7 <= limit.limit <= 11
    assert sum(60 <= at_s < 200 for at_s in came) >= 0.95 * 4 * 140
    assert t.requests == len(came)


def test_it_follows_capacity_down_and_up(fresh_lab: None):
    """Eight slots, four from 200 s on, twelve from 400 s on, for answers of 4 s on average."""
    capacity = [(0, 8), (200, 4), (400, 12)]
    lines = [{"from_s": from_s, "slots": slots} for from_s, slots in capacity]
    _, came, _ = adapt(24, 600, tokens=26, capacity=lines)
    for begin_s, (_, slots) in zip((100, 300, 500), capacity, strict=True):
        answers = sum(begin_s <= at_s < begin_s + 100 for at_s in came)
        assert answers >= 0.85 * slots / 4 * 100


def test_it_cuts_to_what_an_endpoint_serves_that_refuses_the_rest(fresh_lab: None):
    """No queue at all, four slots of 2 s: by Little's law four are served, so about four it is."""
    limit = Adaptive(initial=32)
    slots, served = 4, Slots(Fixed(4))

    async def call() -> None:
        if served._held == slots:
            raise error(429, 1.0)
        await hold(served, 2.0)

    async def main() -> list[float]:
        guard = Guard(limit=limit, retry=Retry(attempts=1000), deadline_s=None)
        return await closed_loop(lambda n: guard.run(call), 32, 100)

    came, _ = lab.simulate(main())
    assert 3 <= limit.limit <= 6
    assert sum(20 <= at_s < 100 for at_s in came) >= 0.9 * 4 / 2 * 80


def test_a_rate_limit_starves_nobody(fresh_lab: None):
    """60 a minute after a burst of 60: it goes on at one a second, with a handful in flight."""
    limit, came, _ = adapt(20, 300, requests_per_minute=60)
    assert sum(100 <= at_s < 300 for at_s in came) >= 0.95 * 200
    assert limit.limit < 20


def test_where_answers_take_no_time_it_grows_to_what_is_asked(fresh_lab: None):
    """`instant`: all is answered, nothing divides by zero, and the ceiling holds."""
    limit = Adaptive(most=50)

    async def main() -> list[str]:
        guard = Guard(limit=limit)
        return await asyncio.gather(*(guard.ask(f"River {n}?") for n in range(150)))

    with lab.configure(preset="instant"):
        answers, t = lab.simulate(main())
    assert (len(answers), t.requests, t.makespan_s) == (150, 150, 0)
    assert 1 <= limit.limit <= 50


def test_it_recovers_from_an_outage_of_time_outs(fresh_lab: None):
    """From 50 s to 100 s nothing is answered: down to 1, and back to most of 8 slots soon after."""
    faults = [{"kind": "stall", "between_s": [50, 100]}]
    limit = Adaptive()

    async def main() -> list[float]:
        guard = Guard(
            limit=limit, attempt_timeout_s=10, retry=Retry(attempts=1000), deadline_s=None
        )
        return await closed_loop(lambda n: guard.ask(f"Name river {n}.", max_tokens=11), 24, 300)

    with lab.configure(capacity=[{"from_s": 0, "slots": 8}], faults=faults):
        came, _ = lab.simulate(main())
    assert sum(200 <= at_s < 300 for at_s in came) >= 0.9 * 400


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        (5, r"got 5; give Adaptive\(\), or Guard\(max_concurrency=...\) for a fixed number"),
        (Adaptive, r"got <class .*Adaptive'>; give Adaptive\(\)"),
        ("adaptive", r"must be a limiter; got"),
    ],
)
def test_what_is_no_limiter_is_refused(limit: Any, says: str):
    """At once, not at the first call."""
    with pytest.raises(ConfigError, match=says):
        Guard(limit=limit)


def test_two_answers_to_one_question():
    """max_concurrency and limit exclude each other; the way out is a ceiling."""
    with pytest.raises(ConfigError, match=r"Adaptive\(most="):
        Guard(max_concurrency=5, limit=Adaptive())
