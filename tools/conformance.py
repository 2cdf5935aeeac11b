"""Run real clients against the local model, each in an environment of its own.

    python tools/conformance.py [CLIENT ...]      all of tests/conformance/clients.toml, or some

Each client is a script of cells in tests/conformance/clients, which a real user of it could have
written. Run whole, the table of docs/conformance.md is written again. The exit code is 1 if a cell
fails. Environments are made once, in build/conformance, and again when the pins change.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "tests" / "conformance"
BUILD = ROOT / "build" / "conformance"
PAGE = ROOT / "docs" / "conformance.md"
BELOW = "<!-- make conformance writes what is below -->\n"
TIMEOUT_S = 900
COLUMNS = (
    "plain", "stream", "tool loop", "dependent calls", "fan-out", "structured output",
    "second turn",
)  # fmt: skip
NOT_TRIED = "–"

QUIET = {
    "AGNO_TELEMETRY": "false",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OTEL_SDK_DISABLED": "true",
}
"""What keeps clients from calling home; the guard would refuse it, but slowly."""


class Client(NamedTuple):
    """One entry of clients.toml."""

    name: str
    script: Path
    kind: str  # pip, npm or course
    packages: list[str]

    @property
    def title(self) -> str:
        """The client and its version, as the table shows them."""
        package = self.packages[0]
        if self.kind == "course":
            return f"{package} {version(package)}"
        name, _, pinned = package.replace("==", "@").rpartition("@")
        return f"{name.split('[')[0]} {pinned}"


class Cell(NamedTuple):
    """What became of one cell; `reason` is None if it passed."""

    route: str
    cell: str
    requests: int
    reason: str | None


def clients(names: Sequence[str] = ()) -> list[Client]:
    """The clients of these names, or all of them, in the order of the file."""
    listed = {
        name: Client(name, SOURCE / "clients" / entry["script"], kind, entry[kind])
        for name, entry in tomllib.loads((SOURCE / "clients.toml").read_text()).items()
        for kind in entry.keys() - {"script"}
    }
    if unknown := set(names) - set(listed):
        sys.exit(f"no client {', '.join(sorted(unknown))}; there are {', '.join(listed)}")
    return [client for name, client in listed.items() if not names or name in names]


def prepare(client: Client) -> None:
    """Make the client's environment, unless it is there with these very packages."""
    folder, made = BUILD / client.name, BUILD / client.name / "made.json"
    wanted = json.dumps(client.packages)
    if client.kind == "course" or (made.exists() and made.read_text() == wanted):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for command in steps(client, folder):
        subprocess.run(command, check=True, cwd=folder)
    made.write_text(wanted)


def steps(client: Client, folder: Path) -> list[list[str]]:
    """The commands that install a client's packages."""
    if client.kind == "npm":
        (folder / "package.json").write_text('{"private": true}')
        return [["npm", "install", "--silent", "--no-audit", "--no-fund", *client.packages]]
    python = str(folder / "bin" / "python")
    programs = [str(Path(sys.executable).parent), os.environ["PATH"]]  # CrewAI brings uv along
    if uv := shutil.which("uv", path=os.pathsep.join(programs)):
        return [
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", python, *client.packages],
        ]
    return [
        [sys.executable, "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", "--quiet", *client.packages],
    ]


