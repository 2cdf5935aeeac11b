"""What changed between two results, and whether it is more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb
from statistics import median

from agentlab.bench.results import Results

_MOST_EXACT = 200_000
LEVEL = 0.05
"""How often a difference as large comes of chance, at most, to be called more than noise."""


def p_value(before: Sequence[float], after: Sequence[float]) -> float:
    """How often chance alone separates two samples as much: the exact rank-sum test, two-sided.

    After Wilcoxon (1945) and Mann and Whitney (1947); ties share their ranks.

    Raises:
        ValueError: If there are more than some 200,000 ways to divide them.

    Example:
        >>> round(p_value([1.0, 1.1, 1.2, 1.3], [2.0, 2.1, 2.2, 2.3]), 4)
        0.0286
    """
    both = [*before, *after]
    if comb(len(both), len(before)) > _MOST_EXACT:
        raise ValueError(f"{len(both)} figures are too many for an exact test; give at most 20")
    ordered = sorted(both)
    ranks = [(ordered.index(x) + len(ordered) - ordered[::-1].index(x) + 1) / 2 for x in both]
    expected = sum(ranks) * len(before) / len(both)
    seen = abs(sum(ranks[: len(before)]) - expected)
    ways = [abs(sum(some) - expected) for some in combinations(ranks, len(before))]
    return sum(way >= seen - 1e-9 for way in ways) / len(ways)


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
