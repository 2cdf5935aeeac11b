"""Plots say their message, label their axes with units, and do not lean on colour alone."""

from __future__ import annotations

import matplotlib.colors
import pytest
from matplotlib.figure import Figure
from msgspec.structs import replace

from agentlab import plots
from agentlab.trace import Span, Trace


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


def test_a_law_is_a_line_and_what_was_measured_are_markers():
    """In one colour, the markers on top; a name without a law keeps its line."""
    measured = {"a": [1, 2, 3], "b": [1, 1, 1]}
    figure = plots.scaling([1, 2, 4], measured, "My words", laws={"a": [1, 2, 4]})
    _, law, a, b = figure.axes[0].get_lines()
    assert (law.get_marker(), law.get_linestyle()) == ("None", "-")
    assert (a.get_marker(), a.get_linestyle()) == ("o", "None")
    assert (list(law.get_ydata()), list(a.get_ydata())) == ([1, 2, 4], [1, 2, 3])
    assert a.get_color() == law.get_color()
    assert a.get_zorder() > law.get_zorder()
    assert (b.get_marker(), b.get_linestyle()) == ("s", "-")


def test_a_number_of_agents_can_be_marked():
    """A dotted line where it is, with words beside it."""
    axis = plots.scaling([1, 2, 4], {"a": [1, 2, 2]}, "My words", mark=(2, "the knee")).axes[0]
    line = axis.get_lines()[-1]
    assert (list(line.get_xdata()), line.get_linestyle()) == ([2, 2], ":")
    assert [text.get_text().strip() for text in axis.texts] == ["the knee"]


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
