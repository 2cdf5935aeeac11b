"""What tunes itself, measured against what only hindsight knows; all in virtual time.

An experiment of the kind `tuning` has four parts: limits of calls in flight against the best static
one, random graphs against their critical paths, a bandit against an oracle, and one workflow file
on several engines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from difflib import ndiff
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field

from agentlab.bench import results
from agentlab.bench.experiment import Seed, found
from agentlab.errors import ConfigError, FileError
from agentlab.fields import AtLeastOne, Text, model
from agentlab.located import LocatedFile
from agentlab.progress import bar
from agentlab.tuning import dags, learning, plots, portable, trial
from agentlab.tuning.scenarios import JUDGING, Scenario

_PARTS = ("limits", "graphs", "learning", "portable")


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
        learning.check_shift(self.runs, self.shift_at)


@model
class Tuning:
    """An experiment's file whose `kind` is `tuning`.

    Attributes:
        about: The question, in a sentence.
        limits: How limiters are judged.
        graphs: How many random graphs.
        learning: How the bandit is judged.
        workflows: How many random workflows each engine runs, on an endpoint that fails.
    """

    kind: Literal["tuning"]
    about: Text
    limits: Limits
    graphs: AtLeastOne
    learning: Learning
    workflows: AtLeastOne


class TuningResults(msgspec.Struct, kw_only=True):
    """What came of it; a part that is yet to be measured is None. Equal runs are equal files."""

    name: str
    experiment: Tuning
    machine: dict[str, str]
    limits: list[trial.Row] | None = None
    graphs: dags.Summary | None = None
    learning: list[learning.Scenario] | None = None
    portable: list[portable.Tally] | None = None


def is_tuning(path: Path) -> bool:
    """True if the experiment's file is of this kind."""
    try:
        raw = LocatedFile(path, what="experiment").value
    except FileError:
        return False  # whoever loads it says what is wrong
    return isinstance(raw, dict) and raw.get("kind") == "tuning"


def load(file: str | Path) -> Tuning:
    """Read such an experiment.

    Raises:
        ConfigError: If there is no such file.
        FileError: If it is wrong, naming line and field.

    Example:
        >>> load("tuning").graphs
        200
    """
    return LocatedFile(found(file), what="experiment").decode(Tuning)


def run(experiment: Tuning, file: Path, *, resume: bool = False) -> TuningResults:
    """Measure all parts, and write `file` after each, and after each scenario of the limits.

    Args:
        resume: Keep what is in such a file.

    Raises:
        ConfigError: If the file is unfinished and not to be resumed, is of another experiment, is
            being written by another run, or cannot be written.
    """
    with results.one_writer(file):
        return _measured(experiment, file, resume=resume)


def _measured(experiment: Tuning, file: Path, *, resume: bool) -> TuningResults:
    done = TuningResults(name=file.stem, experiment=experiment, machine=results.machine())
    if file.exists():
        done = _kept(file, done, resume=resume)
    for measure in bar(_yet_to_do(done), name=file.stem):
        measure()
        results.write(file, done)
    return done


def _yet_to_do(done: TuningResults) -> list[Callable[[], None]]:
    """What is missing, piece by piece; each puts into `done` what it measured."""
    experiment = done.experiment
    judged = {row.scenario for row in done.limits or ()}
    limiters = {name: trial.LIMITERS[name] for name in experiment.limits.limiters}

    def judge(scenario: Scenario) -> None:
        rows = trial.judged([scenario], limiters, seeds=experiment.limits.seeds)
        done.limits = [*(done.limits or ()), *rows]

    def measure(part: str, measured: Callable[[], Any]) -> None:
        setattr(done, part, measured())

    parts: dict[str, Callable[[], Any]] = {
        "graphs": lambda: dags.summary([dags.measure(seed) for seed in range(experiment.graphs)]),
        "learning": lambda: _learned(experiment.learning),
        "portable": lambda: [
            portable.tally(engine, range(experiment.workflows)) for engine in portable.VIRTUAL
        ],
    }
    return [
        *(partial(judge, scenario) for scenario in JUDGING if scenario.name not in judged),
        *(partial(measure, *part) for part in parts.items() if getattr(done, part[0]) is None),
    ]


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
                f"for {len(asked.seeds)} seeds; measure anew into another folder with --out"
            )
    return kept


