"""What results say: a Markdown table with the bound beside each time, and sentences."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from math import floor, log10
from statistics import mean, median
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from agentlab.bench.experiment import Case, counted, shown, varied
from agentlab.bench.laws import UslFit, fit_and_judge
from agentlab.bench.results import TOLERANCE, Measurement, Results, deviations, unequal
from agentlab.bench.summary import Slo

_FELT = {
    "response": "response", "service": "service", "queue": "queue", "ttft": "TTFT", "itl": "ITL",
}  # fmt: skip
ENOUGH = 0.8  # of the bound: from there on we say that more agents still help
BUSY = 0.8  # of a processor: from there on the lab's own endpoint may be the bottleneck


def markdown(results: Results) -> str:
    """Return what forbids comparing the rows, the table, and what it was measured on.

    Times are medians, and from least to most; `saved` is against the sequential run of that work.
    """
    experiment = results.experiment
    clock = "Virtual time, exact"
    if experiment.clock == "real":
        clock = f"Real time, {experiment.repeats} runs of each case, in turn"
    unit = "seconds" if results.real else "model seconds"
    about = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    callers = felt(results)
    parts = [
        f"# {results.name}",
        experiment.about,
        "\n".join(f"- **not comparable**: {one}" for one in unequal(results.measurements)),
        table(results) or "No run has a result, so there is no table.",
        callers and f"What callers felt, as p50 / p90 / p99:\n\n{callers}",
        "\n".join(f"- {line}" for line in [*readings(results), *remarks(results)]),
        f"Times are {unit}. {clock}; {about}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(results: Results) -> str:
    """Return the table alone, for a notebook: a row for each case that was measured."""
    workloads = results.experiment.by_name

    def cells(case: Case) -> dict[str, str]:
        return (_of_random if workloads[case.workload].random else _cells)(results, case)

    return _tabled(results, cells)


def felt(results: Results) -> str:
    """Return the table of what callers felt, where they arrive in their own time or have an SLO.

    Times are those of p50 / p90 / p99, and of several runs the medians of each.
    """
    asked = results.experiment
    plain = all(workload.plain for workload in asked.workloads)
    if plain and not (asked.slo or asked.window or asked.price):
        return ""
    return _tabled(results, lambda case: _felt(results.of(case)))


def _felt(runs: Sequence[Measurement]) -> dict[str, str]:
    def small(*names: str) -> str:
        known = [value for name in names if (value := _median(runs, name)) is not None]
        return " / ".join(seconds(value, 2, digits=2) for value in known)

    cells = {"calls": _middle(runs, "calls", "{:,.0f}")}
    for name, title in _FELT.items():
        cells[f"{title} (s)"] = small(*(f"{name}_p{percent}_s" for percent in (50, 90, 99)))
    return cells | {
        "answers per s": _middle(runs, "throughput", "{:.3g}"),
        "goodput per s": _middle(runs, "goodput", "{:.3g}"),
        "within SLO": _middle(runs, "within", "{:.1%}"),
        "$ per task": small("dollars_per_task"),
        "$ per success": small("dollars_per_success"),
    }


def _middle(runs: Iterable[Measurement], name: str, show: str) -> str:
    value = _median(runs, name)
    return "" if value is None else show.format(value)


def _median(runs: Iterable[Measurement], name: str) -> float | None:
    known = _known(runs, name)
    return median(known) if known else None


def _known(runs: Iterable[Measurement], name: str) -> list[float]:
    """Return what is known of a figure: of a field, or such as `response_p99_s`."""
    return [value for m in runs if (value := m.figure(name)) is not None]


def _tabled(results: Results, cells: Callable[[Case], dict[str, str]]) -> str:
    """Return a row for each case that was measured; a column without any cell is left out."""
    differs = varied(results.measured)
    rows = [
        {a: shown(getattr(case, a)) for a in differs} | cells(case) for case in results.measured
    ]
    columns = [
        c for c in dict.fromkeys(c for row in rows for c in row) if any(r.get(c) for r in rows)
    ]
    numbers = [column for column in columns if column not in differs]
    cells_of = [[row.get(column, "") for column in columns] for row in rows]
    return markdown_table(columns, cells_of, numbers=numbers) if rows else ""


def markdown_table(
    columns: Sequence[str], rows: Iterable[Iterable[object]], *, numbers: Collection[str] = ()
) -> str:
    """Return a Markdown table; the columns named in `numbers` are aligned to the right."""
    rule = ["---:" if column in numbers else "---" for column in columns]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (columns, rule, *rows))


def _cells(results: Results, case: Case) -> dict[str, str]:
    """Column -> cell; a column without any is left out."""
    runs, share = results.of(case), saved(results, case)
    elapsed_s = median(m.elapsed_s for m in runs)
    bound_s = median(m.bound_s for m in runs)
    several = len(runs) > 1
    show_s = partial(seconds, decimals=1 + (several or results.real), digits=2)
    elapsed = show_s(elapsed_s)
    if several:
        times_s = [m.elapsed_s for m in runs]
        elapsed += f" ({show_s(min(times_s))} to {show_s(max(times_s))})"
    p95_s = [_median(runs, f"{what}p95_s") for what in ("response_", "service_", "")]
    response, service, of_all = ("" if value_s is None else show_s(value_s) for value_s in p95_s)
    return {
        "elapsed (s)": elapsed,
        "bound (s)": show_s(bound_s),
        "of the bound": f"{bound_s / elapsed_s:.3f}" if bound_s else "-",
        "endpoint CPU (ms per request)": _middle(runs, "endpoint_cpu_ms", "{:.2f}"),
        "endpoint busy": _middle(runs, "endpoint_busy", "{:.0%}"),
        "saved": "" if share is None else f"{share:.1%}",
        "response p95 (s)": response,
        "service p95 (s)": service or of_all,
        "requests": _middle(runs, "requests", "{:,.0f}"),
        "peak": f"{max(m.peak for m in runs):,}",
        "tokens": _middle(runs, "tokens", "{:,.0f}"),
        "CPU (ms per request)": _middle(runs, "cpu_ms", "{:.2f}"),
    }


def _of_random(results: Results, case: Case) -> dict[str, str]:
    """Column -> cell of many random workflows: sums, and how far they are from their bounds."""
    runs = results.of(case)
    first: dict[object, Measurement] = {}
    for m in results.measurements:
        if m.error is None:
            first.setdefault(m.work, m)
    in_turn = results.of(msgspec.structs.replace(case, engine="sequential"))
    in_turn_s = {m.work: m.elapsed_s for m in in_turn}
    ratios = [m.elapsed_s / m.bound_s for m in runs if m.bound_s]
    speedups = [
        in_turn_s[m.work] / m.elapsed_s for m in runs if m.elapsed_s and m.work in in_turn_s
    ]
    faults = sum(sum(m.faults.values()) for m in runs if m.faults is not UNSET)
    return {
        "equal": f"{sum(m.answers == first[m.work].answers for m in runs):,} of {len(runs):,}",
        "steps": f"{sum(m.steps for m in runs):,}",
        "requests": f"{sum(m.requests for m in runs):,}",
        "faults": f"{faults:,}" if faults else "",
        "elapsed / bound, mean": f"{mean(ratios):.3f}" if ratios else "",
        "worst": f"{max(ratios):.3f}" if ratios else "",
        "speedup, mean": f"{mean(speedups):.3f}" if speedups else "",
    }


def saved(results: Results, case: Case) -> float | None:
    """Return the share of the sequential run's time that a case saves; None if there was none."""
    baseline = results.of(msgspec.structs.replace(case, engine="sequential"))
    baseline_s = _median(baseline, "elapsed_s")
    if case.engine == "sequential" or not baseline_s:
        return None
    return 1 - median(m.elapsed_s for m in results.of(case)) / baseline_s


