"""`agentlab doctor`: what is wrong with this machine, and what cures it.

Each check measures something and hands it to a function that decides, so that every failure can
be shown without causing it. Only the standard library is imported up here: what is missing must
become a line of the report.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

DESCRIPTION = (
    "Check Python, packages, settings, disk, ports, proxy, kernel and endpoint. With a key set, "
    "the real model is asked for one token, which costs a fraction of a cent."
)

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "notebooks", Path(tempfile.gettempdir()))
SETUP = "run `make setup` (on Windows `py -3.12 tools\\setup.py`)"
KERNEL_TIMEOUT_S = 10.0
LEAST_FREE_MB, FEW_FREE_MB = 100, 1000
QUESTION = "Name three rivers."

OK, WARN, FAIL = "OK", "WARN", "FAIL"


class Finding(NamedTuple):
    """One line of the report: a verdict, what was found, what cures it, and what was checked."""

    verdict: str
    found: str
    cure: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.verdict:4}  {self.name:12}  {self.found}" + (self.cure and f"; {self.cure}")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--offline", action="store_true", help="do not ask the real model")


def run(options: argparse.Namespace) -> int:
    """Print a line for each check as it ends; return 1 if anything fails, else 0."""
    failed = False
    for finding in examine(offline=options.offline):
        print(finding, flush=True)
        failed |= finding.verdict == FAIL
    print("Something is missing: see FAIL above." if failed else "Ready: open notebooks/.")
    return int(failed)


def examine(*, offline: bool = False) -> Iterator[Finding]:
    """Make all checks, one after the other; a check that breaks is a finding, too."""
    for name, check in CHECKS.items():
        if offline and name == "real model":
            continue
        try:
            finding = check()
        except ModuleNotFoundError as error:
            finding = Finding(FAIL, f"the package {error.name} is not there", SETUP)
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            said = said if len(said) <= 160 else f"{said[:157]}..."
            finding = Finding(FAIL, said, f"if {name} is in order, {SETUP}")
        yield finding._replace(name=name)


def python(version: tuple[int, ...], prefix: str, base_prefix: str) -> Finding:
    """Judge the version, which the lock is made for, and whether the environment is its own."""
    said = ".".join(map(str, version))
    if not (3, 11) <= version[:2] <= (3, 13):
        return Finding(FAIL, f"{said}, not 3.11 to 3.13", f"install Python 3.12, then {SETUP}")
    # The Python of a conda environment is a base of its own.
    if prefix == base_prefix and not Path(prefix, "conda-meta").is_dir():
        return Finding(WARN, f"{said}, the system's own", "use .venv/bin/python")
    return Finding(OK, said)


def check_packages() -> Finding:
    found = [(each.metadata["Name"], each.version) for each in importlib.metadata.distributions()]
    return packages((ROOT / "requirements.lock").read_text(encoding="utf-8"), dict(found))


def packages(lock: str, there: Mapping[str, str]) -> Finding:
    """Look for every package that the lock has for this system, at its version."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    have = {canonicalize_name(name): version for name, version in there.items() if name}
    lines = [line.rstrip(" \\") for line in lock.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    wanted = {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each in map(Requirement, lines)
        if each.marker is None or each.marker.evaluate()
    }
    missing = sorted(wanted.keys() - have.keys())
    if missing:
        return Finding(FAIL, f"missing: {_some(missing)}", SETUP)
    other = sorted(name for name in wanted if wanted[name] != have[name])
    if other:
        versions = [f"{name} {have[name]} instead of {wanted[name]}" for name in other]
        return Finding(WARN, _some(versions), SETUP)
    return Finding(OK, f"all {len(wanted)} of the lock")


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_agentlab() -> Finding:
    found = importlib.metadata.distributions(name="agentlab")
    return agentlab((each.version, each.read_text("direct_url.json")) for each in found)


def agentlab(found: Iterable[tuple[str, str | None]]) -> Finding:
    """Tell this course's module from another project's package, which PyPI calls `agentlab`.

    Args:
        found: The version and the `direct_url.json` of each distribution called `agentlab`. Ours
            is called `agentlab-course`, or is a checkout that is installed in place.
    """
    for version, url in found:
        if not json.loads(url or "{}").get("dir_info", {}).get("editable"):
            said = f"agentlab {version} is another project's package, which has the same name"
            return Finding(FAIL, said, f"`pip uninstall agentlab`, then {SETUP}")
    return Finding(OK, "the course's own")


def check_settings() -> Finding:
    from agentlab import settings
    from agentlab.endpoint import presets
    from agentlab.endpoint.middleware import fault_plan
    from agentlab.errors import ConfigError

    try:
        chosen = settings.from_environment()
        presets.load(chosen.preset)
        fault_plan.load(chosen.faults)
    except ConfigError as error:
        found, _, cure = " ".join(str(error).split()).partition("; ")
        return Finding(FAIL, found, f"{cure}, or unset the variable".lstrip(", "))
    model = chosen.upstream if chosen.real else f"the local model, preset {chosen.preset}"
    return Finding(OK, f"{model}")


def writing(folders: Iterable[Path] = FOLDERS) -> Finding:
    """Name each folder that cannot be written, and why."""
    refusals = []
    for folder in folders:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"1")
        except OSError as error:
            refusals.append(f"{folder}: {error.strerror or error}")
    if refusals:
        cure = "take a copy of the course into a folder of your own"
        return Finding(FAIL, "; ".join(refusals), cure)
    return Finding(OK, "checkout and temporary folder")


