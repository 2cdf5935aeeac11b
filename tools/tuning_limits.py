"""Judge limiters in scenarios, against the best static limit of each, which a sweep finds."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from opponents import AIMD, Gradient2, Vegas

from agentlab.bench.trial import JUDGING, Fixed, Outcome, Row, Scenario, run
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
"""Who is judged; Netflix's AIMD and Gradient2 also without the bounds that suit short calls."""

_NO_MORE = 1.005  # times the goodput of fewer: where no step brings so much a sweep is at its end
_AS_GOOD = 0.98  # of the best goodput: among those the quickest limit is the best


def judged(
    scenarios: Iterable[Scenario] = JUDGING,
    limiters: Mapping[str, Callable[[], Limiter]] = LIMITERS,
    *,
    seeds: Sequence[int] | None = None,
) -> list[Row]:
    """Judge every limiter in every scenario, each drawn once from each seed, or from its own."""
    rows = []
    for scenario in scenarios:
        limit = None
        for seed in seeds or [scenario.seed]:
            drawn = msgspec.structs.replace(scenario, seed=seed)
            limit, best = best_static(drawn, near=limit)
            for name, limiter in limiters.items():
                out = run(limiter(), drawn)
                figures = (
                    round(out.goodput, 3),
                    round(out.p95_s, 3),
                    round(out.goodput / best.goodput, 3),
                    round(out.p95_s / best.p95_s, 3),
                    round(out.requests / max(out.answered, 1), 3),
                )
                rows.append(Row(scenario.name, name, *figures, best_limit=limit, seed=seed))
    return rows


def best_static(scenario: Scenario, *, near: int | None = None) -> tuple[int, Outcome]:
    """Find the static limit with the best goodput; of those within 2%, the one with least p95.

    A sweep in steps of a third, until three brought nothing, then around the best in steps of a
    sixteenth. `near`, the best one with another seed, is tried with a step to either side only.
    """
    found: dict[int, Outcome] = {}

    def best_with(limits: Iterable[int]) -> int:
        for limit in limits:
            found[limit] = found.get(limit) or run(Fixed(limit), scenario)
        most = max(outcome.goodput for outcome in found.values())
        good = [limit for limit, outcome in found.items() if outcome.goodput >= _AS_GOOD * most]
        return min(good, key=lambda limit: (found[limit].p95_s, limit))

    if near is not None:
        around = [near * 15 // 16, near, math.ceil(near / 16 * 17)]
    else:
        most, in_vain = 0.0, 0
        for limit in _steps(1, scenario.agents, 4 / 3):
            near = best_with([limit])
            in_vain = 0 if found[limit].goodput > _NO_MORE * most else in_vain + 1
            most = max(most, found[limit].goodput)
            if in_vain == 3:
                break
        assert near is not None
        around = _steps(math.ceil(near / 4 * 3), min(scenario.agents, near * 4 // 3), 17 / 16)
    best = best_with(limit for limit in around if 1 <= limit <= scenario.agents)
    return best, found[best]


def _steps(least: int, most: int, factor: float) -> list[int]:
    steps, limit = [], least
    while limit < most:
        steps.append(limit)
        limit = max(limit + 1, round(limit * factor))
    return [*steps, most]
