"""Plots say their message, label their axes with units, and do not lean on colour alone."""

from __future__ import annotations

from typing import Any

import matplotlib.colors
import matplotlib.pyplot
import pytest
from matplotlib.figure import Figure
from msgspec.structs import replace

from agentlab import plots
from agentlab.trace import AGENT, Span, ToolSpan, Trace


def span(agent: str, end_s: float, status: int = 200, wait_s: float = 0.0) -> Span:
    return Span(
        request_id=agent,
        agent=agent,
        arrived_s=0.0,
        started_s=wait_s,
        first_token_s=wait_s + 1,
        end_s=end_s,
        status=status,
    )


THREE = Trace([span("research", 10), span("analysis", 15), span("writing", 12)])


def bars(figure: Figure) -> list[tuple[float, float]]:
    """(start, end) of every bar that has a width, row by row."""
    patches = figure.axes[0].patches
    return [(p.get_x(), p.get_x() + p.get_width()) for p in patches if p.get_width() > 0]  # type: ignore[attr-defined]


def test_each_row_shows_reading_and_answering_at_their_times():
    """0 to 1 s, then to the end, for each of the three."""
    assert bars(plots.timeline(THREE)) == [(0, 1), (1, 10), (0, 1), (1, 15), (0, 1), (1, 12)]


def test_an_answer_whose_first_token_is_unknown_is_one_bar():
    """A real model's plain answer: its reading cannot be told apart from its answering."""
    whole = replace(span("a", 10), first_token_s=None, completion_tokens=3)
    axis = plots.timeline(Trace([whole])).axes[0]
    (bar,) = [patch for patch in axis.patches if patch.get_width() > 0]  # type: ignore[attr-defined]
    assert matplotlib.colors.to_hex(bar.get_facecolor()) == matplotlib.colors.to_hex(
        plots.ANSWERING
    )


def test_the_title_says_what_there_is_to_see():
    """How many, how long, how much work, how many at once; or the title given."""
    title = plots.timeline(THREE).axes[0].get_title(loc="left")
    assert title == "3 requests in 15.0 s, 37.0 s of work: at most 3 in flight"
    assert plots.timeline(THREE, "My words").axes[0].get_title(loc="left") == "My words"


def test_axes_are_labelled_with_units_and_rows_with_agents():
    """Model time in seconds; first row on top."""
    axis = plots.timeline(THREE).axes[0]
    assert axis.get_xlabel() == "model time (s)"
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "research",
        "analysis",
        "writing",
    ]
    assert axis.yaxis_inverted()


def test_waiting_is_in_the_legend_only_where_somebody_waited():
    """Two entries, or three."""

    def legend(t: Trace) -> list[str]:
        return [text.get_text() for text in plots.timeline(t).legends[0].get_texts()]

    assert legend(THREE) == ["reading the prompt", "answering"]
    assert legend(Trace([span("a", 9, wait_s=2)]))[0] == "waiting for a slot"


def test_a_broken_answer_is_hatched_and_named():
    """Not by colour alone: hatching, and the status beside it."""
    axis = plots.timeline(Trace([span("a", 9, status=499)])).axes[0]
    assert any(patch.get_hatch() for patch in axis.patches)
    assert [text.get_text().strip() for text in axis.texts] == ["499"]


def test_several_runs_share_one_scale():
    """So that lengths can be compared."""
    figure = plots.timelines({"one": THREE, "other": Trace([span("a", 40)])})
    assert len({axis.get_xlim() for axis in figure.axes}) == 1


def test_a_title_keeps_its_distance_from_the_axis_above():
    """A line's height and more, else it is read as a caption of what stands above."""
    figure = plots.timelines({"one": THREE, "other": THREE})
    figure.draw_without_rendering()
    above, below = figure.axes
    title = below._left_title.get_window_extent()  # type: ignore[attr-defined]
    numbers = above.xaxis.get_tightbbox()
    assert numbers is not None
    assert numbers.y0 - title.y1 > 1.2 * title.height


@pytest.mark.parametrize("t", [Trace(), Trace([Span(request_id="a", agent="a", arrived_s=0.0)])])
def test_nothing_and_something_in_flight_can_be_drawn(t: Trace):
    """An empty trace, and one without an end."""
    assert plots.timeline(t).axes


