"""The raw data of an experiment: how it is kept, and whether its runs can be compared."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import filelock
import msgspec
from msgspec import UNSET, UnsetType

from agentlab._support.atomic import write_whole
from agentlab._support.fields import AtLeastOne, Count
from agentlab.bench.experiment import Case, Experiment, varied
from agentlab.errors import ConfigError
from agentlab.settings import Settings

TOLERANCE = 0.10
"""Up to this share, tokens per answer and finish reasons may differ between equal work."""

UNREADABLE = (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The errors of a file that cannot be read, or that no program wrote."""

_PACKAGES = ("aiohttp", "crewai", "langchain-openai", "langgraph", "openai")

Figure = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
"""Seconds, milliseconds or a share: none is negative, and none is millennia."""


class Said(NamedTuple):
    """What an endpoint said of one answer; 0 tokens where it counts none.

    Attributes:
        limit_tokens: The most tokens that were asked for; None without a limit.
    """

    finish_reason: str | None
    tokens: int
    limit_tokens: int | None


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What a real model said of all answers of one run. Its words differ each time.

    Attributes:
        finish_reasons: Reason -> how many answers ended with it.
        tokens: How many the answers have, as the endpoint counts them.
        counted: For how many answers it counted any.
        over_limit: Limit -> the most tokens that came, where more came than it allows.
    """

    finish_reasons: dict[str, int]
    tokens: int
    counted: int
    over_limit: dict[int, int]

    @property
    def number(self) -> int:
        """How many answers there are."""
        return sum(self.finish_reasons.values())


def summed(said: Iterable[Said]) -> Answers:
    """Add up the answers of one run.

    Example:
        >>> summed([Said("length", 11, 11), Said("stop", 14, 11)])
        Answers(finish_reasons={'length': 1, 'stop': 1}, tokens=25, counted=2, over_limit={11: 14})
    """
    reasons: Counter[str] = Counter()
    over: dict[int, int] = {}
    tokens = counted = 0
    for reason, came, limit in said:
        reasons[reason or "none"] += 1
        tokens += came
        counted += came > 0
        if limit is not None and came > limit:
            over[limit] = max(came, over.get(limit, 0))
    return Answers(
        finish_reasons=dict(sorted(reasons.items())),
        tokens=tokens,
        counted=counted,
        over_limit=over,
    )


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a case. Times are model seconds, except those of processors.

    Attributes:
        elapsed_s: How long the user waited.
        bound_s: What no schedule of the same calls can beat, with as many in flight.
        requests: How many the endpoint saw; `steps` is how many there had to be.
        answered: How many of them it answered in full.
        answers: A digest of all answers: equal work has equal digests. None for a crowd, which
            has no answers, and for a real model, which words each answer differently.
        p50_s, p95_s: How long half, and 95% of the answers took at most, at the endpoint.
        cpu_ms: Processor time of this process per request; None in virtual time.
        busy: Processor time as a share of the real time taken; 1 is a core all the time.
        error: Why there is no result; None if there is one.
        real: What a real model said of its answers; unset where the local one answered.
        endpoint_cpu_ms: Processor time of the lab's own endpoint per request, the question
            about that time included; unset in virtual time.
        endpoint_busy: The endpoint's processor time as a share of the real time taken.
        workflow: The seed of the random workflow that ran; unset for other workloads.
        faults: Kind -> how many requests it befell; unset without faults.
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
    workflow: Count | UnsetType = UNSET
    faults: dict[str, Count] | UnsetType = UNSET

    @property
    def work(self) -> tuple[str, str, int, int | UnsetType]:
        """What was asked, and of whom; measurements of equal work are compared."""
        return self.case.workload, self.case.preset, self.case.seed, self.workflow


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment and what was measured. In virtual time two runs make equal files.

    Attributes:
        machine: The system, the versions, and the model that answered.
    """

    name: str
    experiment: Experiment
    machine: dict[str, str]
    measurements: list[Measurement]

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write(path, self)

    def of(self, case: Case) -> list[Measurement]:
        """Return the measurements of a case that have a result."""
        return [m for m in self.measurements if m.case == case and m.error is None]

    @property
    def measured(self) -> list[Case]:
        """The cases that have a result, in the experiment's order."""
        found = {m.case for m in self.measurements if m.error is None}
        return [case for case in self.experiment.cases() if case in found]

    @property
    def missing(self) -> int:
        """How many measurements are yet to be made."""
        planned = sum(self.experiment.runs(case.workload) for case in self.experiment.cases())
        return planned - len(self.measurements)

    @property
    def real(self) -> bool:
        """True if a real model answered: then its seconds are seconds."""
        return any(m.real is not UNSET for m in self.measurements)