@contextmanager
def served() -> Iterator[str]:
    """`agentlab serve` in a process of its own; its address, ending in `/v1`.

    Its preset takes a little time, so that streams come in many pieces, as they do elsewhere.
    """
    command = ["-m", "agentlab", "serve", "--port", "0", "--preset", "vllm-1gpu"]
    environment = {**os.environ, "AGENTLAB_LOCAL": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process, process.stdout:
        try:
            said = process.stdout.readline()
            address = re.search(r"http://\S+/v1", said)
            if address is None:
                raise ChildProcessError(f"the endpoint does not start: {said}")
            yield address[0]
        finally:
            process.kill()


def run(client: Client, url: str) -> list[Cell]:
    """Run a client's script; a script that breaks off is a cell that failed."""
    with tempfile.TemporaryDirectory(prefix="agentlab-conformance-") as folder:
        environment = {
            **os.environ,
            **QUIET,
            "PYTHONPATH": os.pathsep.join([str(SOURCE), str(ROOT / "tests" / "network_guard")]),
            "OPENAI_API_KEY": "any",
            "OPENAI_BASE_URL": url,
            "OPENAI_API_BASE": url,  # the name that llama-index reads
            "CREWAI_STORAGE_DIR": folder,
        }
        try:
            done = subprocess.run(
                command(client),
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            return [Cell("", "script", 0, f"no end after {TIMEOUT_S} s")]
    cells = [Cell(**json.loads(line)) for line in done.stdout.splitlines()]
    if done.returncode or not cells:
        (*_, last) = done.stderr.strip().splitlines() or ["it says nothing"]
        cells.append(Cell("", "script", 0, f"exit code {done.returncode}: {last}"))
    return cells


def command(client: Client) -> list[str]:
    """What starts a client's script; Node looks for packages beside it, so it moves there."""
    if client.kind == "npm":
        for file in (SOURCE / "cells.mjs", client.script):
            shutil.copy(file, BUILD / client.name)
        return ["node", str(BUILD / client.name / client.script.name)]
    own = str(BUILD / client.name / "bin" / "python")
    return [sys.executable if client.kind == "course" else own, "-P", str(client.script)]


def examine(client: Client) -> list[Cell] | None:
    """Prepare and run one client, and say how it went; None where there is no Node for it."""
    if client.kind == "npm" and not shutil.which("npm"):
        print(f"{client.title}: skipped, because there is no npm here", flush=True)
        return None
    began_s = time.monotonic()
    try:
        prepare(client)
        with served() as url:
            cells = run(client, url)
    except (ChildProcessError, subprocess.CalledProcessError) as error:
        cells = [Cell("", "script", 0, str(error))]
    failed = [cell for cell in cells if cell.reason]
    took_s = time.monotonic() - began_s
    lines = [f"{client.title}: {len(cells) - len(failed)} of {len(cells)} pass, {took_s:.0f} s"]
    lines += [f"    {where(cell)}: {cell.reason}"[:240].replace("\n", " ") for cell in failed]
    print("\n".join(lines), flush=True)
    return cells


def where(cell: Cell) -> str:
    """Name a cell in its row."""
    return f"{cell.route}, {cell.cell}" if cell.route else cell.cell


def shown(cell: Cell) -> str:
    """One cell of the table: whether it passed, and the requests that it took."""
    outcome = "**fail**" if cell.reason else "pass"
    return f"{outcome} ({cell.requests})" if cell.requests else outcome


def row(title: str, route: str, cells: Sequence[Cell]) -> str:
    """One line of the table: a client by one of its routes."""
    told = {cell.cell: shown(cell) for cell in cells}
    columns = [told.pop(column, NOT_TRIED) for column in COLUMNS]
    others = "; ".join(f"{name} {outcome}" for name, outcome in told.items())
    return f"| {' | '.join([title, route, *columns, others])} |"


def page(results: Sequence[tuple[str, list[Cell] | None]]) -> str:
    """The table, and below it what fails, and why."""
    lines = [
        f"| Client | Route | {' | '.join(COLUMNS)} | others |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    failures = []
    for title, cells in results:
        if cells is None:
            lines.append(row(title, "not run: there was no Node", []))
            continue
        for route in dict.fromkeys(cell.route for cell in cells):
            lines.append(row(title, route, [cell for cell in cells if cell.route == route]))
        for cell in cells:
            if cell.reason:
                reason = " ".join(cell.reason.replace("`", "'").split())[:200]
                failures.append(f"- {title}, {where(cell)}: `{reason}`")
    lines.append(f"| guidellm, aiperf | {'| ' * len(COLUMNS)}| [load tools](local_model.md) |")
    told = ["## What fails", "", *failures] if failures else ["Every cell passes."]
    return "\n".join([*lines, "", *told, ""])


def main(names: Sequence[str]) -> int:
    """Examine the clients, two at a time on two cores; 1 if a cell failed."""
    chosen = clients(names)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        cells = [*pool.map(examine, chosen)]
    if not names:
        above = PAGE.read_text(encoding="utf-8").partition(BELOW)[0]
        titles = [client.title for client in chosen]
        PAGE.write_text(above + BELOW + "\n" + page([*zip(titles, cells, strict=True)]), "utf-8")
    failed = sum(bool(cell.reason) for of_client in cells for cell in of_client or ())
    print(f"{failed} cells fail" if failed else "every cell passes")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
