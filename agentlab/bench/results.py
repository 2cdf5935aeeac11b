"""The raw data of an experiment: how it is kept, and whether its runs can be compared."""

import csv
import gzip
import io
import itertools
import os
import platform
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import distributions, version
from operator import attrgetter
from pathlib import Path
from statistics import mean, median
from typing import Any, TypeVar
from urllib.parse import urlsplit

import filelock
import msgspec
from msgspec import UNSET, UnsetType

from agentlab._support.fields import AtLeastOne, Count
from agentlab._support.system import write_whole
from agentlab.bench.experiment import Case, Experiment, varied
from agentlab.bench.requests import Figure, Request, Said
from agentlab.errors import ConfigError
from agentlab.settings import Settings

TOLERANCE = 0.10  # up to this share, tokens per answer count as equal work
_ELSEWHERE = "choose another folder with --out"
_PACKAGES = """aiohttp crewai langchain-openai langgraph openai openai-agents
    pydantic-ai-slim""".split()


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a case. Times are model seconds, except those of processors.

    Attributes:
        bound_s: What no schedule of the same calls can beat, with as many in flight.
        requests: How many the endpoint saw; `answered` are those in full.
        steps: How many the work needs: one for each step, or for each turn of one with tools.
        tools: How many calls of tools ran, where there are any.
        answers: A digest of all answers. None for a real model, which words each differently.
        cpu_ms: Processor time of this process per request; `busy` is its share of the real time.
            Both are None in virtual time; `endpoint_...` are the same of the lab's own endpoint.
        workflow: The seed of the random workflow that ran.
        felt: What callers felt, by name; nothing of a crowd, or of a random workflow. See
            `agentlab.bench.summary`.
        late: How late the local model was, on the real clock: median and most, in milliseconds.
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
    real: list[Said] | UnsetType = UNSET
    endpoint_cpu_ms: Figure | UnsetType = UNSET
    endpoint_busy: Figure | UnsetType = UNSET
    workflow: Count | UnsetType = UNSET
    faults: dict[str, Count] | UnsetType = UNSET
    late: tuple[Figure, Figure] | UnsetType = UNSET
    felt: dict[str, Figure] | UnsetType = UNSET
    tools: Count | UnsetType = UNSET

    @property
    def work(self) -> tuple[str, str, int, int | UnsetType]:
        """What was asked, and of whom; measurements of equal work are compared."""
        return self.case.workload, self.case.preset, self.case.seed, self.workflow

    @property
    def throughput(self) -> float:
        """Answers per second of the run."""
        return self.answered / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def efficiency(self) -> float:
        """The bound as a share of the time taken; 1 is perfect."""
        return self.bound_s / self.elapsed_s if self.elapsed_s else 1.0

    def figure(self, name: str) -> float | None:
        """Return a figure by its name, of what callers felt or a field; None if it is unknown."""
        before: dict[str, Any] = {"service_p50_s": self.p50_s, "service_p95_s": self.p95_s}
        value: float | UnsetType | None = (self.felt or before).get(name, getattr(self, name, None))
        return None if value is UNSET else value

    @property
    def said(self) -> list[Said]:
        """What a real model said of each answer; nothing where the local one answered."""
        return [] if self.real is UNSET else self.real


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment and what was measured. In virtual time two runs make equal files."""

    name: str
    experiment: Experiment
    machine: dict[str, str]
    measurements: list[Measurement]

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
        planned = sum(self.experiment.runs(case.workload) for case in self.experiment.cases())
        return planned - len(self.measurements)

    @property
    def real(self) -> bool:
        """True if a real model answered: then its seconds are seconds."""
        return any(m.real is not UNSET for m in self.measurements)


T = TypeVar("T", bound=msgspec.Struct)


def write(path: Path, some: msgspec.Struct) -> None:
    """Write results as JSON, the whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.format(msgspec.json.encode(some)) + b"\n")


@contextmanager
def one_writer(file: Path) -> Iterator[None]:
    """Keep others from writing the same results meanwhile; ConfigError if another run does."""
    lock = filelock.FileLock(f"{file.resolve()}.lock", timeout=0)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise ConfigError(f"another run writes {file}; wait until it has ended") from None
    except OSError as error:
        raise ConfigError(f"results {file.parent}: {error}; {_ELSEWHERE}") from None
    try:
        yield
    finally:
        # While it is held, which is safe: filelock looks whether what it locked still has its name.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def requests_file(file: Path) -> Path:
    """Return where the requests lie whose measurements are in `file`."""
    return file.with_suffix(".requests.csv.gz")


