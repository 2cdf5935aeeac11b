"""What tunes itself, measured against what only hindsight knows; all in virtual time.

An experiment of the kind `tuning` has two parts: limits of calls in flight against the best static
one, and a bandit against an oracle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from difflib import ndiff
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import msgspec
from pydantic import Field

from agentlab._support.fields import AtLeastOne, Text, model
from agentlab._support.progress_bar import bar
from agentlab._support.tables import markdown_table
from agentlab._support.yaml_file import LocatedFile
from agentlab.bench import results, trial
from agentlab.bench.experiment import Seed, found
from agentlab.bench.scenarios import JUDGING, Scenario
from agentlab.errors import ConfigError, FileError
from agentlab.learning import regret

Seeds = Annotated[list[Seed], Field(min_length=1)]


@model
class Limits:
    """How limiters are judged; `seeds` should be others than those with which one was tuned.

    Attributes:
        limiters: Names of `tuning.trial.LIMITERS`.
        seeds: Each scenario is drawn once from each.
    """

    limiters: Annotated[list[Text], Field(min_length=1)]
    seeds: Seeds

    def __post_init__(self) -> None:
        if unknown := set(self.limiters) - set(trial.LIMITERS):
            raise ValueError(
                f"limiters: there is no {unknown.pop()!r}; there are {', '.join(trial.LIMITERS)}"
            )


@model
class Learning:
    """How the bandit is judged; `seeds` should be others than those it was made with.

    Attributes:
        runs: Tasks in each world.
        shift_at: The task from which on skills are others; a multiple of `tuning.learning.BLOCK`.
        seeds: A world each.
    """

    runs: AtLeastOne
    shift_at: AtLeastOne
    seeds: Seeds

    def __post_init__(self) -> None:
        regret.check_shift(self.runs, self.shift_at)


@model
class Tuning:
    """An experiment's file whose `kind` is `tuning`.

    Attributes:
        about: The question, in a sentence.
        limits: How limiters are judged.
        learning: How the bandit is judged.
    """

    kind: Literal["tuning"]
    about: Text
    limits: Limits
    learning: Learning


class TuningResults(msgspec.Struct, kw_only=True):
    """What came of it; a part that is yet to be measured is None. Equal runs are equal files."""

    name: str
    experiment: Tuning
    machine: dict[str, str]
    limits: list[trial.Row] | None = None
    learning: list[regret.Scenario] | None = None

    @property
    def missing(self) -> int:
        """How many measurements are yet to be made."""
        return len(_yet_to_do(self))


def is_tuning(path: Path) -> bool:
    """Return True if the experiment's file is of this kind."""
    try:
        raw = LocatedFile(path, what="experiment").value
    except FileError:
        return False  # the loader says what is wrong
    return isinstance(raw, dict) and raw.get("kind") == "tuning"


def load(file: str | Path) -> Tuning:
    """Read such an experiment.

    Raises:
        ConfigError: If there is no such file.
        FileError: If it is wrong, naming line and field.

    Example:
        >>> load("tuning").learning.runs
        2000
    """
    return LocatedFile(found(file), what="experiment").decode(Tuning)


def run(experiment: Tuning, file: Path, *, resume: bool = False) -> TuningResults:
    """Measure both parts, and write `file` after each scenario of the limits and after the rest.

    Args:
        resume: Keep what is in such a file.

    Raises:
        ConfigError: If the file is unfinished and not to be resumed, is of another experiment, is
            being written by another run, or cannot be written.
    """
    empty = TuningResults(name=file.stem, experiment=experiment, machine=results.machine())
    with results.one_writer(file):
        done = results.go_on(file, empty, stored, resume=resume)
        for measure in bar(_yet_to_do(done), name=file.stem):
            measure()
            results.write(file, done)
    return done


def _yet_to_do(done: TuningResults) -> list[Callable[[], None]]:
    """Return what is missing, piece by piece; each puts into `done` what it measured."""
    how = done.experiment
    judged = {row.scenario for row in done.limits or ()}
    limiters = {name: trial.LIMITERS[name] for name in how.limits.limiters}

    def judge(scenario: Scenario) -> None:
        rows = trial.judged([scenario], limiters, seeds=how.limits.seeds)
        done.limits = [*(done.limits or ()), *rows]

    def learn() -> None:
        runs, seeds = how.learning.runs, how.learning.seeds
        done.learning = [
            regret.scenario(name, runs=runs, seeds=seeds, shift_at=shift_at)
            for name, shift_at in (("steady", None), ("a shift", how.learning.shift_at))
        ]

    judges = [partial(judge, scenario) for scenario in JUDGING if scenario.name not in judged]
    return [*judges, *([learn] if done.learning is None else [])]


def stored(path: str | Path) -> TuningResults:
    """Read what `run` wrote.

    Raises:
        ConfigError: If it cannot be read, is something else, or its limits are not each limiter
            once for each seed of a scenario.
    """
    kept = results.read(path, TuningResults)
    asked, known = kept.experiment.limits, {scenario.name for scenario in JUDGING}
    rows = Counter((row.scenario, row.limiter) for row in kept.limits or ())
    for (scenario, limiter), times in rows.items():
        if scenario not in known or limiter not in asked.limiters or times != len(asked.seeds):
            raise ConfigError(
                f"TuningResults {str(path)!r}: {limiter!r} in {scenario!r} is there {times} times "
                f"for {len(asked.seeds)} seeds; measure again into another folder with --out"
            )
    return kept


