"""Many calls to a rough endpoint, over real HTTP: is anything lost, does anything grow?

python tools/soak.py [CALLS]          20,000 unless told otherwise; prints a line each tenth
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import NamedTuple

import psutil

from agentlab import lab
from agentlab.resilience import Breaker, Guard, Hedge, Retry, amap
from agentlab.settings import DATA
from agentlab.trace import trace

ROUGH = str(DATA / "faults" / "rough.yaml")
AT_ONCE = 50


class Sample(NamedTuple):
    """How things stand after so many calls."""

    calls: int
    lost: int
    rss_mb: float
    descriptors: int
    tasks: int


async def soak(calls: int) -> list[Sample]:
    """Ask so many times, and look at this process ten times on the way."""
    guard = Guard(
        retry=Retry(attempts=12, most_s=10),
        attempt_timeout_s=20,
        max_concurrency=AT_ONCE,
        breaker=Breaker(failures=20),
        hedge=Hedge(quantile=0.95),
    )

    async def ask(number: int) -> str:
        return await guard.ask(f"Describe river {number}.", max_tokens=5)

    samples, lost = [], 0
    every = max(1, calls // 10)
    done = 0
    async for outcome in amap(ask, range(calls), max_concurrency=AT_ONCE):
        done += 1
        lost += outcome.error is not None
        if done % every == 0:
            samples.append(_sample(done, lost))
    return samples


def _sample(calls: int, lost: int) -> Sample:
    gc.collect()
    process = psutil.Process()
    descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    rss_mb = process.memory_info().rss / 1e6
    return Sample(calls, lost, round(rss_mb, 1), descriptors, len(asyncio.all_tasks()))


def main(calls: int) -> int:
    """Print the samples; 1 if anything was lost."""
    with lab.configure(faults=ROUGH, time_scale=100), trace() as t:
        samples = asyncio.run(soak(calls))
        requests = t.requests
    for sample in samples:
        print(
            f"{sample.calls:7,} calls, {sample.lost} lost, {sample.rss_mb:6.1f} MB, "
            f"{sample.descriptors} descriptors, {sample.tasks} tasks"
        )
    print(f"{requests:,} requests, {requests / calls:.2f} a call")
    return 1 if samples[-1].lost else 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
