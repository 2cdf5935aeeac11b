"""Whether a result comes out again: virtual rows to the byte, real ones in their proportions."""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from math import exp, log, log1p, sqrt
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec

from agentlab.bench import measure, proof, results, trial
from agentlab.bench.experiment import Case, Experiment, counted, varied
from agentlab.bench.laws import t99
from agentlab.bench.results import TOLERANCE, Results
from agentlab.bench.self_tuning import TuningResults
from agentlab.learning import regret

_MOST_AGENTS, _SCENARIOS = 100_000, 3  # more would take minutes
_SAME = "derived again, equal to the byte"
OK, FAIL, NOTE = "OK", "FAIL", "NOTE"


class Finding(NamedTuple):
    """A line of what was verified; a NOTE proves nothing either way."""

    verdict: str
    says: str

    def __str__(self) -> str:
        return f"{self.verdict:4}  {self.says}"


def verify(file: Path, *, rounds: int = 3) -> Iterator[Finding]:
    """Yield a line for each case of a result, after those on its proof.

    In virtual time its rows are derived again. On the real clock its cases are measured again, so
    many `rounds`; what a real model answered is not, because that costs money.
    """
    result = proof.stored(file)
    yield from _proven(file, result)
    if isinstance(result, TuningResults):
        yield from _tuned(result)
    elif result.real:
        yield Finding(NOTE, "a real model answered, which costs money: nothing is asked again")
    elif result.experiment.clock == "real":
        settings = {**result.experiment.settings, "upstream": None}
        experiment = dataclasses.replace(result.experiment, repeats=rounds, settings=settings)
        yield from measured(result, _run(experiment, file)[0])
    else:
        quick = [w for w in result.experiment.workloads if (w.agents or 0) <= _MOST_AGENTS]
        again, requests = _run(dataclasses.replace(result.experiment, workloads=quick), file)
        yield from derived(result, again)
        there = proof.requests_of(file)
        if there.exists() and len(quick) == len(result.experiment.workloads):
            same = there.read_bytes() == requests
            yield Finding(OK if same else FAIL, f"{there.name}: {_SAME if same else 'differs'}")


def _run(experiment: Experiment, file: Path) -> tuple[Results, bytes]:
    with TemporaryDirectory() as folder:
        again = Path(folder) / file.name
        made, requests = measure.run(experiment, again), proof.requests_of(again)
        return made, requests.read_bytes() if requests.exists() else b""


def _proven(file: Path, result: Results | TuningResults) -> Iterator[Finding]:
    known = proof.read(file)
    if known is None:
        yield Finding(NOTE, f"there is no {file.stem}.proof.json, which agentlab bench writes")
    else:
        now = proof.digests(file, result)
        for name, digest in known.sha256.items():
            own = name in (file.name, proof.requests_of(file).name)
            if name not in now:
                yield Finding(FAIL if own else NOTE, f"{name} is not here")
            elif now[name] != digest:
                said = f": {_edited(known, result)}" if name == file.name else ""
                yield Finding(FAIL if own else NOTE, f"{name} was changed since{said}")
            elif own:
                yield Finding(OK, f"{name} is as it was written on {known.date:%Y-%m-%d}")
    old = result.machine | (known.versions if known else {})
    new = results.machine() | proof.versions(result)
    if other := [
        f"{name} {old[name]}, now {new[name]}"
        for name in new
        if old.get(name, new[name]) != new[name]
    ]:
        yield Finding(NOTE, f"measured with {'; '.join(other)}")


def _edited(known: proof.Proof, result: Results | TuningResults) -> str:
    """Name the first measurement that is not as it was written."""
    pairs = zip_longest(known.rows, proof.rows(result))
    off = [number for number, (old, new) in enumerate(pairs) if old != new]
    if not off:
        return "something besides its measurements"
    return f"{counted(len(off), 'measurement')}, the first of them number {off[0]}"


def derived(result: Results, again: Results) -> Iterator[Finding]:
    """Compare the rows of each case in virtual time to the byte."""
    axes = varied(m.case for m in result.measurements)
    for case in result.experiment.cases():
        old, new = ([m for m in r.measurements if m.case == case] for r in (result, again))
        if new or case.workload in again.experiment.by_name:
            yield _same(case.named(axes), old, new)
        else:
            yield Finding(NOTE, f"{case.named(axes)}: not derived again here, it takes minutes")


