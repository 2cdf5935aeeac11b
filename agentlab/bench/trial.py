"""Limiters in scenarios to tune and to judge them: real slots and retries, and no HTTP."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import NamedTuple

import msgspec

from agentlab import lab
from agentlab._support import DATA
from agentlab.bench.summary import percentile
from agentlab.clock import run_virtual
from agentlab.endpoint import presets
from agentlab.endpoint.contract.openai_json import RequestError
from agentlab.endpoint.middleware.fault_plan import FaultPlan
from agentlab.endpoint.middleware.rate_limits import Limits
from agentlab.endpoint.physics.batch import Job
from agentlab.endpoint.physics.formulas import Physics
from agentlab.endpoint.physics.live import LiveBatch
from agentlab.endpoint.server.app import limits_of
from agentlab.errors import ModelError
from agentlab.resilience import Retry
from agentlab.resilience.limiters import Limiter, Sample, Slots
from agentlab.settings import Capacity

LEAST_GOODPUT, MOST_P95 = 0.90, 1.3  # what passes, as a share of the best static limit's
_PROMPT_TOKENS = 16
_HAIR_S = 1e-9  # so that what ends together with the run counts


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
        return msgspec.structs.replace(presets.load(self.preset).physics, capacity=self.capacity)


TUNING, JUDGING = (
    msgspec.yaml.decode((DATA / "scenarios" / name).read_bytes(), type=list[Scenario])
    for name in ("tuning.yaml", "judging.yaml")
)


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

    async def main() -> Outcome:
        endpoint, slots, retry = _Endpoint(scenario), Slots(limiter), Retry(attempts=1_000_000)
        took_s, limits = list[float](), [(0.0, limiter.limit)]

        async def attempt(call: _Call) -> None:
            try:
                async with slots.taken() as slot:
                    await endpoint.answer(call)
                    slot.tokens = float(call.output_tokens)
                took_s.append(lab.now_s() - slot.sent_s)
            finally:
                if limiter.limit != limits[-1][1]:
                    limits.append((lab.now_s(), limiter.limit))

        async def agent() -> None:
            while True:
                await retry(partial(attempt, _Call()))

        agents = asyncio.gather(*(agent() for _ in range(scenario.agents)))
        run_s = scenario.run_s
        with suppress(TimeoutError):
            await asyncio.wait_for(agents, run_s + _HAIR_S)
        many, p95_s = len(took_s), percentile(took_s, 95) if took_s else math.inf
        return Outcome(many / run_s, p95_s, many, endpoint.requests, limits)

    return run_virtual(main()).result


@dataclass
class _Call:
    """What an agent asks until it has the answer."""

    attempt: int = 0
    output_tokens: int = 0  # drawn when it is first sent


class _Endpoint:
    """The local model's limits, faults and physics, for calls that have no words."""

    def __init__(self, scenario: Scenario):
        preset, self._physics = presets.load(scenario.preset), scenario.physics
        self._scenario, self._live = scenario, LiveBatch(self._physics)
        self._rate_limits = Limits(*limits_of(preset, scenario.requests_per_minute, 0))
        self._faults = FaultPlan(preset.faults, scenario.seed)
        self._draw = Random(scenario.seed)
        self.requests = 0

    async def answer(self, call: _Call) -> None:
        """Return when the answer is there; a refusal is a ModelError, as `lab.ask` raises it."""
        number, now_s, draw = self.requests, self._live.now_s(), self._draw
        self.requests += 1
        call.attempt += 1
        if call.attempt == 1:
            call.output_tokens = draw.randint(*self._scenario.tokens)
            if self._scenario.long_share and draw.random() < self._scenario.long_share:
                call.output_tokens *= 10
        try:
            self._rate_limits.admit(_PROMPT_TOKENS, now_s, "")
            fault = self._faults.next(number.to_bytes(8), 0, call.attempt, "", at_s=now_s)
            if fault is not None:
                raise fault.error
        except RequestError as error:
            told = {"status": error.status, "retry_after_s": error.retry_after_s}
            raise ModelError(str(error), **told) from None
        jitters = self._physics.jitter(draw), self._physics.jitter(draw)
        job = Job(_PROMPT_TOKENS, call.output_tokens, *jitters)
        self._live.submit(job)
        await self._live.finished(job)
