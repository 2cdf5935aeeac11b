"""`agentlab verify`: does a result come out again? The wheel has this file, too."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from doctor import FAIL, OK, Finding

from agentlab._support.fields import checked
from agentlab.bench import measure, proof, results, self_tuning
from agentlab.bench.experiment import Case, counted, varied
from agentlab.bench.results import TOLERANCE, Results, requests_file
from agentlab.errors import ConfigError

NOTE = "NOTE"  # which proves nothing either way


def run(options: argparse.Namespace) -> int:
    """Print what is found; return 1 if something fails, or a file cannot be read."""
    checked("--rounds", options.rounds, least=1, most=1000, whole=True)
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
    """Yield what a result's proof shows, and then whether the result comes out again.

    In virtual time its rows are derived again. On the real clock its cases are measured again, so
    many `rounds`; what a real model answered is not, because that costs money.
    """
    with suppress(ConfigError):
        study = self_tuning.stored(file)
        yield Finding(NOTE, "tools/tuning.py derives it", name=study.name)
        return
    result = results.load(file)
    yield from _proven(file, result)
    with TemporaryDirectory() as folder:
        again = Path(folder) / file.name
        if result.real:
            yield Finding(NOTE, "a real model answered, which costs money", "measure it with bench")
        elif result.experiment.clock == "virtual":
            yield derived(result, measure.run(result.experiment, again))
            if (there := requests_file(file)).exists():
                # Row by row: what gzip makes of them differs from one Python to another.
                runs = len(result.measurements)
                old, new = (results.read_requests(one, runs) for one in (file, again))
                says = "again, all equal" if old == new else "come out otherwise"
                yield Finding(OK if old == new else FAIL, says, name=there.name)
        else:
            busy = f"a load average of {proof.now()[1]}; on a busy machine shares are others"
            yield Finding(NOTE, busy, name="machine")
            here = {**result.experiment.settings, "upstream": None}
            asked = dataclasses.replace(result.experiment, settings=here, repeats=rounds)
            yield from measured(result, measure.run(asked, again))


def _proven(file: Path, result: Results) -> Iterator[Finding]:
    known, was, now = proof.read(file), result.machine, result.machine | results.machine()
    if known is None:
        yield Finding(NOTE, "there is none; agentlab bench writes one", name="proof")
    else:
        was = was | known.versions | known.sha256
        now |= proof.versions() | proof.digests(file, result, known.command.split())
    changed, own = _differing(was, now), {file.name, requests_file(file).name}
    for name in changed:
        says = f"was {was[name]:.12}, and is {now.get(name, 'not here'):.12}"
        yield Finding(FAIL if name in own else NOTE, says, name=name)
    if known and own.isdisjoint(changed):
        yield Finding(OK, "as it was written", name=file.name)


def _differing(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> list[Any]:
    """Return the keys of the one that the other lacks, or has with another value."""
    return [key for key in one if key not in other or one[key] != other[key]]


def derived(result: Results, again: Results) -> Finding:
    """Compare rows in virtual time to the byte, but for fields that an older file has not."""
    old, new = (list(map(msgspec.to_builtins, some.measurements)) for some in (result, again))
    if len(old) != len(new):
        return Finding(FAIL, f"of {len(old)} come out {len(new)}", name="measurements")
    for number, (was, now) in enumerate(zip(old, new, strict=True)):
        if fields := _differing(was, now):
            says = (f"{field} {was[field]} comes out as {now.get(field)}" for field in fields[:3])
            return Finding(FAIL, ", ".join(says), name=f"measurement {number}")
    return Finding(OK, f"{counted(len(new), 'row')} again, equal to the byte", name="measurements")


def measured(result: Results, again: Results) -> Iterator[Finding]:
    """Compare each case's time, as a share of its round's median, with the stored one.

    Machines differ in speed, and rounds drift, so shares are taken round by round, and of the cases
    with the same preset. The median of the new ones has to lie between the least and the most of
    the stored ones, or within 10% of them: a prediction interval without assumptions on the noise
    (Hahn and Meeker, Statistical Intervals (1991), chapter 5), and room for what is too small to
    matter.
    """
    axes = varied(result.measured)
    for case in result.measured:
        name, answers = case.named(axes), [{m.answers for m in r.of(case)} for r in (result, again)]
        was, now = _shares(result, case), _shares(again, case)
        if not now or not answers[1] <= answers[0]:
            yield Finding(FAIL, "no result, or other answers", name=name)
            continue
        low, share, high = min(was) / (1 + TOLERANCE), median(now), max(was) * (1 + TOLERANCE)
        says = f"{share:.3f} of its round's median time, for {low:.3f} to {high:.3f}"
        yield Finding(OK if low <= share <= high else FAIL, says, name=name)


def _shares(some: Results, case: Case) -> list[float]:
    """Return each time of a case as a share of the median of its round."""
    alike = [m for one in some.measured if one.preset == case.preset for m in some.of(one)]
    return [
        m.elapsed_s / (median(one.elapsed_s for one in alike if one.repeat == m.repeat) or 1)
        for m in some.of(case)
    ]
