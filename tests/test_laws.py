"""The laws of speedup, against their published figures and against made-up data."""

from __future__ import annotations

from math import inf
from random import Random

import pytest

from agentlab.bench.laws import Usl, amdahl, fit_usl, gustafson
from agentlab.errors import ConfigError


def test_amdahl_has_a_limit():
    """Whatever the number of workers, a tenth of serial work lets no speedup reach ten."""
    assert amdahl(0.1, 16) == pytest.approx(6.4)
    assert 9.99 < amdahl(0.1, 10**5) < 10
    assert amdahl(0, 16) == 16
    assert amdahl(1, 16) == 1


def test_gustafson_has_none():
    """The same share, of a task that grows with the workers."""
    assert gustafson(0.1, 16) == pytest.approx(14.5)
    assert gustafson(0.1, 10**5) > 9 * 10**4


@pytest.mark.parametrize(
    "law", [Usl(0, 0, 3), Usl(0.1, 0, 3), Usl(0, 0.01, 3), Usl(0.05, 0.001, 0.2)]
)
def test_a_fit_finds_the_law_that_made_the_data(law):
    """Exactly without noise, and within a tenth with 1% of it."""
    counts = [1, 2, 4, 8, 16, 32, 64]
    exact = fit_usl(counts, [law.throughput(n) for n in counts])
    assert exact == pytest.approx(law, abs=1e-9)
    draw = Random(7)
    noisy = fit_usl(counts, [law.throughput(n) * draw.uniform(0.99, 1.01) for n in counts])
    assert noisy.throughput(64) == pytest.approx(law.throughput(64), rel=0.02)
    assert min(noisy.contention, noisy.coherency) >= 0


def test_no_factor_is_below_zero():
    """Data better than linear would want one; the fit stays at linear growth."""
    law = fit_usl([1, 2, 4, 8], [1.0, 2.1, 4.4, 9.2])
    assert (law.contention, law.coherency, law.peak) == (0, 0, inf)


@pytest.mark.parametrize(
    ("counts", "throughputs"), [([1, 2, 3], [1, 2, 3]), ([1, 2, 3, 4], [1, 2, 0, 4])]
)
def test_too_little_to_fit_is_refused(counts, throughputs):
    """Three points, or a throughput of nothing."""
    with pytest.raises(ConfigError, match="four different counts"):
        fit_usl(counts, throughputs)


def test_shares_and_workers_are_checked():
    """A share above one is none."""
    with pytest.raises(ConfigError, match=r"got 1\.5"):
        amdahl(1.5, 4)
