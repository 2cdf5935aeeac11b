"""What proves a result, beside it: of what it was made, where, when and with what."""

import os
import platform
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from time import time
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from agentlab._support.fields import AtLeastOne
from agentlab.bench import results, self_tuning, trial
from agentlab.bench.results import Figure, Results
from agentlab.bench.self_tuning import TuningResults
from agentlab.errors import ConfigError
from agentlab.settings import DATA

_ROOT = DATA.parent


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What a result was made of; nothing in it names a user, a host, a folder or a key.

    Attributes:
        sha256: Of the result, and of each file that it was made of.
        rows: A digest of each measurement, which tells those that were edited.
        commit: Agent Lab's, None outside of a checkout; it is `clean` if no file was changed.
        load: The machine's load average over a minute, before and after; None on Windows.
    """

    sha256: dict[str, Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]]
    rows: list[Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]]
    commit: Annotated[str, Meta(pattern="^[0-9a-f]{40,64}$")] | None
    clean: bool | None
    command: str
    date: Annotated[datetime, Meta(tz=True)]
    took_s: Figure
    processor: str
    cores: AtLeastOne
    load: tuple[Figure | None, Figure | None]
    python: str
    versions: dict[str, str]


def stored(path: str | Path) -> Results | TuningResults:
    """Read a result of either kind; anything else is a ConfigError."""
    kind = results.read(path, _AnyResult).experiment.get("kind")
    return self_tuning.stored(path) if kind == "tuning" else results.load(path)


class _AnyResult(msgspec.Struct):
    experiment: dict[str, Any]


def read(file: Path) -> Proof | None:
    """Read the proof beside a result; None if there is none, and a ConfigError if it is broken."""
    path = file.with_suffix(".proof.json")
    return results.read(path, Proof) if path.exists() else None


def now() -> tuple[float, float | None]:
    """Return seconds since 1970, and how many processes wanted a processor in the last minute."""
    return time(), round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def write(
    file: Path, experiment: Path, given: Sequence[str], began: tuple[float, float | None]
) -> None:
    """Write NAME.proof.json beside a result that was just measured with these arguments.

    `began` is `now()` from before. A result that was kept as NAME.before.json keeps its proof.
    """
    result, path = stored(file), file.with_suffix(".proof.json")
    kept = file.with_suffix(".before.json")
    with suppress(ConfigError):  # an old one that is broken is replaced
        before = read(file)
        if before and kept.exists() and _sha256(kept) == before.sha256.get(file.name):
            path.replace(kept.with_suffix(".proof.json"))
    commit, changed = _git("rev-parse HEAD"), _git("status -s -- agentlab data :!data/results")
    command = shlex.join(re.sub(r"[^=]*[/\\]", "", one.rstrip("/\\")) for one in given)
    ended_s, load = now()
    proof = Proof(
        sha256=digests(file, result, experiment),
        rows=rows(result),
        commit=commit,
        clean=None if commit is None else changed == "",
        command=command.replace(os.environ.get("OPENAI_API_KEY", "").strip() or "\0", "[key]"),
        date=datetime.now(UTC).replace(microsecond=0),
        took_s=round(ended_s - began[0], 1),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        load=(began[1], load),
        python=platform.python_version(),
        versions=versions(result),
    )
    results.write(path, proof)


def _sha256(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def rows(result: Results | TuningResults) -> list[str]:
    """Return a digest of each measurement."""
    some = result.measurements if isinstance(result, Results) else result.limits + result.learning
    return [blake2b(msgspec.json.encode(one), digest_size=8).hexdigest() for one in some]


def digests(
    file: Path, result: Results | TuningResults, experiment: Path | None = None
) -> dict[str, str]:
    """Return what there is now: the result, its requests, the lock, and each file that it names."""
    here = [Path(f"{file.stem}.yaml"), DATA / "experiments" / f"{file.stem}.yaml"]
    files = {
        file.name: file,
        requests_of(file).name: requests_of(file),
        "requirements.lock": _ROOT / "requirements.lock",
        "experiment": experiment or next(filter(Path.is_file, here), here[0]),
    }
    names = set(_texts(msgspec.to_builtins(result.experiment)))
    if isinstance(result, TuningResults):
        names |= {scenario.preset for scenario in trial.JUDGING}
    else:
        names |= set(_texts([result.experiment.chosen.faults]))
    for name in sorted(names):
        if os.path.isfile(name):
            files[f"file {Path(name).name}"] = Path(name)
        plain = re.fullmatch(r"\w[\w.-]*", name)
        for path in [*DATA.glob(f"*/{name}.yaml"), *DATA.glob(f"*/{name}")] if plain else []:
            files[f"{path.parent.name}/{path.name}"] = path
    return {name: _sha256(path) for name, path in files.items() if path.is_file()}


def requests_of(file: Path) -> Path:
    """Return where a result's requests lie, a row each."""
    return file.with_suffix(".requests.csv.gz")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _git(asked: str) -> str | None:
    """Ask git about this checkout; None if it is none, though it may lie in another project's."""
    with suppress(OSError, subprocess.CalledProcessError):
        if (_ROOT / ".git").exists():
            command = ["git", "-C", str(_ROOT), *asked.split()]
            return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    return None


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def versions(result: Results | TuningResults) -> dict[str, str]:
    """Return those of the clients in use: what the course is based on, and its engines' extras."""
    engines = result.experiment.engines if isinstance(result, Results) else []
    found = {}
    for line in [*(requires("agentlab-course") or []), "langchain-core; extra == 'langgraph'"]:
        name, extra = re.split(r"[^\w.-]", line)[0], line.partition("extra == ")[2].strip("'")
        if any(engine.startswith(extra) for engine in ("", *engines)):
            with suppress(PackageNotFoundError):
                found[name] = version(name)
    return dict(sorted(found.items()))