class Point(NamedTuple):
    """One case of a curve: medians over its repeats, and from least to most; times in seconds."""

    n: float
    elapsed_s: float
    bound_s: float
    throughput: float
    efficiency: float
    p50_s: float | None = None
    p95_s: float | None = None
    cpu_ms: float | None = None
    busy: float | None = None
    goodput: float | None = None
    within: float | None = None
    response_p50_s: float | None = None
    response_p99_s: float | None = None
    spread: Mapping[str, tuple[float, float]] = MappingProxyType({})


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


def seconds(value_s: float, decimals: int, *, digits: int = 1) -> str:
    """Return a time with so many decimals; one that would have fewer `digits` is shown with two."""
    if 0 < value_s < 10 ** (digits - 1 - decimals):
        decimals = 1 - floor(log10(value_s))
    return f"{value_s:,.{decimals}f}"


def curves(results: Results) -> list[Curve]:
    """Return the curves of an experiment that varies one number, at three or more values."""
    workloads, differs = results.experiment.by_name, varied(results.measured)
    agents: dict[str, float | None]
    agents = {name: w.agents for name, w in workloads.items() if w.agents is not None}
    rates = {name: w.arrivals.per_s for name, w in workloads.items() if w.arrivals}
    numbers: Mapping[str, float | None] = {}
    axis = mine = "max_concurrency"
    if axis not in differs or len(set(results.experiment.max_concurrency) - {None}) < 3:
        mine, of = "workload", {"rate": rates, "agents": agents}
        axes = [a for a in of if len(of[a]) == len(set(of[a].values()) - {None}) >= 3]
        if mine not in differs or not axes:
            return []
        axis, numbers = axes[0], of[axes[0]]
    others = [other for other in differs if other != mine] or ["engine"]
    found: dict[str, Curve] = {}
    for case in results.measured:
        n = numbers.get(case.workload) if numbers else case.max_concurrency
        if n is not None:
            name, runs = case.named(others), results.of(case)
            figures = {what: _known(runs, what) for what in Point._fields}
            known: dict[str, Any] = {what: median(some) for what, some in figures.items() if some}
            spread = {what: (min(some), max(some)) for what, some in figures.items() if some}
            point = Point(n=n, spread=spread, **known)
            found.setdefault(name, Curve(name, axis, [])).points.append(point)
    return [curve._replace(points=sorted(curve.points)) for curve in found.values()]


