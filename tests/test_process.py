"""The endpoint as a process: it starts, refuses what cannot work, and never outlives its owner."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from agentlab.commands.main import main
from agentlab.endpoint.server.process import EndpointProcess
from agentlab.errors import EndpointError
from agentlab.settings import Settings

FAST = Settings(time_scale=100)


def becomes_true(condition: Callable[[], bool], within_s: float = 60.0) -> bool:
    """Poll until `condition` holds; for other processes, whose time is their own."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ask(url: str, **fields: object) -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return httpx.post(f"{url}/chat/completions", json=body, trust_env=False, timeout=60)


@pytest.fixture
def endpoint():
    running = EndpointProcess(FAST)
    yield running
    running.stop()


def test_the_record_is_read_over_http(endpoint: EndpointProcess):
    """A request leaves a span; only those after a mark are given."""
    ask(endpoint.url)
    mark = endpoint.mark()
    ask(endpoint.url, max_tokens=11)
    (span,) = endpoint.since(mark)
    assert (mark, span.status, span.service_s) == (1, 200, 2.0)


def test_it_listens_on_loopback_only(endpoint: EndpointProcess):
    """Its address is loopback's, and no other address of this machine answers there."""
    port = int(endpoint.url.split(":")[2].split("/")[0])
    assert endpoint.url.startswith("http://127.0.0.1:")
    table = Path("/proc/net/tcp")
    if table.exists():
        listening = [line.split()[1] for line in table.read_text().splitlines() if " 0A " in line]
        assert [a for a in listening if a.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_a_client_that_hangs_up_over_a_socket_is_noticed(endpoint: EndpointProcess):
    """Closed in mid-stream: the span ends with 499, and the next client is served."""

    async def hang_up() -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"{endpoint.url}/chat/completions"
            async with client.stream("POST", url, json=body) as answer:
                await anext(answer.aiter_raw())

    asyncio.run(hang_up())
    assert becomes_true(lambda: endpoint.since(0)[0].status == 499)
    assert ask(endpoint.url).status_code == 200


def test_the_same_seed_in_two_processes_gives_the_same_answers():
    """Python's hash seed plays no part."""

    def answer() -> str:
        running = EndpointProcess(FAST)
        try:
            body = ask(running.url, messages=[{"role": "user", "content": "Describe a river."}])
        finally:
            running.stop()
        return body.json()["choices"][0]["message"]["content"]

    assert answer() == answer()


def test_stopping_leaves_no_process(endpoint: EndpointProcess):
    """After stop() the process is gone, and so is its record, as the error says."""
    pid = endpoint.pid
    extra = EndpointProcess(FAST)
    extra.stop()
    assert not extra.alive
    assert alive(pid)
    with pytest.raises(EndpointError, match="was stopped"):
        extra.mark()


def test_the_endpoint_ends_with_a_killed_owner():
    """kill -9 of the owner leaves no orphan."""
    code = (
        "from agentlab.endpoint.server.process import EndpointProcess; "
        "from agentlab.settings import Settings; import time; "
        "e = EndpointProcess(Settings()); print(e.pid, flush=True); "
        "time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert alive(pid)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert becomes_true(lambda: not alive(pid))


def test_an_endpoint_that_cannot_start_says_why():
    """The child's words come back as the owner's error."""
    with pytest.raises(EndpointError, match="did not start: no preset 'none'"):
        EndpointProcess(Settings(preset="none"))


def serve(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "agentlab", "serve", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )


def test_serving_by_hand_prints_the_address_and_ends_on_interrupt():
    """Address, preset, scale and seed in one line; Ctrl-C stops it with exit code 0."""
    server = serve("--port", "0", "--preset", "instant", "--time-scale", "20", "--seed", "3")
    assert server.stdout is not None
    line = server.stdout.readline()
    url = re.search(r"http://127\.0\.0\.1:\d+/v1", line)
    assert url is not None and "preset instant, 20 model seconds" in line and "seed 3" in line
    assert ask(url[0]).status_code == 200
    server.send_signal(signal.SIGINT)
    _, complaints = server.communicate(timeout=60)
    assert (server.returncode, complaints) == (0, "")


@pytest.mark.parametrize("plan", ["[]", "[{kind: reset, calls: [1]}]"])
def test_a_client_that_sends_many_requests_and_goes_is_noticed_quietly(plan: str, tmp_path: Path):
    """One connection, five streams one behind the other: the first one ends, no other begins."""
    (tmp_path / "plan.yaml").write_text(plan)
    server = serve("--port", "0", "--faults", str(tmp_path / "plan.yaml"))
    assert server.stdout is not None
    url = re.search(r"http://(127\.0\.0\.1):(\d+)", server.stdout.readline())
    assert url is not None
    said = '"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9000, "ignore_eos": true'
    body = f'{{"model": "m", "stream": true, {said}}}'
    asks = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}"
    with socket.create_connection((url[1], int(url[2]))) as client:
        client.sendall(f"{asks}\r\n\r\n{body}".encode() * 5)
        with suppress(ConnectionResetError):  # by the plan
            client.recv(100)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def ended() -> bool:
        spans = httpx.get(f"{url[0]}/lab/spans", trust_env=False).json()["spans"]
        return [span.get("end_s") is not None for span in spans] == [True]

    assert becomes_true(ended, within_s=20)
    server.send_signal(signal.SIGINT)
    _, complaints = server.communicate(timeout=60)
    assert (server.returncode, complaints) == (0, "")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at what is open there")
@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&-", "0<&- 1>&- 2>&-"])
def test_it_serves_without_its_standard_streams(closed: str):
    """As cron and service managers start programs; no file or socket takes their places."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = f"exec {sys.executable} -m agentlab serve --port {port} --preset instant {closed}"
    server = subprocess.Popen(["sh", "-c", command])
    health = f"http://127.0.0.1:{port}/health"

    def served() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(health, trust_env=False).status_code == 200
        return False

    try:
        assert becomes_true(lambda: server.poll() is not None or served())
        assert server.poll() is None
        for number in re.findall(r"\d", closed):
            assert os.readlink(f"/proc/{server.pid}/fd/{number}") == os.devnull
    finally:
        server.send_signal(signal.SIGINT)
    assert server.wait(timeout=60) == 0


def test_a_port_in_use_is_a_clear_error():
    """One line that names the port and the way out; exit code 2; no traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        server = serve("--port", port)
        _, complaints = server.communicate(timeout=60)
    assert server.returncode == 2
    assert complaints.startswith(f"agentlab: cannot listen on 127.0.0.1:{port} (")
    assert complaints.count("\n") == 1


@pytest.mark.filterwarnings("ignore:Exception ignored in")  # the socket of a port that is none
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "none"], "no preset 'none'"),
        (["--time-scale", "-1"], "time_scale"),
        (["--seed", "seven"], "seed"),
        (["--port", "70000"], "70000"),
    ],
)
def test_a_wrong_option_is_a_clear_error(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
):
    """One line, exit code 2, no traceback."""
    assert main(["serve", "--port", "0", *arguments]) == 2
    complaints = capsys.readouterr().err
    assert words in complaints and complaints.count("\n") == 1
