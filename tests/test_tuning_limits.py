"""Limiters judged: the simulation against the whole client, and the adaptive limit's pass line."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import pytest

from agentlab import lab
from agentlab.bench import self_tuning, trial
from agentlab.bench.trial import JUDGING, TUNING, Fixed, Scenario
from agentlab.resilience import Guard, Retry
from agentlab.resilience.limiters import Adaptive
from agentlab.resilience.limiters._slots import Limiter, Sample
from agentlab.settings import DATA, Capacity

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from opponents import AIMD, Gradient2, Vegas
from tuning_limits import best_static, judged

EQUAL = Scenario(
    name="equal answers",
    preset="course",
    agents=12,
    run_s=150,
    capacity=(Capacity(from_s=0, slots=4), Capacity(from_s=80, slots=2)),
    tokens=(11, 11),
)

VARIED = msgspec.structs.replace(
    EQUAL,
    preset="nim-70b-2gpu",
    agents=60,
    run_s=60,
    capacity=(Capacity(from_s=0, slots=4), Capacity(from_s=30, slots=2)),
    tokens=(5, 60),
)
"""Hardly two things happen in one instant, whose order would be anybody's."""

STUDY = self_tuning.stored(DATA / "results" / "tuning.json")

QUICK = [
    "laptop-ollama",
    "4 slots",
    "4 slots, halved",
    "16 slots, halved",
    "16 slots, long answers",
]
"""A few of those for judging, of little work; the whole list is measured by an experiment."""


class Watched:
    """A limiter whose changes are written down as `trial` does."""

    def __init__(self, limiter: Limiter):
        self._limiter = limiter
        self.answers, self.limits = 0, [(0.0, limiter.limit)]

    @property
    def limit(self) -> int:
        return self._limiter.limit

    def update(self, sample: Sample) -> int:
        before, after = self.limit, self._limiter.update(sample)
        self.answers += not sample.refused
        if after != before:
            self.limits.append((sample.ended_s, after))
        return after


def through_the_client(limiter: Limiter, scenario: Scenario) -> Watched:
    """The same closed loop with `lab.ask`, `Guard` and `Seats` in virtual time."""
    watched, numbers, draw = Watched(limiter), itertools.count(), Random(scenario.seed)

    async def ask() -> str:
        tokens = draw.randint(*scenario.tokens)
        return await lab.ask(
            f"Describe the river {next(numbers)} in ten more paragraphs.", max_tokens=tokens
        )

    async def agent(guard: Guard) -> None:
        while True:
            await guard.run(ask)

    async def main() -> None:
        guard = Guard(limit=watched, retry=Retry(attempts=1000), deadline_s=None)
        agents = [asyncio.create_task(agent(guard)) for _ in range(scenario.agents)]
        await lab.sleep(scenario.run_s + 1e-6)
        for task in agents:
            task.cancel()
        await asyncio.gather(*agents, return_exceptions=True)

    with lab.configure(
        preset=scenario.preset,
        capacity=msgspec.to_builtins(scenario.capacity),
        requests_per_minute=scenario.requests_per_minute,
    ):
        lab.simulate(main())
    return watched


@pytest.mark.parametrize("limiter", [lambda: Fixed(5), AIMD, Gradient2, Vegas, Adaptive])
def test_the_simulation_is_the_client(fresh_lab: None, limiter: Callable[[], Limiter]):
    """Four slots, then two: the same answers, and every change of the limit at the same time."""
    client, simulated = through_the_client(limiter(), VARIED), trial.run(limiter(), VARIED)
    assert simulated.answered == client.answers
    rounded = [(round(at_s, 6), limit) for at_s, limit in client.limits]
    assert rounded == [(round(at_s, 6), limit) for at_s, limit in simulated.limits]


@pytest.mark.parametrize("limiter", [lambda: Fixed(5), AIMD, Adaptive])
def test_the_simulation_is_the_client_under_a_rate_limit(
    fresh_lab: None, limiter: Callable[[], Limiter]
):
    """60 a minute, refusals, rest and back-off included: as many answers, within 3%."""
    limited = msgspec.structs.replace(EQUAL, capacity=(), requests_per_minute=60)
    client, simulated = through_the_client(limiter(), limited), trial.run(limiter(), limited)
    assert simulated.answered == pytest.approx(client.answers, rel=0.03)
    assert simulated.answered == pytest.approx(60 + 150, rel=0.05)


