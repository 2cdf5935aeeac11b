"""`agentlab doctor`: what is wrong with this machine, and what cures it.

Only the standard library is imported up here: a missing package must become a line.
"""

import argparse
import asyncio
import dataclasses
import importlib.metadata
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import getproxies_environment, proxy_bypass

from agentlab.commands.main import COMMANDS
from agentlab.errors import AgentLabError

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
NAME = "agentlab-course"
IN_CHECKOUT = "run `make setup` (on Windows `py -3.12 tools\\setup.py`)"
# Of a wheel there is no checkout to set up, and no index may have it: only its source does.
SETUP = IN_CHECKOUT if LOCK.exists() else f"install {NAME} again from where you had it"
TROUBLES = "docs/troubleshooting.md" + ("" if LOCK.exists() else " of the checkout")
KERNEL_TIMEOUT_S = 30.0

OK, WARN, FAIL = "OK", "WARN", "FAIL"


class Finding(NamedTuple):
    """One line of the report: a verdict, what was found, what cures it, and what was checked."""

    verdict: str
    found: str
    cure: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.verdict:4}  {self.name:12}  {self.found}" + (self.cure and f"; {self.cure}")


def run(options: argparse.Namespace) -> int:
    """Print a line for each check as it ends; return 1 if anything fails, else 0."""
    failed = False
    for finding in examine(offline=options.offline):
        print(finding, flush=True)
        failed |= finding.verdict == FAIL
    ready = "Ready: open notebooks/." if LOCK.exists() else "Ready: try `agentlab serve`."
    print("Something is missing: see FAIL above." if failed else ready)
    return int(failed)


def examine(*, offline: bool = False) -> Iterator[Finding]:
    """Make all checks, one after the other; a check that breaks is a finding, too."""
    for name, check in CHECKS.items():
        if offline and name == "real model":
            continue
        try:
            finding = check()
        except AgentLabError as error:  # which says the cure itself
            finding = Finding(FAIL, " ".join(str(error).split()))
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            finding = Finding(FAIL, said, f"{SETUP}, or see {TROUBLES}")
        yield finding._replace(name=name)


def python(version: tuple[int, ...]) -> Finding:
    """Judge the version, which the lock is made for."""
    said = ".".join(map(str, version))
    if (3, 11) <= version[:2] <= (3, 13):
        return Finding(OK, said)
    return Finding(FAIL, f"{said}, not 3.11 to 3.13", f"install Python 3.12, then {SETUP}")


def installed() -> dict[str, str]:
    """Return the version of every package that is there, by its name."""
    every = importlib.metadata.distributions()
    return {normal(each.name): each.version for each in every if each.name}


def normal(name: str) -> str:
    """Return a package's name as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(lock: str, there: Mapping[str, str] | None = None) -> Finding:
    """Look for every package that the lock has for this system, at its version."""
    from packaging.requirements import Requirement

    there = installed() if there is None else there
    lines = [line.rstrip(" \\") for line in lock.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    wanted = {
        normal(each.name): str(each.specifier).removeprefix("==")
        for each in map(Requirement, lines)
        if each.marker is None or each.marker.evaluate()
    }
    odd = [n for n in sorted(wanted, key=there.__contains__) if wanted[n] != there.get(n)]
    if odd:  # what is missing comes first
        said = [f"{name} {there.get(name, 'is missing')}, not {wanted[name]}" for name in odd[:5]]
        return Finding(WARN if odd[0] in there else FAIL, "; ".join(said), SETUP)
    return Finding(OK, f"all {len(wanted)} of the lock")


def check_packages() -> Finding:
    """Judge what the lock has in a checkout, and what the wheel asks for where there is none."""
    if LOCK.exists():
        return packages(LOCK.read_text(encoding="utf-8"))
    return of_wheel(importlib.metadata.requires(NAME) or [])


# As hatchling writes pyproject.toml's: name, extras, least version, system, extra. The base install
# has no `packaging`, which reads more.
_ASKED = re.compile(
    r"([\w.-]+)(?:\[.*?\])?>=([\d.]+)(; sys_platform != 'win32')?(?:; extra == '([\w-]+)')?"
)


def of_wheel(asked: Iterable[str], there: Mapping[str, str] | None = None) -> Finding:
    """Look for what the base install asks for, and say which extras are there in full."""
    there = installed() if there is None else there
    lacks: dict[str, list[str]] = {"": []}
    for name, least, not_windows, extra in map(_read, asked):
        its, version = lacks.setdefault(extra, []), there.get(normal(name))
        if not (not_windows and sys.platform == "win32") and _numbers(version) < _numbers(least):
            its.append(f"{name} {version or 'is missing'}, not {least} or newer")
    if base := lacks.pop(""):
        return Finding(FAIL, "; ".join(base[:5]), SETUP)
    whole = [extra for extra, its in sorted(lacks.items()) if not its]
    return Finding(OK, f"all of the base install, and of the extras {', '.join(whole) or 'none'}")


def _read(line: str) -> tuple[str, ...]:
    found = _ASKED.fullmatch(line)
    if found is None:
        raise ValueError(f"{NAME} asks for {line!r}, which the doctor cannot read")
    return found.groups("")


def _numbers(version: str | None) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version or "")]


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
    if unread := misspelt(os.environ):
        name, near = unread[0]
        return Finding(WARN, f"nothing reads {name}", f"did you mean {near}?")
    model = chosen.upstream if chosen.real else f"the local model, preset {chosen.preset}"
    return Finding(OK, str(model))


def misspelt(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return each variable that nothing reads, and the one that it resembles."""
    from agentlab.settings import Settings

    others = ("LOCAL", "LANGUAGE", "PROGRESS", "TELL_CLASS")
    known = [*Settings.variables().values(), *(f"AGENTLAB_{name}" for name in others)]
    with suppress(AgentLabError):  # the base install has no content system
        from agentlab import content

        known += content.Settings.variables().values()
    unread = sorted(set(names).difference(known))
    nearest = {name: get_close_matches(name, known, n=1, cutoff=0.9) for name in unread}
    return [(name, near[0]) for name, near in nearest.items() if near]


