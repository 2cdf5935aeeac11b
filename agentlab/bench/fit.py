"""Fit a preset to an endpoint's own measurements: of single requests, or a table of closed loops.

How long a decode took, and who was served meanwhile, is a linear equation for the constants of
`Physics`; the first token of a request that was alone is one more. Least squares solve them. How
prompts are read, how much a step reads, who is served, and how fast tokens are handed on is
whichever of a few candidates predicts best.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import compress, pairwise
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace

from agentlab.bench.closed_loop import serve
from agentlab.bench.laws import Floats, least_squares
from agentlab.endpoint.physics.batch import Batch, Job
from agentlab.endpoint.physics.formulas import Physics
from agentlab.errors import ConfigError
from agentlab.trace import Trace, max_overlap

_STEP_TOKENS = (128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
_MOST = 3000  # requests: each is compared with all that were served beside it
_LOOSE = 0.25  # a constant is open if it could change a request's whole time by more
_WAITS = 0.15  # clients wait if their first token takes more than this part of their decode
_SOON = 0.1  # what is sent within so much of its own time after an answer was sent because of it
_BETTER = 0.97  # one more limit has to predict so much better

_KNOWN = msgspec.yaml.decode(Path(__file__).with_suffix(".yaml").read_bytes())
_MISSING: dict[str, str] = _KNOWN["missing"]


class NotDetermined(ConfigError):
    """The measurements leave a constant open; the message says what to measure next."""


class Errors(NamedTuple):
    """How far predictions lie from measurements, as parts of these: the median, and the most."""

    ttft: tuple[float, float]
    itl: tuple[float, float]
    tokens_per_s: tuple[float, float]


class Times(NamedTuple):
    """What clients see, on the average: time to first token, inter-token latency, throughput."""

    ttft_s: float
    itl_s: float
    tokens_per_s: float


Amount = Annotated[float, msgspec.Meta(gt=0, le=1e12)]
Moment = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]  # which no NaN is, and no infinity
Tokens = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
Pair = tuple[Times, Times]
"""What is predicted, and what was measured."""
Equation = tuple[float, ...]
"""A time, the whole request's, how often each constant of fit.yaml counts, and a weight."""


class Row(msgspec.Struct, frozen=True, rename={"output_tokens": "answer_tokens"}):
    """One row of a published table: `at_once` clients ask again whenever they are answered."""

    prompt_tokens: Tokens
    output_tokens: Tokens
    at_once: Tokens
    ttft_ms: Amount
    itl_ms: Amount
    tokens_per_s: Amount

    @property
    def shape(self) -> tuple[int, int]:
        return self.prompt_tokens, self.output_tokens

    @property
    def times(self) -> Times:
        return Times(self.ttft_ms / 1000, self.itl_ms / 1000, self.tokens_per_s)

    @property
    def decoding(self) -> float:
        """How many answers are decoded at the same time, by Little's law."""
        return self.tokens_per_s * self.times.itl_s


class Table(list[Row]):
    """Closed loops that lasted, as load generators and vendors publish them."""

    def equations(self, number: int) -> Iterator[Equation]:
        """Yield what one row says of the constants."""
        row, held = self[number], self[number].prompt_tokens + self[number].output_tokens / 2
        steps, together = row.output_tokens, row.output_tokens * row.decoding
        took_s, of_s = steps * row.times.itl_s, row.times.ttft_s + steps * row.times.itl_s
        # While one answer is decoded, each of the others is read once.
        read = row.decoding * row.prompt_tokens if row.at_once > 1 else 0.0
        yield took_s, of_s, 0.0, 0.0, steps, together, together * held, read, 1.0
        if row.at_once == 1:
            yield row.times.ttft_s, of_s, 1, 1, 1, 1, row.prompt_tokens, row.prompt_tokens, 1.0

    def limits(self, numbers: Sequence[int]) -> tuple[int | None, int | None]:
        """Return the slots and the tokens of context at which clients began to wait, if any."""
        waiting = [
            (row.decoding, row.decoding * (row.prompt_tokens + row.output_tokens))
            for row in (self[number] for number in numbers)
            if row.ttft_ms > _WAITS * row.itl_ms * row.output_tokens
        ]
        most = max((held for _, held in waiting), default=0.0)
        few = max((decoding for decoding, held in waiting if held < 0.9 * most), default=0.0)
        return round(few) or None, round(most) or None

    def pairs(self, physics: Physics, numbers: Sequence[int]) -> list[Pair]:
        found = []
        for row in (self[number] for number in numbers):
            jobs = closed_loop(physics, row, requests=4 * row.at_once)
            jobs = jobs[row.at_once : -row.at_once]  # neither as it fills, nor as it empties
            ttft_s, itl_s = _means(jobs)
            rate = row.at_once * row.output_tokens / (ttft_s + itl_s * row.output_tokens)
            found.append((Times(ttft_s, itl_s, rate), row.times))
        return found