def test_goodput_and_p95_by_hand():
    """Answers of 2 s on one slot, two at once: one every 2 s, each but the first after 4 s."""
    one = msgspec.structs.replace(EQUAL, capacity=(Capacity(from_s=0, slots=1),), run_s=100)
    outcome = trial.run(Fixed(2), one)
    assert (outcome.goodput, outcome.p95_s, outcome.answered) == (0.5, 4.0, 50)


def test_the_best_static_limit_is_the_slots():
    """On 16 slots whose answers do not slow each other down, with a queue: 16, as a sweep finds."""
    slots = msgspec.structs.replace(
        EQUAL, agents=48, capacity=(Capacity(from_s=0, slots=16),), run_s=200
    )
    limit, outcome = best_static(slots)
    assert (limit, outcome.goodput, outcome.p95_s) == (16, 8.0, 2.0)


def test_scenarios_for_tuning_and_for_judging_are_kept_apart():
    """No seed, length of answers, demand or slots in common; the same questions, though."""
    for one, other in zip(TUNING, JUDGING, strict=True):
        assert one.preset == other.preset
        assert one.seed != other.seed
        assert one.tokens != other.tokens
        assert one.agents != other.agents
    slots = [{c.slots for s in part for c in s.capacity[:1]} for part in (TUNING, JUDGING)]
    assert slots == [{6, 24, 48}, {4, 16, 64}]


def test_every_preset_that_takes_time_is_judged():
    """And 4, 16 and 64 slots, a rate limit, slots that halve or drift, and long answers.

    Of a class's preset those slots say more: it is the course's with 128.
    """
    from agentlab.endpoint import presets

    timed = {name for name in presets.names() if not presets.load(name).physics.takes_no_time}
    timed.remove("class")
    assert timed <= {s.preset for s in JUDGING if not s.capacity}
    names = {s.name for s in JUDGING}
    assert {"4 slots, halved", "16 slots, halved", "64 slots, halved", "rate limit"} <= names
    assert {"16 slots, long answers", "64 slots, drifting, jitter"} <= names


def test_long_answers_are_a_share_and_change_nothing_else():
    """Each answer of 10 tokens is one of 100 in a scenario in which all are long."""
    short = msgspec.structs.replace(EQUAL, tokens=(10, 10), capacity=())
    long, all_100 = (
        msgspec.structs.replace(short, **change)
        for change in ({"long_share": 1.0}, {"tokens": (100, 100)})
    )
    assert trial.run(Fixed(3), long) == trial.run(Fixed(3), all_100)


@pytest.mark.parametrize("name", QUICK)
def test_the_adaptive_limit_passes(name: str):
    """Goodput at least .90 of the best static limit, and a p95 of no more than 1.3 of its.

    That limit is looked for around the study's, which drew with other seeds.
    """
    scenario = next(s for s in JUDGING if s.name == name)
    near = next(row.best_limit for row in STUDY.limits if row.scenario == name)
    _, best = best_static(scenario, near=near)
    outcome = trial.run(Adaptive(), scenario)
    assert outcome.goodput >= trial.LEAST_GOODPUT * best.goodput
    assert outcome.p95_s <= trial.MOST_P95 * best.p95_s


def test_a_guess_does_not_pass():
    """Three at once on four slots, as everybody guesses: so the line can be missed."""
    scenario = next(s for s in JUDGING if s.name == "4 slots")
    (row,) = judged([scenario], {"fixed 3": lambda: Fixed(3)})
    assert not row.passes


def test_rows_come_out_the_same_again():
    """To the byte."""
    few = [msgspec.structs.replace(s, run_s=40) for s in JUDGING if s.name == "4 slots, halved"]
    once, again = (msgspec.json.encode(judged(few)) for _ in range(2))
    assert once == again


def test_scenarios_name_presets_that_exist():
    """So that none fails in the middle of a long run."""
    for scenario in [*TUNING, *JUDGING]:
        assert scenario.physics.capacity == scenario.capacity
