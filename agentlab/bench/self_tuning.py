"""What tunes itself, measured against what only hindsight knows; all in virtual time.

Two parts: limits of calls in flight against the best static one, and a bandit against an oracle.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec

from agentlab._support.fields import AtLeastOne, Text, model
from agentlab._support.progress_bar import bar
from agentlab._support.yaml_file import LocatedFile
from agentlab.bench import results, trial
from agentlab.bench.experiment import Seed, Some, found
from agentlab.bench.report import markdown_table
from agentlab.learning import regret


@model
class Limits:
    """How limiters of `trial.LIMITERS` are judged: in scenarios drawn once from each seed."""

    limiters: Some[Text]
    seeds: Some[Seed]

    def __post_init__(self) -> None:
        if unknown := set(self.limiters) - set(trial.LIMITERS):
            raise ValueError(
                f"limiters: there is no {unknown.pop()!r}; there are {', '.join(trial.LIMITERS)}"
            )


@model
class Learning:
    """How the bandit is judged: in a world for each seed; skills are others from `shift_at` on."""

    runs: AtLeastOne
    shift_at: AtLeastOne
    seeds: Some[Seed]

    def __post_init__(self) -> None:
        regret.check_shift(self.runs, self.shift_at)


@model
class Tuning:
    """An experiment's file whose `kind` is `tuning`."""

    kind: Literal["tuning"]
    about: Text
    limits: Limits
    learning: Learning


class TuningResults(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; equal runs make equal files."""

    name: str
    experiment: Tuning
    machine: dict[str, str]
    limits: list[trial.Row]
    learning: list[regret.Scenario]


def is_tuning(path: Path) -> bool:
    """Return True if the experiment's file is of this kind."""
    raw = LocatedFile(path, what="experiment").value
    return isinstance(raw, dict) and raw.get("kind") == "tuning"


def load(file: str | Path) -> Tuning:
    """Read such an experiment; a mistake in it is a FileError that names line and field."""
    return LocatedFile(found(file), what="experiment").decode(Tuning)


def run(experiment: Tuning, file: Path) -> TuningResults:
    """Measure both parts, which takes some minutes, and write `file`; else a ConfigError."""
    limits, learning = experiment.limits, experiment.learning
    limiters = {name: trial.LIMITERS[name] for name in limits.limiters}
    with results.one_writer(file):
        done = TuningResults(
            name=file.stem,
            experiment=experiment,
            machine=results.machine(),
            limits=trial.judged(bar(trial.JUDGING, name=file.stem), limiters, seeds=limits.seeds),
            learning=[
                regret.scenario(name, runs=learning.runs, seeds=learning.seeds, shift_at=shift_at)
                for name, shift_at in (("steady", None), ("a shift", learning.shift_at))
            ],
        )
        results.write(file, done)
    return done


def stored(path: str | Path) -> TuningResults:
    """Read what `run` wrote; anything else is a ConfigError."""
    return results.read(path, TuningResults)


def markdown(measured: TuningResults) -> str:
    """Return the tables of both parts, with what they were measured on."""
    seeds = ", ".join(map(str, measured.experiment.limits.seeds))
    about = ", ".join(f"{name} {value}" for name, value in measured.machine.items())
    parts = [
        f"# {measured.name}",
        measured.experiment.about,
        "## How many calls in flight",
        "Against the best static limit of each scenario, which a sweep finds. None of the "
        "scenarios was used for tuning, and their seeds were drawn after the last change of a "
        f"limiter: {seeds}. Passed is at least {trial.LEAST_GOODPUT:g} of its goodput, with at "
        f"most {trial.MOST_P95:g} of its p95.",
        limiters_table(measured.limits),
        scenarios_table(measured.limits),
        "## Which pattern for which task",
        "Shares of what an oracle earns; the quality of answers is SIMULATED.",
        learning_table(measured.learning),
        f"virtual time, exact; {about}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def limiters_table(rows: Sequence[trial.Row]) -> str:
    """Return a table with a line per limiter, over all scenarios and seeds."""
    lines = []
    for name, of in _by("limiter", rows).items():
        goodput, p95 = [row.of_best_goodput for row in of], [row.of_best_p95 for row in of]
        figures = [median(goodput), min(goodput), median(p95), max(p95)]
        figures.append(max(row.requests_per_answer for row in of))
        lines.append([name, _passed(of), *(f"{figure:.2f}" for figure in figures)])
    columns = "limiter|passed|goodput, median|least|p95, median|most|requests an answer"
    return markdown_table(columns.split("|"), lines)


def scenarios_table(rows: Sequence[trial.Row]) -> str:
    """Return a table with a line per scenario, for the adaptive limit, the worst of all seeds."""
    lines = []
    for scenario, of in _by("scenario", [r for r in rows if r.limiter == "adaptive"]).items():
        limits = sorted({row.best_limit for row in of})
        best = " to ".join(str(limit) for limit in dict.fromkeys((limits[0], limits[-1])))
        least, most = min(row.of_best_goodput for row in of), max(row.of_best_p95 for row in of)
        lines.append([scenario, best, _passed(of), f"{least:.2f}", f"{most:.2f}"])
    columns = "scenario|best static limit|adaptive: passed|least goodput|most p95"
    return markdown_table(columns.split("|"), lines) if lines else ""


def _by(field: str, rows: Sequence[trial.Row]) -> dict[str, list[trial.Row]]:
    found: dict[str, list[trial.Row]] = {}
    for row in rows:
        found.setdefault(getattr(row, field), []).append(row)
    return found


def _passed(rows: Sequence[trial.Row]) -> str:
    return f"{sum(row.passes for row in rows)} of {len(rows)}"


def learning_table(scenarios: Sequence[regret.Scenario]) -> str:
    """Return a table with a line per policy: its share of the oracle's earnings, and recovery."""
    columns, lines = ["policy"], {name: [name] for name in scenarios[0].policies}
    for one in scenarios:
        columns += [f"{one.name}: mean", "worst seed"]
        for policy, curve in one.policies.items():
            lines[policy] += [f"{curve.share:.3f}", f"{curve.least_share:.3f}"]
    for one in scenarios:
        if one.shift_at is not None:
            columns.append("back at .90 after")
            for policy, curve in one.policies.items():
                runs = regret.recovery(curve.curve, one.shift_at)
                lines[policy].append("never" if runs is None else f"{runs} runs")
    return markdown_table(columns, lines.values())
