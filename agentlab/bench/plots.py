"""Results as pictures: curves where one number grows, bars where nothing does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agentlab.bench.report import Curve, Point, axes, busy, curves, readings
from agentlab.bench.results import Measurement, Results, unequal
from agentlab.plots import BROKEN, FONT_SIZE, SERIES

_MARKERS = "osD^"
_MOST_SAID = 4


def figure(results: Results) -> Figure:
    """Draw what was measured, under a title that says what it shows.

    Where the number of agents grows: how long they took, and the share of that which is the
    bound. Where the number in flight grows: answers a second, with the scalability law fitted to
    them, and how long an answer takes. Otherwise a bar for each case, with the bound marked on it.

    Example:
        bench.plots.figure(results.load("results/knee.json")).savefig("knee.png")
    """
    found = curves(results)
    unit = "s" if results.real else "model s"
    with plt.rc_context({"font.size": FONT_SIZE, "axes.grid": True, "grid.color": "#DDDDDD"}):
        made = _curves(found, unit) if found else _bars(results, unit)
        said = readings(results)[:_MOST_SAID] or [results.experiment.about]
        said += filter(None, [busy(results)])
        if unequal(results.measurements):
            said = ["Not comparable: the work was not the same", *said]
        made.suptitle("\n".join(said), x=0.01, ha="left", fontweight="bold", fontsize=FONT_SIZE)
    plt.close(made)  # the notebook shows what a cell returns, once
    return made


def _curves(found: Sequence[Curve], unit: str) -> Figure:
    made, (left, right) = plt.subplots(1, 2, figsize=(13, 6.5), layout="constrained")
    draw = _in_flight if found[0].axis == "max_concurrency" else _agents
    draw(left, right, found, unit)
    left.set_yscale("log", base=2)
    left.yaxis.set_major_formatter("{x:,g}")
    left.yaxis.set_minor_formatter("")
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.legend(frameon=False, fontsize=FONT_SIZE - 2)
    return made


def _agents(left: Axes, right: Axes, found: Sequence[Curve], unit: str) -> None:
    _lines(left, found, lambda p: p.elapsed_s)
    # What is the least of several runs' bounds is a bound for each of them.
    points = [p for curve in found for p in curve.points]
    least = {n: min(p.bound_s for p in points if p.n == n) for n in sorted({p.n for p in points})}
    left.plot([*least], [*least.values()], color="black", linestyle="--", label="the bound")
    left.set(xlabel="agents", ylabel=f"elapsed ({unit})", title="How long they took")
    _lines(right, found, lambda p: p.efficiency)
    right.set(xlabel="agents", ylabel="bound / elapsed", title="Share of the bound", ylim=(0, 1.05))


def _in_flight(left: Axes, right: Axes, found: Sequence[Curve], unit: str) -> None:
    _lines(left, found, lambda p: p.throughput)
    law: str | None = "scalability law, fitted"
    for curve in found:
        if curve.usl is not None:
            xs = [p.n for p in curve.points]
            ys = [curve.usl.throughput(x) for x in xs]
            left.plot(xs, ys, color="black", linestyle="--", label=law, zorder=3)
            law = None  # one line in the legend stands for all
    left.set(xlabel="in flight at once", ylabel="answers a second", title="Throughput")
    _lines(right, found, lambda p: p.p50_s, "p50 of ")
    _lines(right, found, lambda p: p.p95_s, "p95 of ", linestyle=":")
    right.set(xlabel="in flight at once", ylabel=f"latency ({unit})", title="Time to an answer")
    right.set_ylim(bottom=0)


def _lines(
    axis: Axes,
    found: Sequence[Curve],
    value: Callable[[Point], float | None],
    prefix: str = "",
    linestyle: str = "-",
) -> None:
    for number, curve in enumerate(found):
        known = [(p.n, y) for p in curve.points if (y := value(p)) is not None]
        if known:
            axis.plot(
                *zip(*known, strict=True),
                color=SERIES[number % len(SERIES)],
                marker=_MARKERS[number % len(_MARKERS)],
                linestyle=linestyle,
                linewidth=3,
                label=prefix + curve.name,
            )


def _bars(results: Results, unit: str) -> Figure:
    cases = results.measured
    runs = [results.of(case) for case in cases]
    made, (left, right) = plt.subplots(
        1, 2, figsize=(13, 0.5 * len(cases) + 3), sharey=True, layout="constrained"
    )
    _bar(left, runs, lambda m: m.elapsed_s)
    bounds = [median(m.bound_s for m in some) for some in runs]
    left.plot(bounds, range(len(runs)), "|", color="black", markersize=22, label="the bound")
    left.set(xlabel=f"elapsed ({unit})", title="How long they took")
    left.set_yticks(range(len(cases)), [case.named(axes(results)) for case in cases])
    left.invert_yaxis()
    made.legend(loc="outside lower left", frameon=False, fontsize=FONT_SIZE - 2)
    if results.experiment.clock == "real":
        _bar(right, runs, lambda m: m.cpu_ms or 0)
        right.set(xlabel="processor time (ms a request)", title="What the client costs")
    else:
        _bar(right, runs, lambda m: m.requests)
        right.set(xlabel="requests", title="What the endpoint saw")
    for axis in (left, right):
        axis.grid(axis="y", visible=False)
        axis.set_axisbelow(True)
    return made


def _bar(
    axis: Axes, runs: Sequence[Sequence[Measurement]], value: Callable[[Measurement], float]
) -> None:
    """Draw a bar for the median, and a line from least to most."""
    for place, measured in enumerate(runs):
        values = [value(m) for m in measured]
        axis.barh(place, median(values), color=SERIES[0], height=0.7)
        if len(values) > 1:
            axis.plot([min(values), max(values)], [place, place], "-|", color=BROKEN, linewidth=2)
