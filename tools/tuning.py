"""Derive the study of what tunes itself again: data/results/tuning.json, .md and .png.

Two parts, all in virtual time: limits of calls in flight against the best static one, and a bandit
against an oracle. What is run is in data/scenarios/study.yaml. It takes some minutes.

    .venv/bin/python tools/tuning.py --out data/results
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
from matplotlib.figure import Figure
from tuning_limits import LIMITERS, judged
from tuning_policies import against_oracle, check_shift, recovery

from agentlab._support.fields import AtLeastOne, Text, model
from agentlab._support.progress_bar import bar
from agentlab._support.yaml_file import LocatedFile
from agentlab.bench import plots, results
from agentlab.bench.experiment import Seed, Some
from agentlab.bench.report import markdown_table
from agentlab.bench.self_tuning import TuningResults, limiters_table
from agentlab.bench.trial import JUDGING, LEAST_GOODPUT, MOST_P95, Row
from agentlab.errors import ConfigError
from agentlab.learning.regret import Scenario
from agentlab.settings import DATA

STUDY = DATA / "scenarios" / "study.yaml"


@model
class Limits:
    """How limiters of `LIMITERS` are judged: in scenarios drawn once from each seed."""

    limiters: Some[Text]
    seeds: Some[Seed]

    def __post_init__(self) -> None:
        if unknown := set(self.limiters) - set(LIMITERS):
            known = ", ".join(LIMITERS)
            raise ValueError(f"limiters: there is no {unknown.pop()!r}; there are {known}")


@model
class Learning:
    """How the bandit is judged: in a world for each seed; skills are others from `shift_at` on."""

    runs: AtLeastOne
    shift_at: AtLeastOne
    seeds: Some[Seed]

    def __post_init__(self) -> None:
        check_shift(self.runs, self.shift_at)


@model
class Study:
    """What is run."""

    kind: Literal["tuning"]
    about: Text
    limits: Limits
    learning: Learning


def load(file: Path = STUDY) -> Study:
    """Read what is to be run; a mistake in it is a FileError that names line and field."""
    return LocatedFile(file, what="study").decode(Study)


def run(study: Study, file: Path) -> TuningResults:
    """Run both parts and write `file`; equal runs make equal files."""
    limits, learning = study.limits, study.learning
    limiters = {name: LIMITERS[name] for name in limits.limiters}
    with results.one_writer(file):
        done = TuningResults(
            name=file.stem,
            experiment=msgspec.to_builtins(study),
            machine=results.machine(),
            limits=judged(bar(JUDGING, name=file.stem), limiters, seeds=limits.seeds),
            learning=[
                against_oracle(name, runs=learning.runs, seeds=learning.seeds, shift_at=shift_at)
                for name, shift_at in (("steady", None), ("a shift", learning.shift_at))
            ],
        )
        results.write(file, done)
    return done


def markdown(measured: TuningResults) -> str:
    """Return the tables of both parts, with what they were measured on."""
    seeds = ", ".join(map(str, measured.experiment["limits"]["seeds"]))
    about = ", ".join(f"{name} {value}" for name, value in measured.machine.items())
    parts = [
        f"# {measured.name}",
        measured.experiment["about"],
        "## How many calls in flight",
        "Against the best static limit of each scenario, which a sweep finds. None of the "
        f"scenarios was used for tuning, and none of their seeds: {seeds}. Passed is at least "
        f"{LEAST_GOODPUT:g} of its goodput, with at most {MOST_P95:g} of its p95.",
        limiters_table(measured.limits),
        scenarios_table(measured.limits),
        "## Which pattern for which task",
        "Shares of what an oracle earns; the quality of answers is SIMULATED.",
        learning_table(measured.learning),
        f"virtual time, exact; {about}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def scenarios_table(rows: Sequence[Row]) -> str:
    """Return a table with a line per scenario, for the adaptive limit, the worst of all seeds."""
    lines, adaptive = [], [row for row in rows if row.limiter == "adaptive"]
    for scenario in dict.fromkeys(row.scenario for row in adaptive):
        of = [row for row in adaptive if row.scenario == scenario]
        limits = sorted({row.best_limit for row in of})
        best = " to ".join(str(limit) for limit in dict.fromkeys((limits[0], limits[-1])))
        passed = f"{sum(row.passes for row in of)} of {len(of)}"
        least, most = min(row.of_best_goodput for row in of), max(row.of_best_p95 for row in of)
        lines.append([scenario, best, passed, f"{least:.2f}", f"{most:.2f}"])
    columns = "scenario|best static limit|adaptive: passed|least goodput|most p95"
    return markdown_table(columns.split("|"), lines) if lines else ""


def learning_table(scenarios: Sequence[Scenario]) -> str:
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
                runs = recovery(curve.curve, one.shift_at)
                lines[policy].append("never" if runs is None else f"{runs} runs")
    return markdown_table(columns, lines.values())


def picture(measured: TuningResults) -> Figure:
    """Limiters in all scenarios, and beside them what policies earn in each of theirs."""
    names = dict.fromkeys(row.limiter for row in measured.limits)
    passed = {n: [row.passes for row in measured.limits if row.limiter == n] for n in names}
    best = max(passed, key=lambda name: sum(passed[name]))
    title = f"{best}: {sum(passed[best])} of {len(passed[best])} in the box"
    panels = [partial(plots._limiters, rows=measured.limits, title=title)]
    for scenario in measured.learning:
        name, curve = next(iter(scenario.policies.items()))
        title = f"{scenario.name}: {name} earns {curve.share:.2f} of the oracle"
        panels.append(partial(plots._learning, scenario=scenario, title=title))
    return plots._drawn(panels)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; write its results, its tables and its picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", metavar="DIR", type=Path, default=DATA / "results")
    parser.add_argument("--study", metavar="FILE", type=Path, default=STUDY)
    options = parser.parse_args(arguments)
    file = options.out / "tuning.json"
    try:
        done = run(load(options.study), file)
    except ConfigError as error:
        print(f"tuning: {error}", file=sys.stderr)
        return 2
    table = markdown(done)
    file.with_suffix(".md").write_text(table, encoding="utf-8")
    picture(done).savefig(file.with_suffix(".png"), dpi=80)
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
