"""The raw data of an experiment, as it is measured and as it is kept."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import filelock
import msgspec
from msgspec import UNSET, UnsetType

from agentlab.bench.agreement import TOLERANCE, Answers, Deviation, deviation
from agentlab.bench.experiment import Case, Experiment, varied
from agentlab.errors import ConfigError
from agentlab.fields import AtLeastOne, Count
from agentlab.files import write_whole
from agentlab.settings import Settings

T = TypeVar("T", bound=msgspec.Struct)

UNREADABLE = (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What comes of a file that cannot be read, or is no JSON that anybody wrote."""

_PACKAGES = ("agentlab", "aiohttp", "crewai", "langchain-openai", "langgraph", "openai")

Figure = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
"""Seconds, milliseconds or a share, of which none is negative, and none counts millennia."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a case. Times are model seconds, but for the processors'.

    Attributes:
        elapsed_s: How long the user waited.
        bound_s: What no schedule of the same calls can beat, with as many at once.
        requests: How many the endpoint saw; `steps` is how many there had to be.
        answered: How many of them it answered in full.
        answers: A digest of all answers: equal work has equal digests. None where there are none,
            and where a real model gave them, which words each one differently.
        p50_s, p95_s: How long half, and 95% of the answers took at most, at the endpoint.
        cpu_ms: Processor time of this process for each request; None in virtual time.
        busy: Processor time as a share of the real time taken; 1 is a core all the time.
        error: Why there is no result; None if there is one.
        real: What a real model said of its answers; unset where the local one answered.
        endpoint_cpu_ms: Processor time of the lab's own endpoint for each request, the question
            after that time included; unset in virtual time.
        endpoint_busy: The same as a share of the real time taken.
    """

    case: Case
    repeat: Count
    steps: AtLeastOne
    elapsed_s: Figure
    bound_s: Figure
    requests: Count
    answered: Count
    peak: Count
    tokens: Count
    answers: str | None
    p50_s: Figure | None = None
    p95_s: Figure | None = None
    cpu_ms: Figure | None = None
    busy: Figure | None = None
    error: str | None = None
    real: Answers | UnsetType = UNSET
    endpoint_cpu_ms: Figure | UnsetType = UNSET
    endpoint_busy: Figure | UnsetType = UNSET


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment and what was measured. In virtual time two runs make equal files.

    Attributes:
        machine: On what and with what: the system, versions, and the model that answered.
    """

    name: str
    experiment: Experiment
    machine: dict[str, str]
    measurements: list[Measurement]

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write(path, self)

    def of(self, case: Case) -> list[Measurement]:
        """The measurements of a case that have a result."""
        return [m for m in self.measurements if m.case == case and m.error is None]

    @property
    def measured(self) -> list[Case]:
        """The cases that have a result, in the experiment's order."""
        return [case for case in self.experiment.cases() if self.of(case)]

    @property
    def real(self) -> bool:
        """True if a real model answered: then its seconds are seconds."""
        return any(m.real is not UNSET for m in self.measurements)


def write(path: Path, some: msgspec.Struct) -> None:
    """Write results as JSON for people to read, the whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.format(msgspec.json.encode(some)) + b"\n")


def make_folder(folder: Path) -> None:
    """Make sure, before anything is measured, that results can be written there.

    Raises:
        ConfigError: If they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"results {folder}: {error}; choose another folder with --out") from None


@contextmanager
def one_writer(file: Path) -> Iterator[None]:
    """Around a whole run: nobody else writes the same results meanwhile.

    Raises:
        ConfigError: If another run does, or the folder cannot be written.
    """
    make_folder(file.parent)
    lock = filelock.FileLock(f"{file.resolve()}.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ConfigError(
            f"another run writes {file}; wait until it has ended, or choose another folder with "
            "--out"
        ) from None
    except OSError as error:
        raise ConfigError(f"results {file}: {error}; choose another folder with --out") from None
    try:
        yield
    finally:
        # While it is held, which is safe: filelock looks whether what it locked still has its name.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def load(path: str | Path) -> Results:
    """Read what `agentlab bench` wrote.

    Raises:
        ConfigError: If it cannot be read, is something else, or holds what was not measured in its
            experiment: another case or repeat, the same one twice, or a figure that is none.
    """
    loaded = read(path, Results)
    planned, repeats = {*loaded.experiment.cases()}, loaded.experiment.repeats
    seen: set[tuple[Case, int]] = set()
    for number, m in enumerate(loaded.measurements):
        known = m.case in planned and m.repeat < repeats
        if not known or (m.case, m.repeat) in seen:
            raise ConfigError(
                f"Results {str(path)!r}: measurements[{number}], repeat {m.repeat} of "
                f"{_local_name(m.case)}, is {'there twice' if known else 'not of its experiment'}; "
                "take it out of the file, or measure anew into another folder with --out"
            )
        seen.add((m.case, m.repeat))
    return loaded