T = TypeVar("T", bound=msgspec.Struct)
K = TypeVar("K")


def write(path: Path, some: msgspec.Struct) -> None:
    """Write results as JSON for people to read, the whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.format(msgspec.json.encode(some)) + b"\n")


@contextmanager
def one_writer(file: Path) -> Iterator[None]:
    """Keep others from writing the same results during a whole run.

    Raises:
        ConfigError: If another run does, or the folder cannot be written.
    """
    lock = filelock.FileLock(f"{file.resolve()}.lock", timeout=0)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=file.parent):
            pass  # a folder that cannot be written is found before anything is measured
        lock.acquire()
    except filelock.Timeout:
        raise ConfigError(
            f"another run writes {file}; wait until it has ended, or choose another folder with "
            "--out"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"results {file.parent}: {error}; choose another folder with --out"
        ) from None
    try:
        yield
    finally:
        # While it is held, which is safe: filelock looks whether what it locked still has its name.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def go_on(file: Path, empty: K, load: Callable[[Path], K], *, resume: bool) -> K:
    """Return the results to go on with: those in `file` when resuming, else `empty`.

    Raises:
        ConfigError: If the file is unfinished and not to be resumed, or is of another experiment
            or machine.
    """
    if not file.exists():
        return empty
    before = load(file)
    old: Any = before  # every kind has an experiment, a machine and what is missing
    new: Any = empty
    if not resume:
        if old.missing:
            raise ConfigError(
                f"{file} is of a run that was interrupted, with {old.missing} measurements yet "
                "to be made; go on with --resume, or remove it"
            )
        return empty
    if old.experiment != new.experiment:
        raise ConfigError(f"{file} is of another experiment; choose another folder with --out")
    names = old.machine | new.machine
    if other := {name for name in names if old.machine.get(name) != new.machine.get(name)}:
        raise ConfigError(
            f"{file} was measured with another {', '.join(sorted(other))}; choose another folder "
            "with --out"
        )
    return before


def load(path: str | Path) -> Results:
    """Read what `agentlab bench` wrote.

    Raises:
        ConfigError: If it cannot be read, is something else, or holds what was not measured in its
            experiment: another case or repeat, the same one twice, or a figure that cannot be one.
    """
    loaded = read(path, Results)
    runs = {case: loaded.experiment.runs(case.workload) for case in loaded.experiment.cases()}
    seen: set[tuple[Case, int]] = set()
    for number, m in enumerate(loaded.measurements):
        known = m.repeat < runs.get(m.case, 0)
        if not known or (m.case, m.repeat) in seen:
            raise ConfigError(
                f"Results {str(path)!r}: measurements[{number}], repeat {m.repeat} of "
                f"{_full_name(m.case)}, is {'there twice' if known else 'not of its experiment'}; "
                "take it out of the file, or measure again into another folder with --out"
            )
        seen.add((m.case, m.repeat))
    return loaded


def read(path: str | Path, kind: type[T]) -> T:
    """Read results of some kind.

    Raises:
        ConfigError: If the file cannot be read, or is of another kind.
    """
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=kind)
    except UNREADABLE as error:
        raise ConfigError(
            f"{kind.__name__} {str(path)!r}: {error}; give a file that agentlab bench wrote"
        ) from None


def machine() -> dict[str, str]:
    """Return what the figures were measured on, and with: no name, no path, no address."""
    about = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
    }
    about["agentlab"] = version("agentlab-course")
    return about | {package: version(package) for package in _PACKAGES}


def model(chosen: Settings, experiment: Experiment) -> dict[str, str]:
    """Return who answered: a real model, or the local one and how the environment changed it.

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
    """Return what forbids comparing times: failures, other answers, other numbers of requests.

    Cases are compared where workload, preset and seed are the same. Of a real model's answers,
    tokens and finish reasons are compared, within `TOLERANCE`.
    """
    every = list(measurements)
    axes = varied(m.case for m in every)
    problems: dict[str, None] = {}
    failed: set[Case] = set()
    first: dict[object, Measurement] = {}
    for m in every:
        where = _full_name(m.case) if m.real is UNSET else m.case.named(axes)
        if m.workflow is not UNSET:
            where += f", workflow {m.workflow}"
        if m.error is not None:
            # A real model's errors may quote its words: of each case, the first one says enough.
            if m.real is UNSET or m.case not in failed:
                problems[f"{where}: {m.error}"] = None
            failed.add(m.case)
            continue
        other = first.setdefault(m.work, m)
        if None not in (m.answers, other.answers) and m.answers != other.answers:
            problems[f"{where}: its answers are not those of {other.case.engine}"] = None
        # An answer that a fault kept from the client is given twice.
        if m.answered < m.steps or (m.answered > m.steps and m.faults is UNSET):
            problems[f"{where}: {m.answered} answers for {m.steps} steps"] = None
        elif m.case.strategy == "once" and m.requests != m.steps:
            problems[f"{where}: {m.requests} requests for {m.steps} steps"] = None
    for case, off in deviations(every).items():
        for says in off.says:
            said = f"{case.named(axes)}: {says}; up to {TOLERANCE:.0%} counts as equal work"
            problems[said] = None
    return list(problems)


