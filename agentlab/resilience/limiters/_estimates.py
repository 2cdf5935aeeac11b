"""What calls that ended tell about an endpoint, and what follows from it; nothing here acts.

By Little's law throughput is calls in flight / seconds. So if answers take longer by as much as
there are more calls, more calls bring nothing.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from agentlab.resilience.limiters._slots import Sample

# --- What it is tuned by. "Answers per slot" are answers, divided by the limit.

WORTH_IT = 0.22  # more calls must bring this share of what they would on an endpoint without limits
CLEARLY = 0.6  # while they bring more than this, the limit doubles
STEP = 1.12  # from one limit that is tried to the next
FEWEST = 4  # answers, before anything is concluded
ROUNDS = 6  # answers per slot, after which a trial ends
SURE = 1.5  # standard errors, before a trial ends early
LONGER = 0.25  # answers that take longer by this share suffer
_P95 = 1.645  # standard deviations from the median to the 95th percentile
_GUESSED_VARIANCE = 0.09  # of the logarithm, until there are answers to tell: a third, up or down
_MEMORY = 8  # answers per slot that are remembered
_REMEMBERED = 128  # and no fewer than this: with 32 for 4 slots it could not tell 4 from 3 or 5


@dataclass
class Level:
    """What answers took at one limit: mean and variance of the logarithm of their seconds.

    The logarithm, because proportions count. Old answers fade out.
    """

    limit: int
    log_limit: float = 0.0  # of joined levels, the mean
    count: int = 0  # answers from which it is known
    mean: float = 0.0
    _squares: float = _GUESSED_VARIANCE

    def __post_init__(self) -> None:
        self.log_limit = self.log_limit or math.log(self.limit)

    @property
    def variance(self) -> float:
        """Of the logarithm; one answer's worth of it is guessed."""
        return self._squares / max(self.count, 1)

    def add(self, took_s: float) -> None:
        most = max(_MEMORY * self.limit, _REMEMBERED)
        if self.count < most:
            self.count += 1
        else:
            self._squares *= 1 - 1 / most
        off = log_s(took_s) - self.mean
        self.mean += off / self.count
        self._squares += off * (log_s(took_s) - self.mean)

    def fade(self) -> None:
        """Forget half of what is known, because it was a while ago."""
        self._squares -= (self._squares - _GUESSED_VARIANCE) / 2
        self.count //= 2

    def joined(self, other: Level) -> Level:
        """Return both as one level, between them."""
        count = self.count + other.count
        share, off = other.count / count, other.mean - self.mean
        log_limit = self.log_limit + (other.log_limit - self.log_limit) * share
        squares = self._squares + other._squares + off * off * share * self.count
        mean = self.mean + off * share
        return Level(other.limit, log_limit, count, mean, squares - _GUESSED_VARIANCE)


def worth(few: Level, many: Level, plus: float = 0) -> float:
    """Return what more calls bring, and on top `plus` times its standard error.

    It is the elasticity of throughput: 1 if that grows as the calls do, 0 if it stays.
    """
    wider = many.log_limit - few.log_limit
    variance = max(few.variance, many.variance)
    error = math.sqrt(variance / max(few.count, 1) + variance / max(many.count, 1))
    return 1 - (many.mean - few.mean) / wider + plus * (error / wider)


def is_better(base: Level, trial: Level, *, last: bool) -> bool | None:
    """Return whether the trial's limit is the better one; None if that is not clear yet.

    More and fewer calls are treated alike: else one slot too many would stay.
    """
    sure = 0 if last else SURE
    if trial.limit > base.limit:
        better = worth(base, trial, plus=-sure) > WORTH_IT
        worse = worth(base, trial, plus=SURE) < WORTH_IT
    else:
        better = worth(trial, base, plus=sure) < WORTH_IT
        worse = worth(trial, base, plus=-SURE) > WORTH_IT
    return True if better else False if last or worse else None


def longer(base: Level, latest: Collection[float]) -> float:
    """Return by which logarithm the `latest` answers take longer than usual; 0 if not clearly."""
    off = sum(latest) / len(latest) - base.mean
    return 0.0 if abs(off) < max(LONGER, 4 * math.sqrt(base.variance / len(latest))) else off


def harms(base: Level, limit: int) -> bool:
    """Return whether trying so many calls for nothing would show in the p95."""
    p95 = math.exp(_P95 * math.sqrt(base.variance))  # in medians
    return limit / base.limit - 1 > LONGER * p95


def step(base: Level, boost: float) -> float:
    """Return the factor to the next limit, such that a few rounds can tell the difference."""
    error = math.sqrt(base.variance * 2 / (ROUNDS * base.limit))
    factor = max(STEP, min(1.25, math.exp(error / 0.15)), math.exp(error / 0.35))
    return min(2.0, math.pow(factor, boost))


class InOrder:
    """Gives answers in the order of their asking, so that the quick ones do not count first.

    One that is out for too long counts as having taken so long.
    """

    def __init__(self) -> None:
        self._next = 0
        self._early: list[tuple[int, Sample]] = []

    def take(self, sample: Sample, patience_s: float) -> Iterator[Sample]:
        """Take one in, and yield all that are due."""
        if sample.number >= self._next:
            heapq.heappush(self._early, (sample.number, sample))
        while self._early:
            number, first = self._early[0]
            age_s = sample.ended_s - first.sent_s
            if number > self._next and age_s <= patience_s:
                return
            for missing in range(self._next, number):
                yield Sample(missing, sample.ended_s, age_s, first.in_flight)
            self._next = number + 1
            heapq.heappop(self._early)
            yield first


class Served:
    """How many calls were served recently, by Little's law: seconds of answers per second."""

    def __init__(self) -> None:
        self._answers: deque[Sample] = deque()
        self._since_s = math.inf  # all that ended later are here

    def add(self, sample: Sample, keep_s: float) -> None:
        """Add an answer, and forget those that ended more than `keep_s` before."""
        forgotten_s = sample.ended_s - keep_s
        since_s = sample.sent_s if self._since_s == math.inf else self._since_s
        self._since_s = max(since_s, forgotten_s)
        while self._answers and self._answers[0].ended_s < forgotten_s:
            self._answers.popleft()
        if sample.took_s > 0:  # else it was never in flight, and any number may come in one instant
            self._answers.append(sample)

    def covers(self, now_s: float, window_s: float) -> bool:
        """Return whether it has watched for so long, and so knows those that were on their way."""
        return now_s - self._since_s >= window_s

    def in_flight(self, now_s: float, window_s: float) -> float:
        """Return the average over the last `window_s`, or what is remembered."""
        window_s = min(window_s, now_s - self._since_s)
        if window_s <= 0:
            return 0.0
        return sum(a.took_s for a in self._answers if a.ended_s >= now_s - window_s) / window_s


def log_s(took_s: float) -> float:
    """Return the logarithm of a call's seconds."""
    return math.log(max(took_s, 1e-9))  # which stands for none at all
