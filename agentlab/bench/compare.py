"""What changed between two results, and whether it is more than noise."""

import itertools
from collections.abc import Collection, Iterable, Sequence
from math import comb
from random import Random
from statistics import median

from msgspec.structs import replace

from agentlab.bench.experiment import varied
from agentlab.bench.report import seconds
from agentlab.bench.results import TOLERANCE, Measurement, Results, deviation
from agentlab.errors import ConfigError

LEVEL = 0.05  # the share of the cases called more than noise that may be expected to be none
_MOST_WAYS = 200_000  # to divide the figures, for ten repeats of each; of more, some are drawn
_DRAWN = 20_000


def p_value(before: Sequence[float], after: Sequence[float]) -> float:
    """Return how often chance alone separates two samples as much: the rank-sum test, two-sided.

    After Wilcoxon (1945) and Mann and Whitney (1947); ties share their ranks. It is exact for up
    to ten figures in each; for more, 20,000 ways to divide them are drawn, always the same ones.

    Example:
        >>> round(p_value([1.0, 1.1, 1.2, 1.3], [2.0, 2.1, 2.2, 2.3]), 4)
        0.0286
    """
    both, first = [*before, *after], len(before)
    ordered = sorted(both)
    backwards = ordered[::-1]
    ranks = [(ordered.index(x) + len(both) - backwards.index(x) + 1) / 2 for x in both]
    ways: Iterable[Sequence[float]] = itertools.combinations(ranks, first)
    if comb(len(both), first) > _MOST_WAYS:
        draw = Random(7)
        ways = [ranks[:first], *(draw.sample(ranks, first) for _ in range(_DRAWN))]
    expected = sum(ranks) * first / len(ranks)
    seen = abs(sum(ranks[:first]) - expected)
    as_far = [abs(sum(way) - expected) >= seen - 1e-9 for way in ways]
    return sum(as_far) / len(as_far)


def compared(before: Results, after: Results) -> str:
    """Return what differs in how two were measured, and a line for each case that both have.

    In virtual time any difference is a change. In real time the cases called "more than noise" are
    chosen so that of them at most 5% are expected to be none (Benjamini and Hochberg 1995). What is
    virtual predicts what is real, on whatever preset.
    """
    clocks = before.experiment.clock, after.experiment.clock
    if clocks[0] != clocks[1]:
        return _predicted(*((before, after) if clocks[0] == "virtual" else (after, before)))
    works = [r.experiment.by_name for r in (before, after)]
    runs = {
        case: both
        for case in before.experiment.cases()
        if works[0][case.workload] == works[1].get(case.workload)
        and all(both := (before.of(case), after.of(case)))
    }
    others = len({c for r in (before, after) for c in r.experiment.cases()} - set(runs))
    old, new = ({**r.machine, "settings": str(r.experiment.settings)} for r in (before, after))
    lines = [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    if others:
        lines.append(f"not in both, or not the same work: {others} cases")
    times_s = {
        case: ([m.elapsed_s for m in some], [m.elapsed_s for m in other])
        for case, (some, other) in runs.items()
    }
    p = {case: p_value(*both) for case, both in times_s.items() if clocks[0] == "real"}
    level = _level(p.values())
    names = ["workload", *(axis for axis in varied(before.measured) if axis != "workload")]
    for case, both in runs.items():
        old_s, new_s = (median(some) for some in times_s[case])
        verdict = _verdict(*times_s[case], p.get(case), level)
        lines.append(
            f"{case.named(names)}: {seconds(old_s, 2)} -> {seconds(new_s, 2)} s, "
            f"x {new_s / old_s if old_s else 1.0:.3f}, {verdict}{_other_answers(*both)}"
        )
    return "\n".join(lines)


def _predicted(virtual: Results, real: Results) -> str:
    lines, works = [], [results.experiment.by_name for results in (virtual, real)]
    for case, measured in itertools.product(virtual.measured, real.measured):
        same = replace(measured, preset=case.preset, seed=case.seed) == case
        if same and works[0][case.workload] == works[1][case.workload]:
            predicted_s = median(m.elapsed_s for m in virtual.of(case))
            times_s = [m.elapsed_s for m in real.of(measured)]
            spread = f"{seconds(min(times_s), 2)} to {seconds(max(times_s), 2)}"
            lines.append(
                f"{case.named(varied(virtual.measured))}: predicted {seconds(predicted_s, 2)} s, "
                f"measured {seconds(median(times_s), 2)} s ({spread}), "
                f"x {median(times_s) / predicted_s if predicted_s else 1.0:.3f}"
            )
    if not lines:
        raise ConfigError("the two have no case in common; predict the experiment that is measured")
    return "\n".join(lines)


def _level(p_values: Collection[float]) -> float:
    """Return the largest p value that counts, by Benjamini and Hochberg's procedure; or 0."""
    ordered = enumerate(sorted(p_values), 1)
    return max((p for n, p in ordered if p <= n / len(p_values) * LEVEL), default=0.0)


def _verdict(old: Sequence[float], new: Sequence[float], p: float | None, level: float) -> str:
    if p is None:  # virtual time is exact
        return "the same" if set(old) == set(new) else "changed"
    if p <= level:
        return "more than noise"
    too_few = 2 / comb(len(old) + len(new), len(old)) > LEVEL
    return "too few repeats to tell" if too_few else "no more than noise"


def _other_answers(before: Sequence[Measurement], after: Sequence[Measurement]) -> str:
    off = deviation(after, before)
    if abs(off) > TOLERANCE:
        return f"; {off:+.1%} tokens per answer"
    return "" if {m.answers for m in before} == {m.answers for m in after} else "; other answers"
