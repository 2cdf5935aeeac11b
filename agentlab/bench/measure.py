"""Measure an experiment: warm, one case after the other in each round, and resumable."""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from itertools import groupby, product
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from agentlab import engines, lab
from agentlab._support.asyncio_tools import running_loop
from agentlab._support.progress_bar import bar
from agentlab.bench import results
from agentlab.bench.closed_loop import crowd
from agentlab.bench.experiment import Case, Experiment, Strategy, Workload
from agentlab.bench.requests import Calls, Request, Send
from agentlab.bench.results import Measurement, Results
from agentlab.bench.summary import percentile, summarized
from agentlab.endpoint import presets
from agentlab.endpoint.contract.tokens import count_tokens
from agentlab.endpoint.server.app import limits_of
from agentlab.engines import Ask, answer
from agentlab.errors import AgentLabError, ConfigError, ModelError, StepError, TurnsExhausted
from agentlab.lab import connection
from agentlab.learning import parallel
from agentlab.resilience import Guard, RateLimit, Retry, classify
from agentlab.trace import TOOL, Trace, Turn, max_overlap, trace
from agentlab.workflow import Step, Workflow, with_tools

Keep = Callable[[Measurement, list[Request]], None]
_Outcome = dict[str, str] | StepError
_Measured = tuple[Measurement, list[Request]]  # of a crowd no requests

_HAIR_S = 1e-6  # sums and quotients of rounded times may be apart by so much, and mean the same
_LAST_ENDS_S = 10.0  # how long to wait for what a failed run has left behind, in real time


def run(experiment: Experiment, file: Path, *, resume: bool = False) -> Results:
    """Measure every case, and write `file` after each measurement.

    A finished run in real time that lies there from before is kept as NAME.before.json. A real
    model is asked one question first.

    Raises:
        ConfigError: If the file cannot be written or gone on with, or an event loop runs here.
        StepError: If a real model does not answer the first question; nothing is measured then.
    """
    experiment = experiment.as_asked()
    if experiment.clock == "real" and running_loop() is not None:
        cure = "await asyncio.to_thread(measure.run, ...)"
        raise ConfigError(f"an event loop is running here, as in a notebook; {cure}")
    for preset in experiment.presets:
        presets.load(preset)  # a wrong one is found before anything is measured
    with results.one_writer(file):
        return _measured(experiment, file, resume=resume)


def _measured(experiment: Experiment, file: Path, *, resume: bool) -> Results:
    machine = results.machine() | results.model(experiment.chosen, experiment)
    empty = Results(name=file.stem, experiment=experiment, machine=machine, measurements=[])
    kept = results.go_on(file, empty, resume=resume)
    # A finished run on the real clock took time, or money: it is kept, to compare with.
    earlier = kept is empty and file.exists() and results.load(file).experiment.clock == "real"
    done = {(m.case, m.repeat) for m in kept.measurements}
    with bar(total=len(done) + kept.missing, name=file.stem) as progress:
        progress.update(len(done))

        def keep(measurement: Measurement, requests: list[Request]) -> None:
            if earlier and not kept.measurements:  # now there is something to put in its place
                results.keep_before(file)
            results.add_requests(file, requests, run=len(kept.measurements))
            kept.measurements.append(measurement)
            results.write(file, kept)
            progress.update()

        for (preset, seed), group in groupby(experiment.cases(), lambda c: (c.preset, c.seed)):
            cases = list(group)
            most = max(experiment.runs(case.workload) for case in cases)
            # Case after case, and all of them again: what drifts, drifts for all alike.
            tasks = [
                _Task(experiment, case, repeat)
                for repeat, case in product(range(most), cases)
                if repeat < experiment.runs(case.workload) and (case, repeat) not in done
            ]
            with lab.configure(preset=preset, seed=seed, **experiment.settings):
                if tasks and experiment.clock == "real":
                    asyncio.run(_in_real_time(experiment, tasks, keep))
                    continue
                for task in tasks:
                    keep(*(_of_a_crowd if task.case.engine == "crowd" else _simulated)(task))
    results.write(file, kept)
    return kept


