"""What the endpoint costs, beside a bare server that does nothing, in one interleaved run.

    python tools/endpoint_load.py in-flight [N ...]   delay added with N requests of 1 s in flight
    python tools/endpoint_load.py minute              the same for a minute at 1,000; memory
    python tools/endpoint_load.py throughput          requests a second where answers take no time
    python tools/endpoint_load.py forwarding          delay added in front of another endpoint

The bare server runs on the same web server and sends a constant; what it adds belongs to the web
server and to the client. Servers have one core and the clients another, where the system lets us
choose. Medians of several rounds; the first request of a connection is not counted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path

import aiohttp

from agentlab._support.system import allow_many_connections
from agentlab.endpoint.server.process import EndpointProcess
from agentlab.settings import Settings

ROUNDS = 5
COURSE = "Research: what is parallel processing for AI agents?"
ONE_SECOND = """\
about: One second for any answer, whatever its length.
prefill_base_ms: {value: 1000, basis: chosen, source: the subject of this measurement}
prefill_per_token_ms: {value: 0, basis: chosen, source: not the subject}
itl_base_ms: {value: 0, basis: chosen, source: not the subject}
itl_per_active_ms: {value: 0, basis: chosen, source: not the subject}
jitter_sigma: {value: 0, basis: chosen, source: not the subject}
"""
CONSTANT = json.dumps({"choices": [{"message": {"content": "word " * 160}}]}).encode()

Prompt = Callable[[int], str]


class Bare:
    """The reference, an ASGI application: `latency_s` of sleep, then a constant."""

    def __init__(self, latency_s: float):
        self._latency_s = latency_s

    async def __call__(self, scope, receive, send) -> None:
        while (await receive()).get("more_body"):
            pass
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        length = (b"content-length", b"%d" % len(CONSTANT))
        headers = [(b"content-type", b"application/json"), length]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": CONSTANT})


@contextmanager
def bare(latency_s: float, *, core: int | None = 0) -> Iterator[tuple[str, int]]:
    """The reference in a process of its own: its address and process number."""
    code = (
        "import endpoint_load; from agentlab.endpoint.server.serve import serve; "
        "from agentlab.endpoint.server.process import end_with_owner; end_with_owner(); "
        f"serve(endpoint_load.Bare({latency_s}), 0, announce=lambda url: print(url, flush=True))"
    )
    command = [sys.executable, "-c", code]
    folder = Path(__file__).parent
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        if core is not None:
            pin(process.pid, core)
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


@contextmanager
def endpoint(**settings) -> Iterator[EndpointProcess]:
    """The endpoint in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        if settings.get("preset") == "one-second":
            settings["preset"] = str(Path(folder) / "one-second.yaml")
            Path(settings["preset"]).write_text(ONE_SECOND)
        process = EndpointProcess(Settings(time_scale=1, **settings))
    pin(process.pid, 0)
    yield process
    process.stop()


async def client(
    session: aiohttp.ClientSession,
    url: str,
    start: float,
    asked: int,
    prompt: Prompt,
    key: str,
    stream: bool,
) -> list[float]:
    """The latencies in seconds of one client that asks again as soon as it is answered."""
    latencies_s = []
    headers = {"authorization": f"Bearer {key}"}
    more = {"stream": True} if stream else {}
    await asyncio.sleep(start - time.perf_counter())
    for turn in range(asked):
        body = {"model": "m", "messages": [{"role": "user", "content": prompt(turn)}], **more}
        begun = time.perf_counter()
        async with session.post(f"{url}/chat/completions", json=body, headers=headers) as answer:
            await answer.read()
            assert answer.status == 200, await answer.text()
        latencies_s.append(time.perf_counter() - begun)
    return latencies_s[1:]


async def load(
    url: str,
    clients: int,
    asked: int,
    prompt: Prompt,
    *,
    spread_s: float = 1.0,
    key: str = "any",
    stream: bool = False,
) -> list[float]:
    """The latencies of all `clients`, each over a connection of its own, begun over `spread_s`."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        start = time.perf_counter() + 0.05
        starts = [start + spread_s * number / clients for number in range(clients)]
        jobs = [client(session, url, at, asked, prompt, key, stream) for at in starts]
        return [latency_s for each in await asyncio.gather(*jobs) for latency_s in each]


def pin(process_id: int, core: int) -> None:
    """Give a process one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process_id, {core % (os.cpu_count() or 1)})


