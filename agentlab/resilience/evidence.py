"""What is known of an endpoint from the calls that ended: how long they took at which limit.

Nothing here decides; `agentlab.resilience.adaptive` does.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from agentlab.resilience.limiters import Sample

_GUESSED_VARIANCE = 0.09  # of the logarithm, until there are answers to tell: a third, up or down
_MEMORY = 8  # how many answers a seat are remembered
_REMEMBERED = 128  # and no fewer than this: of 4 seats 32 could not tell it from 3 or 5
_NO_TIME_S = 1e-9  # stands for none at all, which has no logarithm


@dataclass
class Level:
    """What answers took at one limit: mean and variance of the logarithm of their seconds.

    The logarithm, because it is proportions that count: twice as long is as far from the usual as
    half as long. Old answers fade out.

    Attributes:
        limit: The calls in flight.
        seats: The logarithm of that; of joined levels, the mean.
        count: From how many answers it is known.
        mean: Of the logarithm of their seconds.
    """

    limit: int
    seats: float = 0.0
    count: int = 0
    mean: float = 0.0
    _squares: float = _GUESSED_VARIANCE

    def __post_init__(self) -> None:
        self.seats = self.seats or math.log(self.limit)

    @property
    def variance(self) -> float:
        """Of the logarithm; one answer's worth of it is guessed."""
        return self._squares / max(self.count, 1)

    def add(self, took_s: float) -> None:
        """One more answer."""
        most = max(_MEMORY * self.limit, _REMEMBERED)
        if self.count < most:
            self.count += 1
        else:
            self._squares *= 1 - 1 / most
        off = log_s(took_s) - self.mean
        self.mean += off / self.count
        self._squares += off * (log_s(took_s) - self.mean)

    def fade(self) -> None:
        """It was a while ago: half as much is known."""
        self._squares -= (self._squares - _GUESSED_VARIANCE) / 2
        self.count //= 2

    def joined(self, other: Level) -> Level:
        """Both as one, between them."""
        count = self.count + other.count
        share, off = other.count / count, other.mean - self.mean
        between = off * off * share * self.count
        return Level(
            other.limit,
            self.seats + (other.seats - self.seats) * share,
            count,
            self.mean + off * share,
            self._squares + other._squares + between - _GUESSED_VARIANCE,
        )


class Worth(NamedTuple):
    """What more seats bring: 1 if throughput grows as they do, 0 if it stays; and how sure."""

    value: float
    error: float

    def above(self, threshold: float, sure: float = 0.0) -> bool:
        """True if it is more, by so many standard errors."""
        return self.value - sure * self.error > threshold

    def below(self, threshold: float, sure: float = 0.0) -> bool:
        """True if it is less, by so many standard errors."""
        return self.value + sure * self.error < threshold


def worth(few: Level, many: Level) -> Worth:
    """The elasticity of throughput between two levels, and its standard error.

    By Little's law throughput is seats / seconds. So it grows by the logarithm of the seats, less
    that by which answers take longer.

    Example:
        >>> few, many = Level(4), Level(8)
        >>> few.add(1.0)
        >>> many.add(2.0)  # twice as many take twice as long
        >>> round(abs(worth(few, many).value), 9)
        0.0
    """
    wider = many.seats - few.seats
    variance = max(few.variance, many.variance)
    error = math.sqrt(variance / max(few.count, 1) + variance / max(many.count, 1))
    return Worth(1 - (many.mean - few.mean) / wider, error / wider)


class InOrder:
    """Gives answers in the order in which they were asked for.

    Just after a change only quick answers are there. Whoever listens to them at once concludes
    that all are quick. Here each waits for those that were asked before it, but not for ever: what
    is out for too long counts as having taken so long.
    """

    def __init__(self) -> None:
        self._next = 0
        self._early: list[tuple[int, Sample]] = []

    def take(self, sample: Sample, patience_s: float) -> Iterator[Sample]:
        """Take one in; gives all that are due."""
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
    """How many calls were being served of late, by Little's law: seconds of answers a second."""

    def __init__(self) -> None:
        self._answers: deque[Sample] = deque()
        self._since_s: float | None = None  # all that ended later are here

    def add(self, sample: Sample, keep_s: float) -> None:
        """An answer came; those that ended more than `keep_s` before it are forgotten."""
        forgotten_s = sample.ended_s - keep_s
        since_s = sample.sent_s if self._since_s is None else self._since_s
        self._since_s = max(since_s, forgotten_s)
        while self._answers and self._answers[0].ended_s < forgotten_s:
            self._answers.popleft()
        if sample.took_s > 0:  # else it was never in flight, and there may be any number at once
            self._answers.append(sample)

    def covers(self, now_s: float, window_s: float) -> bool:
        """True if it has watched for so long, and so knows those that were on their way."""
        return self._since_s is not None and now_s - self._since_s >= window_s

    def in_flight(self, now_s: float, window_s: float) -> float:
        """On average over the last `window_s`, or as much of them as is remembered.

        Refused calls do not count.
        """
        window_s = min(window_s, now_s - (now_s if self._since_s is None else self._since_s))
        if window_s <= 0:
            return 0.0
        return sum(a.took_s for a in self._answers if a.ended_s >= now_s - window_s) / window_s


def log_s(took_s: float) -> float:
    """The logarithm of a call's seconds."""
    return math.log(max(took_s, _NO_TIME_S))
