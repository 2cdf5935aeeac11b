"""What tunes itself, against what only hindsight knows: the study that `tools/tuning.py` makes."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from agentlab.bench import results
from agentlab.bench.report import markdown_table
from agentlab.bench.trial import Row
from agentlab.learning.regret import Scenario


class TuningResults(msgspec.Struct, frozen=True, kw_only=True):
    """Limiters beside the best static limit, and policies beside an oracle."""

    name: str
    experiment: dict[str, Any]
    machine: dict[str, str]
    limits: list[Row]
    learning: list[Scenario]


def stored(path: str | Path) -> TuningResults:
    """Read what the study found; anything else is a ConfigError."""
    return results.read(path, TuningResults)


def limiters_table(rows: Sequence[Row]) -> str:
    """Return a table with a line per limiter, over all scenarios and seeds."""
    lines = []
    for name in dict.fromkeys(row.limiter for row in rows):
        of = [row for row in rows if row.limiter == name]
        goodput, p95 = [row.of_best_goodput for row in of], [row.of_best_p95 for row in of]
        figures = [median(goodput), min(goodput), median(p95), max(p95)]
        figures.append(max(row.requests_per_answer for row in of))
        passed = f"{sum(row.passes for row in of)} of {len(of)}"
        lines.append([name, passed, *(f"{figure:.2f}" for figure in figures)])
    columns = "limiter|passed|goodput, median|least|p95, median|most|requests an answer"
    return markdown_table(columns.split("|"), lines)
