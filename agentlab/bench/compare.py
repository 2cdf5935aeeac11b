"""What differs between two results: ratios, and what can and cannot be told from them."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import product
from math import ceil, comb, log
from statistics import median
from typing import Any

from msgspec.structs import replace

from agentlab.bench.experiment import AXES, Case, varied
from agentlab.bench.intervals import MISSES, least_rounds, ratio
from agentlab.bench.report import seconds
from agentlab.bench.results import TOLERANCE, Measurement, Results, deviation
from agentlab.errors import ConfigError

SMALLEST = 0.05  # a change of so much is worth knowing
IN_TURN = "measured in turn"  # with what, and in which run: both results say the same
_TOGETHER = f"All intervals hold together in {1 - MISSES:.0%} of such comparisons."
_APART = "That the machine differed cannot be excluded; to exclude it, measure with --against."

Figures = list[float]  # one per round
Line = tuple[str, Figures, Figures, str]  # a name, the figures of both sides, a remark


def compared(before: Results, after: Results, *, smallest: float = SMALLEST) -> str:
    """Return what differs in how two were measured, and a line for each figure that both have.

    In virtual time any difference is a change. Of two that were measured in turn it says faster,
    slower, or how many rounds would show the `smallest` change worth knowing; of two others on the
    real clock, how far their runs are apart. What is virtual predicts what is real, on any preset.
    """
    clocks = before.experiment.clock, after.experiment.clock
    if clocks[0] != clocks[1]:
        return _predicted(*((before, after) if clocks[0] == "virtual" else (after, before)))
    run = before.machine.get(IN_TURN, "")
    in_turn = bool(run) and run == after.machine.get(IN_TURN)
    pairs = _pairs(before, after, {run.partition("=")[0]} & {*AXES} if in_turn else ())
    lines = list(_lines(before, after, pairs, in_turn=in_turn))
    judge: Callable[[Figures, Figures], str]
    judge, below = (_exactly, []) if clocks[0] == "virtual" else (_apart, [_APART])
    if in_turn and clocks[0] == "real":
        judge, below = partial(_verdict, lines=len(lines), smallest=smallest), [_TOGETHER]
    shown = [
        f"{name}{seconds(median(old_s), 2)} -> {seconds(median(new_s), 2)} s, "
        f"x {judge(old_s, new_s)}{remark}"
        for name, old_s, new_s, remark in lines
    ]
    return "\n".join([*_surroundings(before, after, pairs), *shown, *below])


def _predicted(virtual: Results, real: Results) -> str:
    pairs = _pairs(virtual, real, ("preset", "seed"))
    if not pairs:
        raise ConfigError("the two have no case in common; predict the experiment that is measured")
    return "\n".join(
        f"{name}predicted {seconds(median(old_s), 2)} s, measured {seconds(median(new_s), 2)} s "
        f"({seconds(min(new_s), 2)} to {seconds(max(new_s), 2)}), x {_times(old_s, new_s)}"
        for name, old_s, new_s, _ in _lines(virtual, real, pairs)
    )


def _pairs(before: Results, after: Results, free: Collection[str]) -> list[tuple[Case, Case]]:
    """Return the cases of equal work that both have, whatever they are on the `free` axes."""
    works = [results.experiment.by_name for results in (before, after)]
    return [
        (case, other)
        for case, other in product(before.measured, after.measured)
        if replace(other, **{axis: getattr(case, axis) for axis in free}) == case
        and works[0][case.workload] == works[1][other.workload]
    ]


def _surroundings(before: Results, after: Results, pairs: list[tuple[Case, Case]]) -> list[str]:
    old, new = ({**r.machine, "settings": str(r.experiment.settings)} for r in (before, after))
    lines = [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    every = {*before.experiment.cases(), *after.experiment.cases()}
    if others := len(every.difference(*pairs)):
        lines.append(f"not in both, or not the same work: {others} cases")
    return lines


def _lines(
    before: Results, after: Results, pairs: list[tuple[Case, Case]], *, in_turn: bool = False
) -> Iterator[Line]:
    """Yield what is compared of each pair; of two measured in turn, the rounds that both have."""
    names = ["workload", *(axis for axis in varied(before.measured) if axis != "workload")]
    for case, other in pairs:
        remark = _other_answers(before.of(case), after.of(other))
        olds, news = _figures(before, case), _figures(after, other)
        for words in [words for words in olds if words in news]:
            old, new = olds[words], news[words]
            if in_turn:
                old, new = ({n: some[n] for n in old if n in new} for some in (old, new))
            if old and new:
                yield f"{case.named(names)}: {words}", [*old.values()], [*new.values()], remark


def _figures(results: Results, case: Case) -> dict[str, dict[int, float]]:
    """Return the times of each whole round: all of it and, where agents arrive, the p99 response.

    Where all agents are there from the beginning, the longest response is all of it.
    """
    workload, rounds = results.experiment.by_name[case.workload], dict[int, list[Any]]()
    size = workload.random or 1  # of random workflows, which are added up
    for m in results.of(case):
        rounds.setdefault(m.repeat // size, []).append(m)
    whole = {n: some for n, some in sorted(rounds.items()) if len(some) == size}
    found = {"": {n: sum(m.elapsed_s for m in some) for n, some in whole.items()}}
    if getattr(workload, "arrivals", None):
        felt = {n: some[0].figure("response_p99_s") for n, some in whole.items()}
        found["response p99 "] = {n: p99_s for n, p99_s in felt.items() if p99_s is not None}
    return found


def _exactly(old_s: Figures, new_s: Figures) -> str:
    return f"{_times(old_s, new_s)}, {'the same' if old_s == new_s else 'changed'}"


def _apart(old_s: Figures, new_s: Figures) -> str:
    """Return the ratio, from the least to the greatest that two of the runs have."""
    if 2 / comb(len(old_s) + len(new_s), len(old_s)) > MISSES:  # so often it misses by chance
        return f"{_times(old_s, new_s)} (too few runs for an interval)"
    low, high = _times([max(old_s)], [min(new_s)]), _times([min(old_s)], [max(new_s)])
    return f"{_times(old_s, new_s)} ({low} to {high} within the runs)"


def _times(old_s: Figures, new_s: Figures) -> str:
    return f"{median(new_s) / median(old_s) if median(old_s) else 1.0:.3f}"


def _verdict(old_s: Figures, new_s: Figures, *, lines: int, smallest: float) -> str:
    """Return the ratio with what it shows, or how many rounds would show something.

    An interval narrows with the square root of the rounds. It decides once its half is less than
    the estimate's distance from no change, or from the smallest one that is worth knowing.
    """
    times, low, high = ratio(old_s, new_s, lines=lines)
    if not low:
        return f"{times:.3f}: cannot tell (would need about {least_rounds(lines)} rounds)"
    worth, seen = log(1 + smallest), abs(log(times))
    shown = f"{times:.3f} ({low:.3f} to {high:.3f})"
    if low > 1 or high < 1:
        return f"{shown}: {'slower' if low > 1 else 'faster'}"
    if max(log(high), -log(low)) < worth:
        return f"{shown}: cannot tell, and {smallest:.1%} or more is excluded"
    needed = len(old_s) * (log(high / low) / 2 / max(seen, worth - seen)) ** 2
    return f"{shown}: cannot tell (would need about {max(len(old_s) + 1, ceil(needed)):,} rounds)"


def _other_answers(before: Collection[Measurement], after: Collection[Measurement]) -> str:
    off = deviation([*after], [*before])
    if abs(off) > TOLERANCE:
        return f"; {off:+.1%} tokens per answer"
    return "" if {m.answers for m in before} == {m.answers for m in after} else "; other answers"