def read(path: str | Path, kind: type[T]) -> T:
    """Read results of some kind.

    Raises:
        ConfigError: If it cannot be read, or is of another kind.
    """
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=kind)
    except UNREADABLE as error:
        raise ConfigError(
            f"{kind.__name__} {str(path)!r}: {error}; give a file that agentlab bench wrote"
        ) from None


def machine() -> dict[str, str]:
    """What the figures were measured on, and with: no name, no path, no address."""
    about = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
    }
    return about | {package: version(package) for package in _PACKAGES}


def model(chosen: Settings, experiment: Experiment) -> dict[str, str]:
    """Who answered: a real model, or the local one with what the environment changed about it.

    Args:
        chosen: The settings of the run, the environment's among them.

    Example:
        >>> from agentlab.bench.experiment import load
        >>> model(Settings(requests_per_minute=60), load("article"))
        {'model': 'local', 'requests_per_minute': '60'}
    """
    if experiment.asks_real:
        host = urlsplit(chosen.upstream or "").hostname
        return {"model": f"{chosen.model} at {host}"}
    about = {"model": "local" if chosen.replay is None else f"replay of {chosen.replay}"}
    if experiment.clock == "real":
        about["model seconds a second"] = f"{chosen.time_scale:g}"
    for name in ("requests_per_minute", "tokens_per_minute", "capacity", "faults"):
        value = getattr(chosen, name)
        if name not in experiment.settings and value not in (None, []):
            about[name] = str(value)
    return about


def unequal(measurements: Iterable[Measurement]) -> list[str]:
    """What forbids comparing times: failures, other answers, other numbers of requests.

    Cases are compared where workload, preset and seed are the same. Of a real model's answers,
    tokens and finish reasons are compared, within `agreement.TOLERANCE`.
    """
    every = list(measurements)
    axes = varied(m.case for m in every)
    problems: dict[str, None] = {}
    failed: set[Case] = set()
    first: dict[tuple[str, str, int], Measurement] = {}
    for m in every:
        where = _local_name(m.case) if m.real is UNSET else m.case.named(axes)
        if m.error is not None:
            # A real model's errors may quote its words: of each case, the first one says enough.
            if m.real is UNSET or m.case not in failed:
                problems[f"{where}: {m.error}"] = None
            failed.add(m.case)
            continue
        other = first.setdefault(_work(m.case), m)
        if None not in (m.answers, other.answers) and m.answers != other.answers:
            problems[f"{where}: its answers are not those of {other.case.engine}"] = None
        if m.answered != m.steps:
            problems[f"{where}: {m.answered} answers for {m.steps} steps"] = None
        elif m.case.strategy == "once" and m.requests != m.steps:
            problems[f"{where}: {m.requests} requests for {m.steps} steps"] = None
    for case, off in deviations(every).items():
        for says in off.says:
            said = f"{case.named(axes)}: {says}; up to {TOLERANCE:.0%} counts as equal work"
            problems[said] = None
    return list(problems)


def deviations(measurements: Iterable[Measurement]) -> dict[Case, Deviation]:
    """How far a real model's answers in each case are from those in the first of the same work."""
    by_case: dict[Case, list[Answers]] = {}
    for m in measurements:
        if m.error is None and m.real is not UNSET and m.real.number:
            by_case.setdefault(m.case, []).append(m.real)
    axes = varied(by_case)
    first: dict[tuple[str, str, int], Case] = {}
    found = {}
    for case, runs in by_case.items():
        reference = first.setdefault(_work(case), case)
        if case != reference:
            called = reference.named(axis for axis in axes if axis != "workload")
            found[case] = deviation(runs, by_case[reference], called)
    return found


def _work(case: Case) -> tuple[str, str, int]:
    return case.workload, case.preset, case.seed


def _local_name(case: Case) -> str:
    name = f"{case.workload}, {case.engine}, {case.preset}, seed {case.seed}"
    return name + (f", {case.strategy}" if case.strategy != "once" else "")
