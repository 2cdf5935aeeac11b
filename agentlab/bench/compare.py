"""What changed between two results, and whether it is more than noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import combinations
from math import comb, erfc, sqrt
from pathlib import Path
from statistics import median

from msgspec import UNSET

from agentlab.bench import results
from agentlab.bench.experiment import Case
from agentlab.bench.report import axes, seconds
from agentlab.bench.results import Measurement, Results, deviation
from agentlab.errors import ConfigError

LEVEL = 0.05
"""The share of the cases called more than noise that may be expected to be none."""

_MOST_EXACT = 200_000  # ways to divide the figures: ten repeats of each


def p_value(before: Sequence[float], after: Sequence[float]) -> float:
    """Return how often chance alone separates two samples as much: the rank-sum test, two-sided.

    After Wilcoxon (1945) and Mann and Whitney (1947); ties share their ranks. It is exact up to
    some 200,000 ways to divide the figures. Beyond that it is the normal approximation of Mann and
    Whitney, corrected for ties and for continuity as in Lehmann, Nonparametrics (1975).

    Example:
        >>> round(p_value([1.0, 1.1, 1.2, 1.3], [2.0, 2.1, 2.2, 2.3]), 4)
        0.0286
    """
    both = [*before, *after]
    exact = comb(len(both), len(before)) <= _MOST_EXACT
    return (_exact_p if exact else _normal_p)(_ranks(both), len(before))


def _ranks(figures: Sequence[float]) -> list[float]:
    ordered = sorted(figures)
    backwards = ordered[::-1]
    return [(ordered.index(x) + len(ordered) - backwards.index(x) + 1) / 2 for x in figures]


def _exact_p(ranks: Sequence[float], first: int) -> float:
    """Return the share of all choices of `first` ranks that lie as far from the middle."""
    expected = sum(ranks) * first / len(ranks)
    seen = abs(sum(ranks[:first]) - expected)
    ways = [abs(sum(some) - expected) for some in combinations(ranks, first)]
    return sum(way >= seen - 1e-9 for way in ways) / len(ways)


def _normal_p(ranks: Sequence[float], first: int) -> float:
    """Return the share by the normal distribution; it errs upwards for a few extreme ranks."""
    n, second = len(ranks), len(ranks) - first
    ties = sum(size**3 - size for size in Counter(ranks).values())
    variance = first * second / 12 * (n + 1 - ties / (n * (n - 1)))
    beyond = abs(sum(ranks[:first]) - first * (n + 1) / 2) - 0.5  # half a step of the sums
    return erfc(beyond / sqrt(2 * variance)) if beyond > 0 else 1.0


def of_files(before: str | Path, after: str | Path) -> str:
    """Return what changed between two files that `agentlab bench` wrote.

    Raises:
        ConfigError: If one cannot be read, or is of the kind `tuning`, which repeats exactly.
    """
    return compared(results.load(before), results.load(after))


def compared(before: Results, after: Results) -> str:
    """Return what differs in how two were measured, and a line for each case that both have.

    A line has medians, ratio, and a verdict. In virtual time any difference is a change. In real
    time the cases called "more than noise" are chosen so that of such cases at most 5% are
    expected to be none (Benjamini and Hochberg 1995): the more cases change, the fewer repeats
    each needs; five repeats can show that three of twenty changed.

    Raises:
        ConfigError: If one is in virtual time and the other is not.
    """
    clocks = before.experiment.clock, after.experiment.clock
    if clocks[0] != clocks[1]:
        raise ConfigError(
            f"one is in {clocks[0]} time, the other in {clocks[1]}; compare two of one clock"
        )
    works = [r.experiment.by_name for r in (before, after)]
    runs = {
        case: (before.of(case), after.of(case))
        for case in before.experiment.cases()
        if works[0][case.workload] == works[1].get(case.workload)
    }
    runs = {case: both for case, both in runs.items() if all(both)}
    others = len({c for r in (before, after) for c in r.experiment.cases()} - set(runs))
    old, new = ({**r.machine, "settings": str(r.experiment.settings)} for r in (before, after))
    lines = [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    if others:
        lines.append(f"not in both, or not the same work: {others} cases")
    verdicts = _verdicts(runs, virtual=clocks[0] == "virtual")
    names = ["workload", *(axis for axis in axes(before) if axis != "workload")]
    for case, both in runs.items():
        old_s, new_s = (median(m.elapsed_s for m in some) for some in both)
        lines.append(
            f"{case.named(names)}: {seconds(old_s, 2)} -> {seconds(new_s, 2)} s, "
            f"x {new_s / old_s if old_s else 1.0:.3f}, {verdicts[case]}{_other_answers(*both)}"
        )
    return "\n".join(lines)


def _other_answers(before: Sequence[Measurement], after: Sequence[Measurement]) -> str:
    old, new = ([m.real for m in runs if m.real is not UNSET] for runs in (before, after))
    if old and new:
        return "".join(f"; {says}" for says in deviation(new, old, "the other").says)
    return "" if {m.answers for m in before} == {m.answers for m in after} else "; other answers"


def _verdicts(
    runs: dict[Case, tuple[list[Measurement], list[Measurement]]], *, virtual: bool
) -> dict[Case, str]:
    times = {c: tuple([m.elapsed_s for m in some] for some in both) for c, both in runs.items()}
    if virtual:
        return {
            case: "the same" if set(old) == set(new) else "changed"
            for case, (old, new) in times.items()
        }
    p = {case: p_value(old, new) for case, (old, new) in times.items()}
    level = _level(p.values())

    def verdict(case: Case) -> str:
        if p[case] <= level:
            return "more than noise"
        old, new = times[case]
        too_few = 2 / comb(len(old) + len(new), len(old)) > LEVEL
        return "too few repeats to tell" if too_few else "no more than noise"

    return {case: verdict(case) for case in times}


def _level(p_values: Collection[float]) -> float:
    """Return the largest p value that counts, by Benjamini and Hochberg's procedure; or 0."""
    ordered = enumerate(sorted(p_values), 1)
    return max((p for n, p in ordered if p <= n / len(p_values) * LEVEL), default=0.0)
