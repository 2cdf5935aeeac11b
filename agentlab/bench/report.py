"""What results say: a Markdown table with the bound beside each time, and sentences."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from math import floor, log10
from statistics import mean, median
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from agentlab.bench.experiment import Case, counted, shown, varied
from agentlab.bench.laws import UslFit, fit_and_judge
from agentlab.bench.results import TOLERANCE, Measurement, Results, deviations, unequal

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
    parts = [
        f"# {results.name}",
        experiment.about,
        "\n".join(f"- **not comparable**: {one}" for one in unequal(results.measurements)),
        table(results) or "No run has a result, so there is no table.",
        "\n".join(f"- {line}" for line in [*readings(results), *remarks(results)]),
        f"Times are {unit}. {clock}; {about}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(results: Results) -> str:
    """Return the table alone, for a notebook: a row for each case that was measured."""
    workloads, differs = results.experiment.by_name, varied(results.measured)
    rows = []
    for case in results.measured:
        cells = _of_random if workloads[case.workload].random else _cells
        rows.append({a: shown(getattr(case, a)) for a in differs} | cells(results, case))
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
    # A real endpoint may take milliseconds: two digits of each.
    show_s = partial(seconds, decimals=1 + (several or results.real), digits=1 + results.real)
    elapsed = show_s(elapsed_s)
    if several:
        times_s = [m.elapsed_s for m in runs]
        elapsed += f" ({show_s(min(times_s))} to {show_s(max(times_s))})"

    def middle(field: str, show: Callable[[float], str]) -> str:
        value = _median(runs, field)
        return "" if value is None else show(value)

    return {
        "elapsed (s)": elapsed,
        "bound (s)": show_s(bound_s),
        "of the bound": f"{bound_s / elapsed_s:.3f}" if bound_s else "-",
        "endpoint CPU (ms per request)": middle("endpoint_cpu_ms", "{:.2f}".format),
        "endpoint busy": middle("endpoint_busy", "{:.0%}".format),
        "saved": "" if share is None else f"{share:.1%}",
        "p95 (s)": middle("p95_s", show_s),
        "requests": middle("requests", "{:,.0f}".format),
        "peak": f"{max(m.peak for m in runs):,}",
        "tokens": middle("tokens", "{:,.0f}".format),
        "CPU (ms a request)": middle("cpu_ms", "{:.2f}".format),
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


def _median(runs: Iterable[Measurement], field: str) -> float | None:
    values = [getattr(m, field) for m in runs]
    known = [value for value in values if value is not None and value is not UNSET]
    return median(known) if known else None


class Point(NamedTuple):
    """One case of a curve: medians over its repeats, times in model seconds."""

    n: int
    elapsed_s: float
    bound_s: float
    throughput: float
    p50_s: float | None
    p95_s: float | None
    cpu_ms: float | None
    busy: float | None

    @property
    def efficiency(self) -> float:
        """The bound as a share of the time taken; 1 is perfect."""
        return self.bound_s / self.elapsed_s if self.elapsed_s else 1.0


class Curve(NamedTuple):
    """Cases that differ only in how many "agents" there are, or in their "max_concurrency"."""

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
    agents = [w.agents for w in workloads.values() if w.agents is not None]
    if "max_concurrency" in differs and len(set(results.experiment.max_concurrency) - {None}) >= 3:
        axis = mine = "max_concurrency"
    elif "workload" in differs and len(agents) == len(set(agents)) >= 3:
        axis, mine = "agents", "workload"
    else:
        return []
    others = [other for other in differs if other != mine] or ["engine"]
    found: dict[str, Curve] = {}
    for case in results.measured:
        n = workloads[case.workload].agents if axis == "agents" else case.max_concurrency
        if n is not None:
            runs = results.of(case)
            elapsed_s = median(m.elapsed_s for m in runs)
            bound_s = median(m.bound_s for m in runs)
            throughput = runs[0].answered / elapsed_s if elapsed_s else 0.0
            figures = (_median(runs, field) for field in ("p50_s", "p95_s", "cpu_ms", "busy"))
            name = case.named(others)
            curve = found.setdefault(name, Curve(name, axis, []))
            curve.points.append(Point(n, elapsed_s, bound_s, throughput, *figures))
    return [curve._replace(points=sorted(curve.points)) for curve in found.values()]


def readings(results: Results) -> list[str]:
    """Return what the curves say, in a sentence each."""
    said = []
    for curve in curves(results):
        if curve.axis == "agents":
            said.append(reach(curve))
            continue
        best, law = max(curve.points, key=lambda p: p.throughput), curve.usl
        said.append(
            f"{curve.name}: most at {best.n} at once, {best.throughput:.3g} answers a second"
            + (f"; {law}" if law else "")
        )
    return said


def reach(curve: Curve) -> str:
    """Return how far a curve over agents keeps to the bound, and why it goes no further."""
    kept, last = [p for p in curve.points if p.efficiency >= ENOUGH], curve.points[-1]
    if len(kept) == len(curve.points):
        least = min(p.efficiency for p in kept)
        return f"{curve.name}: at least {least:.2f} of the bound up to {counted(last.n, 'agent')}"
    said = f"{curve.name}: {last.efficiency:.2f} of the bound at {counted(last.n, 'agent')}"
    if kept:
        said += f", {ENOUGH:g} or better up to {kept[-1].n:,}"
    busy_s = (last.busy or 0.0) * last.elapsed_s
    if last.cpu_ms is not None and busy_s > 0.5 * (last.elapsed_s - last.bound_s):
        said += f"; this processor, {last.cpu_ms:.2f} ms a request"
    return said


def remarks(results: Results) -> list[str]:
    """Return what a reader must know before believing the figures, which can be compared."""
    every = [m for case in results.measured for m in results.of(case)]
    said = [*filter(None, [busy(results)])]
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