def are_tuning_results(path: str | Path) -> bool:
    """True if `run` wrote the file."""
    try:
        raw = msgspec.json.decode(Path(path).read_bytes())
    except results.UNREADABLE:
        return False  # whoever loads it says what is wrong
    experiment = raw.get("experiment") if isinstance(raw, dict) else None
    return isinstance(experiment, dict) and experiment.get("kind") == "tuning"


def _kept(file: Path, empty: TuningResults, *, resume: bool) -> TuningResults:
    kept = stored(file)
    if not resume:
        if _yet_to_do(kept):
            raise ConfigError(
                f"{file} is of a run that was interrupted; go on with --resume, or remove it"
            )
        return empty
    for what in ("experiment", "machine"):
        if getattr(kept, what) != getattr(empty, what):
            raise ConfigError(f"{file} is of another {what}; choose another folder with --out")
    return kept


def _learned(how: Learning) -> list[learning.Scenario]:
    return [
        learning.scenario(name, runs=how.runs, seeds=how.seeds, shift_at=shift_at)
        for name, shift_at in (("steady", None), ("a shift", how.shift_at))
    ]


def markdown(measured: TuningResults) -> str:
    """The tables of all parts that have been measured."""
    about = ", ".join(f"{name} {value}" for name, value in measured.machine.items())
    parts = [f"# {measured.name}", measured.experiment.about, *_tables(measured).values()]
    return "\n\n".join([*parts, f"virtual time, exact; {about}."]) + "\n"


def compared(before: TuningResults, after: TuningResults) -> str:
    """The lines of the tables that differ, or "the same".

    All times are virtual and exact, so any difference is one. What differs only beyond the digits
    that the tables show is named by its part.

    Example:
        >>> one = dags.summary([dags.measure(3)])
        >>> kept = TuningResults(name="x", experiment=load("tuning"), machine={}, graphs=one)
        >>> compared(kept, kept)
        'the same'
    """
    lines: list[str] = []
    for part in _PARTS:
        if getattr(before, part) == getattr(after, part):
            continue
        old, new = (_tables(of).get(part, "").splitlines() for of in (before, after))
        differ = [line for line in ndiff(old, new) if line[0] in "-+" and line[1:].strip()]
        lines += differ or [f"{part}: they differ beyond the digits of the tables"]
    return "\n".join(lines) or "the same"


def _tables(measured: TuningResults) -> dict[str, str]:
    """Part -> its heading and tables, of all parts that have been measured."""
    parts: dict[str, list[str]] = {}
    if measured.limits is not None:
        parts["limits"] = [
            "## How many calls in flight",
            "Against the best static limit of each scenario, which a sweep finds. None of the "
            "scenarios was used for tuning, and their seeds were drawn after the last change of a "
            f"limiter: {', '.join(map(str, measured.experiment.limits.seeds))}. Passed is at least "
            f"{trial.LEAST_GOODPUT:g} of its goodput, with at most {trial.MOST_P95:g} of its p95.",
            limiters_table(measured.limits),
            scenarios_table(measured.limits),
        ]
    if measured.graphs is not None:
        parts["graphs"] = ["## Along the true edges", graphs_said(measured.graphs)]
    if measured.learning is not None:
        parts["learning"] = [
            "## Which pattern for which task",
            "Shares of what an oracle earns; the quality of answers is SIMULATED.",
            learning_table(measured.learning),
        ]
    if measured.portable is not None:
        parts["portable"] = ["## One file, every engine", portable.markdown(measured.portable)]
    return {part: "\n\n".join(paragraphs) for part, paragraphs in parts.items()}


