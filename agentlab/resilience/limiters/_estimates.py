"""What calls that ended tell about an endpoint, and what follows from it; nothing here acts.

By Little's law throughput is calls in flight / seconds. So if answers take longer by as much as
there are more calls, more calls bring nothing.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterable
from operator import mul, sub
from typing import NamedTuple

from agentlab.resilience.limiters._slots import Sample

# --- What it is tuned by. "Answers per slot" are answers, divided by the limit.

WORTH_IT = 0.22  # more calls must bring this share of what they would on an endpoint without limits
CLEARLY = 0.6  # while they bring more than this, the limit doubles
STEP = 1.12  # from one limit that is tried to the next
FEWEST = 4  # answers, before anything is concluded
ROUNDS = 6  # answers per slot, after which a trial ends
ENOUGH = 24  # and no fewer answers than this; nor are fewer compared with those before
SURE = 1.5  # standard errors, before a trial of more ends early
FEWER_SURE = 2.5  # before one of fewer wins early: long answers that hold slots come in runs
FEWER_NOT = 1.0  # before one of fewer is given up: while it lasts it may cost throughput
LEAN = 0.3  # by which one of fewer must win in the end
LONGER = 0.25  # answers that take longer by this share suffer
_WIDTH = 1.5  # times the shortest range with half of the answers, either way, are usual
_NARROWEST = 0.3  # of the median, either way, is always usual
_GUESSED_VARIANCE = 0.09  # of one answer, until there are answers to tell: a third, up or down
_MEMORY = 8  # answers per slot that are remembered
_REMEMBERED = 128  # and no fewer than this: with 32 for 4 slots it could not tell 4 from 3 or 5


class Summary(NamedTuple):
    """What some answers took: `variance` is of one typical answer, as a share of the mean."""

    typical_s: float
    mean_s: float
    variance: float
    p95: float  # in medians


def summary(took_s: Iterable[float]) -> Summary:
    """Return what answers took, such that long ones among short ones disturb it little.

    If answers wait for a slot, all wait alike, and that shows in those which differ little. So
    what is far from most counts as the edge of most; what all wait is a share of the mean.
    """
    times = sorted(took_s)
    count = len(times)
    median, mean = times[count // 2], max(sum(times) / count, 1e-9)
    half = min(map(sub, times[count // 2 :], times))
    least, most = (median + way * max(_WIDTH * half, _NARROWEST * median) for way in (-1, 1))
    p95 = times[int(0.95 * count)] / max(median, 1e-9)
    usual = times[bisect.bisect(times, least) : bisect.bisect(times, most)]
    usual += [least] * bisect.bisect(times, least) + [most] * (count - bisect.bisect(times, most))
    typical = sum(usual) / count
    squares = max(0.0, sum(map(mul, usual, usual)) - count * typical**2)
    return Summary(typical, mean, (squares / mean**2 + _GUESSED_VARIANCE) / count, p95)


class Mean:
    """The mean of the latest values, the newest of which count most."""

    def __init__(self) -> None:
        self.value, self.count = 0.0, 0

    def add(self, value: float) -> None:
        self.count = min(self.count + 1, _REMEMBERED)
        self.value += (value - self.value) / self.count


class Lengths:
    """How much longer answers take, the longer they are: a line through the latest, by squares.

    What is due to an answer's length is no sign of load. It is taken out before answers are
    compared, as a control variate is (Lavenberg and Welch, Management Science 27, 1981).
    """

    def __init__(self) -> None:
        self._tokens, self._took_s = Mean(), Mean()  # of all answers
        self._both, self._squares = Mean(), Mean()  # at one limit: covariance, and variance

    def add(self, answer: Sample) -> None:
        """Take in an answer, at whatever limit."""
        if answer.tokens is not None:
            self._tokens.add(answer.tokens)
            self._took_s.add(answer.took_s)

    def compare(self, longer: float, later_s: float) -> None:
        """Take in by how much an answer is longer, and later, than others at its limit."""
        self._both.add(longer * later_s)
        self._squares.add(longer**2)

    def even(self, answer: Sample) -> float:
        """Return what an answer would have taken if it were as long as the average one."""
        if answer.tokens is None or self._squares.value <= 0:
            return answer.took_s
        most = self._took_s.value / self._tokens.value  # as if nothing but its length took time
        slope = min(max(self._both.value / self._squares.value, 0.0), most)
        return max(answer.took_s - slope * (answer.tokens - self._tokens.value), 0.0)


class Level:
    """What answers took at one limit, the latest of them; `lengths` are of all levels."""

    def __init__(
        self,
        limit: int,
        lengths: Lengths,
        log_limit: float | None = None,
        answers: Iterable[Sample] = (),
    ):
        self.limit, self._lengths = limit, lengths
        self.log_limit = math.log(limit) if log_limit is None else log_limit  # joined: the mean
        self._answers = deque(answers, maxlen=max(_MEMORY * limit, _REMEMBERED))
        self._tokens, self._mean_s = Mean(), Mean()  # of those whose length is known
        self.first = self  # those with which it was first full: they do not drift

    @property
    def count(self) -> int:
        """Answers from which it is known."""
        return len(self._answers)

    @property
    def known(self) -> Summary:
        """A summary of them, as if all were equally long; there is one at least."""
        return summary(map(self._lengths.even, self._answers))

    def add(self, answer: Sample) -> None:
        if self.first is self and self.count == self._answers.maxlen:
            self.first = Level(self.limit, self._lengths, answers=self._answers)
        self._answers.append(answer)
        if answer.tokens is not None:
            if self._tokens.count:
                off = answer.tokens - self._tokens.value, answer.took_s - self._mean_s.value
                self._lengths.compare(*off)
            self._tokens.add(answer.tokens)
            self._mean_s.add(answer.took_s)

    def fade(self) -> None:
        """Forget three quarters of what is known, because it was a while ago."""
        for _ in range(self.count - self.count // 4):
            self._answers.popleft()

    def joined(self, other: Level) -> Level:
        """Return both as one level, between them."""
        share = other.count / (self.count + other.count)
        log_limit = self.log_limit + (other.log_limit - self.log_limit) * share
        return Level(other.limit, self._lengths, log_limit, (*self._answers, *other._answers))


def slower(base: Level, other: Level) -> tuple[float, float]:
    """Return the logarithm by which the other's answers take longer, and its standard error."""
    one, two = base.known, other.known
    variance = max(one.variance, two.variance)
    share = (two.typical_s - one.typical_s) / one.mean_s
    return math.log(max(0.01, 1 + share)), math.sqrt(variance / base.count + variance / other.count)