class _Task:
    """One run, made outside of every timer. `seed` is a random workflow's."""

    def __init__(self, experiment: Experiment, case: Case, repeat: int = 0):
        self.experiment, self.case, self.repeat = experiment, case, repeat
        self.workload = workload = experiment.by_name[case.workload]
        preset = None if experiment.asks_real else presets.load(case.preset)  # a model has none
        limit, _ = limits_of(preset, experiment.chosen.requests_per_minute, None)
        self.limit = limit or None
        self.seed = repeat % workload.random if workload.random else None
        # A crowd is a million agents that ask what one of them asks.
        of_one = replace(workload, agents=1) if case.engine == "crowd" else workload
        self.workflow, self.wait_s = of_one.drawn(case.seed, number=self.seed or 0)
        self.tools = workload.functions(case.seed)

    def asked_by(self, send: Send) -> Send:
        """Return what asks as the experiment says: in streams, or past the end of an answer."""
        given = {"stream": self.experiment.stream, "ignore_eos": not self.workload.plain}
        return partial(send, **{name: True for name, wanted in given.items() if wanted})

    async def answers(self, send: Send, calls: Calls) -> dict[str, str]:
        calls.begin()
        send = self.asked_by(send)
        limits = {"max_concurrency": self.case.max_concurrency, "requests_per_minute": self.limit}
        ask = calls.when_due(asking(self.case.strategy, send=calls.noting(send), **limits))
        workflow, inputs = self.workflow, self.workload.inputs
        engine, tools = self.case.engine, self.tools
        if engine not in ("functions", "langgraph-graph"):
            return await engines.run(workflow, inputs, engine=engine, tools=tools, ask=ask)
        ask = with_tools(ask, tools) if tools else ask
        given = workflow.given(inputs)

        async def as_engines_do_not(ask: Ask) -> dict[str, str]:
            if engine == "functions":
                return dict(await parallel.run(as_functions(workflow, ask), **given))
            from agentlab.engines.langgraph import graph

            start: Any = {"inputs": given, "results": {}}
            answers = (await graph(workflow, ask=ask).compile().ainvoke(start))["results"]
            return {step.name: answers[step.name] for step in workflow.steps}

        return await engines.watched(workflow, as_engines_do_not, ask=ask)


def as_functions(workflow: Workflow, ask: Ask) -> list[parallel.Function]:
    """Return the workflow as plain functions, as a reader would write them by hand."""

    async def call(step: Step, /, **values: str) -> str:
        return await answer(step, values, ask)

    return [parallel.with_parameters(partial(call, s), s.name, s.mentions) for s in workflow.steps]


def asking(
    strategy: Strategy, *, send: Ask, max_concurrency: int | None, requests_per_minute: int | None
) -> Ask:
    """Return the ask function for one run; to be called inside the event loop.

    `once` asks once; `insist` asks again each second, whatever the endpoint says. The others back
    off and obey it: `retry` does no more, `timeout` gives an attempt 60 s, and `pace` keeps the
    rate limit (None learns it from the answers).
    """
    if strategy not in ("once", "insist"):
        # Its own for each run: it draws the same jitter again. To give up would save requests.
        guard = Guard(Retry(attempts=1000), deadline_s=None, max_concurrency=max_concurrency)
        if strategy == "timeout":
            guard.attempt_timeout_s = 60.0  # only answers that stall or drip take a fifth of it
        elif strategy == "pace":
            guard.rate_limit = RateLimit(requests_per_minute=requests_per_minute)
        return guard.around(send)
    slots = asyncio.Semaphore(max_concurrency) if max_concurrency else nullcontext()

    async def plainly(prompt: str, **options: Any) -> str:
        while True:
            try:
                async with slots:
                    return await send(prompt, **options)
            except ModelError as error:
                if strategy == "once" or not classify(error).retry:
                    raise
            await lab.sleep(1)

    return plainly


def _simulated(task: _Task) -> _Measured:
    calls = Calls(task.workflow.needs, task.wait_s)
    outcome, t = lab.simulate(task.answers(lab.reply, calls), catch=StepError)
    requests = calls.rows(t.spans, t.turns)
    begun_s = min((r.arrived_s or 0.0 for r in requests), default=0.0)
    return _measurement(task, outcome, t, begun_s + t.makespan_s, requests), requests


def _of_a_crowd(task: _Task) -> _Measured:
    physics = presets.load(task.case.preset).physics
    agents, most = task.workload.agents or 0, task.case.max_concurrency or 0  # both are given
    if task.limit or not agents or (physics.slots is not None and physics.slots < most):
        needs = f"no rate limit and no queue with {most} in flight, and no workflow"
        raise ConfigError(f"engine crowd needs {needs}; choose another preset or engine")
    (step,) = task.workflow.steps
    lengths = {"prompt_tokens": count_tokens(step.prompt), "output_tokens": step.max_tokens or 0}
    made = crowd(physics, agents, max_concurrency=most, seed=task.case.seed, **lengths)
    bound_s = min(max(made.work_s / most, made.longest_s), made.makespan_s)
    told: dict[str, Any] = dict.fromkeys(("steps", "requests", "answered"), agents)
    told |= {"elapsed_s": round(made.makespan_s, 9), "bound_s": round(bound_s, 9)}
    told |= {"peak": min(agents, most), "tokens": agents * sum(lengths.values())}
    return Measurement(case=task.case, repeat=task.repeat, answers=None, **told), []