def check_proxy() -> Finding:
    """Judge the proxy, which must not be asked for 127.0.0.1: the lab does not, others would."""
    known = getproxies_environment()
    if not {"http", "all"} & known.keys() or proxy_bypass("127.0.0.1", known):
        return Finding(OK, "none for 127.0.0.1")
    found = "other clients would send a proxy what is for 127.0.0.1"
    return Finding(WARN, found, "`export NO_PROXY=127.0.0.1,localhost`")


def check_kernel() -> Finding:
    """Start a notebook's kernel, and let it compute; the base install of a wheel has none."""
    if not LOCK.exists() and "jupyter-client" not in installed():
        return Finding(OK, "none is here; the extra `course` brings it")
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
    with lab.configure(**dataclasses.asdict(Settings())):  # whatever the environment says
        expected, _ = lab.simulate(lab.ask(**question))
        with trace() as t:
            answer = asyncio.run(lab.ask(**question))
    if answer == expected:
        return Finding(OK, f"it gives the known answer, {t.spans[0].late_ms or 0.0:.1f} ms late")
    found = f"answered {answer[:40]!r}, not {str(expected)[:40]!r}"
    again = "fetch data/ and agentlab/ again" if LOCK.exists() else SETUP
    return Finding(FAIL, found, again)


def check_real_model() -> Finding:
    """Ask the model that the environment names for one token, as the lab asks it for lessons."""
    from agentlab import lab, settings
    from agentlab.errors import IncompleteAnswer, ModelError

    chosen = settings.from_environment()
    if not chosen.real:
        return Finding(OK, "none is set; the local one answers")
    try:
        # One token may well be no text.
        with lab.configure(faults=[], time_scale=1.0), suppress(IncompleteAnswer):
            asyncio.run(lab.ask("Hi", temperature=0, max_tokens=1, timeout_s=30))
    except ModelError as error:
        return refusal(error)
    return Finding(OK, f"{chosen.model} at {chosen.upstream} answers (1 token asked)")


# Endpoints repeat the beginning and the end of a key.
_MASKED = re.compile(r"\S*(\*\*|\.\.\.|[\u2026\u2022\u25cf])\S*")


def refusal(error: Any) -> Finding:
    """Judge the ModelError of a real model, or of the lab's own endpoint before it."""
    from agentlab.resilience import classify

    plain = "".join(c if c.isprintable() else " " for c in str(error))
    said, status = _MASKED.sub("[key]", " ".join(plain.split()))[:300], str(error.status)
    if "output limit was reached" in said:  # so a reasoning model says that one token is too few
        return Finding(OK, "it answers, and one token is too few for it")
    if classify(error).exhausted:
        said, status = f"no credit is left, or nothing for today: {said}", "exhausted"
    elif status == "401":
        said = "the key is not accepted"  # whatever is said of it, parts of it may be quoted
    cures = COMMANDS["doctor"]["cures"]
    cure = cures.get(status) or cures["server" if error.status >= 500 else "other"]
    return Finding(WARN if status == "429" else FAIL, said, cure)


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": lambda: python(sys.version_info[:3]),
    "packages": check_packages,
    "agentlab": check_agentlab,
    "settings": check_settings,
    "proxy": check_proxy,
    "kernel": check_kernel,
    "endpoint": check_endpoint,
    "real model": check_real_model,
}