def test_the_phases_differ_in_lightness():
    """So that they survive a grey printer and any kind of colour blindness."""

    def lightness(colour: str) -> float:
        red, green, blue = matplotlib.colors.to_rgb(colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    phases = [lightness(colour) for colour in (plots.READING, plots.ANSWERING)]
    assert abs(phases[0] - phases[1]) > 0.2


def test_scaling_is_drawn_against_the_diagonal():
    """Log axes with units; a dashed line of linear growth; a line and a marker for each preset."""
    figure = plots.scaling([1, 2, 4], {"a": [1, 2, 3], "b": [1, 1, 1]}, "My words")
    axis = figure.axes[0]
    linear, a, b = axis.get_lines()
    assert (list(linear.get_ydata()), linear.get_linestyle()) == ([1, 2, 4], "--")
    assert a.get_marker() != b.get_marker()
    assert (axis.get_xscale(), axis.get_title(loc="left")) == ("log", "My words")


def test_arrivals_are_counted_by_stretches_of_time():
    """A bar for each tenth of a second in which requests came, as high as they were many."""
    at_s = [0.0, 0.05, 0.3, 0.31, 0.32]
    t = Trace([Span(request_id="a", agent="a", arrived_s=s) for s in at_s])
    figure = plots.arrivals({"one": t, "none": Trace()}, "My words")
    one, none = figure.axes
    bars = [(round(p.get_x(), 9), p.get_height()) for p in one.patches]  # type: ignore[attr-defined]
    assert (bars, len(none.patches)) == ([(0.0, 2), (0.3, 3)], 0)
    assert one.get_ylim() == none.get_ylim()
    assert none.get_xlabel() == "model time (s)"
    assert figure.get_supylabel() == "requests in 0.1 s"


def lanes(t: Trace) -> dict[str, list[tuple[float, float]]]:
    """Each row's label, and the start and end of its bars, from top to bottom."""
    axis = plots.timeline(t).axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    rows: list[tuple[str, list[tuple[float, float]]]] = [(name, []) for name in names]
    for bar in axis.patches:
        if bar.get_width() > 0:  # type: ignore[attr-defined]
            start_s, width_s = bar.get_x(), bar.get_width()  # type: ignore[attr-defined]
            row = round(bar.get_y() + bar.get_height() / 2)  # type: ignore[attr-defined]
            rows[row][1].append((start_s, start_s + width_s))
    assert len(dict(rows)) == len(rows), "rows of one name"
    return dict(rows)


def ran(id: str, name: str, start_s: float, end_s: float | None, **facts: Any) -> ToolSpan:
    return ToolSpan(
        request_id=id,
        name=name,
        arrived_s=start_s,
        started_s=start_s,
        end_s=end_s,
        status=200,
        **facts,
    )


TEAM = Trace(
    [
        span("boss", 2),
        replace(span("helper", 9), arrived_s=3, started_s=3),
        ran("1", "boss", 0, 12, operation=AGENT),
        ran("2", "delegate", 2, 11, agent="boss", parent="1"),
        ran("3", "helper", 3, 10, agent="boss", operation=AGENT, parent="2"),
        ran("4", "search", 9, 10, agent="helper", parent="3"),
        ran("5", "clock", 2, 5, agent="boss", parent="1", fault="KeyError: 'x'"),
    ],
)


def test_tools_and_the_agents_that_were_started_have_lanes_below_their_agent():
    """Indented, in the order of their starts; an agent that ran as a tool is drawn once."""
    shown = lanes(TEAM)
    assert list(shown) == ["boss", "    helper", "        search", "    clock"]
    assert shown["boss"][-1] == (1, 2)
    assert shown["        search"] == [(9, 10)]
    assert shown["    helper"][-1][1] == 9


def test_what_overlaps_in_a_lane_has_rows_of_its_own():
    """A tool that was called twice at the same time, and once more after that."""
    tools = [
        ran(str(n), "search", *at, agent="a") for n, at in enumerate([(1, 5), (2, 3), (5, 6)], 1)
    ]
    figure = plots.timeline(Trace([span("a", 1), *tools]))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["a", "    search", "    search"]


def test_a_failed_tool_is_hatched_and_named_and_a_gap_says_what_it_is():
    """Not by colour alone; the legend has a word for each."""
    axis = plots.timeline(TEAM).axes[0]
    assert [text.get_text().strip() for text in axis.texts] == ["KeyError"]
    assert any(patch.get_hatch() for patch in axis.patches)
    gap = Trace([span("a", 1), ran("1", "gap", 1, 2, agent="a", inferred=True)])
    words = [text.get_text() for text in plots.timeline(gap).legends[0].get_texts()]
    assert words == ["reading the prompt", "answering", "inferred from a gap"]
    words = [text.get_text() for text in plots.timeline(TEAM).legends[0].get_texts()]
    assert words[-1] == "running a tool"


def test_a_tool_that_runs_is_drawn_to_the_end():
    """And agents that started each other in a circle do not stop the drawing."""
    tools = [
        ran("1", "b", 0, None, agent="a", operation=AGENT),
        ran("2", "a", 0, None, agent="b", operation=AGENT),
        ran("3", "search", 1, None, agent="b"),
    ]
    assert ("        search" in lanes(Trace([span("a", 9), *tools]))) is True


def test_hangul_is_drawn_whatever_the_language():
    """The course's font draws what the first one lacks; a gap would be a warning, so an error."""
    other = matplotlib.pyplot.figure()  # as the benchmark's pictures are, without the style
    other.suptitle("파도 − 1")
    for figure in (plots.timeline(THREE, title="파도 − 1"), other):
        figure.canvas.draw()
    matplotlib.pyplot.close(other)
