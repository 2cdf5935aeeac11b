"""Pictures of a trace, for a projector as much as for a laptop."""

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from agentlab.settings import DATA, language, said
from agentlab.trace import AGENT, Span, ToolSpan, Trace

# From the palette of Okabe and Ito, for colour-blind readers; the phases also differ in lightness,
# so that they survive a bad projector and a grey printer.
WAITING, READING, ANSWERING, BROKEN = "#BBBBBB", "#E69F00", "#0072B2", "#D55E00"
RUNNING = "#009E73"  # a tool
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_HATCHED: Any = {"fill": False, "edgecolor": BROKEN, "hatch": "//"}
_INFERRED: Any = {"fill": False, "edgecolor": RUNNING, "hatch": "..."}
FONT_SIZE = 14  # as in the style


def _draw_in_korean(figure: Figure, renderer: Any, draw: Any = Figure.draw) -> None:
    """Draw any figure, once its titles, labels and legends are translated."""
    for text in figure.findobj(Text):
        text.set_text(said(text.get_text()))
    draw(figure, renderer)


if there := find_spec("koreanize_matplotlib"):  # for its fonts: its code needs Python 3.11
    for end, weight in ((".ttf", 400), ("Bold.ttf", 700)):
        file = str(Path(str(there.origin)).parent / "fonts" / f"NanumGothic{end}")
        fontManager.ttflist.append(FontEntry(file, name="NanumGothic", weight=weight))
    plt.rcParams["font.family"] = ["sans-serif", "NanumGothic"]  # for what the first one lacks
if language() == "ko":
    Figure.draw = _draw_in_korean  # type: ignore[assignment,method-assign]
    plt.style.use(DATA / "ko" / "plots.mplstyle")
_styled = rc_context({"font.family": plt.rcParams["font.family"]}, DATA / "plots.mplstyle")


def timeline(t: Trace, title: str | None = None) -> Figure:
    """Draw a Gantt chart: one row per request, in order of arrival, over model seconds.

    A bar is grey while the request waits for a slot, orange until its first token, blue while it
    is answered, and hatched in red if it got no complete answer. Where tools were noted, an agent
    has a row, below it each of its tools has one, in green, and then come the agents that it
    started. The title sums the run up, unless one is given.
    """
    requests = "1 request" if t.requests == 1 else f"{t.requests} requests"
    sum_up = f"{requests} in {t.makespan_s:.1f} s, {t.work_s:.1f} s of work"
    return timelines({title or f"{sum_up}: at most {t.peak} in flight": t})


@_styled
def timelines(traces: dict[str, Trace]) -> Figure:
    """Draw several runs below each other, on one scale: title -> trace."""
    lanes = [_lanes(t) for t in traces.values()]
    rows = [max(len(each), 1) for each in lanes]
    size = (11, sum(0.52 * count + 1.3 for count in rows) + 0.5)
    # Room between the rows, so that a title is nearer to its own axis than to the last one.
    figure = plt.figure(figsize=size, layout=ConstrainedLayoutEngine(hspace=0.12))
    axes = figure.subplots(len(traces), height_ratios=[n + 1.2 for n in rows], squeeze=False)
    spans = [span for t in traces.values() for span in t.spans]
    tools = [tool for t in traces.values() for tool in t.tools if tool.operation != AGENT]
    ends_s = [bar.arrived_s if bar.end_s is None else bar.end_s for bar in [*spans, *tools]]
    longest = max((len(name) for each in lanes for name, _ in each), default=0)
    for (axis,), title, each in zip(axes, traces, lanes, strict=True):
        _draw(axis, each, max(ends_s, default=0.0), longest)
        axis.set_title(title)
    axes[-1][0].set_xlabel("model time (s)")
    legend: list[tuple[str, Any, bool]] = [
        ("waiting for a slot", {"color": WAITING}, any(span.queued_s for span in spans)),
        ("reading the prompt", {"color": READING}, True),
        ("answering", {"color": ANSWERING}, True),
        ("running a tool", {"color": RUNNING}, not all(tool.inferred for tool in tools)),
        ("inferred from a gap", _INFERRED, any(tool.inferred for tool in tools)),
        ("no complete answer", _HATCHED, any(map(_failed, spans))),
    ]
    shown = [Rectangle((0, 0), 1, 1, label=label, **look) for label, look, there in legend if there]
    figure.legend(handles=shown, loc="outside lower right", ncols=4)
    plt.close(figure)  # the notebook shows what a cell returns, once
    return figure


