"""Separate hosts, as network namespaces of this machine: one is cut off, and healed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import reaper

HOSTS = {"head": "10.77.0.1", "model": "10.77.0.2", "one": "10.77.0.3", "two": "10.77.0.4"}
AT_ONCE = 8
TOPICS = 60

MODEL = """
import asyncio, hashlib, itertools, os, sys
from aiohttp import web

number = itertools.count()

async def answer(request):
    prompt = (await request.json())["messages"][-1]["content"]
    text = "Answer " + hashlib.blake2b(prompt.encode(), digest_size=8).hexdigest()
    print(request.remote, text, flush=True)
    await asyncio.sleep(0.2)
    late = next(number) > 60  # however slow the test is, it cuts a batch that is not done
    while late and not os.path.exists(sys.argv[2]):
        await asyncio.sleep(0.05)
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return web.json_response({"id": "x", "object": "chat.completion", "choices": choices})

app = web.Application()
app.router.add_post("/v1/chat/completions", answer)
web.run_app(app, host=sys.argv[1], port=8000, print=None)
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Network:
    """Four hosts on a bridge that stands in the first; nothing outside of them is touched."""

    def __init__(self) -> None:
        self.tag = f"lab{os.getpid()}"
        self.running: list[subprocess.Popen[str]] = []

    def host(self, name: str) -> str:
        return f"{self.tag}-{name}"

    def __enter__(self) -> Network:
        for name in HOSTS:
            reaper.afterwards("ip", "netns", "del", self.host(name))
            ip("netns", "add", self.host(name))
            ip("-n", self.host(name), "link", "set", "lo", "up")
        head = self.host("head")
        ip("-n", head, "link", "add", "br0", "type", "bridge")
        ip("-n", head, "addr", "add", f"{HOSTS['head']}/24", "dev", "br0")
        ip("-n", head, "link", "set", "br0", "up")
        for name in ("model", "one", "two"):
            there = self.host(name)
            ip("-n", head, "link", "add", name, "type", "veth", "peer", "eth0", "netns", there)
            ip("-n", head, "link", "set", name, "master", "br0", "up")
            ip("-n", there, "addr", "add", f"{HOSTS[name]}/24", "dev", "eth0")
            ip("-n", there, "link", "set", "eth0", "up")
        return self

    def start(
        self, name: str, *command: str, output: Path | None = None, **variables: str
    ) -> subprocess.Popen[str]:
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH",)}
        environment |= {"OPENAI_BASE_URL": f"http://{HOSTS['model']}:8000/v1"} | variables
        with (output or Path(os.devnull)).open("w") as file:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.host(name), sys.executable, *command],
                env=environment,
                stdout=file,
                stderr=file if output else subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def cut(self, name: str) -> None:
        ip("-n", self.host("head"), "link", "set", name, "down")

    def heal(self, name: str) -> None:
        ip("-n", self.host("head"), "link", "set", name, "up")

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, 9)
            process.wait()
        for name in HOSTS:
            subprocess.run(["ip", "netns", "del", self.host(name)], check=False)


@pytest.fixture
def network() -> Iterator[Network]:
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("makes network namespaces, which takes root and iproute2")
    with ExitStack() as stack:
        try:
            network = stack.enter_context(Network())
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not allowed here: {error.stderr!r}")
        yield network


def test_a_host_that_is_cut_off_loses_nothing(network, tmp_path):
    """Two hosts with workers, one with the model, one with scheduler and driver. A worker's is cut
    off for four seconds in mid-batch: it asks nothing in that time and asks again after it, all is
    done, and what is paid twice was in flight: at the cut, in the cut, or when it healed."""
    model_log, topics = tmp_path / "asked.txt", tmp_path / "topics.txt"
    topics.write_text("\n".join(f"Tides in harbour {n}" for n in range(TOPICS)))
    was_cut = tmp_path / "cut"
    network.start("model", "-c", MODEL, HOSTS["model"], str(was_cut), output=model_log)
    scheduler = ("dask", "scheduler", "--host", HOSTS["head"], "--port", "8786", "--no-dashboard")
    network.start("head", "-m", *scheduler, DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="5s")
    address = f"tcp://{HOSTS['head']}:8786"
    for name in ("one", "two"):
        worker = ("dask", "worker", address, "--host", HOSTS[name], "--nworkers", "1")
        more = ("--nthreads", "8", "--memory-limit", "0", "--no-dashboard")
        network.start(name, "-m", *worker, *more)
    driver = network.start(
        "head",
        *("-m", "agentlab", "write", str(topics), "--out", str(tmp_path / "out")),
        *("--cluster", address),
        output=tmp_path / "said.txt",
        AGENTLAB_CONTENT_MAX_CONCURRENT_AGENTS=str(AT_ONCE),
        AGENTLAB_CONTENT_TIMEOUT_SECONDS="3",
        AGENTLAB_CONTENT_RETRY_ATTEMPTS="20",
        DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="120s",
        AGENTLAB_PROGRESS="0",
    )

    def asked() -> list[list[str]]:
        return [line.split() for line in model_log.read_text().splitlines()]

    while len({who for who, *_ in asked()}) < 2 or len(asked()) < 40:
        assert driver.poll() is None, (tmp_path / "said.txt").read_text()
        time.sleep(0.05)
    network.cut("two")
    was_cut.touch()
    time.sleep(0.5)  # until the model has noted what had left before
    cut = len(asked())
    time.sleep(3.5)
    healed = len(asked())
    network.heal("two")
    assert driver.wait(timeout=90) == 0, (tmp_path / "said.txt").read_text()
    counts = Counter(text for _, _, text in asked())
    print(f"asked: {cut} before the cut, {healed} by its end, {counts.total()} in all")
    assert {who for who, *_ in asked()[cut:healed]} == {HOSTS["one"]}
    assert HOSTS["two"] in {who for who, *_ in asked()[healed:]}
    assert (tmp_path / "said.txt").read_text().startswith(f"{TOPICS} done")
    assert len(counts) == 4 * TOPICS
    held = Counter(text for _, _, text in asked()[:cut])  # some for longer than a time-out
    assert 0 < counts.total() - 4 * TOPICS <= 3 * AT_ONCE + held.total() - len(held)
