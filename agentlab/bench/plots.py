"""Results as pictures: of what was measured, and of what tunes itself."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import cycle
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from agentlab.bench.experiment import Case, varied
from agentlab.bench.fit import Pair, errors
from agentlab.bench.report import Curve, busy, curves, readings, seconds
from agentlab.bench.requests import Request
from agentlab.bench.results import Measurement, Results, unequal
from agentlab.bench.summary import Window, percentile
from agentlab.bench.trial import LEAST_GOODPUT, MOST_P95, Outcome, Row
from agentlab.learning.regret import BLOCK, Scenario
from agentlab.plots import BROKEN, FONT_SIZE, SERIES, WAITING
from agentlab.settings import Capacity

_STYLE: Any = {"font.size": FONT_SIZE, "axes.grid": True, "grid.color": "#DDDDDD"}
_COLOURS = (*SERIES, "#56B4E9", "#E69F00", "#000000")  # more of the palette of Okabe and Ito
_MARKERS = "osD^vX*"
_LARGEST_P95 = 10.0  # what is beyond is drawn at the edge
_PANELS: dict[str, Any] = {  # x; twice a title, y, and lines: a figure, its prefix, its style
    "agents": ("agents",
        ("How long they took", "elapsed ({unit})", [("elapsed_s", "", "-")]),
        ("Share of the bound", "bound / elapsed", [("efficiency", "", "-")])),
    "max_concurrency": ("in flight",
        ("Throughput", "answers per second", [("throughput", "", "-")]),
        ("Time to an answer", "service time ({unit})",
            [("p50_s", "p50 of ", "-"), ("p95_s", "p95 of ", ":")])),
    "rate": ("arrivals per second",
        ("Throughput", "answers per second",
            [("throughput", "", "-"), ("goodput", "within the SLO: ", ":")]),
        ("How long callers wait", "response time ({unit})",
            [("response_p50_s", "p50 of ", "-"), ("response_p99_s", "p99 of ", ":")])),
}  # fmt: skip
_WIDE = 100  # values further apart have a logarithmic axis


def figure(results: Results) -> Figure:
    """Draw what was measured, under a title that says what it shows.

    Where agents, calls in flight or a rate grow, curves, with the bound or the fitted scalability
    law, and a band from the least to the most of several runs; otherwise a bar for each case, with
    the bound marked on it.
    """
    found = curves(results)
    unit = "s" if results.real else "model s"
    with plt.rc_context(_STYLE):
        made = _curves(found, unit) if found else _bars(results, unit)
        title = _title(results)
        made.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=FONT_SIZE)
        made.supxlabel(busy(results), x=0.01, ha="left", fontsize=FONT_SIZE - 4)
    plt.close(made)  # the notebook shows what a cell returns, once
    return made


def _title(results: Results) -> str:
    if unequal(results.measurements):
        return "Not comparable: the work was not the same"
    said = [*readings(results), results.experiment.about]
    said.sort(key=lambda line: line.startswith("sequential"))  # the baseline is no news
    return said[0].split(";")[0]


def responses(results: Results, requests: Iterable[Request]) -> Figure:
    """Draw which share of the calls was answered how soon, a curve for each case, and the SLO."""
    window, slo = results.experiment.window or Window(), results.experiment.slo
    times_s: dict[Case, list[float]] = {case: [] for case in results.measured}
    for row in {(row.run, row.call): row for row in requests}.values():
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
    known = [value for value in values if value > 0]
    if known and max(known) > _WIDE * min(known):
        _log(axis, ticks=(1,))


def _log(axis: Axis, ticks: Sequence[int] = (1, 2, 5)) -> None:
    """Make an axis logarithmic, with ticks close enough to read a value off."""
    axis.axes.set(**{"xscale" if isinstance(axis, XAxis) else "yscale": "log"})
    axis.set_major_locator(LogLocator(subs=ticks))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter("")


def _curves(found: Sequence[Curve], unit: str) -> Figure:
    made, (left, right) = plt.subplots(1, 2, figsize=(13, 6.5), layout="constrained")
    across, *panels = _PANELS[found[0].axis]
    for axis, (title, label, lines) in zip((left, right), panels, strict=True):
        for field, prefix, line in lines:
            _lines(axis, found, field, prefix, line)
        axis.set(title=title, ylabel=label.format(unit=unit), xlabel=across)
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:,g}")
    if found[0].axis == "agents":
        _log(left.yaxis)
        # What is the least of several runs' bounds is a bound for each of them.
        points = [p for curve in found for p in curve.points]
        ns = sorted({p.n for p in points})
        least = [min(p.bound_s for p in points if p.n == n) for n in ns]
        label = " to ".join(dict.fromkeys(f"{bound_s:.3g}" for bound_s in (least[0], least[-1])))
        left.plot(ns, least, color="black", linestyle="--", label=f"the bound: {label}")
        right.set_ylim(0, 1.05)
    elif found[0].axis == "rate":
        left.set_ylim(bottom=0)
        _log(right.yaxis)
    else:
        _log(left.yaxis)
        right.set_ylim(bottom=0)
    said: str | None = "scalability law, fitted"
    for curve in found:
        if (fit := curve.usl) is not None and not fit.refused:
            xs = [p.n for p in curve.points]
            ys = [fit.law.throughput(x) for x in xs]
            left.plot(xs, ys, color="black", linestyle="--", label=said, zorder=3)
            said = None  # one line in the legend stands for all
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=FONT_SIZE - 2)
    return made


def _lines(axis: Axes, found: Sequence[Curve], what: str, prefix: str, line: str) -> None:
    for curve, colour, marker in zip(found, cycle(SERIES), cycle(_MARKERS), strict=False):
        known = [(p, at) for p in curve.points if (at := getattr(p, what)) is not None]
        if known:
            ns, values = [p.n for p, _ in known], [at for _, at in known]
            style: Any = {"color": colour, "marker": marker, "linestyle": line, "linewidth": 3}
            axis.plot(ns, values, label=prefix + curve.name, **style)
            least, most = zip(*(p.spread.get(what, (at, at)) for p, at in known), strict=True)
            axis.fill_between(ns, least, most, color=colour, alpha=0.25, linewidth=0)


def _bars(results: Results, unit: str) -> Figure:
    cases = results.measured
    runs = [results.of(case) for case in cases]
    size = (13, 0.5 * len(cases) + 3)
    made, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    _bar(left, runs, lambda m: m.elapsed_s)
    bounds = [median(m.bound_s for m in some) for some in runs]
    left.plot(bounds, range(len(runs)), "|", color="black", markersize=22, label="the bound")
    left.set(xlabel=f"elapsed ({unit})", title="How long they took")
    left.set_yticks(range(len(cases)), [case.named(varied(cases)) for case in cases])
    left.invert_yaxis()
    made.legend(loc="outside lower left", frameon=False, fontsize=FONT_SIZE - 2)
    if results.experiment.clock == "real":
        _bar(right, runs, lambda m: m.cpu_ms or 0)
        right.set(xlabel="processor time (ms per request)", title="What the client costs")
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
    for place, measured in enumerate(runs):
        values = [value(m) for m in measured]
        axis.barh(place, median(values), color=SERIES[0], height=0.7)
        if len(values) > 1:
            axis.plot([min(values), max(values)], [place, place], "-|", color=BROKEN, linewidth=2)
    _log_if_wide(axis.xaxis, (value(m) for measured in runs for m in measured))


def tuning(rows: Sequence[Row], scenarios: Iterable[Scenario]) -> Figure:
    """Draw limiters in all scenarios, and beside them what policies earn in each of theirs."""
    curves = [partial(_learning, scenario=scenario) for scenario in scenarios]
    return _drawn([partial(_limiters, rows=rows), *curves])


def limits(
    outcomes: Mapping[str, Outcome], run_s: float, *, slots: Sequence[Capacity], title: str
) -> Figure:
    """Draw what each limiter decided in a run, beside the endpoint's slots."""

    def draw(axis: Axes) -> str:
        for (name, outcome), colour in zip(outcomes.items(), _COLOURS, strict=False):
            _changes(axis, outcome.limits, run_s, color=colour, linewidth=2, label=name)
        there = [(change.from_s, change.slots) for change in slots]
        _changes(axis, there, run_s, color="black", linestyle="--", label="the endpoint's slots")
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
    """Return a picture with these panels beside each other; each returns its title."""
    with plt.rc_context(_STYLE):
        size = (8 * len(panels), 6)
        made, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
        plt.close(made)
        for axis, draw in zip(axes[0], panels, strict=True):
            said = draw(axis)
            axis.set_title(title or said, loc="left", fontweight="bold", fontsize=FONT_SIZE + 2)
            axis.legend(frameon=False, fontsize=FONT_SIZE - 2)
    return made