class Request(
    msgspec.Struct, frozen=True, order=True, rename={"output_tokens": "completion_tokens"}
):
    """One request, in seconds of one clock; of its prompt, `cached_tokens` were not read."""

    arrived_s: Moment
    first_token_s: Moment
    end_s: Moment
    prompt_tokens: Tokens
    output_tokens: Tokens
    cached_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        if not self.arrived_s < self.first_token_s <= self.end_s:
            raise ValueError("needs arrived_s < first_token_s <= end_s")
        if self.cached_tokens > self.prompt_tokens:
            raise ValueError("needs cached_tokens <= prompt_tokens")


class Requests(list[Request]):
    """All requests that were served, in the order of their arrival."""

    def __init__(self, requests: Iterable[Request]):
        super().__init__(sorted(requests))
        if len(self) > _MOST:
            raise ConfigError(f"{len(self):,} requests are too many; give at most {_MOST:,}")
        busy_until_s = np.maximum.accumulate([-math.inf, *(one.end_s for one in self)])
        starts = np.flatnonzero([one.arrived_s for one in self] >= busy_until_s[:-1])
        runs = [range(*each) for each in pairwise([*starts.tolist(), len(self)])]
        # Of each, those of the stretch of time in which the endpoint was busy.
        self._runs = [run for run in runs for _ in run]

    @classmethod
    def of_trace(cls, trace: Trace) -> Requests:
        """Take those that were answered in a stream, or may be, with two tokens or more."""
        spans = [s for s in trace.spans if s.completion_tokens > 1 and (s.ok or s.status is None)]
        streamed = [
            msgspec.convert(s, Request, from_attributes=True)
            for s in spans
            if s.first_token_s and s.end_s and s.arrived_s < s.first_token_s <= s.end_s
            if s.cached_tokens <= s.prompt_tokens > 0
        ]
        if spans and not streamed:
            raise NotDetermined("nobody saw a first token; stream the answers")
        return cls(streamed)

    def equations(self, number: int) -> Iterator[Equation]:
        one = self[number]
        steps, takes_s = one.output_tokens - 1, one.end_s - one.first_token_s
        run = self._runs[number]
        beside = self[run.start : run.stop]
        if steps > 0 and takes_s > 0:
            sequences = held = 0.0
            for other in beside:
                from_s = max(one.first_token_s, other.first_token_s)
                share = (min(one.end_s, other.end_s) - from_s) / takes_s
                if share > 0:
                    made_s = from_s + share * takes_s / 2 - other.first_token_s
                    made = other.output_tokens * made_s / (other.end_s - other.first_token_s)
                    sequences += share
                    held += share * (other.prompt_tokens + made)
            # Whose first words come within half a step of each other were read together.
            half_s = takes_s / steps / 2
            after = [r for r in beside if half_s < r.first_token_s - one.first_token_s < takes_s]
            first_s = sorted(r.first_token_s for r in (one, *after))
            readings = sum(later - at > half_s for at, later in pairwise(first_s))
            read = sum(r.prompt_tokens - r.cached_tokens for r in after)
            counts = 0.0, readings, steps, steps * sequences, steps * held, read
            yield takes_s, one.end_s - one.arrived_s, *counts, 1 / len(beside)
        those = [r for r in beside if r.arrived_s < one.first_token_s and r.end_s > one.arrived_s]
        if those == [one]:
            waited_s, of_s = one.first_token_s - one.arrived_s, one.end_s - one.arrived_s
            tokens = one.prompt_tokens, one.prompt_tokens - one.cached_tokens
            yield waited_s, of_s, 1.0, 1.0, 1.0, 1.0, *tokens, 1 / len(beside)

    def limits(self, numbers: Sequence[int]) -> tuple[int | None, int | None]:
        found = [(0, 0.0)]
        for run in {self._runs[number] for number in numbers}:
            those = self[run.start : run.stop]
            ends = np.array([one.end_s for one in those])
            begins = np.array([(one.first_token_s, one.arrived_s) for one in those]).T
            # A short overlap may be the client's or the network's.
            begins += 2 * _SOON * (ends - begins)
            served, sent = (max_overlap(zip(each, ends, strict=True)) for each in begins)
            if served < sent:
                each = fmean(one.prompt_tokens + one.output_tokens for one in those)
                found.append((served, served * each))
        slots, held = zip(*found, strict=True)
        return max(slots) or None, round(max(held)) or None

    def pairs(self, physics: Physics, numbers: Sequence[int]) -> list[Pair]:
        """Return the means of each stretch of time in which the endpoint was busy."""
        found = []
        for run in dict.fromkeys(self._runs[number] for number in sorted(numbers)):
            those, of = self[run.start : run.stop], [n - run.start for n in numbers if n in run]
            found.append((_of_stretch(replayed(physics, those), of), _of_stretch(those, of)))
        return found


