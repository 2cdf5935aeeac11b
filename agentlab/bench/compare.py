"""What differs between two results: ratios, and what can and cannot be told from them."""

from collections.abc import Iterator, Sequence
from functools import cache, reduce
from itertools import product
from math import ceil, inf, log, log2
from typing import Any, NamedTuple

import numpy as np
from msgspec.structs import replace

from agentlab.bench.experiment import AXES, Case, varied
from agentlab.bench.report import PAGES, seconds
from agentlab.bench.results import TOLERANCE, Measurement, Results, deviation
from agentlab.errors import ConfigError

SMALLEST = 0.05  # a change of so much is worth knowing
MISSES = 0.05  # of the comparisons: in so many, one interval of however many does not hold
_SHORTEST_S = 1e-9  # times are rounded to it
IN_TURN = "measured in turn"  # with what, and in which run: both results say the same


def compared(before: Results, after: Results, *, smallest: float = SMALLEST) -> str:
    """Return what differs in how two were measured, and a line for each figure that both have.

    In virtual time any difference is a change. Of two that were measured in turn it says faster,
    slower, or how many rounds would show the `smallest` change worth knowing; of two others on the
    real clock, how far their runs are apart. What is virtual predicts what is real, on any preset.

    Raises:
        ConfigError: If one is to predict the other, and they have no case in common.
    """
    clocks = before.experiment.clock, after.experiment.clock
    if clocks == ("real", "virtual"):
        before, after = after, before
    run, changed, kind = before.machine.get(IN_TURN, ""), set[str](), "apart"
    in_turn = run != "" and run == after.machine.get(IN_TURN)
    if in_turn:
        changed, kind = {run.partition("=")[0]}, "in turn"
    if "virtual" in clocks:
        kind = "virtual"
    if clocks[0] != clocks[1]:
        changed, kind = {"preset", "seed"}, "predicted"
    pairs = _pairs(before, after, changed)
    if kind == "predicted" and not pairs:
        raise ConfigError("the two have no case in common; predict what is measured")
    lines = list(_lines(before, after, pairs, in_turn=in_turn))
    for line in lines:
        if kind == "in turn":
            line |= _told(*line["figures"], lines=len(lines), smallest=smallest)
    old, new = ({**r.machine, "settings": str(r.experiment.settings)} for r in (before, after))
    every = {*before.experiment.cases(), *after.experiment.cases()}
    values = {"kind": kind, "lines": lines, "smallest": smallest, "held": 1 - MISSES}
    values["about"] = {name: (old.get(name), new.get(name)) for name in {**old, **new}}
    values["others"] = len(every.difference(*pairs))
    return PAGES.get_template("compare.txt").render(values).strip()


def _pairs(before: Results, after: Results, changed: set[str]) -> list[tuple[Case, Case]]:
    """Return the cases of equal work that both have, whatever they are on the `changed` axes."""
    old, new = before.experiment.by_name, after.experiment.by_name
    return [
        (case, other)
        for case, other in product(before.measured, after.measured)
        if replace(other, **{axis: getattr(case, axis) for axis in changed & {*AXES}}) == case
        and old[case.workload] == new[other.workload]
    ]


def _lines(
    before: Results, after: Results, pairs: list[tuple[Case, Case]], *, in_turn: bool
) -> Iterator[dict[str, Any]]:
    """Yield what the template shows of each pair; in turn, of the rounds that both have.

    The ratio is from the least to the greatest that two of the runs have.
    """
    names = ["workload", *(axis for axis in varied(before.measured) if axis != "workload")]
    for case, other in pairs:
        old, new = _rounds(before, case), _rounds(after, other)
        if in_turn:
            old, new = ({n: some[n] for n in old if n in new} for some in (old, new))
        runs = before.of(case), after.of(other)
        digests = [{m.answers for m in some} for some in runs]
        remark = "" if digests[0] == digests[1] or None in digests[0] else "; other answers"
        if abs(longer := deviation(runs[1], runs[0])) > TOLERANCE:
            remark = f"; {longer:+.1%} tokens per answer"
        for words in ("", "response p99 "):
            sides = [[of[words] for of in some.values() if words in of] for some in (old, new)]
            if all(sides):
                (least_s, old_s, most_s), (low_s, new_s, high_s) = (
                    np.quantile(side, [0, 0.5, 1]).tolist() for side in sides
                )
                yield {
                    "name": f"{case.named(names)}: {words}",
                    "remark": remark,
                    "figures": sides,
                    "old_s": seconds(old_s, 2),
                    "new_s": seconds(new_s, 2),
                    "same": sides[0] == sides[1],
                    "times": new_s / old_s if old_s else 1.0,
                    "low": low_s / most_s if most_s else 1.0,
                    "high": high_s / least_s if least_s else 1.0,
                }