def _full_name(case: Case) -> str:
    name = f"{case.workload}, {case.engine}, {case.preset}, seed {case.seed}"
    return name + (f", {case.strategy}" if case.strategy != "once" else "")


class Deviation(NamedTuple):
    """How far a case of a real model is from the one that it is compared with.

    Attributes:
        tokens: The difference of tokens per answer, as a share of the reference's; None where one
            of the two has no count.
        reasons: The share of answers that would have to end for another reason.
        says: What is beyond the tolerance, with both figures; empty where nothing is.
    """

    tokens: float | None
    reasons: float
    says: list[str]


def deviations(measurements: Iterable[Measurement]) -> dict[Case, Deviation]:
    """Return how far a real model's answers in each case are from the first of the same work."""
    by_case: dict[Case, list[Answers]] = {}
    references: dict[object, Case] = {}
    reference_of: dict[Case, Case] = {}
    for m in measurements:
        if m.error is None and m.real is not UNSET and m.real.number:
            by_case.setdefault(m.case, []).append(m.real)
            reference_of.setdefault(m.case, references.setdefault(m.work, m.case))
    axes = [axis for axis in varied(by_case) if axis != "workload"]
    return {
        case: deviation(by_case[case], by_case[reference], reference.named(axes))
        for case, reference in reference_of.items()
        if case != reference
    }


def deviation(runs: Sequence[Answers], reference: Sequence[Answers], called: str) -> Deviation:
    """Return how far the runs of a case are from those of the reference, named `called`.

    Tokens per answer are the median over the runs; finish reasons are counted over all of them.

    Example:
        >>> ten, twelve = ([summed([Said("stop", n, None)])] for n in (10, 12))
        >>> deviation(twelve, ten, "sequential").says
        ["12.0 tokens per answer, +20.0% of sequential's 10.0"]
    """
    says = []
    mine, its = _tokens_per_answer(runs), _tokens_per_answer(reference)
    tokens = None if mine is None or its is None else mine / its - 1
    if tokens is not None and abs(tokens) > TOLERANCE:
        says.append(f"{mine:.1f} tokens per answer, {tokens:+.1%} of {called}'s {its:.1f}")
    shares, expected = _shares(runs), _shares(reference)
    apart = (shares.get(why, 0.0) - expected.get(why, 0.0) for why in shares | expected)
    reasons = sum(map(abs, apart)) / 2
    if reasons > TOLERANCE:
        says.append(
            f"answers ended with {_listed(shares)}, those of {called} with {_listed(expected)}"
        )
    return Deviation(tokens, reasons, says)


def _tokens_per_answer(runs: Sequence[Answers]) -> float | None:
    each = [run.tokens / run.counted for run in runs if run.counted]
    return median(each) if each else None


def _shares(runs: Sequence[Answers]) -> dict[str, float]:
    reasons: Counter[str] = Counter()
    for run in runs:
        reasons.update(run.finish_reasons)
    return {reason: number / reasons.total() for reason, number in reasons.items()}


def _listed(shares: dict[str, float]) -> str:
    return ", ".join(f"{reason} {share:.0%}" for reason, share in sorted(shares.items())) or "none"
