"""What results say: a Markdown table with the bound beside each time, and sentences."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from math import floor, log10
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import msgspec
from jinja2 import Environment, FileSystemLoader, select_autoescape
from msgspec import UNSET, UnsetType

from agentlab.bench.experiment import Case, counted, shown, varied
from agentlab.bench.laws import UslFit, fit_and_judge
from agentlab.bench.results import TOLERANCE, Measurement, Results, deviations, median_of, unequal
from agentlab.bench.summary import Slo

_PAGE = Path(__file__).with_name("page")
_COLUMNS: dict[str, Any] = msgspec.yaml.decode(_PAGE.with_name("columns.yaml").read_bytes())
PAGES = Environment(loader=FileSystemLoader(_PAGE), autoescape=select_autoescape())
PAGES.trim_blocks = PAGES.lstrip_blocks = True
ENOUGH = 0.8  # of the bound: from there on we say that more agents still help
BUSY = 0.8  # of a processor: from there on the lab's own endpoint may be the bottleneck


def markdown(results: Results) -> str:
    """Return what forbids comparing the rows, the table, and what it was measured on.

    Times are medians, and from least to most; `saved` is against the sequential run of that work.
    """
    every = [m for case in results.measured for m in results.of(case)]
    asked, late = results.experiment, [m.late for m in every if m.late is not UNSET]
    said = [*readings(results), *filter(None, [busy(results)])]
    told = {"results": results, "asked": asked, "said": said, "tolerance": TOLERANCE}
    told |= {"table": table(results), "callers": felt(results)}
    told["problems"] = unequal(results.measurements)
    told["late"] = late and (median(ms for ms, _ in late), max(ms for _, ms in late))
    told["off"] = max(map(abs, deviations(every).values()), default=None)
    told["answers"] = [answer for m in every for answer in m.said]
    return PAGES.get_template("report.txt").render(told) + "\n"


def table(results: Results) -> str:
    """Return the table alone, for a notebook: a row for each case that was measured."""
    random = {name for name, one in results.experiment.by_name.items() if one.random}
    kinds = (_cells, _of_random)
    return _tabled(results, lambda case: kinds[case.workload in random](results, case))


def felt(results: Results) -> str:
    """Return the table of what callers felt, where they arrive in their own time, or it is asked.

    Times are those of p50 / p90 / p99, and of several runs the medians of each.
    """
    asked = results.experiment
    more = asked.slo or asked.window or asked.price or asked.stream
    if not more and all(workload.plain for workload in asked.workloads):
        return ""
    show_s = partial(seconds, decimals=2, digits=2)
    return _tabled(results, lambda case: _medians(results.of(case), _COLUMNS["felt"], show_s))


def _tabled(results: Results, cells: Callable[[Case], dict[str, str]]) -> str:
    """Return a row for each case that was measured; a column without any cell is left out."""
    differs, cases = varied(results.measured), results.measured
    rows = [{axis: shown(getattr(case, axis)) for axis in differs} | cells(case) for case in cases]
    every = dict.fromkeys(column for row in rows for column in row)
    columns = [column for column in every if any(row.get(column) for row in rows)]
    cells_of = [[row.get(column, "") for column in columns] for row in rows]
    return markdown_table(columns, cells_of, numbers={*columns} - {*differs}) if rows else ""


def markdown_table(
    columns: Sequence[str], rows: Iterable[Iterable[object]], *, numbers: Collection[str] = ()
) -> str:
    """Return a Markdown table; the columns named in `numbers` are aligned to the right."""
    rule = ["---:" if column in numbers else "---" for column in columns]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (columns, rule, *rows))


def _medians(
    runs: Sequence[Measurement], columns: Mapping[str, list[str]], show_s: Callable[[float], str]
) -> dict[str, str]:
    """Return column -> the medians of its figures, in its form; see columns.yaml."""
    cells = {}
    for column, (form, *figures) in columns.items():
        values = [value for name in figures if (value := median_of(runs, name)) is not None]
        cells[column] = " / ".join(show_s(v) if form == "s" else format(v, form) for v in values)
    return cells


def _cells(results: Results, case: Case) -> dict[str, str]:
    runs, share = results.of(case), saved(results, case)
    times_s, several = [m.elapsed_s for m in runs], len(runs) > 1
    show_s = partial(seconds, decimals=1 + (several or results.real), digits=2)
    cells = _medians(runs, _COLUMNS["cells"], show_s)
    if several:
        cells["elapsed (s)"] += f" ({show_s(min(times_s))} to {show_s(max(times_s))})"
    bound_s = median(m.bound_s for m in runs)
    cells["of the bound"] = f"{bound_s / median(times_s):.3f}" if bound_s else "-"
    cells["saved"] = "" if share is None else f"{share:.1%}"
    cells["peak"] = f"{max(m.peak for m in runs):,}"
    return cells


def _of_random(results: Results, case: Case) -> dict[str, str]:
    """Column -> cell of many random workflows: sums, and how far they are from their bounds."""
    runs = results.of(case)
    first = {m.work: m for m in reversed(results.measurements) if m.error is None}
    in_turn = results.of(msgspec.structs.replace(case, engine="sequential"))
    in_turn_s = {m.work: m.elapsed_s for m in in_turn}
    ratios = [m.elapsed_s / m.bound_s for m in runs if m.bound_s]
    timed = [m for m in runs if m.elapsed_s and m.work in in_turn_s]
    faults = sum(sum((m.faults or {}).values()) for m in runs)
    cells = {
        "equal": f"{sum(m.answers == first[m.work].answers for m in runs):,} of {len(runs):,}",
        "steps": f"{sum(m.steps for m in runs):,}",
        "requests": f"{sum(m.requests for m in runs):,}",
        "faults": f"{faults:,}" if faults else "",
    }
    if ratios:
        cells |= {"elapsed / bound, mean": f"{mean(ratios):.3f}", "worst": f"{max(ratios):.3f}"}
    if timed:
        cells["speedup, mean"] = f"{mean(in_turn_s[m.work] / m.elapsed_s for m in timed):.3f}"
    return cells


def saved(results: Results, case: Case) -> float | None:
    """Return the share of the sequential run's time that a case saves; None if there was none."""
    baseline = results.of(msgspec.structs.replace(case, engine="sequential"))
    baseline_s = median_of(baseline, "elapsed_s")
    if case.engine == "sequential" or not baseline_s:
        return None
    return 1 - median(m.elapsed_s for m in results.of(case)) / baseline_s


