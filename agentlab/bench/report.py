"""Results as a Markdown table: one row a case, the bound beside each time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import median

import msgspec
from msgspec import UNSET

from agentlab.bench.experiment import Case, shown
from agentlab.bench.reading import axes, readings, remarks, seconds
from agentlab.bench.results import Measurement, Results, unequal


def markdown(results: Results) -> str:
    """What forbids comparing its rows, the table, and what it was measured on.

    Times are model seconds, a real model's being seconds: the median, and from least to most where
    there are repeats. What else was counted is the median over these, and `peak` the most of all.
    `of the bound` is the bound divided by the median, 1 being perfect; `endpoint busy` is the share
    of a processor that the lab's own endpoint took; `saved` is against the sequential run of the
    same work. Where every run failed there is no table, but why they did.
    """
    experiment = results.experiment
    problems = [f"**not comparable**: {problem}" for problem in unequal(results.measurements)]
    repeats = f"{experiment.repeats} runs of each case, in turn"
    clock = "virtual time, exact" if experiment.clock == "virtual" else f"real time, {repeats}"
    unit = "seconds" if results.real else "model seconds"
    about = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    parts = [
        f"# {results.name}",
        experiment.about,
        "\n".join(f"- {problem}" for problem in problems),
        table(results) or "No run has a result, so there is no table.",
        "\n".join(f"- {line}" for line in [*readings(results), *remarks(results)]),
        f"Times are {unit}. {clock[0].upper()}{clock[1:]}; {about}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(results: Results) -> str:
    """The table alone, for a notebook: a row for each case that was measured.

    Example:
        >>> from agentlab.bench import experiment, measure
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     r = measure.run(experiment.load("article"), Path(folder) / "article.json")
        >>> print(table(r).splitlines()[6])
        | 2 agents | asyncio | 2.0 | 2.0 | 1.000 | 50.0% | 2.0 | 2 | 2 | 50 |
    """
    rows = [_row(results, case) for case in results.measured]
    if not rows:
        return ""
    kept = [name for name in rows[0] if any(row[name] for row in rows)]
    return "\n".join(_table(kept, rows, text=axes(results)))


def _row(results: Results, case: Case) -> dict[str, str]:
    """Column -> cell; a column without any is left out."""
    runs = results.of(case)
    p95_s = [m.p95_s for m in runs if m.p95_s is not None]
    elapsed_s, bound_s = _elapsed_s(runs), median(m.bound_s for m in runs)
    cpu_ms = [m.cpu_ms for m in runs if m.cpu_ms is not None]
    endpoint_ms = [m.endpoint_cpu_ms for m in runs if m.endpoint_cpu_ms is not UNSET]
    busy = [m.endpoint_busy for m in runs if m.endpoint_busy is not UNSET]
    fine = 1 if len(runs) == 1 else 2

    def shown_s(value_s: float, decimals: int) -> str:
        if results.real:  # a real endpoint may take milliseconds: two digits of each
            return seconds(value_s, 2, digits=2)
        return seconds(value_s, decimals)

    elapsed = shown_s(elapsed_s, fine)

    def part_of_it(value_s: float) -> str:
        part = shown_s(value_s, 1)  # 1.96 would be shown as 2.0, and so as more than 1.97
        return part if _number(part) <= _number(elapsed) else shown_s(value_s, fine)

    times = [shown_s(m.elapsed_s, fine) for m in sorted(runs, key=lambda m: m.elapsed_s)]
    return {
        **{axis: shown(getattr(case, axis)) for axis in axes(results)},
        "elapsed (s)": elapsed + (f" ({times[0]} to {times[-1]})" if len(times) > 1 else ""),
        "bound (s)": part_of_it(bound_s),
        "of the bound": f"{bound_s / elapsed_s:.3f}" if bound_s else "-",
        "endpoint CPU (ms per request)": f"{median(endpoint_ms):.2f}" if endpoint_ms else "",
        "endpoint busy": f"{median(busy):.0%}" if busy else "",
        "saved": _saved(results, case, elapsed_s),
        "p95 (s)": part_of_it(median(p95_s)) if p95_s else "",
        "requests": f"{median(m.requests for m in runs):,.0f}",
        "peak": f"{max(m.peak for m in runs):,}",
        "tokens": f"{median(m.tokens for m in runs):,.0f}",
        "CPU (ms a request)": f"{median(cpu_ms):.2f}" if cpu_ms else "",
    }


def _number(shown: str) -> float:
    return float(shown.replace(",", ""))


def saved(results: Results, case: Case) -> float | None:
    """The share of the sequential run's time that this case saves; None if there was none.

    Example:
        >>> from agentlab.bench import experiment, measure
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     r = measure.run(experiment.load("article"), Path(folder) / "article.json")
        >>> saved(r, Case("4 agents", "asyncio", "course", None, 7))
        0.75
    """
    baseline = results.of(msgspec.structs.replace(case, engine="sequential"))
    runs = results.of(case)
    if case.engine == "sequential" or not baseline or not runs:
        return None
    return 1 - _elapsed_s(runs) / _elapsed_s(baseline)


def _saved(results: Results, case: Case, elapsed_s: float) -> str:
    share = saved(results, case) if elapsed_s else None
    return "" if share is None else f"{share:.1%}"


def _elapsed_s(runs: Sequence[Measurement]) -> float:
    return median(m.elapsed_s for m in runs)


def _table(
    names: Sequence[str], rows: Sequence[Mapping[str, str]], *, text: Collection[str]
) -> list[str]:
    rule = ["---" if name in text else "---:" for name in names]
    cells = [[row[name] for name in names] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (names, rule, *cells)]
