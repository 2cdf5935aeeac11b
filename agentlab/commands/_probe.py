"""Ask an endpoint what tells its constants apart: short and long prompts, alone and together."""

import argparse
import asyncio
import random
from typing import Any

import httpx

from agentlab import lab
from agentlab.bench.fit import Requests
from agentlab.errors import ConfigError
from agentlab.lab import read
from agentlab.lab.connection import connection
from agentlab.trace import trace

_SHAPES = ((30, 96), (400, 32), (2000, 64))  # about that many words, and at most that many tokens
_TOGETHER = (1, 2, 4, 8)
_REQUESTS = 1 + len(_SHAPES) * sum(max(3, 2 * clients) for clients in _TOGETHER)


def measured(options: argparse.Namespace) -> Requests:
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
        return asyncio.run(_asked())


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
        read(answer)
