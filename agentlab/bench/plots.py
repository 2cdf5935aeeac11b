"""Results as pictures: of what was measured, and of what tunes itself."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from agentlab.bench.experiment import Case, varied
from agentlab.bench.fit import Pair, errors
from agentlab.bench.report import Curve, busy, curves, readings, seconds
from agentlab.bench.requests import Request
from agentlab.bench.results import Results, known, unequal
from agentlab.bench.summary import Window, last_of_each, percentile
from agentlab.bench.trial import LEAST_GOODPUT, MOST_P95, Outcome, Row
from agentlab.learning.regret import BLOCK, Scenario
from agentlab.plots import BROKEN, FONT_SIZE, SERIES, WAITING
from agentlab.settings import Capacity

Panel = Callable[[Axes], str]  # draws, and returns its title

_LOOK: Any = yaml.safe_load(Path(__file__).with_name("plots.yaml").read_text(encoding="utf-8"))
_COLOURS = (*SERIES, "#56B4E9", "#E69F00", "#000000")  # more of the palette of Okabe and Ito
_MARKERS = "osD^vX*"
_LARGEST_P95 = 10.0  # what is beyond is drawn at the edge
_WIDE = 100  # values further apart have a logarithmic axis


def figure(results: Results) -> Figure:
    """Draw what was measured, under a title that says what it shows.

    Where agents, calls in flight or a rate grow, curves, with the bound or the fitted scalability
    law, and a band from the least to the most of several runs; otherwise a bar for each case, with
    the bound marked on it.
    """
    found, unit = curves(results), "s" if results.real else "model s"
    panels: list[Panel]
    if found:
        look = _LOOK["curves"][found[0].axis]
        shared = {"found": found, "across": look["across"], "unit": unit}
        panels = [partial(_curves, look=panel, **shared) for panel in look["panels"]]
    else:
        figures = ("elapsed_s", "cpu_ms" if results.experiment.clock == "real" else "requests")
        panels = [partial(_bars, results=results, what=what, unit=unit) for what in figures]
    height = 6.5 if found else 0.5 * len(results.measured) + 3
    said = [*readings(results), results.experiment.about]
    # What is said of the baseline is no news.
    above = min(said, key=lambda line: line.startswith("sequential")).split(";")[0]
    if unequal(results.measurements):
        above = "Not comparable: the work was not the same"
    return _drawn(panels, above=above, below=busy(results), wide=6.5, high=height)


def _drawn(
    panels: Sequence[Panel], *, above: str = "", below: str = "", wide: float = 8, high: float = 6
) -> Figure:
    """Return a picture with these panels beside each other, and words above and below them."""
    with plt.rc_context(_LOOK["style"]):
        size, many = (wide * len(panels), high), len(panels)
        made, axes = plt.subplots(1, many, figsize=size, layout="constrained", squeeze=False)
        for axis, draw in zip(axes[0], panels, strict=True):
            axis.set_title(draw(axis))
            if axis.get_legend_handles_labels()[0]:
                axis.legend()
        made.suptitle(above, x=0.01, ha="left", fontweight="bold")
        made.supxlabel(below, x=0.01, ha="left", fontsize=FONT_SIZE - 4)
    plt.close(made)  # the notebook shows what a cell returns, once
    return made


def responses(results: Results, requests: Iterable[Request]) -> Figure:
    """Draw which share of the calls was answered how soon, a curve for each case, and the SLO."""
    window, slo = results.experiment.window or Window(), results.experiment.slo
    times_s: dict[Case, list[float]] = {case: [] for case in results.measured}
    for row in last_of_each(requests):
        case = results.measurements[row.run].case
        if case in times_s and row.ok and row.returned_s is not None and window.holds(row.due_s):
            times_s[case].append(row.returned_s - row.due_s)
    shown = {case: some_s for case, some_s in times_s.items() if some_s}

    def draw(axis: Axes) -> str:
        for number, (case, some_s) in enumerate(shown.items()):
            style: Any = {"color": _COLOURS[number % len(_COLOURS)], "linewidth": 3}
            style["linestyle"] = "-" if number < len(_COLOURS) else ":"
            axis.ecdf(some_s, label=case.named(varied(shown)), **style)
        if slo and slo.response_s:
            axis.axvline(slo.response_s, color="black", linestyle="--", label="the SLO")
        _log_if_wide(axis.xaxis, [time_s for some_s in shown.values() for time_s in some_s])
        unit = "s" if results.real else "model s"
        axis.set(xlabel=f"response time ({unit})", ylabel="share of the calls", ylim=(0, 1.02))
        if not shown:
            axis.plot([], [], label="nothing")
            return "No call inside the window was answered"
        p99_s = [percentile(some_s, 99) for some_s in shown.values()]
        ends = dict.fromkeys(seconds(time_s, 2, digits=2) for time_s in (min(p99_s), max(p99_s)))
        return f"99% are answered within {' to '.join(ends)} s"

    return _drawn([draw])


def _log_if_wide(axis: Axis, values: Iterable[float]) -> None:
    above = [value for value in values if value > 0]
    if above and max(above) > _WIDE * min(above):
        _log(axis, ticks=(1,))


def _log(axis: Axis, ticks: Sequence[int] = (1, 2, 5)) -> None:
    """Make an axis logarithmic, with ticks close enough to read a value off."""
    axis.axes.set(**{"xscale" if isinstance(axis, XAxis) else "yscale": "log"})
    axis.set_major_locator(LogLocator(subs=ticks))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter("")


def _curves(axis: Axes, *, found: Sequence[Curve], look: Any, across: str, unit: str) -> str:
    for (what, prefix), line in zip(look["lines"].items(), "-:", strict=False):
        for curve, colour, marker in zip(found, cycle(SERIES), cycle(_MARKERS), strict=False):
            points = [p for p in curve.points if getattr(p, what) is not None]
            ns, spread = [p.n for p in points], [known(p.runs, what) for p in points]
            style: Any = {"color": colour, "marker": marker, "linestyle": line, "linewidth": 3}
            if points:
                axis.plot(ns, [*map(median, spread)], label=prefix + curve.name, **style)
                ends = [*map(min, spread)], [*map(max, spread)]
                axis.fill_between(ns, *ends, color=colour, alpha=0.25, linewidth=0)
    axis.set(xlabel=across, ylabel=look["y"].format(unit=unit))
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:,g}")
    if look.get("log"):
        _log(axis.yaxis)
    else:
        axis.set_ylim(0, look.get("most"))
    if look.get("line") == "bound":
        # What is the least of several runs' bounds is a bound for each of them.
        points = [p for curve in found for p in curve.points]
        ns = sorted({p.n for p in points})
        least = [min(p.bound_s for p in points if p.n == n) for n in ns]
        label = " to ".join(dict.fromkeys(f"{bound_s:.3g}" for bound_s in (least[0], least[-1])))
        axis.plot(ns, least, color="black", linestyle="--", label=f"the bound: {label}")
    elif look.get("line") == "law":
        label = "scalability law, fitted"
        for curve in found:
            if (fit := curve.usl) is not None and not fit.refused:
                ns = [p.n for p in curve.points]
                xs = [fit.law.throughput(n) for n in ns]
                axis.plot(ns, xs, color="black", linestyle="--", label=label, zorder=3)
                label = "_"  # one line in the legend stands for all
    return str(look["title"])


def _bars(axis: Axes, *, results: Results, what: str, unit: str) -> str:
    cases = results.measured
    for place, case in enumerate(cases):
        values = known(results.of(case), what) or [0.0]
        axis.barh(place, median(values), color=SERIES[0], height=0.7)
        if len(values) > 1:
            axis.plot([min(values), max(values)], [place, place], "-|", color=BROKEN, linewidth=2)
    _log_if_wide(axis.xaxis, known(results.measurements, what))
    names = [case.named(varied(cases)) if what == "elapsed_s" else "" for case in cases]
    if what == "elapsed_s":
        bounds = [median(known(results.of(case), "bound_s")) for case in cases]
        axis.plot(bounds, range(len(cases)), "|", color="black", markersize=22)
    axis.set_yticks(range(len(cases)), names)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    title, label = _LOOK["bars"][what]
    axis.set_xlabel(label.format(unit=unit))
    return str(title)


def limits(
    outcomes: Mapping[str, Outcome], run_s: float, *, slots: Sequence[Capacity], title: str
) -> Figure:
    """Draw what each limiter decided in a run, beside the endpoint's slots."""

    def step(axis: Axes, changes: Iterable[tuple[float, int]], **style: Any) -> None:
        at_s, numbers = zip(*changes, strict=True)
        axis.step([*at_s, run_s], [*numbers, numbers[-1]], where="post", **style)

    def draw(axis: Axes) -> str:
        for (name, outcome), colour in zip(outcomes.items(), _COLOURS, strict=False):
            step(axis, outcome.limits, color=colour, linewidth=2, label=name)
        there = [(change.from_s, change.slots) for change in slots]
        step(axis, there, color="black", linestyle="--", label="the endpoint's slots")
        axis.set(xlabel="model time (s)", ylabel="calls in flight, at most")
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter("{x:g}")
        return title

    return _drawn([draw])