def worth(few: Level, many: Level, plus: float = 0) -> float:
    """Return what more calls bring, and on top `plus` times its standard error.

    It is the elasticity of throughput: 1 if that grows as the calls do, 0 if it stays.
    """
    off, error = slower(few, many)
    return 1 - (off - plus * error) / (many.log_limit - few.log_limit)


def is_better(base: Level, trial: Level, *, last: bool) -> bool | None:
    """Return whether the trial's limit is the better one; None if that is not clear yet."""
    if trial.limit > base.limit:
        better = worth(base, trial, plus=0 if last else -SURE) > WORTH_IT
        worse = worth(base, trial, plus=SURE) < WORTH_IT
    else:
        better = worth(trial, base, plus=LEAN if last else FEWER_SURE) < WORTH_IT
        worse = worth(trial, base, plus=-FEWER_NOT) > WORTH_IT
    return True if better else False if last or worse else None


def longer(base: Level, latest: Level) -> float:
    """Return by which logarithm the `latest` answers take longer than usual; 0 if not clearly."""
    off, error = slower(base, latest)
    return 0.0 if abs(off) < max(LONGER, 4 * error) else off


def harms(base: Level, limit: int) -> bool:
    """Return whether trying so many calls for nothing would show in the p95."""
    return limit / base.limit - 1 > LONGER * base.known.p95


def step(base: Level) -> float:
    """Return the factor to the next limit, such that a few rounds can tell the difference."""
    error = math.sqrt(base.known.variance * 2 / (ROUNDS * base.limit))
    return min(2.0, max(STEP, min(1.4, math.exp(error / 0.15)), math.exp(error / 0.35)))


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

    def in_flight(self, now_s: float, window_s: float) -> float:
        """Return the average over the last `window_s`, or what is remembered."""
        window_s = min(window_s, now_s - self._since_s)
        if window_s <= 0:
            return 0.0
        return sum(a.took_s for a in self._answers if a.ended_s >= now_s - window_s) / window_s