def _counted(turns: Sequence[Turn]) -> list[Turn]:
    """Return the turns that no schedule can leave out: those with tools, and the last answer."""
    answers = [turn for turn in turns if turn.call and turn.call.ok and not turn.tools]
    return [*(turn for turn in turns if turn.tools), *answers[-1:]]


async def _in_real_time(experiment: Experiment, tasks: list[_Task], keep: Keep) -> None:
    lab.base_url()  # starts the endpoint
    scale = lab.model_seconds_a_second()
    real = experiment.asks_real and scale == 1  # else another lab's local model answers
    async with AsyncExitStack() as stack:
        send: dict[str, Send] = {}
        if any(task.case.engine == "dask" for task in tasks):
            from agentlab.engines.dask import Cluster

            send["dask"] = (await stack.enter_async_context(Cluster())).reply
        if experiment.asks_real:
            await _ask_first(tasks[0], send.get(tasks[0].case.engine, lab.reply))
        first = {task.case: task for task in reversed(tasks)}
        warm = [first[case] for case in experiment.cases() if case in first] * experiment.warmups
        for number, task in enumerate([*warm, *tasks]):
            measured = await _timed(task, send.get(task.case.engine, lab.reply), scale, real=real)
            if number >= len(warm):
                keep(*measured)


async def _timed(task: _Task, reply: Send, scale: float, *, real: bool) -> _Measured:
    calls, endpoint = Calls(task.workflow.needs, task.wait_s), connection.endpoint()
    gc.collect()  # so that no case pays for the garbage of the one before
    with trace() as t:
        endpoint_began_s = endpoint.cpu_s()
        began_s, cpu_began_s = perf_counter(), process_time()
        outcome: _Outcome
        try:
            outcome = await task.answers(reply, calls)
        except StepError as error:
            outcome = error
        elapsed_s, cpu_s = perf_counter() - began_s, process_time() - cpu_began_s
        endpoint_s = endpoint.cpu_s() - endpoint_began_s
        if isinstance(outcome, StepError):  # its last requests must not reach into the next run
            await _all_ended(t)
    late_ms = [span.late_ms for span in t.spans if span.late_ms is not None]
    told: dict[str, Any] = {
        "cpu_ms": round(cpu_s * 1000 / max(t.requests, 1), 3),
        "busy": round(cpu_s / elapsed_s, 3),
        "endpoint_cpu_ms": round(endpoint_s * 1000 / max(t.requests, 1), 3),
        "endpoint_busy": round(endpoint_s / elapsed_s, 3),
        "late": (round(median(late_ms), 3), max(late_ms)) if late_ms else UNSET,
    }
    if real:
        told |= {"answers": None, "answered": len(calls.said), "real": calls.said}
    requests = calls.rows(t.spans, t.turns)
    measurement = _measurement(task, outcome, t, elapsed_s * scale, requests)
    return msgspec.structs.replace(measurement, **told), requests


async def _all_ended(t: Trace) -> None:
    give_up_s = perf_counter() + _LAST_ENDS_S
    while any(span.end_s is None for span in t.spans) and perf_counter() < give_up_s:
        await asyncio.sleep(0.05)


async def _ask_first(task: _Task, reply: Send) -> None:
    """Ask one question as the run will: what fails now would fail there."""
    step, values = task.workflow.steps[0], task.workflow.given(task.workload.inputs)
    ask: Any = Guard(retry=Retry(attempts=3)).around(task.asked_by(reply))
    try:
        with suppress(TurnsExhausted):  # that is an answer, too
            await answer(replace(step, max_turns=1), values, with_tools(ask, task.tools or {}))
    except ConfigError:
        raise
    except (AgentLabError, TimeoutError) as error:
        says = f"the first question failed, as every run would: {error}; nothing was measured"
        raise StepError(says, step=step.name, results={}) from error


