"""What proves a result, beside it: of what it was made, where, when and with what."""

import os
import platform
import re
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import distributions, requires
from pathlib import Path
from time import time
from typing import Annotated

import msgspec
import yaml
from msgspec import Meta

from agentlab._support import DATA
from agentlab.bench import results
from agentlab.bench.requests import Figure
from agentlab.bench.results import Results, requests_file

_ROOT = DATA.parent


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What a result was made of; nothing in it names a user, a host, a folder or a key.

    Attributes:
        sha256: Of the result, and of each file that it was made of.
        commit: Agent Lab's, None outside of a checkout; it is `clean` if no file was changed.
        load: The machine's load average over a minute, before and after; None on Windows.
    """

    sha256: dict[str, Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]]
    commit: Annotated[str, Meta(pattern="^[0-9a-f]{40,64}$")] | None
    clean: bool | None
    command: str
    date: Annotated[datetime, Meta(tz=True)]
    took_s: Figure
    processor: str
    load: tuple[Figure | None, Figure | None]
    versions: dict[str, str]


def read(file: Path) -> Proof | None:
    """Read the proof beside a result; None if there is none, and a ConfigError if it is broken."""
    path = file.with_suffix(".proof.json")
    return results.read(path, Proof) if path.exists() else None


def now() -> tuple[float, float | None]:
    """Return seconds since 1970, and how many processes wanted a processor in the last minute."""
    return time(), round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def write(file: Path, given: Sequence[str], began: tuple[float, float | None]) -> None:
    """Write NAME.proof.json beside a result that was just measured with these arguments.

    `began` is `now()` from before.
    """
    result, (ended_s, load) = results.load(file), now()
    commit, changed = _git("rev-parse HEAD"), _git("status -s -- agentlab data :!data/results")
    command = shlex.join(re.sub(r"[^=]*[/\\]", "", one.rstrip("/\\")) for one in given)
    proof = Proof(
        sha256=digests(file, result, given),
        commit=commit,
        clean=None if commit is None else changed == "",
        command=command.replace(os.environ.get("OPENAI_API_KEY", "").strip() or "\0", "[key]"),
        date=datetime.now(UTC).replace(microsecond=0),
        took_s=round(ended_s - began[0], 1),
        processor=_processor(),
        load=(began[1], load),
        versions=versions(),
    )
    results.write(file.with_suffix(".proof.json"), proof)


def digests(file: Path, result: Results, given: Iterable[str] = ()) -> dict[str, str]:
    """Return what there is now: the result, its requests, the lock, and each file that it names.

    A file is named by the experiment or by the arguments that were `given`.
    """
    asked = [result.experiment, result.experiment.chosen.faults]
    words = yaml.parse(msgspec.json.encode(asked))  # JSON is YAML, too
    names = {word.value for word in words if isinstance(word, yaml.ScalarEvent)}
    names |= {file.stem, *given}
    files = {one.name: one for one in (file, requests_file(file), _ROOT / "requirements.lock")}
    for path in sorted(DATA.glob("*/*")):
        if names & {path.name, path.name.removesuffix(".yaml")}:
            files[f"{path.parent.name}/{path.name}"] = path
    files |= {f"file {Path(name).name}": Path(name) for name in names if os.path.isfile(name)}
    there = {name: path.read_bytes() for name, path in files.items() if path.exists()}
    return {name: sha256(content).hexdigest() for name, content in sorted(there.items())}


def versions() -> dict[str, str]:
    """Return those of what the course is based on, its engines' clients among them."""
    names = sorted(re.split(r"[^\w.-]", line)[0] for line in requires("agentlab-course") or [])
    return {name: one.version for name in names for one in distributions(name=name)}


def _git(asked: str) -> str | None:
    """Ask git about this checkout; None outside of one, though it may lie in another project's."""
    command = ["git", f"--git-dir={_ROOT / '.git'}", f"--work-tree={_ROOT}", *asked.split()]
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    return None


def _processor() -> str:
    with suppress(OSError):
        if found := re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()):
            return found[1]
    return platform.processor() or platform.machine()
