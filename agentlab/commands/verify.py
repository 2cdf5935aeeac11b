"""`agentlab verify`: does a result come out again? Virtual rows do to the byte."""

import argparse
import dataclasses
import os
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from agentlab.bench import measure, proof, results, trial
from agentlab.bench.experiment import Case, counted, varied
from agentlab.bench.results import TOLERANCE, Results
from agentlab.bench.self_tuning import TuningResults
from agentlab.commands.doctor import FAIL, OK, Finding
from agentlab.errors import ConfigError
from agentlab.learning import regret

DESCRIPTION = (
    "Check results against their proofs. Derive virtual rows again, to the byte, and measure real "
    "cases again: the time of each as a share of the sequential one's, or of the first."
)

NOTE = "NOTE"  # which proves nothing either way


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="NAME.json, of agentlab bench")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")


def run(options: argparse.Namespace) -> int:
    """Print a line for each case; return 1 if one fails, or a file cannot be read."""
    failed = False
    # With *.json the proofs are named, too.
    for file in (Path(one) for one in options.files if not one.endswith(".proof.json")):
        print(file)
        try:
            for finding in verify(file, rounds=options.rounds):
                print(finding, flush=True)
                failed |= finding.verdict == FAIL
        except ConfigError as error:
            print(Finding(FAIL, str(error)))
            failed = True
    return int(failed)


def verify(file: Path, *, rounds: int = 3) -> Iterator[Finding]:
    """Yield a line for each case of a result, after those on its proof.

    In virtual time its rows are derived again. On the real clock its cases are measured again, so
    many `rounds`; what a real model answered is not, because that costs money.
    """
    result = proof.stored(file)
    yield from _proven(file, result)
    if isinstance(result, TuningResults):
        yield from _tuned(result)
        return
    if result.real:
        yield Finding(NOTE, "a real model answered, which costs money", "measure again with bench")
        return
    experiment, compare = result.experiment, derived
    changed: dict[str, Any] = {"settings": {**experiment.settings}}
    if experiment.clock == "real":
        changed["settings"]["upstream"], changed["repeats"] = None, rounds
        compare, load = measured, proof.now()[1] or 0.0
        if load > (os.cpu_count() or 1) / 2:
            cure = "wait until it is quiet: what the processor limits is slower now"
            yield Finding(NOTE, f"busy with a load average of {load:.1f}", cure, "machine")
    experiment = dataclasses.replace(experiment, **changed)
    with TemporaryDirectory() as folder:
        again = Path(folder) / file.name
        yield from compare(result, measure.run(experiment, again))
        there, now = proof.requests_of(file), proof.requests_of(again)
        if compare is derived and there.exists():
            same = now.exists() and now.read_bytes() == there.read_bytes()
            yield Finding(OK if same else FAIL, _again(same), name=there.name)


def _again(same: bool) -> str:
    return "again, equal to the byte" if same else "otherwise"


def _proven(file: Path, result: Results | TuningResults) -> Iterator[Finding]:
    known, now = proof.read(file), proof.digests(file, result)
    if known is None:
        yield Finding(NOTE, "there is none; agentlab bench writes one", name="proof")
    for name, digest in known.sha256.items() if known else ():
        own = name in (file.name, proof.requests_of(file).name)
        if now.get(name) != digest:
            says = "changed since" if name in now else "not here"
            yield Finding(FAIL if own else NOTE, says, name=name)
        elif own:
            yield Finding(OK, "as it was written", name=name)
    rows = zip_longest(known.rows, proof.rows(result)) if known else ()
    if edited := [number for number, (was, row) in enumerate(rows) if was != row]:
        yield Finding(FAIL, ", ".join(map(str, edited[:9])), name="measurements that were changed")
    old = result.machine | (known.versions if known else {})
    new = results.machine() | proof.versions(result)
    if other := [f"{name} {old[name]}" for name in old if new.get(name, old[name]) != old[name]]:
        yield Finding(NOTE, f"measured with {', '.join(other)}", name="machine")