def disk(free_bytes: Mapping[str, int]) -> Finding:
    """Judge the room for results, traces and the content system's journal."""
    folder, least = min(free_bytes.items(), key=lambda item: item[1])
    free_mb = least // 1_000_000
    found = f"{free_mb:,} MB free at {folder}"
    if free_mb < LEAST_FREE_MB:
        return Finding(FAIL, found, f"make room for {FEW_FREE_MB:,} MB")
    if free_mb < FEW_FREE_MB:
        return Finding(WARN, found, f"{FEW_FREE_MB:,} MB are enough for all lessons")
    return Finding(OK, found)


def loopback(host: str = "127.0.0.1") -> Finding:
    """Judge whether programs of this machine can connect, as kernel and endpoint must."""
    try:
        with socket.socket() as listener:
            listener.bind((host, 0))
            listener.listen(1)
            socket.create_connection(listener.getsockname(), timeout=2).close()
    except OSError as error:
        cure = "let the firewall, or the sandbox, allow connections to 127.0.0.1"
        return Finding(FAIL, f"{host}: {error.strerror or error}", cure)
    return Finding(OK, f"{host} listens and answers")


def jupyter_port(port: int = 8888) -> Finding:
    """Say whether JupyterLab's usual port is free."""
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return Finding(OK, f"{port} is free")
    found = f"{port} is taken, so JupyterLab will use the next"
    return Finding(WARN, found, "open the address that it prints")


def proxy(environ: Mapping[str, str]) -> Finding:
    """Judge the proxy, which must not be asked for 127.0.0.1: the lab does not, others would."""
    values = {name.lower(): value for name, value in environ.items() if value}
    chosen = sorted({"http_proxy", "all_proxy"} & values.keys())
    around = [host.strip() for host in values.get("no_proxy", "").split(",")]
    if not chosen:
        return Finding(OK, "none for http")
    name = chosen[0].upper()
    if "*" in around or "127.0.0.1" in around:
        return Finding(OK, f"{name}, and NO_PROXY spares 127.0.0.1")
    found = f"{name} without NO_PROXY: curl, requests and openai's own client would send it "
    found += "what is for 127.0.0.1"
    return Finding(WARN, found, "`export NO_PROXY=127.0.0.1,localhost`")


def check_kernel() -> Finding:
    from jupyter_client.manager import KernelManager

    began_s = time.monotonic()
    manager = KernelManager(kernel_name="python3")
    with tempfile.TemporaryFile() as complaints:
        manager.start_kernel(stdout=complaints, stderr=complaints)
        client = manager.client()
        client.start_channels()
        said: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            if message["msg_type"] == "execute_result":
                said.append(message["content"]["data"]["text/plain"])

        try:
            client.wait_for_ready(timeout=KERNEL_TIMEOUT_S)
            client.execute_interactive("1+1", timeout=KERNEL_TIMEOUT_S, output_hook=hear)
        except (RuntimeError, TimeoutError):
            said.clear()
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    return kernel("".join(said), time.monotonic() - began_s)


def kernel(answer: str, took_s: float) -> Finding:
    """Judge whether a notebook's kernel starts and computes 1+1."""
    if answer == "2":
        return Finding(OK, f"1+1 is 2, after {took_s:.1f} s")
    found = f"1+1 is {answer}" if answer else f"no answer within {took_s:.0f} s"
    cure = f"{SETUP}; a kernel of another environment may be in the way: `jupyter kernelspec list`"
    return Finding(FAIL, found, cure)


class Trip(NamedTuple):
    """A question's way to the endpoint and back: two answers, how long it took and had to."""

    answer: str
    expected: str
    took_s: float
    least_s: float


async def round_trip() -> Trip:
    """Ask the local model over HTTP, and in virtual time, where no socket can be in the way."""
    from agentlab import lab
    from agentlab.settings import Settings

    def ask(tokens: int) -> Any:
        return lab.ask(QUESTION, temperature=0, max_tokens=tokens)

    defaults = {name: getattr(Settings(), name) for name in Settings.__annotations__}
    with lab.configure(**defaults):  # whatever the environment says
        expected, _ = lab.simulate(ask(5))
        await ask(1)  # starts the endpoint, and warms the connection
        began_s = time.perf_counter()
        await ask(1)
        took_s = time.perf_counter() - began_s
        return Trip(await ask(5), expected, took_s, 1 / lab.model_seconds_a_second())


def endpoint(trip: Trip) -> Finding:
    """Compare the answer with the known one, and the time with the time scale."""
    took = f"1 model second took {trip.took_s:.2f} s"
    if trip.answer != trip.expected:
        found = f"answered {trip.answer[:40]!r}, not {trip.expected[:40]!r}"
        return Finding(FAIL, found, "fetch data/ and agentlab/ again")
    if trip.took_s < 0.9 * trip.least_s:
        found = f"{took}, less than {trip.least_s:.2f}"
        return Finding(FAIL, found, "restart the machine; its clock jumps")
    if trip.took_s > 2 * trip.least_s + 0.05:
        found = f"{took}, not about {trip.least_s:.2f}"
        return Finding(WARN, found, "end what else is busy, or times will be too long")
    return Finding(OK, f"the known answer; {took}")


def check_real_model() -> Finding:
    """Ask the real model, if one is set."""
    from agentlab.commands import _real_model

    return _real_model.check()


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": lambda: python(sys.version_info[:3], sys.prefix, sys.base_prefix),
    "packages": check_packages,
    "agentlab": check_agentlab,
    "settings": check_settings,
    "writing": writing,
    "disk": lambda: disk({str(each): shutil.disk_usage(each).free for each in FOLDERS}),
    "loopback": loopback,
    "jupyter port": jupyter_port,
    "proxy": lambda: proxy(os.environ),
    "kernel": check_kernel,
    "endpoint": lambda: endpoint(asyncio.run(round_trip())),
    "real model": check_real_model,
}
"""Each line of the report, and what makes it."""
