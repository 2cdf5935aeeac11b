"""The laws of speedup, against their published figures and against made-up data."""

from __future__ import annotations

from math import inf
from random import Random

import numpy as np
import pytest

from agentlab.bench import laws, report, results
from agentlab.bench.laws import Usl, amdahl, fit_and_judge, fit_usl, gustafson
from agentlab.errors import ConfigError
from agentlab.settings import DATA

COUNTS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
LAW = Usl(0.05, 0.001, 2.0)


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


def curve(throughput, noise=0.0, seed=7):
    """Throughputs at COUNTS, each off by its own random error of this relative size."""
    draw = Random(seed)
    return [throughput(n) * (1 + noise * draw.gauss(0, 1)) for n in COUNTS]


def test_a_pure_law_is_found_again_with_its_range():
    """Whatever is retrograde belongs to it: nothing else shows coherency."""
    fit = fit_and_judge(COUNTS, curve(LAW.throughput))
    assert fit is not None and not fit.refused
    assert fit.law == pytest.approx(LAW, rel=1e-6)
    assert (fit.least, fit.most, round(fit.error, 9)) == (1, 256, 0)


@pytest.mark.parametrize("slots", [20, 70, 88, 100])
def test_slots_are_no_coherency(slots):
    """Where throughput grows with what is in flight, and then stays, the law is refused."""
    fit = fit_and_judge(COUNTS, curve(lambda n: 3.0 * min(n, slots)))
    assert fit is not None
    at = next(n for n in COUNTS if n >= 0.9 * slots)
    assert fit.refused == f"from {at} on a limit holds, such as slots"
    assert "coherency" not in str(fit)


@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_noise_alone_refuses_few_laws_and_saves_few_limits(noise):
    """Of 200 draws: at most one law in 25 is refused, and at most one limit in 25 is not."""
    refused = {"law": 0, "limit": 0}
    contention = []
    for seed in range(200):
        fit = fit_and_judge(COUNTS, curve(LAW.throughput, noise, seed))
        limit = fit_and_judge(COUNTS, curve(lambda n: min(n, 88), noise, seed))
        assert fit is not None and limit is not None
        refused["law"] += bool(fit.refused)
        refused["limit"] += "such as slots" in limit.refused
        contention.append(fit.law.contention)
    assert refused["law"] <= 8
    assert refused["limit"] >= 192
    assert sum(contention) / 200 == pytest.approx(LAW.contention, rel=0.05)


def test_residuals_that_wave_are_systematic():
    """A curve that grows in two stages is no law; as much off by chance, it may be one."""
    staged = [n * (1.0 if n < 16 else 0.6) for n in COUNTS]
    fit = fit_and_judge(COUNTS, staged)
    assert fit is not None
    assert fit.refused.endswith("systematically")


def test_the_residuals_test_keeps_its_level():
    """Of 400 laws with random errors it calls about one in a hundred systematic: 12 at most."""
    columns = laws._columns(np.array(COUNTS, dtype=float), np.array(curve(LAW.throughput)))
    draw = np.random.default_rng(1)
    leaves = np.eye(len(COUNTS)) - columns @ np.linalg.pinv(columns)
    of = [leaves @ draw.standard_normal(len(COUNTS)) for _ in range(400)]
    assert sum(laws._systematic(columns, one) for one in of) <= 12


def test_fewer_than_four_counts_are_not_fitted():
    """Three factors go through three points, whatever they are."""
    assert fit_and_judge([1, 2, 4], [1, 2, 3]) is None
    assert fit_and_judge([1, 2, 4, 8], [1, 2, 3, 0.0]) is None  # of runs that took no time


def test_knee_no_longer_calls_slots_coherency():
    """The reference: one model ends at its slots, and the other never does."""
    small, large = report.readings(results.load(DATA / "results" / "knee.json"))
    assert "no scalability law: from 128 on a limit holds, such as slots" in small
    assert "contention 0.0032, coherency 0, fitted from 1 to 256 within 0.0%" in large