@_styled
def scaling(agents: Sequence[int], gains: dict[str, Sequence[float]], title: str) -> Figure:
    """Draw how throughput grows with the number of agents, beside a line of linear growth.

    `gains` are multiples of one agent's throughput, by name.
    """
    figure, axis = plt.subplots(figsize=(9, 5.5), layout="constrained")
    axis.plot(agents, agents, color=WAITING, linestyle="--", label="linear")
    for (name, gain), colour, marker in zip(gains.items(), SERIES, "osD^", strict=False):
        axis.plot(agents, gain, color=colour, marker=marker, label=name, linewidth=3)
    axis.loglog(base=2)
    axis.set_xticks(agents)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set(title=title, xlabel="agents asking at once", ylabel="throughput, times one agent's")
    axis.grid()
    axis.legend()
    plt.close(figure)
    return figure


@_styled
def arrivals(traces: dict[str, Trace], title: str) -> Figure:
    """Draw how many requests reached the endpoint in each tenth of a second, run below run."""
    every_s = 0.1
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


_Lane = tuple[str, list[Span]]  # a label, and what is drawn in one row


def _lanes(t: Trace) -> list[_Lane]:
    """Return each request, or if there are tools, agents with their tools and agents below."""
    agents = [tool for tool in t.tools if tool.operation == AGENT]
    bosses, as_agents = {a.name: a.agent for a in agents}, {a.parent for a in agents}
    tools = [x for x in t.tools if x.operation != AGENT and x.request_id not in as_agents]
    if not tools:
        return [(span.agent, [span]) for span in t.spans]

    def way(agent: str) -> tuple[str, ...]:
        """Return the names from the outermost agent to this one."""
        names = [agent] if agent else []
        while names and (boss := bosses.get(names[0])) and boss not in names:
            names.insert(0, boss)
        return tuple(names)

    lanes: dict[tuple[str, ...], list[list[Span]]] = {way(each.name): [[]] for each in agents}
    for bar in sorted([*t.spans, *tools], key=lambda bar: bar.arrived_s):
        lane = (*way(bar.agent), bar.name) if isinstance(bar, ToolSpan) else way(bar.agent)
        rows = lanes.setdefault(lane, [])
        free = (row for row in rows if not row or (row[-1].end_s or inf) <= bar.arrived_s)
        if (row := next(free, None)) is None:
            rows.append(row := [])
        row.append(bar)
    first = {lane: number for number, lane in enumerate(lanes)}
    above = {lane: [first.get(lane[:n], 0) for n in range(1, len(lane) + 1)] for lane in lanes}
    ordered = sorted(lanes, key=above.__getitem__)
    return [("    " * (len(lane) - 1) + lane[-1], row) for lane in ordered for row in lanes[lane]]


def _draw(axis: Axes, lanes: Sequence[_Lane], end_s: float, longest: int) -> None:
    for row, (_, bars) in enumerate(lanes):
        for bar in bars:
            _draw_bar(axis, row, bar, end_s)
    names = [name for name, _ in lanes]
    axis.set_yticks(range(len(lanes)), names)
    axis.set(xlim=(0, end_s * 1.02 or 1), ylim=(len(lanes) - 0.4, -0.6))
    axis.grid(axis="x")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    if any(name.startswith(" ") for name in names):  # which aligned to the right nobody sees
        axis.tick_params(axis="y", pad=0.62 * FONT_SIZE * longest)
        plt.setp(axis.get_yticklabels(), ha="left")


def _draw_bar(axis: Axes, row: int, span: Span, end_s: float) -> None:
    stop_s = end_s if span.end_s is None else span.end_s
    whole: dict[str, Any] = {"width": stop_s - span.arrived_s, "left": span.arrived_s}
    if isinstance(span, ToolSpan):
        axis.barh(row, height=0.5, **whole, **(_INFERRED if span.inferred else {"color": RUNNING}))
    else:
        started_s = stop_s if span.started_s is None else span.started_s
        first_token_s = span.first_token_s
        if first_token_s is None:  # a plain answer does not show where reading ends
            first_token_s = started_s if span.completion_tokens else stop_s
        times_s = pairwise([span.arrived_s, started_s, first_token_s, stop_s])
        for (left_s, right_s), colour in zip(times_s, (WAITING, READING, ANSWERING), strict=True):
            axis.barh(row, right_s - left_s, left=left_s, height=0.72, color=colour)
    if _failed(span):
        axis.barh(row, height=0.72, linewidth=2, **whole, **_HATCHED)
        what = (span.fault or str(span.status)).partition(":")[0]
        axis.text(stop_s, row, f" {what}", va="center", color=BROKEN, fontweight="bold")


def _failed(span: Span) -> bool:
    return span.status is not None and not span.ok