def limiters_table(rows: Sequence[trial.Row]) -> str:
    """A line a limiter, over all scenarios and seeds.

    Example:
        >>> row = trial.Row("4 slots", "fixed 3", 1.5, 2.0, 0.75, 0.9, 1.0, 4, 29)
        >>> print(limiters_table([row]).splitlines()[-1])
        | fixed 3 | 0 of 1 | 0.75 | 0.75 | 0.90 | 0.90 | 1.00 |
    """
    lines = [
        "| limiter | passed | goodput, median | least | p95, median | most | requests an answer |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in dict.fromkeys(row.limiter for row in rows):
        of = [row for row in rows if row.limiter == name]
        goodput, p95 = [row.of_best_goodput for row in of], [row.of_best_p95 for row in of]
        figures = (median(goodput), min(goodput), median(p95), max(p95))
        each = max(row.requests_per_answer for row in of)
        cells = [f"{figure:.2f}" for figure in (*figures, each)]
        lines.append(f"| {' | '.join([name, _passed(of), *cells])} |")
    return "\n".join(lines)


def scenarios_table(rows: Sequence[trial.Row], limiter: str = "adaptive") -> str:
    """A line a scenario, for one limiter, with the worst of all seeds; empty if it was not judged.

    Example:
        >>> one = trial.Row("4 slots", "adaptive", 1.5, 2.0, 0.95, 1.1, 1.0, 4, 29)
        >>> other = trial.Row("4 slots", "adaptive", 1.5, 2.0, 0.97, 1.4, 1.0, 5, 30)
        >>> print(scenarios_table([one, other]).splitlines()[-1])
        | 4 slots | 4 to 5 | 1 of 2 | 0.95 | 1.40 |
    """
    lines = [
        f"| scenario | best static limit | {limiter}: passed | least goodput | most p95 |",
        "| --- | --- | --- | --- | --- |",
    ]
    judged = [row for row in rows if row.limiter == limiter]
    for scenario in dict.fromkeys(row.scenario for row in judged):
        of = [row for row in judged if row.scenario == scenario]
        limits = sorted({row.best_limit for row in of})
        least, most = min(row.of_best_goodput for row in of), max(row.of_best_p95 for row in of)
        best = " to ".join(str(limit) for limit in dict.fromkeys((limits[0], limits[-1])))
        lines.append(f"| {scenario} | {best} | {_passed(of)} | {least:.2f} | {most:.2f} |")
    return "\n".join(lines) if judged else ""


def _passed(rows: Sequence[trial.Row]) -> str:
    return f"{sum(row.passes for row in rows)} of {len(rows)}"


def graphs_said(graphs: dags.Summary) -> str:
    """In a sentence.

    Example:
        >>> print(graphs_said(dags.summary([dags.measure(3)])))
        1 random graphs: at worst 1.00 of the critical path, in supersteps 1.13; answers equal
    """
    return (
        f"{graphs.graphs} random graphs: at worst {graphs.worst_ratio:.2f} of the critical path, "
        f"in supersteps {graphs.worst_supersteps_ratio:.2f}; "
        f"answers {'equal' if graphs.all_equal else 'DIFFER'}"
    )


def learning_table(scenarios: Sequence[learning.Scenario]) -> str:
    """A line a policy: its share of the oracle's earnings, the worst seed's, and its recovery."""
    heads = [f"{s.name}: mean | worst seed" for s in scenarios]
    heads += ["back at .90 after" for s in scenarios if s.shift_at is not None]
    lines = [f"| policy | {' | '.join(heads)} |"]
    lines.append(lines[0].count(" | ") * "| --- " + "| --- |")
    for policy in scenarios[0].policies:
        curves = [s.policies[policy] for s in scenarios]
        shares = [f"{curve.share:.3f} | {curve.least_share:.3f}" for curve in curves]
        back = [_back(s, policy) for s in scenarios if s.shift_at is not None]
        lines.append(f"| {' | '.join([policy, *shares, *back])} |")
    return "\n".join(lines)


def _back(shifted: learning.Scenario, policy: str) -> str:
    runs = learning.recovery(shifted.policies[policy].curve, shifted.shift_at or 0)
    return "never" if runs is None else f"{runs} runs"


def figure(measured: TuningResults) -> Figure:
    """Limiters in all scenarios, and what policies earn over time: the parts that are curves."""
    drawn: list[Callable[[Axes], object]] = []
    if measured.limits is not None:
        drawn.append(partial(plots.draw_limiters, rows=measured.limits))
    for scenario in measured.learning or ():
        drawn.append(partial(plots.draw_learning, scenario=scenario))
    with plots.style():
        made, axes = plots.panels(len(drawn))
        for axis, draw in zip(axes, drawn, strict=True):
            draw(axis)
    return made
