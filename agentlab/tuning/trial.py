"""A limiter in a scenario, against the best static limit there.

What is simulated is `Slots` before the local model's own arithmetic, with `Retry` around and no
client between; `tests/test_tuning_limits.py` holds it against the whole client.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import msgspec
from tenacity import AsyncRetrying, RetryCallState

from agentlab.bench.opponents import AIMD, Fixed, Gradient2, Vegas
from agentlab.endpoint import presets
from agentlab.endpoint.batch import Batch, Job, QueueFull
from agentlab.endpoint.faults import FaultPlan
from agentlab.endpoint.limits import Limits
from agentlab.endpoint.wire import RequestError
from agentlab.errors import ModelError
from agentlab.resilience.adaptive import Adaptive
from agentlab.resilience.limiters import Limiter, Sample
from agentlab.resilience.retry import Retry
from agentlab.resilience.verdict import judge
from agentlab.tuning.scenarios import JUDGING, Scenario

LIMITERS: dict[str, Callable[[], Limiter]] = {
    "fixed 3": lambda: Fixed(3),
    "AIMD": AIMD,
    "AIMD from 1": lambda: AIMD(initial=1, least=1, most=1000, slow_s=None),
    "Gradient2": Gradient2,
    "Gradient2 from 1": lambda: Gradient2(initial=1, least=1, most=1000),
    "Vegas": Vegas,
    "adaptive": Adaptive,
}
"""Who is judged.

Netflix's AIMD and Gradient2 stay between 20 and 200, and its AIMD takes what lasts longer than 5 s
for refused; so both are there once more without that.
"""

LEAST_GOODPUT, MOST_P95 = 0.90, 1.3
"""What a limiter must reach, as a share of the best static limit's goodput and of its p95."""

_NO_MORE = 1.005  # times the goodput of fewer: where no step brings so much a sweep is at its end
_AS_GOOD = 0.98  # of the best goodput: among those the quickest limit is the best
_PROMPT_TOKENS = 16


class Outcome(msgspec.Struct, frozen=True):
    """What came of a run.

    Attributes:
        goodput: Answers a second that came within the run, its beginning included.
        p95_s: What 95% of those answers took at most, from having a seat to the last token.
        answered: How many there were.
        requests: How many were sent for them, refused ones included.
        limits: When the limit changed, and to what.
    """

    goodput: float
    p95_s: float
    answered: int
    requests: int
    limits: list[tuple[float, int]]


class Row(msgspec.Struct, frozen=True):
    """A limiter in a scenario, as a line of a table.

    Attributes:
        goodput: Answers a second.
        p95_s: What 95% of the answers took at most.
        of_best_goodput: As a share of the best static limit's.
        of_best_p95: The same for the p95.
        requests_per_answer: 1 if none was refused.
        best_limit: The best static limit, found by a sweep.
        seed: From which the scenario was drawn.
    """

    scenario: str
    limiter: str
    goodput: float
    p95_s: float
    of_best_goodput: float
    of_best_p95: float
    requests_per_answer: float
    best_limit: int
    seed: int

    @property
    def passes(self) -> bool:
        """True if it is nearly as good as the best static limit, which nobody knows beforehand."""
        return self.of_best_goodput >= LEAST_GOODPUT and self.of_best_p95 <= MOST_P95


def judged(
    scenarios: Iterable[Scenario] = JUDGING,
    limiters: Mapping[str, Callable[[], Limiter]] = LIMITERS,
    *,
    seeds: Sequence[int] | None = None,
) -> list[Row]:
    """Every limiter in every scenario. The same to the last digit, wherever it is run.

    Args:
        scenarios: What the endpoint does.
        limiters: Name -> what makes a new one.
        seeds: Each scenario is drawn once from each; None takes its own.

    Example:
        rows = judged(JUDGING[:3], {"adaptive": Adaptive})
    """
    rows = []
    for scenario in scenarios:
        limit = None
        for seed in seeds or [scenario.seed]:
            drawn = msgspec.structs.replace(scenario, seed=seed)
            limit, best = best_static(drawn, near=limit)
            rows += [
                _row(name, run(limiter(), drawn), drawn, limit, best)
                for name, limiter in limiters.items()
            ]
    return rows


