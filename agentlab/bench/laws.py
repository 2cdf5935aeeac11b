"""What theory says about speedup, and how one of the laws is fitted to measurements."""

from collections.abc import Sequence
from math import inf, sqrt
from typing import NamedTuple

import numpy as np

from agentlab._support.fields import checked
from agentlab.errors import ConfigError


def amdahl(serial: float, workers: float) -> float:
    """Return the speedup of a task of fixed size whose share `serial` cannot be divided.

    1 / (s + (1 - s) / N), after G. M. Amdahl, AFIPS (1967).

    Example:
        >>> round(amdahl(0.1, 16), 1)
        6.4
    """
    checked("serial", serial, most=1)
    checked("workers", workers, least=1)
    return 1 / (serial + (1 - serial) / workers)


def gustafson(serial: float, workers: float) -> float:
    """Return the speedup where the task grows with the workers and its serial part does not.

    N - s (N - 1), `serial` being a share of the parallel run's time; after J. L. Gustafson,
    CACM 31 (1988).

    Example:
        >>> round(gustafson(0.1, 16), 1)
        14.5
    """
    checked("serial", serial, most=1)
    checked("workers", workers, least=1)
    return workers - serial * (workers - 1)


class Usl(NamedTuple):
    """The Universal Scalability Law: X(N) = g N / (1 + a (N - 1) + b N (N - 1)).

    After N. J. Gunther, Guerrilla Capacity Planning (2007), chapter 4. `contention` is a, the share
    of work for which all wait in one queue; `coherency` is b, what it costs each to agree with
    every other; `one` is g, the throughput of one alone.

    Example:
        >>> law = Usl(contention=0.05, coherency=0.001, one=1.0)
        >>> round(law.peak), round(law.throughput(law.peak), 2)
        (31, 9.04)
    """

    contention: float
    coherency: float
    one: float

    def throughput(self, n: float) -> float:
        return self.one * n / (1 + self.contention * (n - 1) + self.coherency * n * (n - 1))

    @property
    def peak(self) -> float:
        """Where throughput is greatest; infinity if it never falls."""
        return sqrt((1 - self.contention) / self.coherency) if self.coherency else inf


def fit_usl(counts: Sequence[float], throughputs: Sequence[float]) -> Usl:
    """Fit the law: least squares of the relative error of N / X, no factor below 0.

    Raises:
        ConfigError: If there are fewer than four different counts, or a figure is not above 0.

    Example:
        >>> law = Usl(0.05, 0.001, 2.0)
        >>> ns = [1, 4, 16, 64]
        >>> [round(x, 6) for x in fit_usl(ns, [law.throughput(n) for n in ns])]
        [0.05, 0.001, 2.0]
    """
    n, x = np.asarray(counts, dtype=float), np.asarray(throughputs, dtype=float)
    if len(set(counts)) < 4 or n.shape != x.shape or (n <= 0).any() or (x <= 0).any():
        got = f"got {list(counts)} and {list(throughputs)}"
        raise ConfigError(f"a fit needs four different counts and throughputs above 0; {got}")
    # N / X is linear in the factors. Of three, two may be held at 0; the best allowed fit wins.
    columns = np.column_stack([np.ones_like(n), n - 1, n * (n - 1)]) / (n / x)[:, None]
    best, least = np.array([1 / x[0], 0.0, 0.0]), inf
    for free in ([0], [0, 1], [0, 2], [0, 1, 2]):
        factors = np.zeros(3)
        factors[free], *_ = np.linalg.lstsq(columns[:, free], np.ones_like(n), rcond=None)
        error = float(((columns @ factors - 1) ** 2).sum())
        if (factors >= 0).all() and factors[0] > 0 and error < least - 1e-15:
            best, least = factors, error
    one, contention, coherency = (float(factor) for factor in best)
    return Usl(contention / one, coherency / one, 1 / one)