def _same(name: str, old: Sequence[msgspec.Struct], new: Sequence[msgspec.Struct]) -> Finding:
    pairs = list(zip_longest(map(msgspec.to_builtins, old), map(msgspec.to_builtins, new)))
    off = [(was or {}, now or {}) for was, now in pairs if was != now]
    if not off:
        return Finding(OK, f"{name}: {counted(len(pairs), 'row')} {_SAME}")
    was, now = off[0]
    fields = [f for f in {**was, **now} if was.get(f) != now.get(f)]
    first = ", ".join(f"{f} {was.get(f)} comes out as {now.get(f)}" for f in fields[:3])
    return Finding(FAIL, f"{name}: rows that differ: {len(off)} of {len(pairs)}; {first}")


def measured(result: Results, again: Results) -> Iterator[Finding]:
    """Compare each case's time, as a share of the sequential or first one's, with the stored one.

    Machines differ in speed, and rounds drift, so shares are taken round by round. A share agrees
    if it is within 10% of the stored one, or the 99% interval of their difference allows for more
    (Student's t, of logarithms).
    """
    axes, first = varied(result.measured), dict[tuple[str, int], Case]()
    for case in result.measured:
        base = msgspec.structs.replace(case, engine="sequential")
        if not result.of(base):
            base = first.setdefault((case.preset, case.seed), case)
        name, old, new = case.named(axes), result.of(case), again.of(case)
        if not {(m.work, m.answers) for m in new} <= {(m.work, m.answers) for m in old}:
            yield Finding(FAIL, f"{name}: the answers are others")
        elif base == case and new:
            times = median(m.elapsed_s for m in new) / median(m.elapsed_s for m in old)
            yield Finding(NOTE, f"{name}: the baseline; it takes {times:.2f} times as long here")
        else:
            yield _agree(name, base.engine, *(_shares(r, case, base) for r in (result, again)))


def _agree(name: str, base: str, was: Sequence[float], now: Sequence[float]) -> Finding:
    if not was or not now:
        return Finding(FAIL, f"{name}: there is no result to compare")
    squares = sum((x - fmean(some)) ** 2 for some in (was, now) for x in some)
    freedom = len(was) + len(now) - 2
    if not freedom:
        return Finding(NOTE, f"{name}: one run of each has no interval; take more --rounds")
    spread = sqrt(squares / freedom * (1 / len(was) + 1 / len(now)))
    apart = max(t99(freedom) * spread, log1p(TOLERANCE))
    low, stored, high = (exp(fmean(was) + off) for off in (-apart, 0, apart))
    share = exp(fmean(now))
    said = f"{share:.3f} of {base}'s time; stored {stored:.3f}, agrees {low:.3f} to {high:.3f}"
    return Finding(OK if low <= share <= high else FAIL, f"{name}: {said}")


def _shares(results: Results, case: Case, base: Case) -> list[float]:
    base_s = {m.repeat: m.elapsed_s for m in results.of(base)}
    of = [(m.elapsed_s, base_s.get(m.repeat)) for m in results.of(case)]
    return [log(mine_s / other_s) for mine_s, other_s in of if mine_s and other_s]


def _tuned(result: TuningResults) -> Iterator[Finding]:
    """Derive what takes seconds: all of the learning, and some scenarios with the first seed."""
    limits, learning = result.experiment.limits, result.experiment.learning
    seed, some = limits.seeds[0], trial.JUDGING[:_SCENARIOS]
    limiters = {name: trial.LIMITERS[name] for name in limits.limiters}
    again = trial.judged(some, limiters, seeds=[seed])
    for scenario in some:
        of = [
            [r for r in rows if (r.scenario, r.seed) == (scenario.name, seed)]
            for rows in (result.limits, again)
        ]
        yield _same(f"{scenario.name}, seed {seed}", *of)
    left = len(trial.JUDGING) * len(limits.seeds) - len(some)
    yield Finding(NOTE, f"{left} scenarios are not derived again here, it takes minutes")
    for one in result.learning:
        yield _same(
            one.name,
            [one],
            [
                regret.scenario(
                    one.name, runs=learning.runs, seeds=learning.seeds, shift_at=one.shift_at
                )
            ],
        )
