"""`agentlab doctor`: what is wrong with this machine, and what cures it.

Only the standard library is imported up here: a missing package must become a line.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agentlab.errors import AgentLabError

DESCRIPTION = (
    "Check Python, packages, settings, disk, proxy, kernel and endpoint. With a key set, "
    "the real model is asked for one token, which costs a fraction of a cent."
)

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "notebooks", Path(tempfile.gettempdir()))
SETUP = "run `make setup` (on Windows `py -3.12 tools\\setup.py`)"
KERNEL_TIMEOUT_S = 10.0
LEAST_FREE_MB = 1000

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
        except AgentLabError as error:  # which says the cure itself
            finding = Finding(FAIL, " ".join(str(error).split()))
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            finding = Finding(FAIL, said[:160], f"see docs/troubleshooting.md, or {SETUP}")
        yield finding._replace(name=name)


def python(version: tuple[int, ...]) -> Finding:
    """Judge the version, which the lock is made for."""
    said = ".".join(map(str, version))
    if (3, 11) <= version[:2] <= (3, 13):
        return Finding(OK, said)
    return Finding(FAIL, f"{said}, not 3.11 to 3.13", f"install Python 3.12, then {SETUP}")


def check_packages() -> Finding:
    found = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
    return packages((ROOT / "requirements.lock").read_text(encoding="utf-8"), found)


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
    if missing := sorted(wanted.keys() - have.keys()):
        return Finding(FAIL, f"missing: {', '.join(missing[:5])}", SETUP)
    if other := [name for name in wanted if wanted[name] != have[name]]:
        versions = [f"{name} {have[name]} instead of {wanted[name]}" for name in other]
        return Finding(WARN, ", ".join(versions[:5]), SETUP)
    return Finding(OK, f"all {len(wanted)} of the lock")


def check_agentlab() -> Finding:
    """Tell this course's module from another project's package, which PyPI calls `agentlab`."""
    for found in importlib.metadata.distributions(name="agentlab"):
        where = json.loads(found.read_text("direct_url.json") or "{}")
        if not where.get("dir_info", {}).get("editable"):  # as a checkout of the course is
            said = f"agentlab {found.version} is another project's package of the same name"
            return Finding(FAIL, said, f"`pip uninstall agentlab`, then {SETUP}")
    return Finding(OK, "the course's own")


def check_settings() -> Finding:
    from agentlab import settings
    from agentlab.endpoint import presets
    from agentlab.endpoint.middleware import fault_plan

    chosen = settings.from_environment()
    presets.load(chosen.preset)
    fault_plan.load(chosen.faults)
    model = chosen.upstream if chosen.real else f"the local model, preset {chosen.preset}"
    return Finding(OK, str(model))


def check_disk() -> Finding:
    """Judge the room for results, traces and the content system's journal."""
    for folder in FOLDERS:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"1")
    free_mb = min(shutil.disk_usage(folder).free for folder in FOLDERS) // 1_000_000
    found = f"{free_mb:,} MB free"
    if free_mb < LEAST_FREE_MB:
        return Finding(WARN, found, f"{LEAST_FREE_MB:,} MB are enough for all lessons")
    return Finding(OK, found)


def proxy(environ: Mapping[str, str]) -> Finding:
    """Judge the proxy, which must not be asked for 127.0.0.1: the lab does not, others would."""
    values = {name.lower(): value for name, value in environ.items() if value}
    spared = {host.strip() for host in values.get("no_proxy", "").split(",")}
    if not {"http_proxy", "all_proxy"} & values.keys() or {"*", "127.0.0.1"} & spared:
        return Finding(OK, "none for 127.0.0.1")
    found = "other clients would send a proxy what is for 127.0.0.1"
    return Finding(WARN, found, "`export NO_PROXY=127.0.0.1,localhost`")


def check_kernel() -> Finding:
    """Start a notebook's kernel, and let it compute."""
    from jupyter_client.manager import run_kernel

    with (
        tempfile.TemporaryFile() as said,
        run_kernel(startup_timeout=KERNEL_TIMEOUT_S, stdout=said, stderr=said) as client,
    ):
        ask: Any = client
        reply = ask.execute_interactive("assert 1 + 1 == 2", timeout=KERNEL_TIMEOUT_S)
    if reply["content"]["status"] == "ok":
        return Finding(OK, "1+1 is 2")
    cure = "a kernel of another environment may be in the way: `jupyter kernelspec list`"
    return Finding(FAIL, "it computes nothing", cure)


def check_endpoint() -> Finding:
    """Ask the local model over HTTP, and in virtual time, where no socket can be in the way."""
    from agentlab import lab
    from agentlab.settings import Settings
    from agentlab.trace import trace

    question: dict[str, Any] = {"prompt": "Name three rivers.", "temperature": 0, "max_tokens": 5}
    defaults = {name: getattr(Settings(), name) for name in Settings.__annotations__}
    with lab.configure(**defaults):  # whatever the environment says
        expected, _ = lab.simulate(lab.ask(**question))
        with trace() as t:
            answer = asyncio.run(lab.ask(**question))
    if answer == expected:
        return Finding(OK, f"it gives the known answer, {t.spans[0].late_ms or 0.0:.1f} ms late")
    found = f"answered {answer[:40]!r}, not {str(expected)[:40]!r}"
    return Finding(FAIL, found, "fetch data/ and agentlab/ again")


def check_real_model() -> Finding:
    from agentlab.commands import _real_model

    return Finding(*_real_model.check())


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": lambda: python(sys.version_info[:3]),
    "packages": check_packages,
    "agentlab": check_agentlab,
    "settings": check_settings,
    "disk": check_disk,
    "proxy": lambda: proxy(os.environ),
    "kernel": check_kernel,
    "endpoint": check_endpoint,
    "real model": check_real_model,
}
