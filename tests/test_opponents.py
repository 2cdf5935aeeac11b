"""The peers' rules, step by step, against figures worked out by hand from their descriptions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.bench.trial import Fixed
from agentlab.errors import ConfigError
from agentlab.resilience.limiters import Adaptive
from agentlab.resilience.limiters._slots import Limiter, Sample

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from opponents import AIMD, Gradient2, Vegas

EVERY: list[Callable[[], Limiter]] = [lambda: Fixed(3), AIMD, Gradient2, Vegas, Adaptive]


def fed(limiter: Limiter, took_s: list[float], in_flight: int | None = None) -> list[int]:
    """The limits after each of these calls, one after the other; all seats are taken."""
    return [
        limiter.update(Sample(float(n), took, in_flight or limiter.limit))
        for n, took in enumerate(took_s)
    ]


def test_aimd_adds_one_and_takes_a_tenth():
    """10 and three good calls make 13; a refusal leaves 11, of a limit of 1 it leaves 1."""
    aimd = AIMD(initial=10, least=1)
    assert fed(aimd, [1, 1, 1]) == [11, 12, 13]
    assert aimd.update(Sample(4, 1, 13, refused=True)) == 11
    assert AIMD(initial=1, least=1).update(Sample(1, 1, 1, refused=True)) == 1


def test_aimd_stays_between_20_and_200():
    """Netflix's bounds: a refusal at 20 leaves 20, an answer at 200 leaves 200."""
    assert AIMD().update(Sample(1, 1, 20, refused=True)) == 20
    assert fed(AIMD(initial=199), [1, 1]) == [200, 200]


def test_aimd_cuts_the_fraction_off():
    """int(.9 x 25) = int(22.5) = 22."""
    assert AIMD(initial=25).update(Sample(1, 1, 25, refused=True)) == 22


def test_aimd_takes_slowness_for_a_refusal():
    """With Netflix's 5 s an answer of 6 s costs a tenth, and one of 5 s nothing; None lets both."""
    assert fed(AIMD(initial=30), [4, 6, 5]) == [31, 27, 28]
    assert fed(AIMD(initial=30, slow_s=None), [4, 6, 5]) == [31, 32, 33]


def test_gradient2_grows_by_its_queue_while_latency_is_flat():
    """Of 4 more, a fifth at each call: 20, 20.8, 21.6."""
    assert fed(Gradient2(), [1, 1, 1]) == [20, 21, 22]


@pytest.mark.parametrize(("took_s", "after"), [(2.0, 100), (5.0, 98), (9.0, 97)])
def test_gradient2_tolerates_half_as_much_again(took_s: float, after: int):
    """1 s and this: 1.5 of their mean, divided by this, is the gradient, and 1 at most.

    2 s: 2.25 / 2, so 100 would grow, but for its ceiling. 5 s: 4.5 / 5 = .9, which leaves
    .8 x 100 + .2 x (90 + 4) = 98.8. 9 s: 7.5 / 9 = .83, which leaves 97.5.
    """
    gradient = Gradient2(initial=100, most=100)
    gradient.update(Sample(1, 1, 1))  # too few in flight to change anything
    assert gradient.update(Sample(10, took_s, 100)) == after


def test_gradient2_shrinks_by_half_at_most():
    """Of any latency. 1 s ten times, then 1,000 s, which moves the long run by 2 / 601.

    So it is 1 + 999 x 2 / 601 = 4.32, 1.5 x 4.32 / 1000 is below .5, and 100 becomes
    .8 x 100 + .2 x (50 + 4) = 90.8.
    """
    gradient = Gradient2(initial=100)
    fed(gradient, [1.0] * 10, in_flight=1)  # too few in flight to change anything
    assert gradient.update(Sample(1010, 1000, 100)) == 90
    assert gradient.long_run_s == pytest.approx(1 + 999 * 2 / 601)


def test_gradient2_forgets_an_overload():
    """Its long run begins as a plain mean; after an overload that is over it loses 5% a call.

    10 and 1: the mean is 5.5, more than twice 1, so 5.225; gradient 1 all the same.
    """
    gradient = Gradient2(initial=100)
    fed(gradient, [10.0, 1.0], in_flight=1)
    assert gradient.long_run_s == pytest.approx(5.225)


def test_vegas_keeps_its_queue_between_three_and_six():
    """20 x (1 - quickest / this): 0 adds 6, 2 adds 1, 4 keeps, 7 takes 1."""
    for took_s, after in ((1.0, 26), (1 / 0.92, 21), (1 / 0.82, 20), (1 / 0.67, 19)):
        vegas = Vegas()
        assert fed(vegas, [1.0, took_s]) == [20, after]


def test_vegas_looks_for_a_new_quickest_answer():
    """After some 30 x limit calls, at the latest, the quickest is forgotten."""
    vegas = Vegas(initial=1, most=1)
    fed(vegas, [1.0] + [2.0] * 30)
    assert vegas.quickest_s == 2.0


@pytest.mark.parametrize("limiter", EVERY)
def test_a_limit_that_is_not_reached_does_not_grow(limiter: Callable[[], Limiter]):
    """With one call in flight of many allowed, nobody learns that more would be well."""
    adapted = limiter()
    fed(adapted, [1.0] * 50, in_flight=1)
    before = adapted.limit
    fed(adapted, [1.0] * 200, in_flight=1)
    assert adapted.limit <= max(before, 2)


@pytest.mark.parametrize("limiter", EVERY)
@given(
    calls=st.lists(
        st.tuples(st.floats(0, 1e4), st.integers(1, 50), st.booleans(), st.floats(0, 1e3)),
        max_size=80,
    )
)
def test_no_history_starves_anybody(
    limiter: Callable[[], Limiter], calls: list[tuple[float, int, bool, float]]
):
    """Whatever happened, answers that take no time included: at least 1, at most 1,000."""
    adapted, now_s = limiter(), 0.0
    for took_s, in_flight, refused, later_s in calls:
        now_s += later_s
        adapted.update(Sample(now_s, took_s, in_flight, refused))
        assert 1 <= adapted.limit <= 1000


@pytest.mark.parametrize("limiter", [AIMD, Gradient2, Vegas, Adaptive])
def test_none_exceeds_its_ceiling(limiter: Callable[..., Limiter]):
    """Nor does it begin above it."""
    low = limiter(most=5)
    assert max([low.limit, *fed(low, [1.0] * 100)]) <= 5


def test_numbers_fit_each_other():
    """Where it begins lies between 1 and the most."""
    with pytest.raises(ConfigError, match=r"most must be a whole number, at least 5 .*; got 4"):
        Adaptive(5, most=4)
