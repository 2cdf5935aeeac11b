"""What forwarding costs: many calls of half a second at the same time, direct and forwarded.

    python tools/forward_load.py [CALLS ...]      256 and 1000 unless told otherwise

A stub takes .5 s per call and sends a constant; an aiohttp client asks it directly, and through the
endpoint that forwards. Client, endpoint and stub are processes of their own and share all cores.
The two ways take turns in each round, and so does the one that begins; the first round warms up.
Printed are medians of the elapsed time, the ratio within a round (least to most), and the processor
time per call of each process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from statistics import median
from time import perf_counter, process_time

import aiohttp
from endpoint_load import bare, cpu_s

from agentlab._support.system import allow_many_connections
from agentlab.endpoint.server.process import EndpointProcess
from agentlab.settings import Settings

ROUNDS = 9
LATENCY_S = 0.5
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Describe tides."}]})


async def elapsed_s(session: aiohttp.ClientSession, url: str, key: str, calls: int) -> float:
    """How long so many calls take that begin at the same time."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    async def ask() -> None:
        async with session.post(f"{url}/chat/completions", data=BODY, headers=headers) as answer:
            await answer.read()
            assert answer.status == 200, await answer.text()

    gc.collect()
    began_s = perf_counter()
    await asyncio.gather(*(ask() for _ in range(calls)))
    return perf_counter() - began_s


async def measure(calls: int, direct: str, stub_pid: int, endpoint: EndpointProcess) -> None:
    """Print a line for each way, and one for their ratio."""
    ways = {"direct": (direct, "any"), "forwarded": (endpoint.url, endpoint.key)}
    took_s: dict[str, list[float]] = {way: [] for way in ways}
    spent_s: dict[str, list[list[float]]] = {way: [] for way in ways}

    def spent() -> list[float]:
        return [process_time(), cpu_s(stub_pid), endpoint.cpu_s()]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for turn in range(ROUNDS + 1):
            for way in sorted(ways, reverse=turn % 2 == 1):
                before = spent()
                seconds = await elapsed_s(session, *ways[way], calls)
                if turn:
                    took_s[way].append(seconds)
                    spent_s[way].append([b - a for a, b in zip(before, spent(), strict=True)])
    ratios = sorted(f / d for d, f in zip(took_s["direct"], took_s["forwarded"], strict=True))
    print(
        f"{calls} calls of {LATENCY_S} s:  elapsed (s)   CPU per call (ms): client  stub  endpoint"
    )
    for way in ways:
        each_ms = [1000 / calls * median(column) for column in zip(*spent_s[way], strict=True)]
        shown = "  ".join(f"{ms:6.3f}" for ms in each_ms)
        print(f"  {way:10} {median(took_s[way]):10.3f} {'':21} {shown}")
    print(f"  ratio      {median(ratios):10.3f}   ({ratios[0]:.3f} to {ratios[-1]:.3f})")


def main(sizes: list[int]) -> None:
    """Measure each size."""
    allow_many_connections()
    with bare(LATENCY_S, core=None) as (url, stub_pid):
        endpoint = EndpointProcess(Settings(upstream=url))
        try:
            for calls in sizes:
                asyncio.run(measure(calls, url, stub_pid, endpoint))
        finally:
            endpoint.stop()


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [256, 1000])
