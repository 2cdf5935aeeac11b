"""`agentlab bench`: measure an experiment, or compare two results."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from agentlab._support.fields import checked
from agentlab.bench import against, experiment, measure, plots, proof, report, results
from agentlab.bench.account import accounts, page
from agentlab.bench.compare import compared
from agentlab.bench.experiment import Experiment
from agentlab.errors import ConfigError, StepError


def run(options: argparse.Namespace) -> int:
    """Measure or compare; return 1 if what was measured has no answers or cannot be compared."""
    checked("--rounds", options.rounds, least=1, most=1000)
    checked("--smallest", options.smallest, above=True, most=10)
    if options.compare:
        before, after = map(results.load, options.compare)
        print(compared(before, after, smallest=options.smallest))
    elif options.list:
        print(experiment.found(options.list).read_text(encoding="utf-8"))
    elif options.list is not None:
        for name in experiment.names():
            one = experiment.load(name)
            print(f"{name:12}  {one.clock:7}  {one.about}")
    elif options.experiment is None:
        known = ", ".join(experiment.names())
        raise ConfigError(f"name an experiment, one of {known}, or see --help")
    else:
        return _run(experiment.found(options.experiment), options)
    return 0


def _run(path: Path, options: argparse.Namespace) -> int:
    file, began = Path(options.out) / f"{path.stem}.json", proof.now()
    try:
        code = _measure(path, file, options)
    except StepError as error:  # of the question that a real model is asked first
        print(f"agentlab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; what is done is in {file.parent}", file=sys.stderr)
        return 130  # 128 and SIGINT, as shells have it
    if not options.against:
        proof.write(file, ["agentlab", *options.given], began)
    return code


def _measure(path: Path, file: Path, options: argparse.Namespace) -> int:
    chosen = experiment.load(path)
    changes: dict[str, Any] = {"settings": {**chosen.settings}}
    if options.leave_out:
        changes["settings"]["leave_out"] = options.leave_out
    if options.preset:
        changes["settings"].pop("time_scale", None)
        changes |= {"presets": [options.preset], "clock": "virtual", "repeats": 1, "warmups": 0}
    chosen = dataclasses.replace(chosen, **changes)
    if chosen.asks_real:
        _allowed(chosen, options)
    if options.against and options.resume:
        raise ConfigError("--resume: what --against measured is not gone on with; begin again")
    if options.against:
        a, b = against.run(chosen, options.against, file, rounds=options.rounds)
        problems = results.unequal([*a.measurements, *b.measurements])
        said = [f"not comparable: {one}" for one in problems]
        print(*said, compared(a, b, smallest=options.smallest), sep="\n")
        return 1 if problems else 0
    measured = measure.run(chosen, file, resume=options.resume)
    table, picture = report.markdown(measured), file.with_suffix(".png")
    file.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)
    for old in (".png", ".html", ".responses.png"):  # an earlier run's would be taken for its own
        file.with_suffix(old).unlink(missing_ok=True)
    if measured.measured:
        plots.figure(measured).savefig(picture, dpi=80)
    requests = results.read_requests(file, len(measured.measurements))
    if lost := accounts(measured, requests):
        file.with_suffix(".html").write_text(page(file.stem, lost), encoding="utf-8")
    if measured.measured and report.felt(measured):
        plots.responses(measured, requests).savefig(file.with_suffix(".responses.png"), dpi=80)
    return 1 if results.unequal(measured.measurements) else 0


def _allowed(chosen: Experiment, options: argparse.Namespace) -> None:
    """Say what a real model is asked, and what for; a ConfigError without --yes."""
    price = chosen.price and (chosen.price.prompt, chosen.price.answer)
    real, bill, prices = chosen.chosen, measure.cost(chosen), options.price or price
    if options.against:  # each side of a round is a run of its own
        one_round = measure.cost(dataclasses.replace(chosen, repeats=1))
        bill = measure.Cost(*(2 * options.rounds * number for number in one_round))
    asked = f"this asks {real.model} at {real.upstream} {bill}"
    if prices:
        asked += f", ${bill.dollars(*prices):.4f} at most, if nothing is asked twice"
    if not options.yes:
        raise ConfigError(f"{asked}; add --yes to do it, or set AGENTLAB_LOCAL=1")
    print(asked, file=sys.stderr)