Measured = Table | Requests  # what a preset is fitted to: measurements, numbered from 0


def replayed(physics: Physics, requests: Sequence[Request]) -> list[Request]:
    """Return requests of one stretch as the physics serve them.

    One that was sent right after an answer had ended was sent because of it, and is so again; all
    others are sent when they were, on a clock that shows 0 at the first.
    """
    jobs = [Job(r.prompt_tokens, r.output_tokens, cached_tokens=r.cached_tokens) for r in requests]
    follows: dict[Job, tuple[int, float]] = {}  # what came because of an answer, how long after it
    ends = sorted(((one.end_s, number) for number, one in enumerate(requests)), reverse=True)
    ended: list[int] = []  # without a request that followed, the latest last
    for number, one in enumerate(requests):
        while ends and ends[-1][0] <= one.arrived_s:
            ended.append(ends.pop()[1])
        if ended:
            thought_s = one.arrived_s - requests[ended[-1]].end_s
            if thought_s < _SOON * (one.end_s - one.arrived_s):
                follows[jobs[ended.pop()]] = number, thought_s
    caused = {number for number, _ in follows.values()}
    batch = Batch(physics)
    zero_s = requests[0].arrived_s if requests else 0.0
    sent = [(one.arrived_s - zero_s, n) for n, one in enumerate(requests) if n not in caused]
    heapq.heapify(sent)
    while True:
        event_s = batch.next_event_s()
        changed: list[Job] = []
        if sent and sent[0][0] <= event_s:
            # An engine takes in who has come between two steps, so a step's arrivals are together.
            until_s, together = sent[0][0] + physics.itl_s(), list[int]()
            while sent and sent[0][0] <= until_s:
                now_s, number = heapq.heappop(sent)
                together.append(number)
            for number in together:
                changed += batch.submit(jobs[number], now_s)
        elif event_s < math.inf:
            changed = batch.advance(event_s)
        else:
            return [_served(job) for job in jobs]
        for job in changed:
            if job.end_s is not None and job in follows:
                number, thought_s = follows.pop(job)
                heapq.heappush(sent, (job.end_s + thought_s, number))


def fit(measured: Measured, numbers: Sequence[int] | None = None) -> Physics:
    """Return the physics that predict `numbers`, by default all; NotDetermined if several would."""
    numbers = range(len(measured)) if numbers is None else numbers
    if not numbers:
        raise NotDetermined("nothing was measured to fit to; send two shapes, alone and together")
    slots, kv_tokens = measured.limits(numbers)
    best, *beside = _solved(measured, numbers, slots)
    cached = any(getattr(measured[number], "cached_tokens", 0) for number in numbers)
    physics = Physics(**best, prefix_caching=cached)
    few, full = {"slots": slots}, {"kv_tokens": kv_tokens}
    predicted = cache(lambda physics: measured.pairs(physics, numbers))  # one stays in each round
    most = max(was.tokens_per_s for _, was in predicted(physics))
    batched = [*({"batched_tokens": tokens} for tokens in _STEP_TOKENS), *beside]
    streamed = [{}, *({"streaming_per_token_s": 1 / most / more} for more in (1, 1.1, 1.2))]
    for candidates in ([{}, few, full, few | full], batched, streamed):
        # How far the times that this limit decides lie off, by their logarithms.
        of = (1, 2) if candidates is streamed else (0,)
        tried = [replace(physics, **candidate) for candidate in candidates]
        pairs = [predicted(each) for each in tried]
        missed = [fmean(abs(math.log(p[t] / was[t])) for p, was in ps for t in of) for ps in pairs]
        physics = next(
            each for each, far in zip(tried, missed, strict=True) if far * _BETTER <= min(missed)
        )
    return physics


