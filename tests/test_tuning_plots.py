"""Pictures of what tunes itself: nothing that was measured is left out of them."""

from __future__ import annotations

import pytest

from agentlab.bench import plots
from agentlab.bench.trial import Outcome, Row
from agentlab.settings import Capacity


def row(limiter: str, goodput: float, p95: float) -> Row:
    return Row("16 slots", limiter, 1.0, 1.0, goodput, p95, 1.0, 16, 29)


def test_slots_are_drawn_as_they_change():
    """16 at first, 8 from 120 s to the end, dashed; the limit is drawn to the end as well."""
    slots = [Capacity(from_s=0, slots=16), Capacity(from_s=120, slots=8)]
    outcome = Outcome(1.0, 1.0, 9, 9, [(0.0, 1), (3.0, 2)])
    figure = plots.limits({"mine": outcome}, 240, slots=slots, title="My words")
    limit, there = figure.axes[0].get_lines()
    assert list(limit.get_xydata()[-1]) == [240, 2]
    assert [list(point) for point in there.get_xydata()] == [[0, 16], [120, 8], [240, 8]]
    assert there.get_linestyle() == "--"
    assert figure.axes[0].get_title(loc="left") == "My words"


@pytest.mark.parametrize("least", [0.2, 0.6, 1.1])
def test_every_limiter_is_in_the_picture(least):
    """The axes begin below the shortest p95, and end above what is drawn at the edge."""
    figure = plots.limiters([row("a", 0.1, least), row("b", 1.2, 50.0)], "My words")
    axis = figure.axes[0]
    low, high = axis.get_ylim()
    left, right = axis.get_xlim()
    for points in axis.collections:
        [(x, y)] = points.get_offsets().tolist()
        assert left <= x <= right
        assert low < y < high
    assert low <= 0.5
