"""Pictures of what tunes itself: limits over time, limiters judged, what a bandit earns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from agentlab.bench.self_tuning import TuningResults
from agentlab.bench.trial import LEAST_GOODPUT, MOST_P95, Outcome, Row
from agentlab.learning.regret import BLOCK, Scenario
from agentlab.plots import FONT_SIZE, SERIES, WAITING
from agentlab.settings import Capacity

_COLOURS = (*SERIES, "#56B4E9", "#E69F00", "#000000")  # more of the palette of Okabe and Ito
_MARKERS = "osD^vX*"
_LARGEST_P95 = 10.0  # what is beyond is drawn at the edge


def figure(measured: TuningResults) -> Figure:
    """Draw limiters in all scenarios, and what policies earn over time: one panel per picture."""
    curves = [partial(_learning, scenario=scenario) for scenario in measured.learning]
    return _drawn([partial(_limiters, rows=measured.limits), *curves])


def limits(
    outcomes: Mapping[str, Outcome], run_s: float, *, slots: Sequence[Capacity], title: str
) -> Figure:
    """Draw what each limiter decided over the time of a run, beside the endpoint's slots.

    Args:
        outcomes: Name -> what `trial.run` gave.
        slots: How many there were, and from when: the scenario's `capacity`.

    Example:
        plots.limits(
            {"adaptive": run(Adaptive(), some)}, some.run_s, slots=some.capacity, title="It follows"
        )
    """

    def draw(axis: Axes) -> str:
        for (name, outcome), colour in zip(outcomes.items(), _COLOURS, strict=False):
            _steps(axis, outcome.limits, run_s, color=colour, linewidth=2, label=name)
        there = [(change.from_s, change.slots) for change in slots]
        _steps(axis, there, run_s, color="black", linestyle="--", label="the endpoint's slots")
        axis.set(xlabel="model time (s)", ylabel="calls in flight, at most")
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter("{x:g}")
        return title

    return _drawn([draw])


def limiters(rows: Sequence[Row], title: str) -> Figure:
    """Draw each limiter in each scenario as a point: right is more goodput, low a shorter p95."""
    return _drawn([partial(_limiters, rows=rows)], title)


def learning(scenario: Scenario, title: str) -> Figure:
    """Draw what each policy earns over time, as a share of an oracle's earnings."""
    return _drawn([partial(_learning, scenario=scenario)], title)


def _drawn(panels: Sequence[Callable[[Axes], str]], title: str | None = None) -> Figure:
    """Return a picture with these panels beside each other; each returns the title that it has."""
    with plt.rc_context({"font.size": FONT_SIZE, "axes.grid": True, "grid.color": "#DDDDDD"}):
        size = (8 * len(panels), 6)
        made, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
        plt.close(made)  # the notebook shows what a cell returns, once
        for axis, draw in zip(axes[0], panels, strict=True):
            said = draw(axis)
            axis.set_title(title or said, loc="left", fontweight="bold", fontsize=FONT_SIZE + 2)
            axis.legend(frameon=False, fontsize=FONT_SIZE - 2)
    return made


def _limiters(axis: Axes, rows: Sequence[Row]) -> str:
    """Draw limiters as points, and what passes as a box."""
    most = 1.02 * max(1.1, *(row.of_best_goodput for row in rows))
    low = 0.9 * min(0.5, *(row.of_best_p95 for row in rows))
    box = Rectangle((LEAST_GOODPUT, low), most, MOST_P95 - low, color=WAITING, alpha=0.5)
    axis.add_patch(box)
    names = dict.fromkeys(row.limiter for row in rows)
    for name, colour, marker in zip(names, _COLOURS, _MARKERS, strict=False):
        of = [row for row in rows if row.limiter == name]
        x = [row.of_best_goodput for row in of]
        y = [min(row.of_best_p95, _LARGEST_P95) for row in of]
        axis.scatter(x, y, color=colour, marker=marker, s=70, label=name, zorder=3)
    axis.set(xlim=(0, most), ylim=(low, _LARGEST_P95 * 1.1), yscale="log")
    axis.set(xlabel="goodput, of the best static limit's", ylabel="p95, of the best static limit's")
    axis.set_yticks([tick for tick in (0.1, 0.3, 0.5, 1, 2, 5, 10) if tick >= low])
    axis.yaxis.set_major_formatter("{x:g}")
    passed = {n: [row.passes for row in rows if row.limiter == n] for n in names}
    best = max(passed, key=lambda name: sum(passed[name]))
    return f"{best}: {sum(passed[best])} of {len(passed[best])} in the box"


def _learning(axis: Axes, scenario: Scenario) -> str:
    drawn = zip(scenario.policies.items(), _COLOURS, _MARKERS, strict=False)
    for (name, curve), colour, marker in drawn:
        runs = [BLOCK * block for block in range(1, len(curve.curve) + 1)]
        axis.plot(runs, curve.curve, color=colour, marker=marker, label=name)
    if scenario.shift_at is not None:
        axis.axvline(scenario.shift_at, color="black", linestyle="--", label="skills shift")
    axis.axhline(1, color="black", linewidth=1)
    axis.set(xlabel="runs", ylabel="share of the oracle (quality SIMULATED)", ylim=(0.5, 1.05))
    name, curve = next(iter(scenario.policies.items()))
    return f"{scenario.name}: {name} earns {curve.share:.2f} of the oracle"


def _steps(axis: Axes, changes: Iterable[tuple[float, int]], run_s: float, **style: Any) -> None:
    """Draw what a number was, from each change to the next, until the end of the run."""
    at_s, numbers = zip(*changes, strict=True)
    axis.step([*at_s, run_s], [*numbers, numbers[-1]], where="post", **style)
