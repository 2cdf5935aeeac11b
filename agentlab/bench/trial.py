"""Limiters in scenarios to tune and to judge them, without a client."""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import msgspec

from agentlab.bench.closed_loop import serve
from agentlab.bench.summary import percentile
from agentlab.endpoint import presets
from agentlab.endpoint.contract.openai_json import RequestError
from agentlab.endpoint.middleware.fault_plan import FaultPlan
from agentlab.endpoint.middleware.rate_limits import Limits
from agentlab.endpoint.physics.batch import Job
from agentlab.endpoint.physics.formulas import Physics
from agentlab.endpoint.server.app import limits_of
from agentlab.errors import ModelError
from agentlab.resilience import Retry, classify
from agentlab.resilience.limiters import Limiter, Sample
from agentlab.settings import DATA, Capacity

LEAST_GOODPUT, MOST_P95 = 0.90, 1.3  # what passes, as a share of the best static limit's
_PROMPT_TOKENS = 16


class Fixed(NamedTuple):
    """So many calls in flight, whatever happens."""

    limit: int

    def update(self, sample: Sample) -> int:
        return self.limit


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A closed loop: agents that ask one question after the other, more than can be served.

    Attributes:
        capacity: How many slots there are, and from when, instead of the preset's.
        requests_per_minute: The rate limit; None takes the preset's, 0 lifts it.
        tokens: The shortest and the longest answer; all lengths between are equally likely.
        long_share: The share of answers that are ten times as long, as those that reason are.
    """

    name: str
    preset: str
    agents: int
    run_s: float
    capacity: tuple[Capacity, ...] = ()
    requests_per_minute: int | None = None
    tokens: tuple[int, int] = (60, 140)
    long_share: float = 0.0
    seed: int = 1

    @property
    def physics(self) -> Physics:
        """The preset's, with these slots."""
        physics = presets.load(self.preset).physics
        return msgspec.structs.replace(physics, capacity=self.capacity)


def _scenarios(name: str) -> list[Scenario]:
    file = DATA / "scenarios" / f"{name}.yaml"
    return msgspec.yaml.decode(file.read_bytes(), type=list[Scenario])


TUNING, JUDGING = _scenarios("tuning"), _scenarios("judging")


class Row(msgspec.Struct, frozen=True):
    """A limiter in a scenario, as a line of a table; goodput is answers a second."""

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
        """True if it is nearly as good as the best static limit."""
        return self.of_best_goodput >= LEAST_GOODPUT and self.of_best_p95 <= MOST_P95


class Outcome(msgspec.Struct, frozen=True):
    """What came of a limiter in a scenario.

    `goodput` is answers per second, and 95% of them took `p95_s` at most, from having a slot to the
    last token. `requests` counts refused ones, too; `limits` are when it changed, and to what.
    """

    goodput: float
    p95_s: float
    answered: int
    requests: int
    limits: Sequence[tuple[float, int]]


def run(limiter: Limiter, scenario: Scenario) -> Outcome:
    """Run a scenario in which `limiter` says how many requests are in flight.

    Example:
        >>> ten_s = Scenario(name="", preset="course", agents=9, run_s=100, tokens=(91, 91))
        >>> run(Fixed(3), ten_s).goodput
        0.3
    """
    agents, run_s = _Agents(limiter, scenario), scenario.run_s
    serve(agents, scenario.physics, until_s=run_s)
    took_s = agents.took_s
    p95_s = percentile(took_s, 95) if took_s else math.inf
    return Outcome(len(took_s) / run_s, p95_s, len(took_s), agents.requests, agents.limits)


@dataclass(eq=False, slots=True)
class _Call(Job):
    """What an agent asks; `number` and `in_flight` are those of its latest attempt's sample."""

    prompt_tokens: int = _PROMPT_TOKENS
    output_tokens: int = 0  # drawn when it is first sent
    attempt: int = 0
    number: int = 0
    in_flight: int = 0


class _Agents:
    """They do what `Slots` and `Retry` do before a client's calls."""

    def __init__(self, limiter: Limiter, scenario: Scenario):
        self._limiter, self._scenario, self._physics = limiter, scenario, scenario.physics
        preset = presets.load(scenario.preset)
        self._rate_limits = Limits(*limits_of(preset, scenario.requests_per_minute, 0))
        self._faults = FaultPlan(preset.faults, scenario.seed)
        self._retry = Retry(attempts=1_000_000)
        self._draw = Random(scenario.seed)
        self._waiting = deque(_Call() for _ in range(scenario.agents))
        self._ended: deque[Sample] = deque()
        self._later: list[tuple[float, int, _Call | None]] = []  # None: a slot has rested
        self._tie = itertools.count()
        self._in_flight = self._resting = self.requests = 0
        self.wakes_s = math.inf
        self.took_s: list[float] = []
        self.limits = [(0.0, limiter.limit)]

    def next_request(self, now_s: float) -> Job | None:
        while True:
            while self._waiting and self._in_flight + self._resting < self._limiter.limit:
                if call := self._sent(self._waiting.popleft(), now_s):
                    return call
            if self._ended:  # the next one leaves only now, as in `Slots`
                answer = self._ended.popleft()
                self.took_s.append(answer.took_s)
                self._learn(answer)
                self._in_flight -= 1
                self._waiting.append(_Call())
            elif self.wakes_s <= now_s:
                while self._later and self._later[0][0] <= now_s:
                    back = heapq.heappop(self._later)[2]
                    if back is None:
                        self._resting -= 1
                    else:
                        self._waiting.append(back)
                self.wakes_s = self._later[0][0] if self._later else math.inf
            else:
                return None

    def answered(self, call: _Call, now_s: float) -> None:
        self._ended.append(Sample(call.number, now_s, now_s - call.arrived_s, call.in_flight))

    def _sent(self, call: _Call, now_s: float) -> _Call | None:
        self._in_flight += 1
        call.attempt += 1
        if call.attempt == 1:
            call.output_tokens = self._draw.randint(*self._scenario.tokens)
            if self._scenario.long_share and self._draw.random() < self._scenario.long_share:
                call.output_tokens *= 10
        call.number, call.in_flight = self.requests, self._in_flight
        self.requests += 1
        try:
            self._rate_limits.admit(_PROMPT_TOKENS, now_s, "")
            fault = self._faults.next(call.number.to_bytes(8), 0, call.attempt, "", at_s=now_s)
            if fault is not None:
                raise fault.error
        except RequestError as error:
            self._refused(call, error, now_s)
            return None
        if self._physics.jitter_sigma:
            call.prefill_jitter = self._physics.jitter(self._draw)
            call.decode_jitter = self._physics.jitter(self._draw)
        return call

    def _refused(self, call: _Call, error: RequestError, now_s: float) -> None:
        told = {"status": error.status, "retry_after_s": error.retry_after_s}
        verdict = classify(ModelError(str(error), **told))
        if verdict.overload:
            self._learn(Sample(call.number, now_s, 0.0, call.in_flight, refused=True))
            if verdict.wait_s:
                self._resting += 1
                self._at(now_s + verdict.wait_s, None)
        self._in_flight -= 1
        self._at(now_s + self._retry.wait_s(call.attempt, verdict.wait_s), call)

    def _at(self, when_s: float, call: _Call | None) -> None:
        heapq.heappush(self._later, (when_s, next(self._tie), call))
        self.wakes_s = self._later[0][0]

    def _learn(self, sample: Sample) -> None:
        before, after = self._limiter.limit, self._limiter.update(sample)
        if after != before:
            self.limits.append((sample.ended_s, after))