def _limiters(axis: Axes, rows: Sequence[Row]) -> str:
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


def _changes(axis: Axes, changes: Iterable[tuple[float, int]], run_s: float, **style: Any) -> None:
    at_s, numbers = zip(*changes, strict=True)
    axis.step([*at_s, run_s], [*numbers, numbers[-1]], where="post", **style)


def agreement(pairs: Sequence[Pair]) -> Figure:
    """Draw what a fit predicts against what was measured: on the line, both are equal."""
    (ttft, _), (itl, _), (rate, _) = errors(pairs)
    with plt.rc_context(_STYLE):
        made, axes = plt.subplots(1, 3, figsize=(13, 4.6), layout="constrained")
        units = "time to first token (s)", "inter-token latency (s)", "tokens per second"
        for panel, unit, far, values in zip(
            axes,
            units,
            (ttft, itl, rate),
            zip(*(zip(*p, strict=True) for p in pairs), strict=True),
            strict=True,
        ):
            predicted, measured = zip(*values, strict=True)
            ends = [min(predicted + measured), max(predicted + measured)]
            panel.plot(ends, ends, color=WAITING, zorder=1)
            panel.scatter(measured, predicted, color=SERIES[0], s=24, zorder=2)
            panel.set(xscale="log", yscale="log", xlabel=f"measured {unit}", ylabel="predicted")
            panel.set_title(f"{far:.0%} off at the median", loc="left", fontsize=FONT_SIZE)
        title = "What the fit predicts of requests it has not seen"
        made.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=FONT_SIZE)
    plt.close(made)
    return made
