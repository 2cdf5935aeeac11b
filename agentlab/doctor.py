"""What is wrong with this machine, and what cures it: `agentlab doctor`.

Each check measures something and hands it to a function that decides, so that every failure can
be shown without causing it. Only the standard library is imported up here: what is missing must
become a line of the report.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]

OK, WARN, FAIL = "OK", "WARN", "FAIL"

SETUP = "run `make setup` (on Windows `py -3.12 tools\\setup.py`)"
KERNEL_TIMEOUT_S = 10.0
LEAST_FILES = 1024
LEAST_FREE_MB, FEW_FREE_MB = 100, 1000
QUESTION = "Name three rivers."


class Finding(NamedTuple):
    """One line: what was looked at, how it is, what was found, and what cures it."""

    name: str
    verdict: str
    found: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.verdict:4}  {self.name:12}  {self.found}" + (self.cure and f"; {self.cure}")


def report(*, offline: bool = False) -> int:
    """Print a line for each check as it ends; returns 1 if anything fails, else 0."""
    failed = False
    for finding in examine(offline=offline):
        print(finding, flush=True)
        failed |= finding.verdict == FAIL
    print("Something is missing: see FAIL above." if failed else "Ready: open notebooks/.")
    return int(failed)


def examine(*, offline: bool = False) -> Iterator[Finding]:
    """All checks, one after the other; a check that breaks is a finding, too."""
    checks: list[Callable[[], Finding]] = [
        check_python,
        check_packages,
        check_settings,
        check_writing,
        check_disk,
        check_files,
        check_loop,
        check_loopback,
        check_jupyter_port,
        check_proxy,
        check_kernel,
        check_endpoint,
    ]
    if not offline:
        checks.append(check_real_model)
    for check in checks:
        try:
            yield check()
        except Exception as error:
            name = check.__name__.removeprefix("check_").replace("_", " ")
            yield broken(name, error)


def broken(name: str, error: Exception) -> Finding:
    """What a check that could not be made says."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        return Finding(name, FAIL, f"the package {error.name} is not there", SETUP)
    return Finding(name, FAIL, _line(said), f"if {name} is in order, {SETUP}")


def check_python() -> Finding:
    return python(sys.version_info[:3], in_environment(sys.prefix, sys.base_prefix))


def in_environment(prefix: str, base_prefix: str) -> bool:
    """True for a virtual environment, and for conda's, whose Python is a base of its own."""
    return prefix != base_prefix or Path(prefix, "conda-meta").is_dir()


def python(version: tuple[int, ...], environment: bool) -> Finding:
    """A version that the lock is made for, in an environment of its own."""
    said = ".".join(map(str, version))
    if not (3, 11) <= version[:2] <= (3, 13):
        return Finding(
            "python", FAIL, f"{said}, not 3.11 to 3.13", "install Python 3.12, then " + SETUP
        )
    if not environment:
        return Finding("python", WARN, f"{said}, the system's own", "use .venv/bin/python")
    return Finding("python", OK, said)


def check_packages() -> Finding:
    there = {
        _canonical(found.metadata["Name"]): found.version
        for found in importlib.metadata.distributions()
        if found.metadata["Name"]
    }
    return packages((ROOT / "requirements.lock").read_text(encoding="utf-8"), there)


def packages(lock: str, there: Mapping[str, str]) -> Finding:
    """Every package that the lock has for this system, at its version."""
    wanted = dict(_locked(lock))
    missing = sorted(wanted.keys() - there.keys())
    other = sorted(name for name in wanted.keys() & there.keys() if wanted[name] != there[name])
    if missing:
        return Finding("packages", FAIL, f"missing: {_some(missing)}", SETUP)
    if other:
        versions = [f"{name} {there[name]} in place of {wanted[name]}" for name in other]
        return Finding("packages", WARN, _some(versions), SETUP)
    return Finding("packages", OK, f"all {len(wanted)} of the lock")