def readings(results: Results) -> list[str]:
    """Return what the curves say, in a sentence each, or else which case is the best."""
    said, found = [], curves(results)
    shares = {case: _median(results.of(case), "efficiency") or 0.0 for case in results.measured}
    if not found and len(shares) > 1:
        nearest = max(shares, key=lambda case: shares[case])
        name = nearest.named(varied(shares))
        said.append(f"{name} comes nearest to its bound: {shares[nearest]:.2f} of it")
    for curve in found:
        if results.experiment.slo:
            said.append(_most_within(curve, results.experiment.slo))
        if curve.axis == "agents":
            said.append(reach(curve))
        if curve.axis != "max_concurrency":
            continue
        best, law = max(curve.points, key=lambda p: p.throughput), curve.usl
        said.append(
            f"{curve.name}: most at {best.n:g} in flight, {best.throughput:.3g} answers per second"
            + (f"; {law}" if law else "")
        )
    return said


def _most_within(curve: Curve, slo: Slo) -> str:
    kept = [p.n for p in curve.points if p.within is not None and p.within >= slo.share]
    unit = {"agents": "agents", "max_concurrency": "in flight", "rate": "per s"}[curve.axis]
    most = f"{kept[-1]:,g} {unit} are the most" if kept else f"no number {unit} is few enough"
    return f"{curve.name}: {most} with {slo.share:.4g} of calls within {slo}"


def reach(curve: Curve) -> str:
    """Return how far a curve over agents keeps to the bound, and why it goes no further."""
    kept, last = [p for p in curve.points if p.efficiency >= ENOUGH], curve.points[-1]
    if len(kept) == len(curve.points):
        least = min(p.efficiency for p in kept)
        return (
            f"{curve.name}: at least {least:.2f} of the bound up to {counted(int(last.n), 'agent')}"
        )
    said = f"{curve.name}: {last.efficiency:.2f} of the bound at {counted(int(last.n), 'agent')}"
    if kept:
        said += f", {ENOUGH:g} or better up to {kept[-1].n:,g}"
    busy_s = (last.busy or 0.0) * last.elapsed_s
    if last.cpu_ms is not None and busy_s > 0.5 * (last.elapsed_s - last.bound_s):
        said += f"; this processor, {last.cpu_ms:.2f} ms per request"
    return said


def remarks(results: Results) -> list[str]:
    """Return what a reader must know before believing the figures, which can be compared."""
    every = [m for case in results.measured for m in results.of(case)]
    said = [*filter(None, [busy(results)])]
    slo = results.experiment.slo
    if slo and (slo.ttft_s or slo.itl_s) and every and not _known(every, "ttft_p50_s"):
        said.append(
            "the endpoint told no time to first token: the SLO's TTFT and ITL count as kept"
        )
    if late := [m.late for m in every if m.late is not UNSET]:
        medians_ms, mosts_ms = zip(*late, strict=True)
        late_ms = f"{median(medians_ms):.1f} ms, and by {max(mosts_ms):.1f} ms at most"
        said.append(f"the lab's own endpoint was late by {late_ms}")
    if off := deviations(every).values():
        said.append(
            f"answers of the same workload differ by at most {max(map(abs, off)):.1%} in tokens "
            f"per answer; up to {TOLERANCE:.0%} counts as equal work"
        )
    answers = [answer for m in every for answer in m.said]
    if over := [a for a in answers if a.limit_tokens is not None and a.tokens > a.limit_tokens]:
        most = max(over, key=lambda answer: answer.tokens)
        kept = f"the endpoint did not keep the limit of {most.limit_tokens:,} tokens"
        cure = "set AGENTLAB_LEAVE_OUT=max_completion_tokens to send max_tokens instead"
        said.append(f"{kept}: up to {most.tokens:,} came; {cure}")
    if missing := sum(not answer.tokens for answer in answers):
        said.append(f"the endpoint counts no tokens for {missing:,} of {len(answers):,} answers")
    return said


def busy(results: Results) -> str:
    """Return a warning if the lab's own endpoint may have been the bottleneck, else nothing."""
    shares = {c: _median(results.of(c), "endpoint_busy") or 0.0 for c in results.measured}
    most = max(shares, key=lambda case: shares[case], default=None)
    if most is None or shares[most] < BUSY:
        return ""
    where = most.named(varied(results.measured))
    limit = f"from some {BUSY:.0%} on it, and not the model, may be the limit"
    return f"the lab's own endpoint was {shares[most]:.0%} busy ({where}); {limit}"