def keep_before(file: Path) -> None:
    """Rename finished results, with what lies beside them, so that new ones can be written."""
    for suffix in (".requests.csv.gz", ".proof.json", ".json"):
        if file.with_suffix(suffix).exists():
            file.with_suffix(suffix).replace(file.with_suffix(f".before{suffix}"))


def add_requests(file: Path, requests: Iterable[Request], *, run: int) -> None:
    """Append the requests of one run, before its measurement; the first run begins a new file."""
    path = requests_file(file)
    if run == 0:
        path.unlink(missing_ok=True)
    header = [] if path.exists() else [Request.__struct_fields__]
    rows = [msgspec.structs.astuple(msgspec.structs.replace(one, run=run)) for one in requests]
    lines = io.StringIO(newline="")
    csv.writer(lines, lineterminator="\n").writerows([*header, *rows])
    if rows:
        with path.open("ab") as kept:
            kept.write(gzip.compress(lines.getvalue().encode(), mtime=0))


def read_requests(file: Path, runs: int) -> list[Request]:
    """Return the requests of the first `runs` measurements; none where none were kept.

    What a killed run has written of one that was not measured any more is left out.

    Raises:
        ConfigError: If the file is damaged, with the line.
    """
    path, found = requests_file(file), list[Request]()
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                given = {name: value for name, value in row.items() if value}
                found.append(msgspec.convert(given, Request, strict=False))
    except (FileNotFoundError, EOFError):  # half a row, of a run that was killed
        pass
    except (OSError, ValueError, csv.Error, zlib.error) as error:
        where = f"requests {str(path)!r}, line {len(found) + 2}"
        raise ConfigError(f"{where}: {error}; measure again") from None
    return [request for request in found if request.run < runs]


def go_on(file: Path, empty: Results, *, resume: bool) -> Results:
    """Return the results in `file` when resuming, else `empty`; ConfigError if neither is right."""
    before = load(file) if file.exists() else empty
    if before is empty or not (resume or before.missing):
        return empty
    if not resume:
        lacks = f"{file} lacks {before.missing} measurements of an interrupted run"
        raise ConfigError(f"{lacks}; go on with --resume, or remove it")
    if before.experiment != empty.experiment:
        raise ConfigError(f"{file} is of another experiment; {_ELSEWHERE}")
    if other := sorted({name for name, _ in before.machine.items() ^ empty.machine.items()}):
        raise ConfigError(f"{file} was measured with another {', '.join(other)}; {_ELSEWHERE}")
    kept = read_requests(file, len(before.measurements))
    resumed = file.with_suffix(".resumed.json")
    requests_file(resumed).unlink(missing_ok=True)
    for run, some in itertools.groupby(kept, key=attrgetter("run")):
        add_requests(resumed, some, run=run)
    if kept:
        requests_file(resumed).replace(requests_file(file))
    return before


def load(path: str | Path) -> Results:
    """Read what `agentlab bench` wrote for one experiment; anything else is a ConfigError."""
    loaded = read(path, Results)
    asked = loaded.experiment
    planned = {(case, n) for case in asked.cases() for n in range(asked.runs(case.workload))}
    for number, m in enumerate(loaded.measurements):
        if (m.case, m.repeat) not in planned:
            one = f"measurements[{number}] is there twice, or not of its experiment"
            cure = f"take it out of the file, or measure again: {_ELSEWHERE}"
            raise ConfigError(f"Results {str(path)!r}: {one}; {cure}")
        planned.remove((m.case, m.repeat))
    return loaded


def frame(file: str | Path) -> Any:
    """Return the requests of results as a pandas DataFrame, with each one's case beside it.

    Example:
        frame("results/article.json").groupby("engine").returned_s.quantile(0.99)
    """
    import pandas as pd

    runs = load(file).measurements
    rows = pd.DataFrame(map(msgspec.structs.asdict, read_requests(Path(file), len(runs))))
    cases = ({"run": n, **msgspec.structs.asdict(m.case)} for n, m in enumerate(runs))
    return rows.merge(pd.DataFrame(cases), on="run") if len(rows) else rows


