"""Measures an experiment: warm, one case after the other in each round, and resumable."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from time import perf_counter, process_time

import msgspec

from agentlab import engines, lab
from agentlab.bench import results
from agentlab.bench.experiment import Case, Experiment, Workload
from agentlab.bench.results import Measurement, Results
from agentlab.bench.strategy import asking
from agentlab.endpoint import presets
from agentlab.errors import ConfigError, StepError
from agentlab.progress import bar
from agentlab.trace import Trace, trace

Keep = Callable[[Measurement], None]


def run(experiment: Experiment, file: Path, *, resume: bool = False) -> Results:
    """Measure every case, and write `file` after each measurement.

    Args:
        file: Where the results go, as JSON. An interrupt leaves in it what was done.
        resume: Go on with such a file.

    Raises:
        ConfigError: If the file is unfinished and not to be resumed, or is of another experiment.
    """
    kept = _kept(experiment, file, resume=resume)
    done = {(m.case, m.repeat) for m in kept.measurements}
    total = len(list(experiment.cases())) * experiment.repeats
    with bar(total=total, name=file.stem) as progress:
        progress.update(len(done))

        def keep(measurement: Measurement) -> None:
            kept.measurements.append(measurement)
            kept.save(file)
            progress.update()

        for (preset, seed), group in groupby(experiment.cases(), lambda c: (c.preset, c.seed)):
            rounds = _rounds(list(group), experiment.repeats, done)
            if not rounds:
                continue
            with lab.configure(preset=preset, seed=seed, **experiment.settings):
                if experiment.clock == "virtual":
                    for case, repeat in rounds:
                        keep(_in_virtual_time(experiment, case, repeat))
                else:
                    asyncio.run(_in_real_time(experiment, rounds, keep))
    kept.save(file)
    return kept


def _kept(experiment: Experiment, file: Path, *, resume: bool) -> Results:
    file.parent.mkdir(parents=True, exist_ok=True)
    empty = Results(
        name=file.stem, experiment=experiment, machine=results.machine(), measurements=[]
    )
    if not file.exists():
        return empty
    before = results.load(file)
    whole = len(list(before.experiment.cases())) * before.experiment.repeats
    if not resume:
        if len(before.measurements) < whole:
            raise ConfigError(
                f"{file} holds {len(before.measurements)} of {whole} measurements of a run that "
                "was interrupted; go on with --resume, or remove it"
            )
        return empty
    for what in ("experiment", "machine"):
        if getattr(before, what) != getattr(empty, what):
            raise ConfigError(f"{file} is of another {what}; choose another folder with --out")
    return before


def _rounds(cases: list[Case], repeats: int, done: set[tuple[Case, int]]) -> list[tuple[Case, int]]:
    """Case after case, and all of them again: what drifts, drifts for all alike."""
    return [
        (case, repeat) for repeat in range(repeats) for case in cases if (case, repeat) not in done
    ]


def _in_virtual_time(experiment: Experiment, case: Case, repeat: int) -> Measurement:
    workload = _workload(experiment, case)
    limit = _requests_per_minute(experiment, case)
    outcome, t = lab.simulate(_answers(workload, case, limit), catch=StepError)
    return _measurement(workload, case, repeat, outcome, t, t.makespan_s, limit)


async def _in_real_time(experiment: Experiment, rounds: list[tuple[Case, int]], keep: Keep) -> None:
    lab.base_url()  # starts the endpoint
    scale = lab.model_seconds_a_second()
    for case in dict.fromkeys(case for case, _ in rounds):
        for _ in range(experiment.warmups):
            limit = _requests_per_minute(experiment, case)
            await _outcome(_workload(experiment, case), case, limit)
    for case, repeat in rounds:
        workload = _workload(experiment, case)
        limit = _requests_per_minute(experiment, case)
        gc.collect()  # so that no case pays for the garbage of the one before
        with trace() as t:
            began_s, busy_s = perf_counter(), process_time()
            outcome = await _outcome(workload, case, limit)
            elapsed_s, busy_s = perf_counter() - began_s, process_time() - busy_s
        keep(
            _measurement(
                workload, case, repeat, outcome, t, elapsed_s * scale, limit, busy_s * 1000
            )
        )


async def _outcome(workload: Workload, case: Case, limit: int | None) -> dict[str, str] | StepError:
    try:
        return await _answers(workload, case, limit)
    except StepError as error:
        return error


async def _answers(workload: Workload, case: Case, limit: int | None) -> dict[str, str]:
    ask = asking(case.strategy, at_once=case.at_once, requests_per_minute=limit)
    return await engines.run(workload.build(), workload.inputs, engine=case.engine, ask=ask)


def _requests_per_minute(experiment: Experiment, case: Case) -> int | None:
    """The rate limit that the endpoint keeps: the experiment's, or else the preset's."""
    given = experiment.settings.get("requests_per_minute")
    figure = presets.load(case.preset).requests_per_minute
    return (figure.value if figure else None) if given is None else given or None


def _limit_bound_s(steps: int, limit: int | None, shortest_s: float) -> float:
    """What a rate limit alone takes: a minute's worth at once, then so many a second."""
    if limit is None or steps <= limit:
        return 0.0
    return round((steps - limit) / limit * 60 + shortest_s, 9)


def _measurement(
    workload: Workload,
    case: Case,
    repeat: int,
    outcome: dict[str, str] | StepError,
    t: Trace,
    elapsed_s: float,
    limit: int | None,
    busy_ms: float | None = None,
) -> Measurement:
    workflow = workload.build()
    failed = isinstance(outcome, StepError)
    seconds = dict.fromkeys(workflow.needs, 0.0) | t.seconds
    answers = outcome.results if isinstance(outcome, StepError) else outcome
    return Measurement(
        case=case,
        repeat=repeat,
        steps=len(workflow.steps),
        elapsed_s=round(elapsed_s, 9),
        bound_s=max(
            workflow.plan(seconds).bound_s(case.at_once),
            _limit_bound_s(len(workflow.steps), limit, min(seconds.values())),
        ),
        requests=t.requests,
        answered=sum(span.ok for span in t.spans),
        peak=t.peak,
        tokens=t.tokens,
        answers=blake2b(msgspec.json.encode(answers, order="sorted"), digest_size=8).hexdigest(),
        cpu_ms=None if busy_ms is None else round(busy_ms / max(t.requests, 1), 3),
        error=str(outcome) if failed else None,
    )


def _workload(experiment: Experiment, case: Case) -> Workload:
    return next(w for w in experiment.workloads if w.name == case.workload)
