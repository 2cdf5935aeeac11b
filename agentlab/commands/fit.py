"""`agentlab fit`: a preset from measurements, judged on those that it was not fitted to."""

import argparse
import asyncio
import csv
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from agentlab import lab
from agentlab.bench import plots
from agentlab.bench.fit import Pair, Request, Requests, Row, Table, errors, fit
from agentlab.commands import leave_out_argument
from agentlab.endpoint import presets
from agentlab.endpoint.physics.formulas import Physics
from agentlab.errors import ConfigError
from agentlab.lab.connection import connection
from agentlab.trace import Trace, trace

DESCRIPTION = (
    "Fit a preset to an endpoint: to the trace of a forwarded run whose answers were streamed, to "
    "a .csv of requests (arrived_s, first_token_s, end_s, prompt_tokens, completion_tokens), or to "
    "a published table of closed loops (prompt_tokens, answer_tokens, at_once, ttft_ms, itl_ms, "
    "tokens_per_s). Every second request, or each shape of a table in turn, is kept apart to judge."
)
_OF_A_REQUEST = ("arrived_s", "first_token_s", "end_s", "prompt_tokens", "completion_tokens")
_OF_A_TABLE = ("prompt_tokens", "answer_tokens", "at_once", "ttft_ms", "itl_ms", "tokens_per_s")

# What is asked to find out: short and long prompts, alone and together, tell the constants apart.
_SHAPES = ((30, 96), (400, 32), (2000, 64))  # about that many words, and at most that many tokens
_TOGETHER = (1, 2, 4, 8)
_REQUESTS = 1 + len(_SHAPES) * sum(max(3, 2 * clients) for clients in _TOGETHER)


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


def _probed(options: argparse.Namespace) -> Requests:
    """Ask, once the bill was agreed to; return what the endpoint in between saw."""
    given: dict[str, Any] = {"upstream": options.probe, "time_scale": 1.0}
    if options.model:
        given["model"] = options.model
    if options.leave_out:
        given["leave_out"] = options.leave_out
    words, tokens = (sum(each) * _REQUESTS // len(_SHAPES) for each in zip(*_SHAPES, strict=True))
    bill = f"{_REQUESTS} requests with some {words:,} words, for at most {tokens:,} tokens"
    if not options.yes:
        raise ConfigError(f"this sends {options.probe} {bill}; add --yes to do it")
    print(f"sending {bill}")
    with lab.configure(**given):
        measured = asyncio.run(_asked())
    if options.save:
        with Path(options.save).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([_OF_A_REQUEST, *measured])
    return measured


async def _asked() -> Requests:
    draw = random.Random(7)
    async with httpx.AsyncClient(timeout=600, trust_env=False) as client:
        with trace() as first:
            await _ask(client, draw, 5, 8)
        if not Requests.of_trace(first):
            raise ConfigError("the first answer has no words or no token counts: nothing to fit to")
        with trace() as t:
            for shape in _SHAPES:
                for clients in _TOGETHER:
                    each = max(3, 2 * clients) // clients
                    await asyncio.gather(
                        *(_client(client, draw, *shape, each) for _ in range(clients))
                    )
    return Requests.of_trace(t)


async def _client(
    client: httpx.AsyncClient, draw: random.Random, words: int, tokens: int, requests: int
) -> None:
    for _ in range(requests):
        await _ask(client, draw, words, tokens)


async def _ask(client: httpx.AsyncClient, draw: random.Random, words: int, tokens: int) -> None:
    """Ask for a long answer to a prompt that no other one begins like, and take it as it comes."""
    there = connection()
    prompt = " ".join(f"{draw.randrange(100, 1000)}" for _ in range(words))
    body = {
        "model": there.model,
        "messages": [{"role": "user", "content": f"{prompt}\nWrite a long story around these."}],
        "max_completion_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"authorization": f"Bearer {there.key}", "x-agent": "probe"}
    answer = await client.post(f"{there.url}/chat/completions", json=body, headers=headers)
    if answer.status_code != 200:
        lab.read(answer)
