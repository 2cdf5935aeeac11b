"""`agentlab fit`: a preset from measurements, judged on those that it was not fitted to."""

import argparse
import asyncio
import random
from pathlib import Path

import httpx
from msgspec.structs import asdict

from agentlab import lab, settings
from agentlab.bench import plots
from agentlab.bench.fit import Pair, Request, Requests, Row, Table, errors, fit
from agentlab.bench.published import converted, read_rows
from agentlab.bench.report import PAGES
from agentlab.endpoint import presets
from agentlab.endpoint.physics.formulas import Physics
from agentlab.errors import AgentLabError, ConfigError, EndpointError
from agentlab.lab.connection import connection
from agentlab.resilience import classify
from agentlab.trace import Trace, trace

# What is asked to find out: short and long prompts, alone and together, tell the constants apart.
_SHAPES = ((30, 96), (400, 32), (2000, 64))  # about that many words, and at most that many tokens
_TOGETHER = (1, 2, 4, 8)
_REQUESTS = 1 + len(_SHAPES) * sum(max(3, 2 * clients) for clients in _TOGETHER)
_ENDINGS = {"out": (".yaml", ".yml"), "picture": (".png", ".svg", ".pdf", ".jpg")}


def run(options: argparse.Namespace) -> int:
    """Fit, print how well it predicts what it has not seen, and write what was asked for."""
    if (options.file is None) == (options.probe is None):
        raise ConfigError("give either a file to fit to, or --probe URL")
    for name, endings in _ENDINGS.items():
        path = Path(options.__dict__[name] or f"fit{endings[0]}")
        if path.suffix not in endings or path.is_dir() or not path.parent.is_dir():
            raise ConfigError(f"--{name} {path}: give a {endings[0]} file in a folder there is")
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
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return Requests.of_trace(Trace.load(path))
    rows = [(at, {k and k.strip().lower(): v for k, v in r.items()}) for at, r in read_rows(path)]
    if not rows:
        raise ConfigError(f"{str(path)!r} has no rows; give a table, or a file of requests")
    models = sorted({row["model"] for _, row in rows if row.get("model")})
    if model not in models if model else len(models) > 1:
        raise ConfigError(f"choose one --model of {', '.join(models) or 'none: no column `model`'}")
    kind, many = (Row, Table) if "ttft_ms" in rows[0][1] else (Request, Requests)
    return many(
        converted(where, "a line", row, kind)
        for where, row in rows
        if str(row.get("status") or 200)[0] == "2" and (not model or row.get("model") == model)
    )


def _probed(options: argparse.Namespace) -> Requests:
    """Ask, once the bill was agreed to; return what the endpoint in between saw."""
    address = settings.checked_address(options.probe)
    words, tokens = (sum(each) * _REQUESTS // len(_SHAPES) for each in zip(*_SHAPES, strict=True))
    bill = f"{_REQUESTS} requests with some {words:,} words, for at most {tokens:,} tokens"
    if not options.yes:
        raise ConfigError(f"this sends {address} {bill}; add --yes to do it")
    print(f"sending {bill}")
    given = {name: v for name in ("model", "leave_out") if (v := getattr(options, name))}
    with lab.configure(upstream=address, time_scale=1.0, **given):
        return asyncio.run(_asked(Path(options.out or "fit.yaml").with_suffix(".probe.jsonl")))


async def _asked(kept: Path) -> Requests:
    """Ask for long answers to prompts that no other one begins like, and take them as they come.

    What is refused or cut is left out, after the wait that it asks for. All others are kept.
    """
    there, draw, outcomes = connection(), random.Random(7), list[Exception | None]()
    headers = {"authorization": f"Bearer {there.key}", "x-agent": "probe"}

    async def ask(words: int, tokens: int, requests: int = 1) -> None:
        for _ in range(requests):
            prompt = " ".join(f"{draw.randrange(100, 1000)}" for _ in range(words))
            message = {"role": "user", "content": f"{prompt}\nWrite a long story around these."}
            body = {"model": there.model, "messages": [message], "max_completion_tokens": tokens}
            body |= {"stream": True, "stream_options": {"include_usage": True}}
            try:
                answer = await client.post("/chat/completions", json=body)
                if answer.status_code != 200:
                    lab.read(answer)
                outcomes.append(None)
            except (AgentLabError, httpx.TransportError) as error:
                outcomes.append(error)
                told, lost = classify(error), len(outcomes) - outcomes.count(None)
                most = _REQUESTS // 2 if None in outcomes else 1 + 2 * told.retry
                if told.exhausted or lost >= most:
                    raise EndpointError(f"{lost} requests failed, and the last: {error}") from None
                print(f"left out: {error}")
                await asyncio.sleep(told.wait_s or told.retry)

    async with httpx.AsyncClient(
        base_url=there.url, headers=headers, timeout=600, trust_env=False
    ) as client:
        with trace() as first:
            while None not in outcomes:
                await ask(5, 8)
        if not Requests.of_trace(first):
            raise ConfigError("the first answer has no words or no token counts: nothing to fit to")
        try:
            with trace() as t:
                for words, tokens in _SHAPES:
                    for clients in _TOGETHER:
                        each = max(3, 2 * clients) // clients
                        await asyncio.gather(*(ask(words, tokens, each) for _ in range(clients)))
        finally:
            t.save(kept)
            print(f"the answers are in {kept}; to fit to them: agentlab fit {kept}")
    return Requests.of_trace(t)
