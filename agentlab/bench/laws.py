"""What theory says about speedup, and how one of the laws is fitted to measurements."""

from collections.abc import Sequence
from itertools import chain, combinations
from math import inf, sqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agentlab._support.fields import checked
from agentlab.errors import ConfigError

Floats = npt.NDArray[np.float64]

_FEWEST = 4  # different counts, for three factors
_SATURATED = 0.9  # of the greatest throughput: from there on a curve is saturated
_FITS = 0.02  # an error up to this is no reason to refuse a law
_BINDS = 0.1  # by so much more throughput would grow if there were no limit


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

    def throughput(self, n: Any) -> Any:
        """Return X(N), of a number or of an array of them."""
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
    if len(set(counts)) < _FEWEST or n.shape != x.shape or (n <= 0).any() or (x <= 0).any():
        got = f"got {list(counts)} and {list(throughputs)}"
        raise ConfigError(f"a fit needs four different counts and throughputs above 0; {got}")
    return _fitted(_columns(n, x))


def _columns(n: Floats, x: Floats) -> Floats:
    """Return what N / X is made of, as shares of it: it is linear in the factors."""
    return np.column_stack([np.ones_like(n), n - 1, n * (n - 1)]) / (n / x)[:, None]


def _fitted(columns: Floats) -> Usl:
    factors = least_squares(columns, np.ones(len(columns)))
    one, contention, coherency = np.maximum(factors, [1e-12, 0, 0]).tolist()  # one alone has some
    return Usl(contention / one, coherency / one, 1 / one)


def least_squares(columns: Floats, wanted: Floats) -> Floats:
    """Return the x with no part below 0 for which `columns @ x` is nearest to what is wanted.

    Some of its parts are 0, and the others are those of plain least squares, so all are tried.
    """
    many = columns.shape[1]
    best, least = np.zeros(many), inf
    for used in chain.from_iterable(combinations(range(many), n) for n in range(1, many + 1)):
        found = np.zeros(many)
        found[list(used)] = np.linalg.lstsq(columns[:, used], wanted, rcond=None)[0]
        error = float(((columns @ found - wanted) ** 2).sum())
        if (found >= 0).all() and error < least - 1e-15:
            best, least = found, error
    return best


class UslFit(NamedTuple):
    """The law as fitted to the counts from `least` to `most`, with its largest relative error.

    Where `refused` says why, the law does not describe the curve, and its factors mean nothing.
    """

    law: Usl
    least: float
    most: float
    error: float
    refused: str

    def __str__(self) -> str:
        if self.refused:
            return f"no scalability law: {self.refused}"
        factors = f"contention {self.law.contention:.2g}, coherency {self.law.coherency:.2g}"
        return f"{factors}, fitted from {self.least:g} to {self.most:g} within {self.error:.1%}"


def fit_and_judge(counts: Sequence[float], throughputs: Sequence[float]) -> UslFit | None:
    """Fit the law, and judge it; None for fewer than four counts, or a throughput of nothing.

    Slots bend a curve where no smooth law does, and a fit through the bend calls them coherency. So
    it is refused where a limit explains the curve better: contention below saturation (90% of the
    greatest throughput), and from there on the same throughput. It is also refused if it is more
    than 2% off and its residuals are systematic: neighbours are more alike than 99% of random ones,
    by the statistic of Durbin and Watson, Biometrika 37 (1950).

    Example:
        >>> law, ns = Usl(0.05, 0.001, 1.0), [1, 2, 4, 8, 16, 32, 64]
        >>> print(fit_and_judge(ns, [law.throughput(n) for n in ns]))
        contention 0.05, coherency 0.001, fitted from 1 to 64 within 0.0%
        >>> print(fit_and_judge(ns, [min(n, 20) for n in ns]))
        no scalability law: from 32 on a limit holds, such as slots
    """
    if len(set(counts)) < _FEWEST or min(throughputs) <= 0:
        return None
    n, x = np.array(sorted(zip(counts, throughputs, strict=True)), dtype=float).T
    law, columns = fit_usl(n.tolist(), x.tolist()), _columns(n, x)
    off = x / law.throughput(n) - 1  # the relative error of N / X, which is what was fitted
    error, refused, below = float(abs(off).max()), "", int(np.argmax(x >= _SATURATED * x.max()))
    if len(set(n[:below])) > 1:
        free = _fitted(columns[:below] * [1, 1, 0]).throughput(n)
        most = x[below:].mean()
        better = ((x / np.minimum(free, most) - 1) ** 2).sum() < (off**2).sum()
        if better and free[-1] > most * (1 + _BINDS):
            refused = f"from {n[below]:g} on a limit holds, such as slots"
    if not refused and error > _FITS and _systematic(columns, off):
        refused = f"the best fit is off by up to {error:.0%}, systematically"
    return UslFit(law, n[0], n[-1], error, refused)


def _systematic(columns: Floats, residuals: Floats) -> bool:
    """Return True if neighbours are more alike than 99% of what a fit leaves of random errors."""
    leaves = np.eye(len(columns)) - columns @ np.linalg.pinv(columns)
    drawn = leaves @ np.random.default_rng(7).standard_normal((len(columns), 10_000))
    both = np.column_stack([residuals, drawn])
    d = (np.diff(both, axis=0) ** 2).sum(axis=0) / (both**2).sum(axis=0)
    return float((d[1:] < d[0] * (1 + 1e-9)).mean()) < 0.01
