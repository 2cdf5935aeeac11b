"""The guard: loopback passes, anything else is refused and written down, whoever swallows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GUARD = ROOT / "tests" / "network_guard"
SWALLOWED = "try:\n    {}\nexcept OSError as error:\n    print(error)"


def guarded(tmp_path: Path, code: str) -> tuple[str, str]:
    """Run `code` in a guarded process; returns what it printed, and the guard's log."""
    log = tmp_path / "log"
    log.touch()
    environment = {"PYTHONPATH": str(GUARD), "AGENTLAB_GUARD_LOG": str(log)}
    command = [sys.executable, "-c", f"import asyncio, socket, subprocess, sys\n{code}"]
    ran = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return ran.stdout, log.read_text()


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.create_connection(('192.0.2.1', 80), timeout=1)",
        "socket.socket().connect_ex(('192.0.2.1', 80))",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "socket.getaddrinfo('model.example', 443)",
        "socket.gethostbyname('model.example')",
        "asyncio.run(asyncio.open_connection('192.0.2.1', 80))",
        "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
    ],
)
def test_leaving_the_machine_is_refused_and_written_down(attempt: str, tmp_path: Path):
    """By address, by name, by datagram, from asyncio: an error, and a line although swallowed."""
    said, log = guarded(tmp_path, SWALLOWED.format(attempt))
    assert "leaves this machine" in said
    assert "192.0.2.1" in log or "example" in log or "2001:db8" in log


def test_a_child_process_is_guarded_as_well(tmp_path: Path):
    """Kernels and endpoints inherit the guard."""
    inner = "import socket; socket.getaddrinfo('model.example', 443)"
    _, log = guarded(tmp_path, f"subprocess.run([sys.executable, '-c', {inner!r}], stderr=-3)")
    assert "model.example" in log


def test_loopback_passes(tmp_path: Path):
    """By number and by name, IPv4 and IPv6, and sockets of the file system."""
    code = """
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
socket.getaddrinfo("localhost", 80)
socket.getaddrinfo("::1", 80)
socket.getaddrinfo(None, 80)
one, other = socket.socketpair()
one.sendall(b"x")
print("all passed")
"""
    said, log = guarded(tmp_path, code)
    assert (said, log) == ("all passed\n", "")


def test_a_sitecustomize_behind_the_guard_still_runs(tmp_path: Path):
    """The guard hides it by its name, and so has to run it."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("print('the other one')")
    environment = {"PYTHONPATH": os.pathsep.join([str(GUARD), str(folder)])}
    ran = subprocess.run(
        [sys.executable, "-c", ""], env=os.environ | environment, capture_output=True, text=True
    )
    assert ran.stdout == "the other one\n"


def test_no_process_builds_the_grammar_of_iris(tmp_path: Path):
    """jsonschema does without, and checks the other formats: a notebook is read sooner."""
    code = """
import jsonschema, nbformat
assert "lark" not in sys.modules
checks = jsonschema.FormatChecker()
print(checks.conforms("2026-01-01", "date"), checks.conforms("tomorrow", "date"))
"""
    assert guarded(tmp_path, code) == ("True False\n", "")


def test_a_swallowed_attempt_fails_the_whole_run(tmp_path: Path):
    """A test that passes, but whose code tried to leave: pytest's exit code is not 0."""
    (tmp_path / "conftest.py").write_bytes((ROOT / "conftest.py").read_bytes())
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "network_guard").symlink_to(GUARD)
    (tmp_path / "tests" / "reaper.py").symlink_to(ROOT / "tests" / "reaper.py")
    (tmp_path / "test_it.py").write_text(
        "import contextlib, socket\n"
        "def test_it():\n"
        "    with contextlib.suppress(OSError):\n"
        "        socket.getaddrinfo('model.example', 443)\n"
    )
    unguarded = {k: v for k, v in os.environ.items() if k != "AGENTLAB_GUARD_LOG"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)]
    ran = subprocess.run(command, env=unguarded, cwd=tmp_path, capture_output=True, text=True)
    assert "1 passed" in ran.stdout
    assert ran.returncode == 1
    assert "getaddrinfo 'model.example'" in ran.stderr