def read(path: str | Path, kind: type[T]) -> T:
    """Read results of some kind; ConfigError if the file cannot be read, or is of another."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        cure = "give a file that agentlab bench wrote"
        raise ConfigError(f"{kind.__name__} {str(path)!r}: {error}; {cure}") from None


def machine() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "agentlab": version("agentlab-course"),
        **{name: found.version for name in _PACKAGES for found in distributions(name=name)},
    }


def model(chosen: Settings, experiment: Experiment) -> dict[str, str]:
    """Return who answered: a real model, or the local one and how the environment changed it."""
    if experiment.asks_real:
        return {"model": f"{chosen.model} at {urlsplit(chosen.upstream or '').hostname}"}
    names = ("requests_per_minute", "tokens_per_minute", "capacity", "faults")
    mine = {name: getattr(chosen, name) for name in names if name not in experiment.settings}
    scale = {"model seconds a second": f"{chosen.time_scale:g}"}
    about = {"model": "local"} | (scale if experiment.clock == "real" else {})
    return about | {name: str(value) for name, value in mine.items() if value not in (None, [])}


def known(runs: Iterable[Measurement], name: str) -> list[float]:
    """Return what is known of a figure: of a field, or such as `response_p99_s`."""
    return [value for m in runs if (value := m.figure(name)) is not None]


def median_of(runs: Iterable[Measurement], name: str) -> float | None:
    """Return the median of a figure over several runs; None if none has it."""
    values = known(runs, name)
    return median(values) if values else None


def unequal(measurements: Iterable[Measurement]) -> list[str]:
    """Return what forbids comparing times: failures, other answers, other numbers of requests.

    Of a real model's answers, the tokens are compared, within `TOLERANCE`.
    """
    every = list(measurements)
    axes, first = varied(m.case for m in every), first_of_work(every)
    problems: dict[object, str] = {}  # the same one is told once
    for m in every:
        where = m.case.named(axes) + ("" if m.workflow is UNSET else f", workflow {m.workflow}")
        if m.error is not None:
            problems.setdefault(m.case, f"{where}: {m.error}")
            continue
        other, said = first[m.work], list[str]()
        if None not in (m.answers, other.answers) and m.answers != other.answers:
            said.append(f"its answers are not those of {other.case.engine}")
        if (m.steps, m.tools) != (other.steps, other.tools):
            turns = f"{m.steps} turns and {m.tools} calls of tools"
            said.append(f"{turns}, for {other.steps} and {other.tools} of {other.case.engine}")
        # An answer that a fault kept from the client is given twice.
        if m.answered < m.steps or (m.answered > m.steps and m.faults is UNSET):
            said.append(f"{m.answered} answers for {m.steps} steps")
        elif m.case.strategy == "once" and m.requests != m.steps:
            said.append(f"{m.requests} requests for {m.steps} steps")
        problems |= {(where, says): f"{where}: {says}" for says in said}
    for case, off in deviations(every).items():
        if abs(off) > TOLERANCE:
            beyond = f"{off:+.1%} tokens per answer; up to {TOLERANCE:.0%} is equal work"
            problems[case, off] = f"{case.named(axes)}: {beyond}"
    return list(problems.values())


def first_of_work(measurements: Iterable[Measurement]) -> dict[object, Measurement]:
    """Return the first result of each work, with which others of the same are compared."""
    return {m.work: m for m in reversed([*measurements]) if m.error is None}


def deviations(measurements: Iterable[Measurement]) -> dict[Case, float]:
    """Return by what share a real model's answers are longer than the first of the same work."""
    every = [m for m in measurements if m.error is None and m.said]
    first, runs = first_of_work(every), dict[Case, list[Measurement]]()
    for m in every:
        runs.setdefault(m.case, []).append(m)
    usual = {case: first[some[0].work].case for case, some in runs.items()}
    return {case: deviation(runs[case], runs[of]) for case, of in usual.items() if of != case}


def deviation(runs: Iterable[Measurement], reference: Iterable[Measurement]) -> float:
    """Return by what share a case's answers are longer than the reference's; 0 if not counted."""

    def tokens_per_answer(some: Iterable[Measurement]) -> float:
        counted = [[said.tokens for said in run.said if said.tokens] for run in some]
        return median([mean(tokens) for tokens in counted if tokens] or [0])

    tokens, usual = tokens_per_answer(runs), tokens_per_answer(reference)
    return tokens / usual - 1 if tokens and usual else 0.0
