"""Limiters in scenarios, against the best static limit of each.

The closed loop has no client; `tests/test_tuning_limits.py` holds it against the whole client.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from agentlab.bench.closed_loop import Outcome, run
from agentlab.bench.opponents import AIMD, Fixed, Gradient2, Vegas
from agentlab.bench.scenarios import JUDGING, Scenario
from agentlab.resilience.limiters import Adaptive, Limiter

LIMITERS: dict[str, Callable[[], Limiter]] = {
    "fixed 3": lambda: Fixed(3),
    "AIMD": AIMD,
    "AIMD from 1": lambda: AIMD(initial=1, least=1, most=1000, slow_s=None),
    "Gradient2": Gradient2,
    "Gradient2 from 1": lambda: Gradient2(initial=1, least=1, most=1000),
    "Vegas": Vegas,
    "adaptive": Adaptive,
}
"""Who is judged.

Netflix's AIMD and Gradient2 stay between 20 and 200, and its AIMD takes what lasts longer than 5 s
for refused; so both are there once more without that.
"""

LEAST_GOODPUT, MOST_P95 = 0.90, 1.3
"""What a limiter must reach, as a share of the best static limit's goodput and of its p95."""

_NO_MORE = 1.005  # times the goodput of fewer: where no step brings so much a sweep is at its end
_AS_GOOD = 0.98  # of the best goodput: among those the quickest limit is the best


class Row(msgspec.Struct, frozen=True):
    """A limiter in a scenario, as a line of a table.

    Attributes:
        goodput: Answers a second.
        p95_s: What 95% of the answers took at most.
        of_best_goodput: As a share of the best static limit's.
        of_best_p95: The same for the p95.
        requests_per_answer: 1 if none was refused.
        best_limit: The best static limit, found by a sweep.
        seed: From which the scenario was drawn.
    """

    scenario: str
    limiter: str
    goodput: float
    p95_s: float
    of_best_goodput: float
    of_best_p95: float
    requests_per_answer: float
    best_limit: int
    seed: int

    @property
    def passes(self) -> bool:
        """True if it is nearly as good as the best static limit, which nobody knows beforehand."""
        return self.of_best_goodput >= LEAST_GOODPUT and self.of_best_p95 <= MOST_P95


def judged(
    scenarios: Iterable[Scenario] = JUDGING,
    limiters: Mapping[str, Callable[[], Limiter]] = LIMITERS,
    *,
    seeds: Sequence[int] | None = None,
) -> list[Row]:
    """Judge every limiter in every scenario. It is the same to the last digit everywhere.

    Args:
        limiters: Name -> what makes a new one.
        seeds: Each scenario is drawn once from each; None takes its own.

    Example:
        rows = judged(JUDGING[:3], {"adaptive": Adaptive})
    """
    rows = []
    for scenario in scenarios:
        limit = None
        for seed in seeds or [scenario.seed]:
            drawn = msgspec.structs.replace(scenario, seed=seed)
            limit, best = best_static(drawn, near=limit)
            rows += [
                _row(name, run(limiter(), drawn), drawn, limit, best)
                for name, limiter in limiters.items()
            ]
    return rows


def _row(name: str, outcome: Outcome, scenario: Scenario, limit: int, best: Outcome) -> Row:
    return Row(
        scenario=scenario.name,
        limiter=name,
        goodput=round(outcome.goodput, 3),
        p95_s=round(outcome.p95_s, 3),
        of_best_goodput=round(outcome.goodput / best.goodput, 3),
        of_best_p95=round(outcome.p95_s / best.p95_s, 3),
        requests_per_answer=round(outcome.requests / max(outcome.answered, 1), 3),
        best_limit=limit,
        seed=scenario.seed,
    )


def best_static(scenario: Scenario, *, near: int | None = None) -> tuple[int, Outcome]:
    """Find the static limit with the best goodput; of those within 2%, the one with least p95.

    A sweep in steps of a third, until three of them brought nothing, and in the neighbourhood of
    what that finds in steps of a sixteenth.

    Args:
        near: The best one of the same scenario with another seed; then that is tried, and one step
            to either side of it.
    """
    if near is not None:
        tried = {near * 15 // 16, near, math.ceil(near / 16 * 17)}
        found = _sweep(scenario, {limit for limit in tried if 1 <= limit <= scenario.agents})
    else:
        found = _climb(scenario)
        limit = _best(found)
        least, most = math.ceil(limit / 4 * 3), min(scenario.agents, limit * 4 // 3)
        found |= _sweep(scenario, set(_steps(least, most, 17 / 16)) - set(found))
    limit = _best(found)
    return limit, found[limit]


def _climb(scenario: Scenario) -> dict[int, Outcome]:
    found: dict[int, Outcome] = {}
    most, in_vain = 0.0, 0
    for limit in _steps(1, scenario.agents, 4 / 3):
        found[limit] = run(Fixed(limit), scenario)
        in_vain = 0 if found[limit].goodput > _NO_MORE * most else in_vain + 1
        most = max(most, found[limit].goodput)
        if in_vain == 3:
            break
    return found


def _steps(least: int, most: int, factor: float) -> list[int]:
    steps, limit = [], least
    while limit < most:
        steps.append(limit)
        limit = max(limit + 1, round(limit * factor))
    return [*steps, most]


def _sweep(scenario: Scenario, limits: Iterable[int]) -> dict[int, Outcome]:
    return {limit: run(Fixed(limit), scenario) for limit in sorted(limits)}


def _best(found: Mapping[int, Outcome]) -> int:
    most = max(outcome.goodput for outcome in found.values())
    good = [limit for limit, outcome in found.items() if outcome.goodput >= _AS_GOOD * most]
    return min(good, key=lambda limit: (found[limit].p95_s, limit))
