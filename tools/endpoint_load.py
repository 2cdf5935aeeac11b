"""How much delay the endpoint adds under load: N requests of one second, all at once.

    python tools/endpoint_load.py [N ...]

The endpoint has one core and the client another, where the system lets us choose. Each round
starts from fresh connections; the first round, in which the client warms up, is not counted.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from agentlab.endpoint.process import EndpointProcess
from agentlab.settings import Settings

ROUNDS = 7
ONE_SECOND = """\
about: One second for any answer, whatever its length.
prefill_base_ms: {value: 1000, basis: chosen, source: the subject of this measurement}
prefill_per_token_ms: {value: 0, basis: chosen, source: not the subject}
prefill_per_active_ms: {value: 0, basis: chosen, source: not the subject}
itl_base_ms: {value: 0, basis: chosen, source: not the subject}
itl_per_active_ms: {value: 0, basis: chosen, source: not the subject}
jitter_sigma: {value: 0, basis: chosen, source: not the subject}
"""


async def call(session: aiohttp.ClientSession, url: str, number: int, due: float) -> float:
    """One request, sent at `due`; returns its latency in seconds."""
    await asyncio.sleep(due - time.perf_counter())
    body = {"model": "m", "messages": [{"role": "user", "content": f"Question {number}"}]}
    start = time.perf_counter()
    async with session.post(f"{url}/chat/completions", json=body) as answer:
        await answer.read()
        assert answer.status == 200, await answer.text()
    return time.perf_counter() - start


async def fan_out(url: str, calls: int, spread_s: float) -> tuple[list[float], float]:
    """`calls` requests, evenly over `spread_s`; their latencies and the makespan."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        start = time.perf_counter() + 0.05
        step_s = spread_s / calls
        jobs = [call(session, url, i, start + i * step_s) for i in range(calls)]
        return await asyncio.gather(*jobs), time.perf_counter() - start


def pin(process_id: int, core: int) -> None:
    """Give a process one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process_id, {core % (os.cpu_count() or 1)})


def main(sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        preset = Path(folder) / "one-second.yaml"
        preset.write_text(ONE_SECOND)
        endpoint = EndpointProcess(Settings(preset=str(preset), time_scale=1))
        pin(endpoint.pid, 0)
        pin(0, 1)
        print("  calls  spread    p50      p95      worst    makespan / ideal (median, range)")
        for calls in sizes:
            for spread_s in (0.0, 1.0):
                report(endpoint.url, calls, spread_s)
        endpoint.stop()


def report(url: str, calls: int, spread_s: float) -> None:
    latencies: list[float] = []
    ratios: list[float] = []
    for round_number in range(ROUNDS + 1):
        times, makespan_s = asyncio.run(fan_out(url, calls, spread_s))
        if round_number:
            latencies += times
            ratios.append(makespan_s / (1 + spread_s * (1 - 1 / calls)))
    cuts = statistics.quantiles(latencies, n=100)
    print(
        f"{calls:7} {spread_s:5.0f} s  {cuts[49]:.3f} s  {cuts[94]:.3f} s  {max(latencies):.3f} s"
        f"  {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [1, 100, 1000])