def seconds(value_s: float, decimals: int, *, digits: int = 1) -> str:
    """Return a time with so many decimals; one that would have fewer `digits` is shown with two."""
    if 0 < value_s < 10 ** (digits - 1 - decimals):
        decimals = 1 - floor(log10(value_s))
    return f"{value_s:,.{decimals}f}"


class Point(NamedTuple):
    """One case of a curve: what grows, and its runs. Each figure of theirs is an attribute.

    So `point.elapsed_s` is the median over the runs, None if it is unknown.
    """

    n: float
    runs: list[Measurement]

    def __getattr__(self, figure: str) -> Any:
        return median_of(self.runs, figure)


class Curve(NamedTuple):
    """Cases that differ only in their "agents", their "max_concurrency" or their "rate"."""

    name: str
    axis: str
    points: list[Point]

    @property
    def usl(self) -> UslFit | None:
        """The scalability law fitted to it, where it has four points and grows in flight."""
        if self.axis != "max_concurrency":
            return None
        return fit_and_judge([p.n for p in self.points], [p.throughput for p in self.points])


def curves(results: Results) -> list[Curve]:
    """Return the curves of an experiment that varies one number, at three or more values."""
    asked, workloads = results.experiment, results.experiment.by_name
    grows: dict[str, tuple[str, dict[Any, float | None]]] = {
        "max_concurrency": ("max_concurrency", {most: most for most in asked.max_concurrency}),
        "rate": ("workload", {n: getattr(w.arrivals, "per_s", None) for n, w in workloads.items()}),
        "agents": ("workload", {name: w.agents for name, w in workloads.items()}),
    }
    for axis in grows:
        field, of = grows[axis]
        numbers = {c: n for c in results.measured if (n := of[getattr(c, field)]) is not None}
        if 3 <= len({*numbers.values()}) == len({getattr(case, field) for case in numbers}):
            break
    else:
        return []
    others = [other for other in varied(results.measured) if other != field] or ["engine"]
    found: dict[str, Curve] = {}
    for case in sorted(numbers, key=lambda case: numbers[case]):
        curve = found.setdefault(case.named(others), Curve(case.named(others), axis, []))
        curve.points.append(Point(numbers[case], results.of(case)))
    return list(found.values())


def readings(results: Results) -> list[str]:
    """Return what the curves say, in a sentence each, or else which case is the best."""
    found = curves(results)
    if not found and len(results.measured) > 1:
        share, nearest = _greatest(results, "efficiency")
        return [f"{nearest} comes nearest to its bound: {share:.2f} of it"] if share else []
    return sentences(found, results.experiment.slo)


def sentences(found: Sequence[Curve], slo: Slo | UnsetType = UNSET) -> list[str]:
    """Return how far each curve keeps to the SLO and to the bound, and why it goes no further."""
    values = {"curves": found, "slo": slo, "enough": ENOUGH, "counted": counted}
    return PAGES.get_template("readings.txt").render(values).splitlines()


def busy(results: Results) -> str:
    """Return a warning if the lab's own endpoint may have been the bottleneck, else nothing."""
    share, where = _greatest(results, "endpoint_busy")
    if share < BUSY:
        return ""
    limit = f"from some {BUSY:.0%} on it, and not the model, may be the limit"
    return f"the lab's own endpoint was {share:.0%} busy ({where}); {limit}"


def _greatest(results: Results, figure: str) -> tuple[float, str]:
    """Return the greatest median of a figure, and the name of the first case that has it."""
    shares = {case: median_of(results.of(case), figure) or 0.0 for case in results.measured}
    most = max(shares, key=lambda case: shares[case], default=None)
    return (shares[most], most.named(varied(shares))) if most else (0.0, "")