def derived(result: Results, again: Results) -> Iterator[Finding]:
    """Compare the rows of each case in virtual time to the byte."""
    axes = varied(m.case for m in result.measurements)
    for case in result.experiment.cases():
        of = [[m for m in some.measurements if m.case == case] for some in (result, again)]
        yield _same(case.named(axes), *of)


def _same(name: str, old: Sequence[msgspec.Struct], new: Sequence[msgspec.Struct]) -> Finding:
    """Compare rows; a field that no older file has is not held against it."""
    off = []
    for was, now in zip_longest(map(msgspec.to_builtins, old), map(msgspec.to_builtins, new)):
        if was is None or now is None:
            off.append("one is missing")
        elif changed := [field for field in was if was[field] != now.get(field)]:
            of = [f"{field} {was[field]} comes out as {now.get(field)}" for field in changed[:3]]
            off.append(", ".join(of))
    many = max(len(old), len(new))
    if not off:
        return Finding(OK, f"{counted(many, 'row')} {_again(True)}", name=name)
    return Finding(FAIL, f"{len(off)} of {many} rows differ: {off[0]}", name=name)


def measured(result: Results, again: Results) -> Iterator[Finding]:
    """Compare each case's time, as a share of the sequential or first one's, with the stored one.

    Machines differ in speed, and rounds drift, so shares are taken round by round. The median of
    the new ones has to lie between the least and the most of the stored ones, or within 10% of
    them: a prediction interval without assumptions on the noise (Hahn and Meeker, Statistical
    Intervals (1991), chapter 5), and room for what is too small to matter.
    """
    axes, first = varied(result.measured), dict[tuple[str, int], Case]()
    for case in result.measured:
        base = msgspec.structs.replace(case, engine="sequential")
        if not result.of(base):
            base = first.setdefault((case.preset, case.seed), case)
        of = [{(m.work, m.answers) for m in some.of(case)} for some in (result, again)]
        was, now = (_shares(some, case, base) for some in (result, again))
        name = case.named(axes)
        if not was or not now or not of[1] <= of[0]:
            yield Finding(FAIL, "no result, or other answers", name=name)
        elif base == case:
            times_s = [median(m.elapsed_s for m in some.of(case)) for some in (again, result)]
            said = f"the baseline; it takes {times_s[0] / times_s[1]:.2f} times as long here"
            yield Finding(NOTE, said, name=name)
        else:
            low, share, high = min(was) / (1 + TOLERANCE), median(now), max(was) * (1 + TOLERANCE)
            said = f"{share:.3f} of {base.engine}'s time, for {low:.3f} to {high:.3f}"
            yield Finding(OK if low <= share <= high else FAIL, said, name=name)


def _shares(some: Results, case: Case, base: Case) -> list[float]:
    base_s = {m.repeat: m.elapsed_s for m in some.of(base)}
    return [m.elapsed_s / base_s[m.repeat] for m in some.of(case) if base_s.get(m.repeat)]


def _tuned(result: TuningResults) -> Iterator[Finding]:
    """Derive what takes seconds: all of the learning, and limits in a few scenarios."""
    limits, learning = result.experiment.limits, result.experiment.learning
    seed, some = limits.seeds[0], trial.JUDGING[:3]
    limiters = {name: trial.LIMITERS[name] for name in limits.limiters}
    again = trial.judged(some, limiters, seeds=[seed])
    names = [scenario.name for scenario in some]
    old = [row for row in result.limits if row.seed == seed and row.scenario in names]
    yield _same(f"limits in {', '.join(names)}, seed {seed}", old, again)
    yield Finding(NOTE, "the others take minutes", "derive them with bench", "limits")
    for one in result.learning:
        seeds, shift_at = learning.seeds, one.shift_at
        new = regret.scenario(one.name, runs=learning.runs, seeds=seeds, shift_at=shift_at)
        yield _same(f"learning, {one.name}", [one], [new])