def are_tuning_results(path: str | Path) -> bool:
    """Return True if `run` wrote the file."""
    try:
        raw = msgspec.json.decode(Path(path).read_bytes())
    except results.UNREADABLE:
        return False  # the loader says what is wrong
    experiment = raw.get("experiment") if isinstance(raw, dict) else None
    return isinstance(experiment, dict) and experiment.get("kind") == "tuning"


def markdown(measured: TuningResults) -> str:
    """Return the tables of all parts that have been measured."""
    about = ", ".join(f"{name} {value}" for name, value in measured.machine.items())
    parts = [f"# {measured.name}", measured.experiment.about, *_tables(measured)]
    return "\n\n".join([*parts, f"virtual time, exact; {about}."]) + "\n"


def compared(before: TuningResults, after: TuningResults) -> str:
    """Return the lines of the tables that differ, or "the same".

    All times are virtual and exact, so any difference is a change.

    Example:
        >>> kept = TuningResults(name="x", experiment=load("tuning"), machine={})
        >>> compared(kept, kept)
        'the same'
    """
    if (before.limits, before.learning) == (after.limits, after.learning):
        return "the same"
    old, new = ("\n\n".join(_tables(of)).splitlines() for of in (before, after))
    differ = [line for line in ndiff(old, new) if line[0] in "-+" and line[1:].strip()]
    return "\n".join(differ) or "they differ beyond the digits of the tables"


def _tables(measured: TuningResults) -> list[str]:
    """Return headings and tables of all parts that have been measured."""
    found: list[str] = []
    if measured.limits is not None:
        found += [
            "## How many calls in flight",
            "Against the best static limit of each scenario, which a sweep finds. None of the "
            "scenarios was used for tuning, and their seeds were drawn after the last change of a "
            f"limiter: {', '.join(map(str, measured.experiment.limits.seeds))}. Passed is at least "
            f"{trial.LEAST_GOODPUT:g} of its goodput, with at most {trial.MOST_P95:g} of its p95.",
            limiters_table(measured.limits),
            scenarios_table(measured.limits),
        ]
    if measured.learning is not None:
        found += [
            "## Which pattern for which task",
            "Shares of what an oracle earns; the quality of answers is SIMULATED.",
            learning_table(measured.learning),
        ]
    return found


def limiters_table(rows: Sequence[trial.Row]) -> str:
    """Return a table with a line per limiter, over all scenarios and seeds.

    Example:
        >>> row = trial.Row("4 slots", "fixed 3", 1.5, 2.0, 0.75, 0.9, 1.0, 4, 29)
        >>> print(limiters_table([row]).splitlines()[-1])
        | fixed 3 | 0 of 1 | 0.75 | 0.75 | 0.90 | 0.90 | 1.00 |
    """
    lines = []
    for name in dict.fromkeys(row.limiter for row in rows):
        of = [row for row in rows if row.limiter == name]
        goodput, p95 = [row.of_best_goodput for row in of], [row.of_best_p95 for row in of]
        figures = [median(goodput), min(goodput), median(p95), max(p95)]
        figures.append(max(row.requests_per_answer for row in of))
        lines.append([name, _passed(of), *(f"{figure:.2f}" for figure in figures)])
    columns = "limiter|passed|goodput, median|least|p95, median|most|requests an answer"
    return markdown_table(columns.split("|"), lines)


def scenarios_table(rows: Sequence[trial.Row], limiter: str = "adaptive") -> str:
    """Return a table with a line per scenario, for one limiter, with the worst of all seeds.

    It is empty if the limiter was not judged.

    Example:
        >>> one = trial.Row("4 slots", "adaptive", 1.5, 2.0, 0.95, 1.1, 1.0, 4, 29)
        >>> other = trial.Row("4 slots", "adaptive", 1.5, 2.0, 0.97, 1.4, 1.0, 5, 30)
        >>> print(scenarios_table([one, other]).splitlines()[-1])
        | 4 slots | 4 to 5 | 1 of 2 | 0.95 | 1.40 |
    """
    lines = []
    judged = [row for row in rows if row.limiter == limiter]
    for scenario in dict.fromkeys(row.scenario for row in judged):
        of = [row for row in judged if row.scenario == scenario]
        limits = sorted({row.best_limit for row in of})
        least, most = min(row.of_best_goodput for row in of), max(row.of_best_p95 for row in of)
        best = " to ".join(str(limit) for limit in dict.fromkeys((limits[0], limits[-1])))
        lines.append([scenario, best, _passed(of), f"{least:.2f}", f"{most:.2f}"])
    columns = f"scenario|best static limit|{limiter}: passed|least goodput|most p95"
    return markdown_table(columns.split("|"), lines) if lines else ""


def _passed(rows: Sequence[trial.Row]) -> str:
    return f"{sum(row.passes for row in rows)} of {len(rows)}"


def learning_table(scenarios: Sequence[regret.Scenario]) -> str:
    """Return a table with a line per policy: its share of the oracle's earnings, and recovery."""
    columns = ["policy"]
    for one in scenarios:
        columns += [f"{one.name}: mean", "worst seed"]
    shifted = [one for one in scenarios if one.shift_at is not None]
    columns += ["back at .90 after"] * len(shifted)
    lines = []
    for policy in scenarios[0].policies:
        line = [policy]
        for one in scenarios:
            curve = one.policies[policy]
            line += [f"{curve.share:.3f}", f"{curve.least_share:.3f}"]
        for one in shifted:
            runs = regret.recovery(one.policies[policy].curve, one.shift_at or 0)
            line.append("never" if runs is None else f"{runs} runs")
        lines.append(line)
    return markdown_table(columns, lines)