def cpu_s(process_id: int) -> float:
    """The processor time that a process has used (Linux)."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(process_id: int) -> float:
    """The memory that a process holds (Linux)."""
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def row(name: str, latencies_s: list[float], ideal_s: float) -> str:
    """By how much the answers were late, in milliseconds."""
    added_ms = sorted(1000 * (latency_s - ideal_s) for latency_s in latencies_s)
    cuts = statistics.quantiles(added_ms, n=100)
    return f"{name:24} {cuts[49]:8.1f} {cuts[94]:8.1f} {cuts[98]:8.1f}"


def varied(turn: int) -> str:
    return f"Question {turn}: describe tides in two sentences."


def in_flight(sizes: list[int]) -> None:
    print(f"{'added to one second (ms)':24}      p50      p95      p99")
    with bare(1.0) as (bare_url, _), endpoint(preset="one-second") as served:
        for clients in sizes:
            seen: dict[str, list[float]] = {"bare": [], "endpoint": []}
            for _ in range(ROUNDS):
                for name, url in (("bare", bare_url), ("endpoint", served.url)):
                    seen[name] += asyncio.run(load(url, clients, 4, varied))
            for name, latencies_s in seen.items():
                print(row(f"{clients:5} {name}", latencies_s, 1.0))


def minute() -> None:
    with endpoint(preset="one-second") as served:
        for number in range(7):  # the first round warms up
            latencies_s = asyncio.run(load(served.url, 1000, 10, varied))
            print(row(f"after {9 * number + 9} s", latencies_s, 1.0), end="")
            print(f"   {memory_mb(served.pid):6.0f} MB")


def throughput() -> None:
    """Processor time a request, so that a slow client does not flatter the slower server."""
    numbers = itertools.count()
    prompts: dict[str, Prompt] = {
        "the course's prompt": lambda turn: COURSE,
        "others that come again": varied,
        "new ones": lambda turn: varied(next(numbers)),
    }
    for (what, prompt), stream in product(prompts.items(), [False, True]):
        costs_us: dict[str, list[float]] = {"bare": [], "endpoint": []}
        with bare(0.0) as (bare_url, bare_pid), endpoint(preset="instant") as served:
            servers = {"bare": (bare_url, bare_pid), "endpoint": (served.url, served.pid)}
            for _ in range(ROUNDS):
                for name, (url, process_id) in servers.items():
                    before_s = cpu_s(process_id)
                    answers = asyncio.run(load(url, 32, 150, prompt, spread_s=0, stream=stream))
                    cost_s = (cpu_s(process_id) - before_s) / (len(answers) + 32)
                    costs_us[name].append(1e6 * cost_s)
        medians = {name: statistics.median(each) for name, each in costs_us.items()}
        ratio = medians["bare"] / medians["endpoint"]
        rates = ", ".join(f"{name} {us:.0f} us" for name, us in medians.items())
        how = f"{what}, streamed" if stream else what
        print(f"{how}: {rates} of one core a request; {ratio:.2f} of the bare server's rate")


def forwarding() -> None:
    print(f"{'added by forwarding (ms)':24}      p50      p95      p99")
    with endpoint(preset="instant") as upstream, ExitStack() as stack:
        direct: list[float] = []
        passed: list[float] = []
        served = stack.enter_context(endpoint(upstream=upstream.url))
        for _ in range(ROUNDS):
            direct += asyncio.run(load(upstream.url, 1, 200, lambda turn: COURSE))
            passed += asyncio.run(load(served.url, 1, 200, lambda turn: COURSE, key=served.key))
        base_s = statistics.median(direct)
        print(row("direct", direct, base_s))
        print(row("forwarded", passed, base_s))


if __name__ == "__main__":
    allow_many_connections()
    pin(0, 1)
    match sys.argv[1:]:
        case ["in-flight", *sizes]:
            in_flight([int(size) for size in sizes] or [1, 100, 1000])
        case ["minute"]:
            minute()
        case ["throughput"]:
            throughput()
        case ["forwarding"]:
            forwarding()
        case _:
            sys.exit(__doc__)