def _locked(lock: str) -> Iterator[tuple[str, str]]:
    """Name and version of what the lock wants here; some packages are for some systems only."""
    from packaging.requirements import Requirement

    for line in lock.splitlines():
        if re.match(r"[A-Za-z0-9]", line):
            wanted = Requirement(line.rstrip(" \\"))
            if wanted.marker is None or wanted.marker.evaluate():
                yield _canonical(wanted.name), str(wanted.specifier).removeprefix("==")


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check_settings() -> Finding:
    from agentlab import settings
    from agentlab.endpoint import faults, presets
    from agentlab.errors import ConfigError

    try:
        chosen = settings.from_environment()
        presets.load(chosen.preset)
        faults.load(chosen.faults)
    except ConfigError as error:
        found, _, cure = " ".join(str(error).split()).partition("; ")
        return Finding("settings", FAIL, found, f"{cure}, or unset the variable".lstrip(", "))
    model = chosen.upstream if chosen.real else f"the local model, preset {chosen.preset}"
    return Finding("settings", OK, f"{model}")


def check_writing() -> Finding:
    return writing({str(folder): _refusal(folder) for folder in _folders()})


def writing(refusals: Mapping[str, str]) -> Finding:
    """Folder -> why it cannot be written, empty where it can."""
    refused = {folder: why for folder, why in refusals.items() if why}
    if not refused:
        return Finding("writing", OK, "checkout and temporary folder")
    found = "; ".join(f"{folder}: {why}" for folder, why in refused.items())
    return Finding("writing", FAIL, found, "take a copy of the course into a folder of your own")


def _folders() -> list[Path]:
    return [ROOT / "notebooks", Path(tempfile.gettempdir())]


def _refusal(folder: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"1")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def check_disk() -> Finding:
    return disk({str(folder): shutil.disk_usage(folder).free for folder in _folders()})


def disk(free_bytes: Mapping[str, int]) -> Finding:
    """Room for results, traces and the content system's journal."""
    folder, least = min(free_bytes.items(), key=lambda item: item[1])
    free_mb = least // 1_000_000
    found = f"{free_mb:,} MB free at {folder}"
    if free_mb < LEAST_FREE_MB:
        return Finding("disk", FAIL, found, f"make room for {FEW_FREE_MB:,} MB")
    if free_mb < FEW_FREE_MB:
        return Finding("disk", WARN, found, f"{FEW_FREE_MB:,} MB are enough for all lessons")
    return Finding("disk", OK, found)


def check_files() -> Finding:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return files(None)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return files(None if hard == resource.RLIM_INFINITY else hard)


def files(most: int | None) -> Finding:
    """Each connection takes an open file; the lab raises its limit as far as the system lets it."""
    if most is None:
        return Finding("open files", OK, "no limit")
    if most < LEAST_FILES:
        found = f"at most {most}; lessons keep up to {LEAST_FILES} connections"
        return Finding(
            "open files", WARN, found, "raise the hard limit: `ulimit -Hn 4096`, as root"
        )
    return Finding("open files", OK, f"up to {most:,}")


def check_loop() -> Finding:
    async def which() -> type:
        return type(asyncio.get_running_loop())

    kind = asyncio.run(which())
    return loop(f"{kind.__module__}.{kind.__qualname__}")


def loop(kind: str) -> Finding:
    """Which event loop `asyncio.run` makes: asyncio's own, unless some policy has replaced it."""
    if kind.startswith("asyncio."):
        return Finding("event loop", OK, kind)
    cure = "remove what sets an event loop policy, such as sitecustomize.py"
    return Finding("event loop", WARN, f"{kind}, in place of asyncio's own", cure)


def check_loopback() -> Finding:
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            with socket.create_connection(listener.getsockname(), timeout=2):
                return loopback("")
    except OSError as error:
        return loopback(error.strerror or str(error))


def loopback(problem: str) -> Finding:
    """Whether programs of this machine can talk to each other, as kernel and endpoint must."""
    if problem:
        cure = "let the firewall, or the sandbox, allow connections to 127.0.0.1"
        return Finding("loopback", FAIL, f"127.0.0.1: {problem}", cure)
    return Finding("loopback", OK, "127.0.0.1 listens and answers")


def check_jupyter_port() -> Finding:
    with socket.socket() as probe:
        probe.settimeout(1)
        return jupyter_port(probe.connect_ex(("127.0.0.1", 8888)) == 0)


def jupyter_port(taken: bool) -> Finding:
    """JupyterLab's usual port; where it is taken, it takes the next."""
    if taken:
        found = "8888 is taken, so JupyterLab will use the next"
        return Finding("jupyter port", WARN, found, "open the address that it prints")
    return Finding("jupyter port", OK, "8888 is free")