def limiters(rows: Sequence[Row], title: str) -> Figure:
    """Draw each limiter in each scenario as a point: right is more goodput, low a shorter p95."""
    return _drawn([partial(_limiters, rows=rows, title=title)])


def _limiters(axis: Axes, rows: Sequence[Row], title: str) -> str:
    most = 1.02 * max(1.1, *(row.of_best_goodput for row in rows))
    low = 0.9 * min(0.5, *(row.of_best_p95 for row in rows))
    axis.add_patch(Rectangle((LEAST_GOODPUT, low), most, MOST_P95 - low, color=WAITING, alpha=0.5))
    names = dict.fromkeys(row.limiter for row in rows)
    for name, colour, marker in zip(names, _COLOURS, _MARKERS, strict=False):
        of = [row for row in rows if row.limiter == name]
        x = [row.of_best_goodput for row in of]
        y = [min(row.of_best_p95, _LARGEST_P95) for row in of]
        axis.scatter(x, y, color=colour, marker=marker, s=70, label=name, zorder=3)
    axis.set(xlim=(0, most), ylim=(low, _LARGEST_P95 * 1.1), yscale="log", **_LOOK["limiters"])
    axis.set_yticks([tick for tick in (0.1, 0.3, 0.5, 1, 2, 5, 10) if tick >= low])
    axis.yaxis.set_major_formatter("{x:g}")
    return title