def _measurement(
    task: _Task, outcome: _Outcome, t: Trace, elapsed_s: float, requests: list[Request]
) -> Measurement:
    # Only the answers that count: no schedule needs the attempts that failed before them.
    every, plan = t.turns, partial(task.workflow.plan, wait_s=task.wait_s)
    served = {name: _counted(every.get(name, ())) for name in task.workflow.needs}
    with_tools_s = {name: sum(turn.bound_s() for turn in turns) for name, turns in served.items()}
    calls_s = {name: [t.call.service_s for t in turns if t.call] for name, turns in served.items()}
    model_s = {name: sum(each_s) for name, each_s in calls_s.items()}  # no tool takes a slot
    bound_s = max(plan(with_tools_s).span_s, plan(model_s).bound_s(task.case.max_concurrency))
    steps = max(sum(map(len, calls_s.values())), len(calls_s))
    if task.limit is not None and steps > task.limit:
        # A rate limit alone: a minute's worth immediately, then so many per second.
        shortest_s = min(min(each_s, default=0.0) for each_s in calls_s.values())
        bound_s = max(bound_s, round((steps - task.limit) / task.limit * 60 + shortest_s, 9))
    if 0 < bound_s - elapsed_s <= _HAIR_S:  # 2.1 / 3 is more than 0.7 in its last binary digit
        bound_s = round(elapsed_s, 9)
    answers = outcome.results if isinstance(outcome, StepError) else outcome
    latencies_s = [s.end_s - s.arrived_s for s in t.spans if s.ok and s.end_s is not None]
    faults = Counter(span.fault for span in t.spans if span.fault)
    terms = task.experiment.slo, task.experiment.window, task.experiment.price
    return Measurement(
        case=task.case,
        repeat=task.repeat,
        steps=steps,
        elapsed_s=round(elapsed_s, 9),
        bound_s=bound_s,
        requests=t.requests,
        answered=len(latencies_s),
        peak=max_overlap((r.arrived_s, r.over_s) for r in requests if r.arrived_s is not None),
        tokens=t.tokens,
        answers=blake2b(msgspec.json.encode(answers, order="sorted"), digest_size=8).hexdigest(),
        p50_s=round(percentile(latencies_s, 50), 9) if latencies_s else None,
        p95_s=round(percentile(latencies_s, 95), 9) if latencies_s else None,
        error=str(outcome) if isinstance(outcome, StepError) else None,
        workflow=UNSET if task.seed is None else task.seed,
        faults=dict(sorted(faults.items())) or UNSET,
        felt=summarized(requests, *terms) if task.seed is None else UNSET,
        tools=sum(tool.operation == TOOL for tool in t.tools) if task.tools else UNSET,
    )


class Cost(NamedTuple):
    """What an experiment asks of a real model, warm-ups and repeats included.

    Tokens of prompts are the course's estimate, within some percent. Those of answers are the most
    there may be; for the `unlimited` ones the local model's length is taken.
    """

    requests: int
    prompt_tokens: int
    answer_tokens: int
    unlimited: int

    def dollars(self, prompt_price: float, answer_price: float) -> float:
        millionths = self.prompt_tokens * prompt_price + self.answer_tokens * answer_price
        return round(millionths / 1e6, 6)

    def __str__(self) -> str:
        asked = f"{self.requests:,} requests with some {self.prompt_tokens:,} tokens of prompts"
        most = f"up to {self.answer_tokens:,} of answers"
        without = f" ({self.unlimited:,} of them without a limit)" if self.unlimited else ""
        return f"{asked} and {most}{without}"


def cost(experiment: Experiment) -> Cost:
    """Rehearse each workload on the local model, and count; nothing is sent anywhere.

    Example:
        >>> three = Experiment(about="x", workloads=[Workload(agents=3)], clock="real", repeats=2)
        >>> print(cost(three))
        18 requests with some 252 tokens of prompts and up to 198 of answers
    """
    experiment = experiment.as_asked()
    counted = []
    if experiment.asks_real:
        counted += _rehearsed(experiment.workloads[0], experiment.seeds[0])[:1]
    for name, workload in experiment.by_name.items():
        cases = sum(case.workload == name for case in experiment.cases())
        for number in range(workload.random or 1):
            times = cases * (experiment.repeats + (0 if number else experiment.warmups))
            counted += _rehearsed(workload, experiment.seeds[0], number) * times
    return Cost(*map(sum, zip(*counted, strict=True)))


def _rehearsed(workload: Workload, seed: int, number: int = 0) -> list[Cost]:
    workflow, _ = workload.drawn(seed, number=number)
    with lab.configure(preset="instant", upstream=None, faults=[]):
        _, t = lab.simulate(engines.run(workflow, workload.inputs, tools=workload.functions(seed)))
    asked = [(span, workflow.step(span.agent).max_tokens) for span in t.spans]
    return [Cost(1, s.prompt_tokens, n or s.completion_tokens, int(n is None)) for s, n in asked]
