"""A ratio that was measured round by round, with an interval that assumes nothing of the noise."""

from collections.abc import Sequence
from functools import cache, reduce
from math import ceil, inf, log2
from typing import Any, NamedTuple

import numpy as np

MISSES = 0.05  # of the comparisons: in so many, one interval of however many does not hold
_SHORTEST_S = 1e-9  # times are rounded to it


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
