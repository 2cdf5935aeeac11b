"""JupyterLab as `make lab` starts it, on a copy of the course."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 60.0

# JupyterLab that ends with its owner, however that dies: its standard input, to which nobody
# writes, ends then. It ends its kernels first; now and then that takes for ever.
_WITH_OWNER = """
import os, signal, sys, threading, time
from jupyterlab.labapp import main

def end_with_owner():
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)
    os._exit(1)

threading.Thread(target=end_with_owner, daemon=True).start()
main()
"""

# Each kernel runs this when it starts: at a signal it says where its tasks and threads are. It
# leaves no name behind, or a lesson that forgot an import would find it here.
_SAYS_WHERE = """
def say_where_at_a_signal():
    import asyncio, faulthandler, signal, traceback

    def say(number, _):
        with open({stacks!r}, "a") as file:
            for task in asyncio.all_tasks():
                print(task.get_name(), file=file)
                awaited = task.get_coro()
                while frame := getattr(awaited, "cr_frame", None):
                    traceback.print_stack(frame, limit=1, file=file)
                    awaited = awaited.cr_await
            file.flush()
            faulthandler.dump_traceback(file)

    signal.signal(signal.SIGUSR1, say)

say_where_at_a_signal()
del say_where_at_a_signal
"""


@dataclass(frozen=True)
class Server:
    """A JupyterLab that runs.

    Attributes:
        folder: The copy of the course that it serves.
        url: Its address, without a path.
        token: What lets a browser in.
        pid: Its process.
        stacks: What its kernels say at SIGUSR1: the stack of each task and thread.
    """

    folder: Path
    url: str
    token: str
    pid: int
    stacks: Path

    def address(self, path: str) -> str:
        """The address of a page, with what lets a browser in.

        Example: server.address("/lab/tree/notebooks/00_start_here.ipynb")
        """
        return f"{self.url}{path}?token={self.token}"

    def where_kernels_are(self) -> str:
        """Return the stack of each task and thread of each kernel, for one that hangs."""
        self.stacks.write_text("")
        children = psutil.Process(self.pid).children()
        kernels = [child for child in children if "ipykernel_launcher" in child.cmdline()]
        for kernel in kernels:
            kernel.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        # The thread that says it comes last. One that is stuck outside of Python says nothing.
        while self.stacks.read_text().count("Current thread") < len(kernels):
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return self.stacks.read_text() or "no kernel answers"

    def end_kernels(self) -> None:
        """End every kernel, so that the next notebook finds the machine free."""
        headers = {"Authorization": f"token {self.token}"}
        with httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60) as http:
            for session in http.get("/api/sessions").raise_for_status().json():
                http.delete(f"/api/sessions/{session['id']}").raise_for_status()


def copied(folder: Path) -> Path:
    """A copy of what JupyterLab shows and of its settings: a run saves into the notebooks."""
    for part in ("notebooks", "data", "tools/jupyterlab"):
        ignored = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    overrides = folder / "tools" / "jupyterlab" / "overrides.json"
    settings = json.loads(overrides.read_text())
    # Else JupyterLab attaches and lays out cells as they are scrolled to.
    settings["@jupyterlab/notebook-extension:tracker"] = {"windowingMode": "none"}
    # Else one of its own may be writing a file that a test has saved, and reads.
    settings["@jupyterlab/docmanager-extension:plugin"] = {"autosave": False}
    overrides.write_text(json.dumps(settings))
    return folder


def options() -> list[str]:
    """The options that `make lab` gives to JupyterLab, on a port that is free.

    Also inside `make test`, where make would announce the folders that it enters and leaves.
    """
    command = ["make", "--dry-run", "--no-print-directory", "lab", f"PYTHON={sys.executable}"]
    command.append("LAB_ARGS=--port=0 --no-browser")
    dry = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands = dry.replace("\\\n", " ").splitlines()
    lab = next(line for line in commands if line.startswith(".venv/bin/jupyter lab "))
    return shlex.split(lab)[2:]


@contextmanager
def serving(folder: Path, own: Path) -> Iterator[Server]:
    """JupyterLab on the course's copy in `folder`, until the block ends.

    Args:
        folder: Where `copied` has put the course.
        own: An empty folder for its settings, workspaces and run-time files: the learner's are
            neither read nor changed.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")}
    environment |= {
        "AGENTLAB_PROGRESS": "1",  # bars are among what is looked at
        "IPYTHONDIR": str(own / "ipython"),
        "JUPYTER_CONFIG_DIR": str(own / "config"),
        "JUPYTER_DATA_DIR": str(own / "data"),
        "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
    }
    said, stacks = own / "said.txt", own / "stacks.txt"
    startup = own / "ipython" / "profile_default" / "startup" / "00_says_where.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(_SAYS_WHERE.format(stacks=str(stacks.absolute())))
    # Else each page has node look whether JupyterLab should be built anew.
    pages = own / "config" / "labconfig" / "page_config.json"
    pages.parent.mkdir(parents=True)
    pages.write_text('{"buildCheck": false}')
    with said.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _WITH_OWNER, *options(), "--LabApp.expose_app_in_browser=True"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url, token = _announced(process, said)
        yield Server(folder, url, token, process.pid, stacks)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def _announced(process: subprocess.Popen[bytes], said: Path) -> tuple[str, str]:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        text = said.read_text(errors="replace")
        if found := re.search(r"(http://127\.0\.0\.1:(\d+))/\S+\?token=(\w+)", text):
            with suppress(OSError), socket.create_connection(("127.0.0.1", int(found[2]))):
                return found[1], found[3]  # it says its address before it listens there
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start:\n{said.read_text(errors='replace')}")