def check_proxy() -> Finding:
    return proxy(os.environ)


def proxy(environ: Mapping[str, str]) -> Finding:
    """A proxy must not be asked for 127.0.0.1; the lab's clients do not, others would."""
    values = {name.lower(): value for name, value in environ.items() if value}
    chosen = sorted({"http_proxy", "all_proxy"} & values.keys())
    around = [host.strip() for host in values.get("no_proxy", "").split(",")]
    if not chosen:
        return Finding("proxy", OK, "none for http")
    name = chosen[0].upper()
    if "*" in around or "127.0.0.1" in around:
        return Finding("proxy", OK, f"{name}, and NO_PROXY spares 127.0.0.1")
    found = f"{name} without NO_PROXY: curl, requests and openai's own client would send it "
    return Finding(
        "proxy", WARN, found + "what is for 127.0.0.1", "`export NO_PROXY=127.0.0.1,localhost`"
    )


def check_kernel() -> Finding:
    from jupyter_client.manager import KernelManager

    began_s = time.monotonic()
    manager = KernelManager(kernel_name="python3")
    with tempfile.TemporaryFile() as complaints:
        manager.start_kernel(stdout=complaints, stderr=complaints)
        try:
            answer = _computed(manager)
        finally:
            manager.shutdown_kernel(now=True)
    return kernel(answer, time.monotonic() - began_s)


def _computed(manager: Any) -> str:
    """What the kernel says to 1+1."""
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
        return ""
    finally:
        client.stop_channels()
    return "".join(said)


def kernel(answer: str, took_s: float) -> Finding:
    """Whether a notebook's kernel starts and computes."""
    if answer == "2":
        return Finding("kernel", OK, f"1+1 is 2, after {took_s:.1f} s")
    found = f"1+1 is {answer}" if answer else f"no answer within {took_s:.0f} s"
    cure = f"{SETUP}; a kernel of another environment may be in the way: `jupyter kernelspec list`"
    return Finding("kernel", FAIL, found, cure)


class Trip(NamedTuple):
    """A question's way to the endpoint and back: two answers, how long it took and had to."""

    answer: str
    expected: str
    took_s: float
    least_s: float


def check_endpoint() -> Finding:
    return endpoint(asyncio.run(_round_trip()))


async def _round_trip() -> Trip:
    """Asks the local model over HTTP, and in virtual time, where no socket can be in the way."""
    from agentlab import lab

    def ask(tokens: int) -> Any:
        return lab.ask(QUESTION, temperature=0, max_tokens=tokens)

    with lab.configure(**_plain()):
        expected, _ = lab.simulate(ask(5))
        await ask(1)  # starts the endpoint, and warms the connection
        began_s = time.perf_counter()
        answer = await ask(1)
        took_s = time.perf_counter() - began_s
        answer = await ask(5)
        return Trip(answer, expected, took_s, 1 / lab.model_seconds_a_second())


def _plain() -> dict[str, Any]:
    """Settings for the round trip: the defaults, whatever the environment says."""
    from dataclasses import asdict

    from agentlab.settings import Settings

    return asdict(Settings())


def endpoint(trip: Trip) -> Finding:
    """The known answer, in the time that the time scale asks for."""
    took = f"1 model second took {trip.took_s:.2f} s"
    if trip.answer != trip.expected:
        found = f"answered {trip.answer[:40]!r}, not {trip.expected[:40]!r}"
        return Finding("endpoint", FAIL, found, "fetch data/ and agentlab/ anew")
    if trip.took_s < 0.9 * trip.least_s:
        found = f"{took}, less than {trip.least_s:.2f}"
        return Finding("endpoint", FAIL, found, "restart the machine; its clock jumps")
    if trip.took_s > 2 * trip.least_s + 0.05:
        found = f"{took}, not about {trip.least_s:.2f}"
        return Finding("endpoint", WARN, found, "end what else is busy, or times will be too long")
    return Finding("endpoint", OK, f"the known answer; {took}")


def check_real_model() -> Finding:
    from agentlab import _real_model

    return _real_model.check()


def _some(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _line(text: str) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 160 else f"{line[:157]}..."
