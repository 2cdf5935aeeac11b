"""Pictures of a trace, for a projector as much as for a laptop."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from agentlab.trace import Span, Trace

# From the palette of Okabe and Ito, for colour-blind readers; the phases also differ in lightness,
# so that they survive a bad projector and a grey printer.
WAITING, READING, ANSWERING, BROKEN = "#BBBBBB", "#E69F00", "#0072B2", "#D55E00"
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_HATCHED: Any = {"fill": False, "edgecolor": BROKEN, "hatch": "//"}
FONT_SIZE = 14
_STYLE: Any = {
    "font.size": FONT_SIZE,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": FONT_SIZE + 2,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
}


def timeline(t: Trace, title: str | None = None) -> Figure:
    """Draw a Gantt chart: one row per request, in order of arrival, over model seconds.

    A bar is grey while the request waits for a slot, orange until its first token, blue while it
    is answered, and hatched in red if it got no complete answer. The title sums the run up, unless
    one is given.
    """
    requests = "1 request" if t.requests == 1 else f"{t.requests} requests"
    sum_up = f"{requests} in {t.makespan_s:.1f} s, {t.work_s:.1f} s of work"
    return timelines({title or f"{sum_up}: at most {t.peak} in flight": t})


def timelines(traces: dict[str, Trace]) -> Figure:
    """Draw several runs below each other, on one scale: title -> trace."""
    rows = [max(t.requests, 1) for t in traces.values()]
    height = sum(0.52 * count + 1.3 for count in rows) + 0.5
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(
            len(traces),
            figsize=(11, height),
            height_ratios=[count + 1.2 for count in rows],
            squeeze=False,
            # Room between the rows, so that a title is nearer to its own axis than to the last one.
            layout=ConstrainedLayoutEngine(hspace=0.12),
        )
        spans = [span for t in traces.values() for span in t.spans]
        ends_s = [span.arrived_s if span.end_s is None else span.end_s for span in spans]
        for (axis,), (title, t) in zip(axes, traces.items(), strict=True):
            _draw(axis, t.spans, max(ends_s, default=0.0))
            axis.set_title(title)
        axes[-1][0].set_xlabel("model time (s)")
        shown = {"reading the prompt": READING, "answering": ANSWERING}
        if any(span.queued_s for span in spans):
            shown = {"waiting for a slot": WAITING, **shown}
        handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in shown.values()]
        if any(not span.ok and span.status is not None for span in spans):
            handles.append(Rectangle((0, 0), 1, 1, **_HATCHED))
            shown["no complete answer"] = BROKEN
        figure.legend(handles, list(shown), loc="outside lower right", ncols=4)
    plt.close(figure)  # the notebook shows what a cell returns, once
    return figure


def scaling(
    agents: Sequence[int],
    gains: dict[str, Sequence[float]],
    title: str,
    *,
    laws: dict[str, Sequence[float]] | None = None,
    mark: tuple[float, str] | None = None,
) -> Figure:
    """Draw how throughput grows with the number of agents, beside a line of linear growth.

    `gains` are multiples of one agent's throughput, by name; where one of the `laws` has the name,
    it is the line, and the gains are markers. `mark` says where a dotted line is, and its words.
    """
    with plt.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(9, 5.5), layout="constrained")
        axis.plot(agents, agents, color=WAITING, linestyle="--", label="linear")
        for (name, gain), colour, marker in zip(gains.items(), SERIES, "osD^", strict=False):
            style: dict[str, Any] = {"linewidth": 3}
            if laws and name in laws:
                axis.plot(agents, laws[name], color=colour, linewidth=3, label=f"{name}: the law")
                style = {"linestyle": "none", "markersize": 11, "zorder": 3}
            axis.plot(agents, gain, color=colour, marker=marker, label=name, **style)
        if mark is not None:
            at, words = mark
            axis.axvline(at, color="black", linestyle=":", linewidth=2)
            foot = axis.get_xaxis_transform()  # x in agents, y as a share of the height
            axis.text(at, 0.03, f"{words} ", transform=foot, ha="right")
        axis.loglog(base=2)
        axis.set_xticks(agents)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set(xlabel="agents asking at once", ylabel="throughput, times one agent's")
        axis.set_title(title)
        axis.grid()
        axis.legend()
    plt.close(figure)
    return figure


def arrivals(traces: dict[str, Trace], title: str) -> Figure:
    """Draw how many requests reached the endpoint in each tenth of a second, run below run."""
    every_s = 0.1
    with plt.rc_context(_STYLE):
        figure = plt.figure(figsize=(11, 1.5 * len(traces) + 1.2), layout="constrained")
        axes = figure.subplots(len(traces), sharex=True, sharey=True, squeeze=False)
        for (axis,), (name, t) in zip(axes, traces.items(), strict=True):
            counts = Counter(int(span.arrived_s / every_s + 1e-9) for span in t.spans)
            starts_s = [stretch * every_s for stretch in counts]
            axis.bar(starts_s, list(counts.values()), width=every_s, align="edge", color=ANSWERING)
            axis.text(0.99, 0.72, name, transform=axis.transAxes, ha="right", va="top")
            axis.grid(axis="y")
            axis.spines[["top", "right"]].set_visible(False)
        figure.supylabel(f"requests in {every_s:g} s", fontsize=FONT_SIZE)
        axes[-1][0].set_xlabel("model time (s)")
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=FONT_SIZE + 2)
    plt.close(figure)
    return figure


def _draw(axis: Axes, spans: Sequence[Span], end_s: float) -> None:
    for row, span in enumerate(spans):
        stop_s = end_s if span.end_s is None else span.end_s
        started_s = stop_s if span.started_s is None else span.started_s
        first_token_s = span.first_token_s
        if first_token_s is None:  # a plain answer does not show where reading ends
            first_token_s = started_s if span.completion_tokens else stop_s
        times_s = pairwise([span.arrived_s, started_s, first_token_s, stop_s])
        for (left_s, right_s), colour in zip(times_s, (WAITING, READING, ANSWERING), strict=True):
            axis.barh(row, right_s - left_s, left=left_s, height=0.72, color=colour)
        if span.status is not None and not span.ok:
            whole_s = stop_s - span.arrived_s
            axis.barh(row, whole_s, left=span.arrived_s, height=0.72, linewidth=2, **_HATCHED)
            words: dict[str, Any] = {"va": "center", "color": BROKEN, "fontweight": "bold"}
            axis.annotate(f" {span.fault or span.status}", (stop_s, row), **words)
    axis.set_yticks(range(len(spans)), [span.agent for span in spans])
    axis.set(xlim=(0, end_s * 1.02 or 1), ylim=(len(spans) - 0.4, -0.6))
    axis.grid(axis="x")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
