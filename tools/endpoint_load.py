"""How much delay the endpoint adds while N requests of one second each are in flight.

    python tools/endpoint_load.py [N ...]

N clients ask again as soon as they are answered, each over a connection of its own; they start
evenly over the first second, so that the load is even. A bare ASGI server that does nothing but
sleep for a second and send a fixed answer is measured in turn with the endpoint: what it adds
belongs to the web server and to the client, not to the model. Servers have one core and the
clients another, where the system lets us choose.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from agentlab.endpoint.process import EndpointProcess
from agentlab.endpoint.serve import allow_many_connections
from agentlab.settings import Settings

ROUNDS, ASKED_EACH = 5, 4
ONE_SECOND = """\
about: One second for any answer, whatever its length.
prefill_base_ms: {value: 1000, basis: chosen, source: the subject of this measurement}
prefill_per_token_ms: {value: 0, basis: chosen, source: not the subject}
prefill_per_active_ms: {value: 0, basis: chosen, source: not the subject}
itl_base_ms: {value: 0, basis: chosen, source: not the subject}
itl_per_active_ms: {value: 0, basis: chosen, source: not the subject}
jitter_sigma: {value: 0, basis: chosen, source: not the subject}
"""


async def bare(scope, receive, send):
    """The reference: one second's sleep, a fixed answer."""
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(1)
    body = b'{"object": "chat.completion", "choices": []}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def start_bare() -> tuple[subprocess.Popen[str], str]:
    """The reference in a process of its own, and its address."""
    code = (
        "import endpoint_load; from agentlab.endpoint.serve import serve; "
        "serve(endpoint_load.bare, 0, announce=lambda url: print(url, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


async def client(
    session: aiohttp.ClientSession, url: str, number: int, start: float
) -> list[float]:
    """One client's latencies in seconds, without the first: that one had to connect."""
    latencies_s = []
    await asyncio.sleep(start - time.perf_counter())
    for turn in range(ASKED_EACH):
        question = f"Question {number}.{turn}: describe tides in two sentences."
        body = {"model": "m", "messages": [{"role": "user", "content": question}]}
        asked = time.perf_counter()
        async with session.post(f"{url}/chat/completions", json=body) as answer:
            await answer.read()
            assert answer.status == 200, await answer.text()
        latencies_s.append(time.perf_counter() - asked)
    return latencies_s[1:]


async def load(url: str, clients: int) -> list[float]:
    """The latencies of all `clients`."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        start = time.perf_counter() + 0.05
        jobs = [client(session, url, i, start + i / clients) for i in range(clients)]
        return [latency_s for each in await asyncio.gather(*jobs) for latency_s in each]


def pin(process_id: int, core: int) -> None:
    """Give a process one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process_id, {core % (os.cpu_count() or 1)})


def report(name: str, clients: int, latencies_s: list[float]) -> None:
    """One line: by how much the answers were later than one second."""
    added_ms = sorted(1000 * (latency_s - 1) for latency_s in latencies_s)
    cuts = statistics.quantiles(added_ms, n=100)
    print(f"{clients:8}  {name:10} {cuts[49]:8.1f} {cuts[94]:8.1f} {cuts[98]:8.1f}")


def main(sizes: list[int]) -> None:
    allow_many_connections()
    with tempfile.TemporaryDirectory() as folder:
        preset = Path(folder) / "one-second.yaml"
        preset.write_text(ONE_SECOND)
        endpoint = EndpointProcess(Settings(preset=str(preset), time_scale=1))
    reference, reference_url = start_bare()
    for process_id, core in ((endpoint.pid, 0), (reference.pid, 0), (0, 1)):
        pin(process_id, core)
    print("                      added to one second (ms)")
    print(" clients  server          p50      p95      p99")
    urls = {"bare": reference_url, "endpoint": endpoint.url}
    for clients in sizes:
        latencies_s: dict[str, list[float]] = {name: [] for name in urls}
        for _ in range(ROUNDS):
            for name, url in urls.items():
                latencies_s[name] += asyncio.run(load(url, clients))
        for name in urls:
            report(name, clients, latencies_s[name])
    endpoint.stop()
    reference.terminate()
    reference.wait()


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [1, 100, 1000])
