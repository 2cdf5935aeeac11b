"""Results as a Markdown table: one row a case, the bound beside each time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import median

import msgspec

from agentlab.bench.experiment import Case
from agentlab.bench.reading import axes, readings, shown
from agentlab.bench.results import Measurement, Results, unequal


def markdown(results: Results) -> str:
    """What forbids comparing its rows, the table, and what it was measured on.

    Times are model seconds: the median, and from least to most where there are repeats. What else
    was counted is the median over these, and `peak` the most of all. `of the
    bound` is the bound divided by the median, 1 being perfect; `saved` is against the sequential
    run of the same work.
    """
    experiment = results.experiment
    problems = [f"**not comparable**: {problem}" for problem in unequal(results.measurements)]
    repeats = f"{experiment.repeats} runs of each case, in turn"
    clock = "virtual time, exact" if experiment.clock == "virtual" else f"real time, {repeats}"
    about = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    parts = [
        f"# {results.name}",
        experiment.about,
        "\n".join(f"- {problem}" for problem in problems),
        table(results),
        "\n".join(f"- {line}" for line in readings(results)),
        f"Times are model seconds. {clock[0].upper()}{clock[1:]}; {about}.",
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
    rows = [_row(results, case) for case in results.experiment.cases() if results.of(case)]
    kept = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
    return "\n".join(_table(kept, rows, text=axes(results)))


def _row(results: Results, case: Case) -> dict[str, str]:
    """Column -> cell; a column without any is left out."""
    runs = results.of(case)
    p95_s = [m.p95_s for m in runs if m.p95_s is not None]
    elapsed_s, bound_s = _elapsed_s(runs), median(m.bound_s for m in runs)
    cpu_ms = [m.cpu_ms for m in runs if m.cpu_ms is not None]
    return {
        **{axis: shown(getattr(case, axis)) for axis in axes(results)},
        "elapsed (s)": _spread(runs),
        "bound (s)": f"{bound_s:,.1f}",
        "of the bound": f"{bound_s / elapsed_s:.3f}" if bound_s else "-",
        "saved": _saved(results, case, elapsed_s),
        "p95 (s)": f"{median(p95_s):.1f}" if p95_s else "",
        "requests": f"{median(m.requests for m in runs):,.0f}",
        "peak": f"{max(m.peak for m in runs):,}",
        "tokens": f"{median(m.tokens for m in runs):,.0f}",
        "CPU (ms a request)": f"{median(cpu_ms):.2f}" if cpu_ms else "",
    }


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


def _spread(runs: Sequence[Measurement]) -> str:
    times = sorted(m.elapsed_s for m in runs)
    if len(times) == 1:
        return f"{times[0]:,.1f}"
    return f"{median(times):.2f} ({times[0]:.2f} to {times[-1]:.2f})"


def _table(
    names: Sequence[str], rows: Sequence[Mapping[str, str]], *, text: Collection[str]
) -> list[str]:
    rule = ["---" if name in text else "---:" for name in names]
    cells = [[row[name] for name in names] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (names, rule, *cells)]
