"""`agentlab bench`: measure an experiment, or compare two results."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from agentlab._support.fields import checked
from agentlab.bench import against, experiment, measure, plots, report, results
from agentlab.bench.compare import SMALLEST, compared
from agentlab.bench.experiment import counted
from agentlab.commands import leave_out_argument
from agentlab.errors import ConfigError, StepError

DESCRIPTION = "Measure an experiment: NAME.json, NAME.md and NAME.png. Ctrl-C keeps what is done."


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("experiment", nargs="?", help="a name, or a .yaml file")
    add("--out", metavar="DIR", default="results", help="default: results")
    add("--resume", action="store_true", help="go on with an interrupted run")
    add("--yes", action="store_true", help="ask a real model, which costs money")
    price = "dollars for a million tokens of prompts and of answers, for the estimate"
    add("--price", nargs=2, type=float, metavar=("IN", "OUT"), help=price)
    add("--preset", metavar="NAME", help="predict it in virtual time, as on a preset of yours")
    add("--compare", nargs=2, metavar=("A", "B"), help="two .json files")
    other = f"measure it and B in turn; B differs in one of {', '.join(against.KINDS)}"
    add("--against", metavar="KIND=VALUE", help=other)
    add("--rounds", type=int, default=against.ROUNDS, help="of --against; default: %(default)s")
    worth = f"the smallest change worth knowing, such as 2%%; default: {SMALLEST * 100:g}%%"
    add("--smallest", type=_share, default=SMALLEST, metavar="SHARE", help=worth)
    there = "what experiments there are, or what one of them measures"
    add("--list", nargs="?", const="", metavar="NAME", help=there)
    leave_out_argument(parser)


def _share(text: str) -> float:
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def run(options: argparse.Namespace) -> int:
    """Measure or compare; return 1 if what was measured has no answers or cannot be compared."""
    checked("--rounds", options.rounds, least=1, most=1000)
    checked("--smallest", options.smallest, above=True, most=10)
    if options.compare:
        before, after = map(results.load, options.compare)
        print(compared(before, after, smallest=options.smallest))
        return 0
    if options.list is not None:
        named = options.list and experiment.found(options.list).read_text(encoding="utf-8")
        print(named or "\n".join(map(_listed, experiment.names())))
        return 0
    if options.experiment is None:
        known = ", ".join(experiment.names())
        raise ConfigError(f"name an experiment, one of {known}, or see --help")
    path = experiment.found(options.experiment)
    file = Path(options.out) / f"{path.stem}.json"
    try:
        return _measure(path, file, options)
    except KeyboardInterrupt:
        done = f"{file}, go on with --resume"
        if options.against:
            done = f"{file.with_suffix('.a.json')} and .b.json, for --compare"
        print(f"stopped; what is done is in {done}", file=sys.stderr)
        return 130  # 128 and SIGINT, as shells have it


def _listed(name: str) -> str:
    """Return an experiment's name, clock, measurements, and question."""
    one = experiment.load(name)
    many = counted(sum(one.runs(case.workload) for case in one.cases()), "measurement")
    return f"{name:12}  {one.clock:7}  {many:>16}  {one.about}"


def _measure(path: Path, file: Path, options: argparse.Namespace) -> int:
    chosen = experiment.load(path)
    if options.leave_out:
        changed = {**chosen.settings, "leave_out": options.leave_out}
        chosen = dataclasses.replace(chosen, settings=changed)
    if options.preset:
        changed = {k: v for k, v in chosen.settings.items() if k != "time_scale"}
        virtual: dict[str, Any] = {"clock": "virtual", "repeats": 1, "warmups": 0}
        chosen = dataclasses.replace(chosen, presets=[options.preset], settings=changed, **virtual)
    if chosen.asks_real:
        price = chosen.price and (chosen.price.prompt, chosen.price.answer)
        real, bill, prices = chosen.chosen, measure.cost(chosen), options.price or price
        if options.against:
            one_round = measure.cost(dataclasses.replace(chosen, repeats=1))
            bill = measure.Cost(*(2 * options.rounds * number for number in one_round))
        asked = f"this asks {real.model} at {real.upstream} {bill}"
        if prices:
            asked += f", ${bill.dollars(*prices):.4f} at most, if nothing is asked twice"
        if not options.yes:
            raise ConfigError(f"{asked}; add --yes to do it, or set AGENTLAB_LOCAL=1")
        print(asked, file=sys.stderr)
    if options.against and options.resume:
        raise ConfigError("--resume: what --against measured is not gone on with; begin again")
    if options.against:
        a, b = against.run(chosen, options.against, file, rounds=options.rounds)
        problems = results.unequal([*a.measurements, *b.measurements])
        said = [f"not comparable: {one}" for one in problems]
        print(*said, compared(a, b, smallest=options.smallest), sep="\n")
        return 1 if problems else 0
    try:
        measured = measure.run(chosen, file, resume=options.resume)
    except StepError as error:  # of the question that is asked first
        print(f"agentlab: {error}", file=sys.stderr)
        return 1
    table, picture = report.markdown(measured), file.with_suffix(".png")
    file.with_suffix(".md").write_text(table, encoding="utf-8")
    picture.unlink(missing_ok=True)  # one of an earlier run would be taken for this one's
    if measured.measured:
        plots.figure(measured).savefig(picture, dpi=80)
    print(table)
    if measured.measured and report.felt(measured):
        requests = results.read_requests(file, len(measured.measurements))
        plots.responses(measured, requests).savefig(file.with_suffix(".responses.png"), dpi=80)
    return 1 if results.unequal(measured.measurements) else 0