def _row(name: str, outcome: Outcome, scenario: Scenario, limit: int, best: Outcome) -> Row:
    return Row(
        scenario=scenario.name,
        limiter=name,
        goodput=round(outcome.goodput, 3),
        p95_s=round(outcome.p95_s, 3),
        of_best_goodput=round(outcome.goodput / best.goodput, 3),
        of_best_p95=round(outcome.p95_s / best.p95_s, 3),
        requests_per_answer=round(outcome.requests / max(outcome.answered, 1), 3),
        best_limit=limit,
        seed=scenario.seed,
    )


def best_static(scenario: Scenario, *, near: int | None = None) -> tuple[int, Outcome]:
    """The static limit with the best goodput; of those as good within 2%, the one with least p95.

    A sweep in steps of a third, until three of them brought nothing, and in the neighbourhood of
    what that finds in steps of a sixteenth.

    Args:
        near: The best one of the same scenario with another seed; then that is tried, and one step
            to either side of it.
    """
    if near is not None:
        tried = {near * 15 // 16, near, math.ceil(near / 16 * 17)}
        found = _sweep(scenario, {limit for limit in tried if 1 <= limit <= scenario.agents})
    else:
        found = _climb(scenario)
        limit = _best(found)
        least, most = math.ceil(limit / 4 * 3), min(scenario.agents, limit * 4 // 3)
        found |= _sweep(scenario, set(_steps(least, most, 17 / 16)) - set(found))
    limit = _best(found)
    return limit, found[limit]


def _climb(scenario: Scenario) -> dict[int, Outcome]:
    found: dict[int, Outcome] = {}
    most, in_vain = 0.0, 0
    for limit in _steps(1, scenario.agents, 4 / 3):
        found[limit] = run(Fixed(limit), scenario)
        in_vain = 0 if found[limit].goodput > _NO_MORE * most else in_vain + 1
        most = max(most, found[limit].goodput)
        if in_vain == 3:
            break
    return found


def _steps(least: int, most: int, factor: float) -> list[int]:
    steps, limit = [], least
    while limit < most:
        steps.append(limit)
        limit = max(limit + 1, round(limit * factor))
    return [*steps, most]


def _sweep(scenario: Scenario, limits: Iterable[int]) -> dict[int, Outcome]:
    return {limit: run(Fixed(limit), scenario) for limit in sorted(limits)}


def _best(found: Mapping[int, Outcome]) -> int:
    most = max(outcome.goodput for outcome in found.values())
    good = [limit for limit, outcome in found.items() if outcome.goodput >= _AS_GOOD * most]
    return min(good, key=lambda limit: (found[limit].p95_s, limit))


def run(limiter: Limiter, scenario: Scenario) -> Outcome:
    """What comes of a scenario if `limiter` says how many are in flight.

    Example:
        >>> from agentlab.tuning.scenarios import Scenario
        >>> ten_s = Scenario(name="", preset="course", agents=9, run_s=100, tokens=(91, 91))
        >>> run(Fixed(3), ten_s).goodput
        0.3
    """
    return _Run(limiter, scenario).outcome()


@dataclass(eq=False, slots=True)
class _Agent:
    tokens: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class _Call:
    agent: _Agent
    number: int
    in_flight: int


class _Run:
    def __init__(self, limiter: Limiter, scenario: Scenario):
        preset = presets.load(scenario.preset)
        self._limiter, self._scenario, self._physics = limiter, scenario, scenario.physics
        self._batch = Batch(self._physics)
        self._rate_limits = Limits(scenario.rate_limit, None)
        self._faults = FaultPlan(preset.faults, scenario.seed)
        self._retry = Retry(attempts=1_000_000)
        self._draw = Random(scenario.seed)
        self._waiting = deque(_Agent() for _ in range(scenario.agents))
        self._calls: dict[Job, _Call] = {}
        self._later: list[tuple[float, int, _Agent | None]] = []  # None: a seat has rested
        self._tie = itertools.count()
        self._in_flight = self._resting = self._requests = 0
        self._took_s: list[float] = []
        self._limits = [(0.0, limiter.limit)]

    def outcome(self) -> Outcome:
        run_s, batch, later = self._scenario.run_s, self._batch, self._later
        self._seat(0.0)
        while True:
            now_s = min(batch.next_event_s(), later[0][0] if later else math.inf)
            if now_s > run_s:
                break
            for job in batch.advance(now_s):
                if job.end_s is not None:
                    self._answered(job, job.end_s)
                    self._seat(now_s)  # before the next one leaves, as in `Slots`
            while later and later[0][0] <= now_s:
                self._back(heapq.heappop(later)[2])
            self._seat(now_s)
        took_s = sorted(self._took_s)
        p95_s = took_s[max(0, -(-len(took_s) * 95 // 100) - 1)] if took_s else math.inf
        return Outcome(len(took_s) / run_s, p95_s, len(took_s), self._requests, self._limits)

    def _seat(self, now_s: float) -> None:
        while self._waiting and self._in_flight + self._resting < self._limiter.limit:
            agent = self._waiting.popleft()
            self._in_flight += 1
            agent.attempt += 1
            if agent.attempt == 1:
                agent.tokens = self._draw.randint(*self._scenario.tokens)
            call = _Call(agent, self._requests, self._in_flight)
            self._requests += 1
            try:
                self._send(call, now_s)
            except RequestError as error:
                self._refused(call, error, now_s)

    def _send(self, call: _Call, now_s: float) -> None:
        self._rate_limits.admit(_PROMPT_TOKENS, now_s, "")
        key = call.number.to_bytes(8)
        fault = self._faults.next(key, 0, call.agent.attempt, "", at_s=now_s)
        if fault is not None:
            raise fault.error
        job = Job(_PROMPT_TOKENS, call.agent.tokens)
        if self._physics.jitter_sigma:
            job.prefill_jitter = self._physics.jitter(self._draw)
            job.decode_jitter = self._physics.jitter(self._draw)
        try:
            self._batch.submit(job, now_s)
        except QueueFull:
            wait_s = max(self._batch.next_event_s() - now_s, 0.001)
            raise RequestError(503, "", retry_after_s=wait_s) from None
        self._calls[job] = call

    def _answered(self, job: Job, now_s: float) -> None:
        call = self._calls.pop(job)
        took_s = now_s - job.arrived_s
        self._took_s.append(took_s)
        self._learn(Sample(call.number, now_s, took_s, call.in_flight))
        self._in_flight -= 1
        call.agent.attempt = 0
        self._waiting.append(call.agent)

    def _refused(self, call: _Call, error: RequestError, now_s: float) -> None:
        seen = ModelError(
            str(error),
            status=error.status,
            code=None,
            request_id=None,
            retry_after_s=error.retry_after_s,
        )
        verdict = judge(seen)
        if verdict.overload:
            self._learn(Sample(call.number, now_s, 0.0, call.in_flight, refused=True))
            if verdict.wait_s:
                self._resting += 1
                self._at(now_s + verdict.wait_s, None)
        self._in_flight -= 1
        self._at(now_s + self._back_off_s(seen, call.agent.attempt), call.agent)

    def _back_off_s(self, error: ModelError, attempt: int) -> float:
        state = RetryCallState(AsyncRetrying(), None, (), {})
        state.attempt_number = attempt
        state.set_exception((type(error), error, None))
        return self._retry.wait_s(state)

    def _back(self, agent: _Agent | None) -> None:
        if agent is None:
            self._resting -= 1
        else:
            self._waiting.append(agent)

    def _at(self, when_s: float, agent: _Agent | None) -> None:
        heapq.heappush(self._later, (when_s, next(self._tie), agent))

    def _learn(self, sample: Sample) -> None:
        before, after = self._limiter.limit, self._limiter.update(sample)
        if after != before:
            self._limits.append((sample.ended_s, after))
