"""`agentlab fit`: a preset from measurements, judged on those that it was not fitted to."""

import argparse
import asyncio
import random
from pathlib import Path

import httpx
from msgspec.structs import asdict

from agentlab import lab
from agentlab.bench import plots
from agentlab.bench.fit import Pair, Request, Requests, Row, Table, errors, fit
from agentlab.bench.published import converted, read_rows
from agentlab.bench.report import PAGES
from agentlab.endpoint import presets
from agentlab.endpoint.physics.formulas import Physics
from agentlab.errors import ConfigError
from agentlab.lab.connection import connection
from agentlab.trace import Trace, trace

# What is asked to find out: short and long prompts, alone and together, tell the constants apart.
_SHAPES = ((30, 96), (400, 32), (2000, 64))  # about that many words, and at most that many tokens
_TOGETHER = (1, 2, 4, 8)
_REQUESTS = 1 + len(_SHAPES) * sum(max(3, 2 * clients) for clients in _TOGETHER)


def run(options: argparse.Namespace) -> int:
    """Fit, print how well it predicts what it has not seen, and write what was asked for."""
    if (options.file is None) == (options.probe is None):
        raise ConfigError("give either a file to fit to, or --probe URL")
    if options.out and Path(options.out).suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--out {options.out!r} is no preset's file; end it in .yaml")
    measured = _probed(options) if options.probe else read(Path(options.file), options.model)
    physics, judged = _judged(measured)
    pairs = [pair for each in judged.values() for pair in each]
    far = {name: errors(of_it) for name, of_it in {**judged, "all": pairs}.items()}
    print(PAGES.get_template("fit.txt").render(judged=far, physics=asdict(physics)), end="")
    if options.out:
        (ttft, _), (itl, _), (rate, _) = far["all"]
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
        physics = fit(measured, every[::2])
        return physics, {"every second request": measured.pairs(physics, every[1::2])}
    judged, shapes = {}, [row.shape for row in measured]
    for shape in sorted(set(shapes)):
        its = [n for n in every if shapes[n] == shape]
        physics = fit(measured, [n for n in every if shapes[n] != shape])
        judged["{} in, {} out".format(*shape)] = measured.pairs(physics, its)
    return fit(measured), judged


def read(path: Path, model: str | None = None) -> Table | Requests:
    """Read a trace or a table; a ConfigError names the line and the value that is wrong."""
    if path.suffix != ".csv":
        return Requests.of_trace(Trace.load(path))
    rows = list(read_rows(path))
    if not rows:
        raise ConfigError(f"{str(path)!r} has no rows; give a table, or a file of requests")
    if "ttft_ms" not in rows[0][1]:
        return Requests(converted(where, "a line", row, Request) for where, row in rows)
    models = sorted({row["model"] for _, row in rows if row.get("model")})
    if model not in models if model else len(models) > 1:
        raise ConfigError(f"choose one --model of {', '.join(models) or 'no column `model`'}")
    its = (each for each in rows if not model or each[1].get("model") == model)
    return Table(converted(where, "a line", row, Row) for where, row in its)


def _probed(options: argparse.Namespace) -> Requests:
    """Ask, once the bill was agreed to; return what the endpoint in between saw."""
    words, tokens = (sum(each) * _REQUESTS // len(_SHAPES) for each in zip(*_SHAPES, strict=True))
    bill = f"{_REQUESTS} requests with some {words:,} words, for at most {tokens:,} tokens"
    if not options.yes:
        raise ConfigError(f"this sends {options.probe} {bill}; add --yes to do it")
    print(f"sending {bill}")
    chosen = {"model": options.model, "leave_out": options.leave_out}
    given = {name: value for name, value in chosen.items() if value}
    with lab.configure(upstream=options.probe, time_scale=1.0, **given):
        return asyncio.run(_asked())


async def _asked() -> Requests:
    draw = random.Random(7)
    async with httpx.AsyncClient(timeout=600, trust_env=False) as client:
        with trace() as first:
            await _ask(client, draw, 5, 8)
        if not Requests.of_trace(first):
            raise ConfigError("the first answer has no words or no token counts: nothing to fit to")
        with trace() as t:
            for words, tokens in _SHAPES:
                for clients in _TOGETHER:
                    each = max(3, 2 * clients) // clients
                    asked = (_ask(client, draw, words, tokens, each) for _ in range(clients))
                    await asyncio.gather(*asked)
    return Requests.of_trace(t)


async def _ask(
    client: httpx.AsyncClient, draw: random.Random, words: int, tokens: int, requests: int = 1
) -> None:
    """Ask for long answers to prompts that no other one begins like, and take them as they come."""
    there = connection()
    headers = {"authorization": f"Bearer {there.key}", "x-agent": "probe"}
    for _ in range(requests):
        prompt = " ".join(f"{draw.randrange(100, 1000)}" for _ in range(words))
        message = {"role": "user", "content": f"{prompt}\nWrite a long story around these."}
        body = {"model": there.model, "messages": [message], "max_completion_tokens": tokens}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        answer = await client.post(f"{there.url}/chat/completions", json=body, headers=headers)
        if answer.status_code != 200:
            lab.read(answer)
