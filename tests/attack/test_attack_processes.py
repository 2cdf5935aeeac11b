"""Owners that are killed, and signals: nothing outlives its owner, no server outlasts a signal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import reaper

TESTS = Path(__file__).resolve().parents[1]
PATIENCE_S = 60
"""Processes end within a few seconds, where the machine has the time."""

SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP}

# ---------------------------------------------------------------- owners that are ended


@contextmanager
def owner(code: str, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has done what `code` says, and waits."""
    # What `nohup` lets the tests ignore, a process of theirs would ignore as well.
    heeds = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    waits = "\nprint('up', flush=True)\nimport time\ntime.sleep(600)"
    path = os.pathsep.join([str(TESTS), os.environ["PYTHONPATH"]])
    process = subprocess.Popen(
        [sys.executable, "-c", heeds + code + waits, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"up\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def survivors(code: str, how: str, *more: str) -> list[list[str]]:
    """What lives on of all that `code` has started, once the process that ran it is ended."""
    with owner(code, *more) as process:
        started = psutil.Process(process.pid).children(recursive=True)
        forks = [each for each in started if each.cmdline()[1:3] == process.args[1:3]]  # type: ignore[index]
        process.send_signal(SIGNALS[how])
        process.wait(PATIENCE_S)
    assert len(started) > len(forks)
    expected = [each for each in started if each not in forks]
    left = [each.cmdline() for each in reaper.outlive(expected, PATIENCE_S)]
    for each in started:
        if each.is_running():
            each.kill()
    return left


ENDPOINT = """
from agentlab.endpoint.server.process import EndpointProcess
from agentlab.settings import Settings
endpoint = EndpointProcess(Settings(time_scale=0.01))
"""
DOES = {
    "idle": ENDPOINT,
    "answers": ENDPOINT
    + """
import httpx
body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
stream = httpx.stream("POST", f"{endpoint.url}/chat/completions", json=body, timeout=600)
stream.__enter__()
""",
    "computes": ENDPOINT
    + """
import httpx, threading
body = {"model": "m", "input": [list(range(2000))] * 50}
post = lambda: httpx.post(f"{endpoint.url}/embeddings", json=body, timeout=600)
for _ in range(20):
    threading.Thread(target=post, daemon=True).start()
""",
    "forked": ENDPOINT
    + """
import os, time
if os.fork() == 0:
    time.sleep(600)  # and its pipe to the endpoint stays open
""",
    "thread": f"""
import threading
def start():
{textwrap.indent(ENDPOINT, "    ")}
thread = threading.Thread(target=start)
thread.start()
thread.join()
""",
}


@pytest.mark.parametrize(
    ("does", "how"),
    [
        *(("idle", how) for how in SIGNALS),
        *(("answers", how) for how in ("TERM", "KILL")),
        *(("computes", how) for how in ("HUP", "KILL")),
        *(("thread", how) for how in ("TERM", "KILL")),
        *(("forked", how) for how in ("HUP", "KILL")),
    ],
)
def test_no_endpoint_outlives_its_owner(does: str, how: str):
    """Whatever it is doing, and though a fork of the owner's lives on and holds its pipe."""
    assert survivors(DOES[does], how) == []


CLUSTER = """
import asyncio, os, sys, time
from agentlab.engines.dask import Cluster

async def main():
    async with Cluster(workers=1) as cluster:
        if "fork" in sys.argv and os.fork() == 0:
            time.sleep(600)
        print("up", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize(("how", "more"), [("TERM", "alone"), ("KILL", "fork")])
def test_no_cluster_outlives_its_owner(how: str, more: str):
    """Scheduler, nanny and worker, though a fork of the owner's holds their pipes."""
    assert survivors(CLUSTER, how, more) == []


IN_THE_BACKGROUND = {
    "child": "subprocess.Popen(['sleep', '600'])",
    "grandchild": "subprocess.Popen(['sh', '-c', 'sleep 600 & sleep 600'])",
    "session": "subprocess.Popen(['sleep', '600'], start_new_session=True)",
    "deaf": "subprocess.Popen(['sh', '-c', 'trap \"\" TERM HUP INT; sleep 600; sleep 600'])",
    "class": "import classroom_process; classroom_process.Class()",
}


@pytest.mark.parametrize(
    ("what", "how"),
    [
        *((what, "KILL") for what in IN_THE_BACKGROUND),
        *((what, "TERM") for what in ("child", "deaf")),
        ("grandchild", "HUP"),
    ],
)
def test_nothing_that_a_test_starts_outlives_it(what: str, how: str):
    """By whichever way it is started, in sessions of its own, and if it ignores SIGTERM."""
    code = f"import reaper, subprocess, time\nreaper.start()\n{IN_THE_BACKGROUND[what]}"
    assert survivors(f"{code}\ntime.sleep(0.2)", how) == []


@pytest.mark.parametrize("how", SIGNALS)
def test_what_was_to_be_tidied_up_is(how: str, tmp_path: Path):
    """A folder that only its owner would have removed is gone, with all that is in it."""
    folder = tmp_path / "of size"
    folder.mkdir()
    (folder / "data").write_bytes(b"x" * 100_000)
    code = f"import reaper\nreaper.afterwards('rm', '-rf', {str(folder)!r})"
    assert survivors(code, how) == []
    assert not folder.exists()


RUN = """
import os, subprocess, sys, time

def test_one():
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    print(os.getpid(), process.pid, file=open("pids", "a"), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(("whom", "how"), [("worker", "KILL"), ("run", "KILL")])
def test_a_run_of_tests_leaves_nothing(whom: str, how: str, tmp_path: Path):
    """The worker of pytest-xdist alone is ended, or the whole run: what a test started ends."""
    (tmp_path / "conftest.py").write_bytes((TESTS.parent / "conftest.py").read_bytes())
    (tmp_path / "tests").symlink_to(TESTS)
    (tmp_path / "test_it.py").write_text(RUN)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "1"]
    run = subprocess.Popen([*command, "--maxfail=1", "test_it.py"], cwd=tmp_path, stdout=-3)
    try:
        pids = tmp_path / "pids"
        while not pids.exists() or not pids.read_text().endswith("\n"):
            assert run.poll() is None
            time.sleep(0.05)
        worker, started = (psutil.Process(int(pid)) for pid in pids.read_text().split())
        (worker if whom == "worker" else psutil.Process(run.pid)).send_signal(SIGNALS[how])
        assert reaper.outlive([worker, started], PATIENCE_S) == []
    finally:
        run.kill()
        run.wait()


# ---------------------------------------------------------------- signals to a server

APPLICATION = """
import asyncio, contextlib, re, sys, time
from agentlab.endpoint.server.serve import serve

async def app(scope, receive, send):
    print("asked", flush=True)
    match scope["path"]:
        case "/spins":
            while True: pass
        case "/blocks":
            time.sleep(600)
        case "/matches":
            re.match("(a+)+$", "a" * 60 + "b")
        case "/swallows":
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(600)
        case "/threads":
            await asyncio.to_thread(time.sleep, 600)
        case "/streams":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                body = b"x" * 65536
                await send({"type": "http.response.body", "body": body, "more_body": True})

with contextlib.suppress(KeyboardInterrupt):
    serve(app, 0, announce=lambda url: print(url, flush=True))
"""
CODES = {"INT": 0, "TERM": -signal.SIGTERM}


class Server:
    """A server in a process of its own, and clients that keep their connections."""

    def __init__(self, *command: str):
        self.process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.port = 0
        self.clients: list[socket.socket] = []
        for line in iter(self.said, ""):
            if "http://127.0.0.1:" in line and not self.port:
                self.port = int(line.partition("http://127.0.0.1:")[2].partition("/")[0])
            if "--classroom" not in command or "Ctrl-C" in line:
                break
        assert self.port, "it did not start"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        self.process.kill()
        self.process.communicate()

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def send(self, request: str) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        client.sendall(request.replace("\n", "\r\n").encode())
        self.clients.append(client)
        return client

    def code(self, *signals: str) -> int:
        """The exit code after `signals`, one shortly after the other."""
        for number, name in enumerate(signals):
            if number:
                time.sleep(0.2)  # two that come together are one
            self.process.send_signal(getattr(signal, f"SIG{name}"))
        return self.process.wait(PATIENCE_S)


@pytest.mark.parametrize(
    ("path", "signals"),
    [
        ("spins", "INT"),
        ("spins", "TERM"),
        ("spins", "INT INT"),
        ("spins", "TERM INT"),
        ("blocks", "TERM"),
        ("blocks", "INT INT"),
        ("matches", "TERM TERM"),
        ("swallows", "INT"),
        ("swallows", "TERM TERM"),
        ("threads", "INT INT"),
        ("streams", "TERM"),
        ("streams", "INT"),
    ],
)
def test_a_signal_ends_a_server_whatever_it_computes(path: str, signals: str):
    """An event loop that stands still, work that ignores cancelling, a stream that nobody reads:
    the process ends by itself, with the signal's exit code, or with 1, and where it stood."""
    with Server("-c", APPLICATION) as server:
        server.send(f"GET /{path} HTTP/1.1\nhost: x\n\n")
        assert server.said() == "asked\n"
        names = signals.split()
        code = server.code(*names)
        assert server.process.stderr is not None
        stood = "most recent call first" in server.process.stderr.read()
        assert (code, stood) in {(1, True), *((CODES[name], False) for name in names)}


BODY = '{"model": "m", "stream": true, "messages": [{"role": "user", "content": "x"}]}'
HEAD = (
    "POST /v1/chat/completions HTTP/1.1\nhost: 127.0.0.1\nauthorization: Bearer ada\n"
    f"content-type: application/json\ncontent-length: {len(BODY)}\n"
)
CLIENTS = {
    "none": [],
    "silent": [""] * 50,
    "half a line": ["POST /v1/ch"] * 5,
    "half a head": [HEAD] * 5,
    "half a body": [f"{HEAD}\n{BODY[:20]}"] * 5,
    "kept alive": ["GET /v1/models HTTP/1.1\nhost: 127.0.0.1\n\n"] * 5,
    "streams": [f"{HEAD}\n{BODY}"] * 5,
    "all": ["", "POST", HEAD, f"{HEAD}\n{BODY[:20]}", f"{HEAD}\n{BODY}"],
}


@pytest.mark.parametrize(
    ("clients", "signals"),
    [(name, "INT" if number % 2 else "TERM") for number, name in enumerate(CLIENTS)],
)
@pytest.mark.parametrize("room", ["alone", "class"])
def test_no_client_keeps_a_server(room: str, clients: str, signals: str):
    """Half-open connections and answers on their way: it ends, and complains of nothing."""
    classroom = ["--classroom"] if room == "class" else []
    serve = ("-m", "agentlab", "serve", "--port", "0", "--time-scale", "0.1", *classroom)
    with Server(*serve) as server:
        for request in CLIENTS[clients]:
            server.send(request)
        if clients == "streams":
            assert server.clients[0].recv(12) == b"HTTP/1.1 200"
        assert server.code(signals) == CODES[signals]
        assert server.process.stderr is not None and server.process.stderr.read() == ""
