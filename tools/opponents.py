"""Rules of others for how many calls are in flight, as opponents in a judging.

Those of Netflix's Java library, with its defaults, made for servers of short calls:
https://github.com/Netflix/concurrency-limits. Each names the commit whose file it follows.
"""

import math
from random import Random

from agentlab.resilience.limiters import Sample


class AIMD:
    """Additive increase, multiplicative decrease: TCP's, here one step per call.

    A call that takes longer than `slow_s` counts as refused. AIMDLimit, of commit 784c960.
    """

    def __init__(
        self, initial: int = 20, *, least: int = 20, most: int = 200, slow_s: float | None = 5.0
    ):
        self.limit, self._most = min(initial, most), most
        self._least = min(least, self.limit)
        self._slow_s = math.inf if slow_s is None else slow_s

    def update(self, sample: Sample) -> int:
        limit = self.limit
        if sample.refused or sample.took_s > self._slow_s:
            limit = int(limit * 0.9)
        elif sample.in_flight * 2 >= limit:  # else it is not the limit that holds them back
            limit += 1
        self.limit = min(self._most, max(self._least, limit))
        return self.limit


class Gradient2:
    """Multiplies the limit by what answers took over the long run, divided by what they take now.

    It ignores refusals. It is given each call, without the windows that may be put before it and
    need ten answers per second. Gradient2Limit, of commit f2528de.
    """

    QUEUE = 4  # so many calls may wait at the endpoint
    TOLERANCE = 1.5  # answers may take so many times the long run before the limit shrinks
    SMOOTHING = 0.2  # how much of the way to its new value the limit goes at each call
    WEIGHT = 2 / (600 + 1)  # the long run is an exponential average of some 600 calls

    def __init__(self, initial: int = 20, *, least: int = 20, most: int = 200):
        self._limit, self._most = float(min(initial, most)), most
        self._least = min(least, self._limit)
        self._count, self.long_run_s = 0, 0.0

    @property
    def limit(self) -> int:
        return int(self._limit)

    def update(self, sample: Sample) -> int:
        took_s = sample.took_s
        if took_s <= 0:
            return self.limit
        # An exponential moving average that begins as a plain one, over its first ten values.
        if self._count < 10:
            self._count += 1
            self.long_run_s += (took_s - self.long_run_s) / self._count
        else:
            self.long_run_s += (took_s - self.long_run_s) * self.WEIGHT
        long_s = self.long_run_s
        if long_s > 2 * took_s:
            self.long_run_s *= 0.95  # after an overload that is over
        if sample.in_flight >= self._limit / 2:
            gradient = max(0.5, min(1.0, self.TOLERANCE * long_s / took_s))
            aim = self._limit * gradient + self.QUEUE
            smoothed = self._limit * (1 - self.SMOOTHING) + aim * self.SMOOTHING
            self._limit = max(self._least, min(self._most, smoothed))
        return self.limit


class Vegas:
    """Estimates the endpoint's queue, limit x (1 - quickest / this one), and keeps it short.

    VegasLimit, of commit 7989055, after TCP Vegas (Brakmo and Peterson, 1995).
    """

    PROBE = 30  # times the limit: after so many calls the quickest answer is forgotten

    def __init__(self, initial: int = 20, *, most: int = 1000):
        self.limit, self._most = min(initial, most), most
        self._random = Random(7)
        self.quickest_s = math.inf
        self._calls, self._spread = 0, self._random.uniform(0.5, 1)

    def update(self, sample: Sample) -> int:
        self._calls += 1
        step = max(1, int(math.log10(self.limit)))
        if sample.took_s <= 0:  # says nothing about a queue; Netflix's does not expect it
            if sample.refused:
                self.limit = max(1, self.limit - step)
        elif self._calls >= self._spread * self.PROBE * self.limit:
            self._calls, self._spread = 0, self._random.uniform(0.5, 1)
            self.quickest_s = sample.took_s
        elif sample.took_s < self.quickest_s:
            self.quickest_s = sample.took_s
        else:
            self.limit = max(1, min(self._most, self._next(sample, step)))
        return self.limit

    def _next(self, sample: Sample, step: int) -> int:
        queued = math.ceil(self.limit * (1 - self.quickest_s / sample.took_s))
        if sample.refused:
            return self.limit - step
        if sample.in_flight * 2 < self.limit:  # it is not the limit that holds them back
            return self.limit
        if queued <= step:
            return self.limit + 6 * step
        if queued < 3 * step:
            return self.limit + step
        return self.limit - step if queued > 6 * step else self.limit
