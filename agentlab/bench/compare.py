"""What changed between two results, and whether it is more than noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from math import comb, erfc, sqrt
from pathlib import Path
from statistics import median

from agentlab.bench import results, tuning
from agentlab.bench.results import Results
from agentlab.errors import ConfigError

_MOST_EXACT = 200_000  # ways to divide the figures: ten repeats of each
LEVEL = 0.05
"""How often a difference as large comes of chance, at most, to be called more than noise."""


def p_value(before: Sequence[float], after: Sequence[float]) -> float:
    """How often chance alone separates two samples as much: the rank-sum test, two-sided.

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
    """Of all ways to choose the `first` ranks, the share that lies as far from the middle."""
    expected = sum(ranks) * first / len(ranks)
    seen = abs(sum(ranks[:first]) - expected)
    ways = [abs(sum(some) - expected) for some in combinations(ranks, first)]
    return sum(way >= seen - 1e-9 for way in ways) / len(ways)


def _normal_p(ranks: Sequence[float], first: int) -> float:
    """The same, as if rank sums were normally distributed: for few extreme ones it errs upwards."""
    n, second = len(ranks), len(ranks) - first
    ties = sum(size**3 - size for size in Counter(ranks).values())
    variance = first * second / 12 * (n + 1 - ties / (n * (n - 1)))
    beyond = abs(sum(ranks[:first]) - first * (n + 1) / 2) - 0.5  # half a step of the sums
    return erfc(beyond / sqrt(2 * variance)) if beyond > 0 else 1.0


def of_files(before: str | Path, after: str | Path) -> str:
    """What changed between two files that `agentlab bench` wrote.

    Raises:
        ConfigError: If one cannot be read, or they are results of different kinds.
    """
    kinds = [tuning.are_tuning_results(path) for path in (before, after)]
    if kinds[0] != kinds[1]:
        tuned, other = (before, after) if kinds[0] else (after, before)
        raise ConfigError(
            f"{tuned} holds results of kind tuning and {other} does not; give two of one kind"
        )
    if kinds[0]:
        return tuning.compared(tuning.stored(before), tuning.stored(after))
    return compared(results.load(before), results.load(after))


def compared(before: Results, after: Results) -> str:
    """A line for each case that both have: medians, ratio, and what to make of it.

    In virtual time any difference is one. In real time it is more than noise if chance alone
    makes one as large in at most 5% of all cases, divided by the number of cases (Bonferroni);
    five repeats can show that for up to six cases, and more cases need more repeats.
    """
    cases = [c for c in before.experiment.cases() if before.of(c) and after.of(c)]
    if not cases:
        return "the two have no case in common"
    lines = []
    for case in cases:
        old = [m.elapsed_s for m in before.of(case)]
        new = [m.elapsed_s for m in after.of(case)]
        ratio = median(new) / median(old) if median(old) else 1.0
        same = {m.answers for m in before.of(case)} == {m.answers for m in after.of(case)}
        lines.append(
            f"{case.workload}, {case.engine}, {case.preset}, seed {case.seed}: "
            f"{median(old):.2f} -> {median(new):.2f} s, x {ratio:.3f}, "
            f"{_judged(before, old, new, len(cases))}{'' if same else '; other answers'}"
        )
    return "\n".join(lines)


def _judged(before: Results, old: Sequence[float], new: Sequence[float], cases: int) -> str:
    if before.experiment.clock == "virtual":
        return "changed" if set(old) != set(new) else "the same"
    if comb(len(old) + len(new), len(old)) < 2 * cases / LEVEL:
        return "too few repeats to tell"
    return "more than noise" if p_value(old, new) <= LEVEL / cases else "no more than noise"