def learning(scenario: Scenario, title: str) -> Figure:
    """Draw what each policy earns over time, as a share of an oracle's earnings."""
    return _drawn([partial(_learning, scenario=scenario, title=title)])


def _learning(axis: Axes, scenario: Scenario, title: str) -> str:
    drawn = zip(scenario.policies.items(), _COLOURS, _MARKERS, strict=False)
    for (name, curve), colour, marker in drawn:
        runs = [BLOCK * block for block in range(1, len(curve.curve) + 1)]
        label = f"{name}: {curve.share:.2f} ({curve.least_share:.2f} to {curve.most_share:.2f})"
        axis.plot(runs, curve.curve, color=colour, marker=marker, label=label)
    if scenario.shift_at is not None:
        ends = [scenario.shift_at] * 2, [0.72, 1.05]  # the legend is below
        axis.plot(*ends, color="black", linestyle="--", label="skills shift")
    axis.axhline(1, color="black", linewidth=1)
    axis.set(xlabel="runs", ylabel="share of the oracle (quality SIMULATED)", ylim=(0.5, 1.05))
    return title


def agreement(pairs: Sequence[Pair]) -> Figure:
    """Draw what a fit predicts against what was measured: on the line, both are equal."""

    def draw(axis: Axes, *, number: int, unit: str) -> str:
        predicted, measured = np.array(pairs)[:, :, number].T
        ends = [np.min([predicted, measured]), np.max([predicted, measured])]
        axis.plot(ends, ends, color=WAITING, zorder=1)
        axis.scatter(measured, predicted, color=SERIES[0], s=24, zorder=2)
        axis.set(xscale="log", yscale="log", xlabel=f"measured {unit}", ylabel="predicted")
        return f"{errors(pairs)[number][0]:.0%} off at the median"

    panels = [partial(draw, number=n, unit=unit) for n, unit in enumerate(_LOOK["agreement"])]
    above = "What the fit predicts of requests it has not seen"
    return _drawn(panels, above=above, wide=4.3, high=4.6)
