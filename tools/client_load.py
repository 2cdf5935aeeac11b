"""How near to the ideal does each client come when it asks many times at once?

    python tools/client_load.py [CALLS]      256 unless told otherwise; more: the quick ones only

Each call takes .5 s. Efficiency is .5 s divided by the time that all took together: 1 is the bound,
and what is missing is processor time of this process. Five rounds, the clients one after the other
in each; median, least and most, and the processor time a call.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter, process_time
from typing import Any

import aiohttp
import msgspec

from agentlab import engines, lab
from agentlab._support.system import allow_many_connections
from agentlab.workflow import Step, Workflow

ROUNDS = 5
ASKED = "Describe tides."
LENGTH: dict[str, Any] = {"max_tokens": 41, "temperature": 0}  # 5 model seconds at scale 10
IDEAL_S = 0.5
Clients = dict[str, Callable[[int], Awaitable[Any]]]


def clients(session: aiohttp.ClientSession) -> Clients:
    """Name -> a function that makes so many calls at once."""
    from langchain_openai import ChatOpenAI

    url, key = lab.base_url(), lab.api_key()
    body = {"model": "m", "messages": [{"role": "user", "content": ASKED}], **LENGTH}
    usual = ChatOpenAI(model="m", base_url=url, api_key=key, max_retries=0, **LENGTH)
    short = lab.chat_model(**LENGTH)

    async def raw() -> object:
        async with session.post(
            f"{url}/chat/completions",
            data=msgspec.json.encode(body),
            headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
        ) as answer:
            return msgspec.json.decode(await answer.read())

    def max_concurrency(call: Callable[[], Awaitable[Any]]) -> Callable[[int], Awaitable[Any]]:
        return lambda many: asyncio.gather(*(call() for _ in range(many)))

    def by_engine(engine: str) -> Callable[[int], Awaitable[Any]]:
        async def run(many: int) -> object:
            steps = [Step(f"s{n}", ASKED, max_tokens=41) for n in range(many)]
            return await engines.run(Workflow(steps, name="load"), engine=engine)

        return run

    return {
        "raw aiohttp": max_concurrency(raw),
        "lab.ask": max_concurrency(lambda: lab.ask(ASKED, **LENGTH)),
        "lab.chat_model": max_concurrency(lambda: short.ainvoke(ASKED)),
        "engine asyncio": by_engine("asyncio"),
        "engine langgraph": by_engine("langgraph"),
        "engine crewai": by_engine("crewai"),
        "engine openai-agents": by_engine("openai-agents"),
        "engine pydantic-ai": by_engine("pydantic-ai"),
        "ChatOpenAI": max_concurrency(lambda: usual.ainvoke(ASKED)),
    }


async def measure(calls: int) -> dict[str, list[tuple[float, float]]]:
    """Name -> (efficiency, processor milliseconds a call) of each round."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        known = clients(session)
        if calls > 256:  # the slow ones would take minutes
            known = {name: known[name] for name in ("raw aiohttp", "lab.ask", "lab.chat_model")}
        for run in known.values():
            await run(calls)  # for warming up
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in known}
        for _ in range(ROUNDS):
            for name, run in known.items():
                gc.collect()
                began_s, busy_s = perf_counter(), process_time()
                await run(calls)
                took_s, busy_s = perf_counter() - began_s, process_time() - busy_s
                rounds[name].append((IDEAL_S / took_s, busy_s / calls * 1000))
        return rounds


def main(calls: int) -> None:
    """Print a line for each client."""
    allow_many_connections()
    with lab.configure(time_scale=10):
        rounds = asyncio.run(measure(calls))
    print(f"{calls} calls of {IDEAL_S} s at once: efficiency (least to most), CPU a call")
    for name, measured in rounds.items():
        shares = sorted(share for share, _ in measured)
        busy_ms = median(busy_ms for _, busy_ms in measured)
        print(
            f"{name:20} {median(shares):.3f} ({shares[0]:.3f} to {shares[-1]:.3f}) "
            f"{busy_ms:6.2f} ms"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 256)
