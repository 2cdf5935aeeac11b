"""What differs between two results: ratios, and what can and cannot be told from them."""

from collections.abc import Collection
from itertools import product
from math import ceil, comb, log
from statistics import median

from msgspec.structs import replace

from agentlab.bench.experiment import AXES, Case, varied
from agentlab.bench.intervals import MISSES, least_rounds, ratio
from agentlab.bench.report import seconds
from agentlab.bench.results import TOLERANCE, Measurement, Results, deviation
from agentlab.errors import ConfigError

SMALLEST = 0.05  # a change of so much is worth knowing
IN_TURN = "measured in turn"  # with what, and in which run: both results say the same
_FIGURES = {"elapsed_s": "", "response_p99_s": "response p99 "}
_TOGETHER = f"All intervals hold together in {1 - MISSES:.0%} of such comparisons."
_APART = "That the machine differed cannot be excluded; to exclude it, measure with --against."

Figures = list[float]  # one per round


def compared(before: Results, after: Results, *, smallest: float = SMALLEST) -> str:
    """Return what differs in how two were measured, and a line for each figure that both have.

    In virtual time any difference is a change. Of two that were measured in turn it says faster,
    slower, or how many rounds would show the `smallest` change worth knowing; of two others on the
    real clock, how far their runs are apart. What is virtual predicts what is real, on any preset.
    """
    if (before.experiment.clock, after.experiment.clock) == ("real", "virtual"):
        before, after = after, before
    virtual = after.experiment.clock == "virtual"
    predicted = before.experiment.clock != after.experiment.clock
    run = before.machine.get(IN_TURN, "")
    in_turn = bool(run) and run == after.machine.get(IN_TURN)
    axis = {run.partition("=")[0]} & {*AXES} if in_turn else ()
    pairs = _pairs(before, after, ("preset", "seed") if predicted else axis)
    if predicted and not pairs:
        raise ConfigError("the two have no case in common; predict the experiment that is measured")
    lines = [] if predicted else _surroundings(before, after, pairs)
    figures: dict[tuple[Case, Case, str], tuple[Figures, Figures]] = {}
    for (case, other), field in product(pairs, _FIGURES):
        old, new = _rounds(before, case, field), _rounds(after, other, field)
        if in_turn:
            old, new = ({n: some[n] for n in sorted({*old} & {*new})} for some in (old, new))
        if old and new and (virtual or min(*old.values(), *new.values()) > 0):
            figures[case, other, field] = list(old.values()), list(new.values())
    names = ["workload", *(axis for axis in varied(before.measured) if axis != "workload")]
    for (case, other, field), both in figures.items():
        old_s, new_s = (seconds(median(some), 2) for some in both)
        shown = f"{old_s} -> {new_s} s, x "
        if predicted:
            shown = f"predicted {old_s} s, measured {new_s} s, x "
        if virtual:
            shown += _exactly(*both)
        elif in_turn:
            shown += _verdict(*both, lines=len(figures), smallest=smallest)
        else:
            shown += _apart(*both)
        answers = "" if predicted else _other_answers(before.of(case), after.of(other))
        lines.append(f"{case.named(names)}: {_FIGURES[field]}{shown}{answers}")
    if not virtual and not predicted:
        lines.append(_TOGETHER if in_turn else _APART)
    return "\n".join(lines)


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


def _rounds(results: Results, case: Case, field: str) -> dict[int, float]:
    """Return a figure by round, the sum of its random workflows; of whole rounds only."""
    size = results.experiment.by_name[case.workload].random or 1
    found: dict[int, Figures] = {}
    for m in results.of(case):
        if isinstance(value := getattr(m, field, None), float):
            found.setdefault(m.repeat // size, []).append(value)
    return {n: sum(values) for n, values in found.items() if len(values) == size}


def _exactly(old_s: Figures, new_s: Figures) -> str:
    times = median(new_s) / median(old_s) if median(old_s) else 1.0
    return f"{times:.3f}, {'the same' if old_s == new_s else 'changed'}"


def _apart(old_s: Figures, new_s: Figures) -> str:
    """Return the ratio, from the least to the greatest that two of the runs have."""
    spread = f"{min(new_s) / max(old_s):.3f} to {max(new_s) / min(old_s):.3f} within the runs"
    if 2 / comb(len(old_s) + len(new_s), len(old_s)) > MISSES:  # what the spread misses by chance
        spread = "too few runs for an interval"
    return f"{median(new_s) / median(old_s):.3f} ({spread})"


def _verdict(old_s: Figures, new_s: Figures, *, lines: int, smallest: float) -> str:
    """Return the ratio with what it shows, or how many rounds would show something.

    An interval narrows with the square root of the rounds. It decides once its half is less than
    the estimate's distance from no change, or from the smallest one that is worth knowing.
    """
    times, low, high = ratio(old_s, new_s, lines=lines)
    if not low:
        return f"{times:.3f}: cannot tell (would need about {least_rounds(lines)} rounds)"
    shown, worth, seen = (
        f"{times:.3f} ({low:.3f} to {high:.3f})",
        log(1 + smallest),
        abs(log(times)),
    )
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