def errors(pairs: Sequence[Pair]) -> Errors:
    """Return how far what is predicted lies from what was measured."""
    predicted, measured = (np.array(each) for each in zip(*pairs, strict=True))
    far = np.abs(predicted / measured - 1)
    return Errors(*zip(np.median(far, 0).tolist(), far.max(0).tolist(), strict=True))


def closed_loop(physics: Physics, row: Row, *, requests: int) -> list[Request]:
    """Return the requests of as many clients as the row has, each with one in flight."""
    jobs = (Job(row.prompt_tokens, row.output_tokens) for _ in range(requests))
    return sorted(map(_served, serve(jobs, physics, clients=row.at_once)))


def _served(job: Job) -> Request:
    assert job.first_token_s is not None and job.end_s is not None
    tokens = job.prompt_tokens, job.output_tokens, job.cached_tokens
    return Request(job.arrived_s, job.first_token_s, job.end_s, *tokens)


def _means(requests: Sequence[Request]) -> tuple[float, float]:
    """Return the means of the time to first token and of the inter-token latency."""
    itl_s = ((r.end_s - r.first_token_s) / max(r.output_tokens - 1, 1) for r in requests)
    return fmean(r.first_token_s - r.arrived_s for r in requests), fmean(itl_s)


def _of_stretch(served: Sequence[Request], numbers: Sequence[int]) -> Times:
    """Return what the clients of these numbers saw, and the throughput of all."""
    took_s = max(one.end_s for one in served) - min(one.arrived_s for one in served)
    rate = sum(one.output_tokens for one in served) / took_s
    return Times(*_means([served[number] for number in numbers]), rate)


def _solved(measured: Measured, numbers: Sequence[int], slots: int | None) -> list[dict[str, Any]]:
    """Return the constants of the way that predicts best, and of prompts read side by side."""
    each = [(*e, at % 2) for at, n in enumerate(numbers) for e in measured.equations(n)]
    table = np.array(each).reshape(-1, 10)
    takes_s, weights, odd, first = table[:, :1], table[:, 8], table[:, 9], table[:, 2] > 0
    together = np.quantile([1.0, *table[:, 5] / table[:, 4]], 0.9)
    found, refused = list[tuple[Any, ...]](), list[str]()
    for counts in np.array(_KNOWN["ways"], dtype=bool):
        counts[:, 3] &= slots != 1 or together > 1 + _SOON  # with one slot, it is in `itl_base`
        parts = table[:, 2:8] * np.where(first[:, None], *counts) / takes_s
        best, loose = _least_absolute(parts, weights, parts * takes_s / table[:, 1:2])
        open_ones = compress(_MISSING.items(), loose & counts.any(0))
        refused.append("; ".join(f"{name[:-2]}_ms is open: {what}" for name, what in open_ones))
        if not refused[-1]:
            far = np.abs(parts @ _least_absolute(parts, weights * (1 - odd), parts)[0] - 1)
            given: dict[str, Any] = dict(zip(_MISSING, best.tolist(), strict=True))
            given["batched_tokens"] = 2048 if counts[1, -1] else None
            found.append((not counts[1, -1], round(far @ (weights * odd), 6), len(found), given))
    if not found:
        raise NotDetermined(refused[0])
    found.sort()
    return [given for aside, *_, given in found if aside or given is found[0][-1]]


def _least_absolute(parts: Floats, weights: Floats, shares: Floats) -> tuple[Floats, Any]:
    """Return the constants, none below 0, nearest to most equations, and which of them are open."""
    pull, used, best = np.sqrt(weights), parts.any(0), np.zeros(6)
    for _ in range(20):  # to the least absolute distances, which a few odd rows do not draw away
        best[used] = least_squares(parts[:, used] * pull[:, None], pull)
        far = parts @ best - 1
        pull = np.sqrt(weights / np.maximum(np.abs(far), 0.03))
    noise = max(float(far @ far) / max(len(parts) - 5, 1), 1e-4)
    largest = np.maximum(parts.max(0, initial=0), 1e-12)
    scaled = parts / largest
    uncertain = np.sqrt(noise * np.diag(np.linalg.inv(scaled.T @ scaled + 1e-12 * np.eye(6))))
    return best, uncertain * shares.max(0, initial=1e-12) / largest > _LOOSE