def _rounds(results: Results, case: Case) -> dict[int, dict[str, float]]:
    """Return the times of each whole round: all of it and, where agents arrive, the p99 response.

    Where all agents are there from the beginning, the longest response is all of it.
    """
    workload, runs = results.experiment.by_name[case.workload], dict[int, list[Measurement]]()
    size = workload.random or 1  # of random workflows, which are added up
    for m in results.of(case):
        runs.setdefault(m.repeat // size, []).append(m)
    found = {}
    for number, some in sorted(runs.items()):
        if len(some) == size:
            found[number] = {"": sum(m.elapsed_s for m in some)}
            response_s = some[0].figure("response_p99_s")
            if workload.arrivals and response_s is not None:
                found[number]["response p99 "] = response_s
    return found


def _told(
    old_s: list[float], new_s: list[float], *, lines: int, smallest: float
) -> dict[str, float]:
    """Return the ratio with its interval, and how many rounds would show something; 0: enough.

    An interval narrows with the square root of the rounds. It decides once its half is less than
    the estimate's distance from no change, or from the smallest one that is worth knowing.
    """
    times, low, high = ratio(old_s, new_s, lines=lines)
    worth, seen = log(1 + smallest), abs(log(times))
    needed = least_rounds(lines)
    if low and max(log(high), -log(low)) < worth:
        needed = 0
    elif low:
        rounds = len(old_s) * (log(high / low) / 2 / max(seen, worth - seen)) ** 2
        needed = max(len(old_s) + 1, ceil(rounds))
    return {"times": times, "low": low, "high": high, "needed": needed}


class Ratio(NamedTuple):
    """How many times as long the second took; `low` is 0 if there are too few rounds to say."""

    estimate: float
    low: float
    high: float


def ratio(before: Sequence[float], after: Sequence[float], *, lines: int = 1) -> Ratio:
    """Return the ratio of two that were measured in turn, in an order drawn for each round.

    Tukey's interval, from Wilcoxon's signed ranks (Hollander, Wolfe and Chicken, Nonparametric
    Statistical Methods, 2014, section 3.3), of logarithms; Bonferroni's for several `lines`. The
    draw alone makes it hold: whatever drifts, steps or remembers is for A or B as a coin has it.

    Example:
        >>> found = ratio([2, 2, 4, 4, 8, 8], [3, 3, 6, 6, 12, 16])
        >>> round(found.low, 6), round(found.high, 6)
        (1.5, 2.0)
    """
    logs = np.log(np.maximum(after, _SHORTEST_S)) - np.log(np.maximum(before, _SHORTEST_S))
    means = np.sort(((logs[:, None] + logs) / 2)[np.triu_indices(len(logs))])
    cut = int(np.sum(_signed_ranks(len(logs)) <= MISSES / 2 / lines))
    ends = (means[cut - 1], means[-cut]) if cut else (-inf, inf)
    return Ratio(*np.exp([np.median(means), *ends]).tolist())


def least_rounds(lines: int) -> int:
    """Return the fewest rounds that can show a change: then all must point the same way."""
    return ceil(log2(2 * lines / MISSES))


@cache
def _signed_ranks(n: int) -> Any:
    """Return how probable each sum, or a lower one, is of those ranks to n that a coin picks."""
    coins = (np.array([0.5, *[0.0] * (rank - 1), 0.5]) for rank in range(1, n + 1))
    return np.cumsum(reduce(np.convolve, coins))
