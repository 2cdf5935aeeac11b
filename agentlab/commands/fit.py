"""`agentlab fit`: a preset from measurements, judged on those that it was not fitted to."""

import argparse
import csv
import math
from collections.abc import Sequence
from pathlib import Path

from agentlab.bench import plots
from agentlab.bench.fit import Pair, Request, Requests, Row, Table, errors, fit
from agentlab.commands import _probe, leave_out_argument
from agentlab.endpoint import presets
from agentlab.endpoint.physics.formulas import Physics
from agentlab.errors import ConfigError
from agentlab.trace import Trace

DESCRIPTION = (
    "Fit a preset to an endpoint: to the trace of a forwarded run whose answers were streamed, to "
    "a .csv of requests (arrived_s, first_token_s, end_s, prompt_tokens, completion_tokens), or to "
    "a published table of closed loops (prompt_tokens, answer_tokens, at_once, ttft_ms, itl_ms, "
    "tokens_per_s). Every second request, or each shape of a table in turn, is kept apart to judge."
)
_OF_A_REQUEST = ("arrived_s", "first_token_s", "end_s", "prompt_tokens", "completion_tokens")
_OF_A_TABLE = ("prompt_tokens", "answer_tokens", "at_once", "ttft_ms", "itl_ms", "tokens_per_s")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("file", nargs="?", help="a trace, or a .csv file")
    parser.add_argument("--out", metavar="FILE", help="write the preset there (.yaml)")
    parser.add_argument("--picture", metavar="FILE", help="draw predicted against measured (.png)")
    parser.add_argument("--model", help="in a table's column `model`, or of the probed endpoint")
    parser.add_argument("--probe", metavar="URL", help="ask an endpoint, and fit what it took")
    parser.add_argument("--yes", action="store_true", help="ask it, which may cost money")
    parser.add_argument("--save", metavar="FILE", help="keep the probe's requests there (.csv)")
    leave_out_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Fit, print how well it predicts what it has not seen, and write what was asked for."""
    if (options.file is None) == (options.probe is None):
        raise ConfigError("give either a file to fit to, or --probe URL")
    if options.out and Path(options.out).suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--out {options.out!r} is no preset's file; end it in .yaml")
    measured = _probed(options) if options.probe else read(Path(options.file), options.model)
    physics, judged = _judged(measured)
    print(f"{'judged on':24}{'TTFT':>15}{'ITL':>15}{'tokens/s':>15}   error: median, most")
    pairs = [pair for each in judged.values() for pair in each]
    for name, of_it in {**judged, "all": pairs}.items():
        print(f"{name:24}" + "".join(f"{m:>9.1%}{most:>6.0%}" for m, most in errors(of_it)))
    print()
    for name in Physics.__struct_fields__:
        if value := getattr(physics, name):
            in_ms = name.endswith("_s")
            print(
                f"{name.removesuffix('_s'):24}"
                + (f"{value * 1000:.4g} ms" if in_ms else f"{value}")
            )
    if options.out:
        (ttft, _), (itl, _), (rate, _) = errors(pairs)
        source = options.probe or Path(options.file).name
        presets.save(
            physics,
            Path(options.out),
            source=f"fit to {source}",
            about=f"Fitted to {source}.",
            judged_on=f"{', '.join(judged)}, which were not fitted; median error TTFT {ttft:.1%}, "
            f"ITL {itl:.1%}, tokens/s {rate:.1%}",
        )
    if options.picture:
        plots.agreement(pairs).savefig(options.picture, dpi=80)
    return 0


def _probed(options: argparse.Namespace) -> Requests:
    measured = _probe.measured(options)
    if options.save:
        with Path(options.save).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([_OF_A_REQUEST, *measured])
    return measured


def _judged(measured: Table | Requests) -> tuple[Physics, dict[str, list[Pair]]]:
    """Return the fit, and what such a fit predicts of what it has not seen."""
    every = range(len(measured))
    if isinstance(measured, Requests):
        fitted, others = every[::2], every[1::2]
        physics = fit(measured, fitted)
        return physics, {"every second request": measured.pairs(physics, others)}
    judged, shapes = {}, [(row.prompt_tokens, row.output_tokens) for row in measured]
    for shape in sorted(set(shapes)):
        its = [n for n in every if shapes[n] == shape]
        physics = fit(measured, [n for n in every if shapes[n] != shape])
        judged["{} in, {} out".format(*shape)] = measured.pairs(physics, its)
    return fit(measured), judged


def read(path: Path, model: str | None = None) -> Table | Requests:
    """Read a trace or a table; a ConfigError names the line and the value that is wrong."""
    if path.suffix != ".csv":
        return Requests.of_trace(Trace.load(path))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"table {str(path)!r}: {error}; give a .csv file") from None
    columns = set(rows[0]) if rows else set()
    names = next((names for names in (_OF_A_TABLE, _OF_A_REQUEST) if columns.issuperset(names)), ())
    if not names:
        has = ", ".join(sorted(map(str, columns))) or "none"
        raise ConfigError(
            f"table {str(path)!r} has the columns {has}; "
            f"give {', '.join(_OF_A_REQUEST)}, or {', '.join(_OF_A_TABLE)}"
        )
    models = sorted({row["model"] for row in rows if row.get("model")})
    if names == _OF_A_TABLE and (model not in models if model else len(models) > 1):
        raise ConfigError(f"choose one --model of {', '.join(models) or 'no column `model`'}")
    numbers = [
        _numbers(f"{path}:{line}", row, names)
        for line, row in enumerate(rows, 2)
        if not model or row.get("model") == model
    ]
    if names == _OF_A_REQUEST:
        return Requests(
            Request(arrived_s, first_s, end_s, int(sent), int(made))
            for arrived_s, first_s, end_s, sent, made in numbers
        )
    return Table(
        Row(int(sent), int(made), int(at_once), ttft_ms / 1000, itl_ms / 1000, rate)
        for sent, made, at_once, ttft_ms, itl_ms, rate in numbers
    )


def _numbers(where: str, row: dict[str, str], names: Sequence[str]) -> list[float]:
    found = []
    for name in names:
        try:
            value = float(row[name])
        except (TypeError, ValueError):
            value = math.nan
        whole = (not name.endswith("tokens") and name != "at_once") or value >= 1
        if not (math.isfinite(value) and (value > 0 or name.endswith("_s")) and whole):
            raise ConfigError(f"{where}: {name} is {row[name]!r}; give a number above 0")
        found.append(value)
    if names == _OF_A_REQUEST and not found[0] < found[1] <= found[2]:
        needed = "arrived_s < first_token_s <= end_s"
        raise ConfigError(f"{where}: needs {needed}; correct the line")
    return found
