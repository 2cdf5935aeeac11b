"""A limit that finds the endpoint's knee from what it measures, and follows it.

Little's law says what more calls in flight are worth: throughput is calls in flight / seconds, so
if answers take longer by as much as there are more calls, they bring nothing. So it tries. A
trial has more calls in flight, or fewer, until it is clear whether throughput goes with them:

    climbing   from the start doubles, while throughput nearly doubles
    staying    at the knee; now and then a small trial, more calls and fewer in turn
    following  answers take longer than they used to: fewer calls, by as much; less long: a trial

A refusal cuts the limit to what the endpoint was serving meanwhile, by Little's law again, and
never below what it serves, so that a rate limit starves nobody.

The trials are those of PCC Vivace (Dong and others, NSDI 2018), which likewise weighs throughput
against delay by experiment; the knee is Kleinrock's, as in BBR (Cardwell and others, 2016).
"""

from __future__ import annotations

import bisect
import math
from collections import deque

from agentlab._support.numbers import checked
from agentlab.resilience.evidence import InOrder, Level, Served, Worth, log_s, worth
from agentlab.resilience.limiters import Sample

WORTH_IT = 0.22
"""More calls must bring this share of what they would on an endpoint without limits."""

CLEARLY = 0.6
"""While they bring more than this, the limit doubles."""

MOST = 10_000_000
"""The most calls in flight that it can be told to try."""

_STEP = 1.12  # from one limit that is tried to the next
_SURE = 1.5  # standard errors, before a trial ends early
_FEWEST = 4  # answers, before anything is concluded
_ROUNDS = 6  # answers a seat, after which a trial ends
_RARELY = 32  # answers a seat between two trials, at most
_NEARLY_ALL = 0.85  # of the calls in flight: if so many are served, the limit is no reason
_PATIENCE = 2.5  # times the usual: how long the order of answers is waited for
_WINDOW = 3  # times the usual: over this it is counted what the endpoint served
_LONGER = 0.25  # answers that take longer than this are a harm
_HARM = 0.03  # the share of answers that may suffer it
_INSTANT_S = 1e-9  # times that are nearer are one, but for rounding
_P95 = 1.645  # standard deviations from the median to the 95th percentile


class Adaptive:
    """Finds out how many calls the endpoint serves well.

    Args:
        initial: Where it begins.
        least: Never less than this.
        most: Never more than this, however well it goes.

    Raises:
        ConfigError: Unless all three are whole numbers, each at least as large as the one before:
            1, `least`, `initial`, `most`, `MOST`.

    Example:
        guard = Guard(limit=Adaptive(most=200))
        answer = await guard.ask("Name three rivers.")
    """

    def __init__(self, initial: int = 1, *, least: int = 1, most: int = 1000):
        checked("least", least, least=1, most=MOST, whole=True)
        checked("initial", initial, least=least, most=MOST, whole=True)
        checked("most", most, least=initial, most=MOST, whole=True)
        self._least, self._most = least, most
        self._base = Level(initial)  # where it stays
        self._trial: Level | None = None  # what it tries meanwhile
        self._levels = {initial: self._base}  # all that were tried in the present state of things
        self._climbed: Level | None = Level(initial)  # all of the climb; None once it is over
        self._in_order, self._served = InOrder(), Served()
        self._latest: deque[float] = deque()
        self._usual_s = 0.0
        self._answers = self._harmed = 0
        self._since_s = self._cut_s = -math.inf
        self._more = True  # whether the next trial is one of more calls
        self._boost = 1.0  # the exponent of the next step: grows with success
        self._hold = 1.0  # answers a seat until the next trial: grows with failure
        self._held = self._tried = self._began_at = 0
        self._unused = self._reached = 0

    @property
    def limit(self) -> int:
        """The most calls in flight."""
        return self._trial.limit if self._trial else self._base.limit

    def update(self, sample: Sample) -> int:
        """Learn from a call that ended; returns the limit from now on."""
        if sample.refused:
            self._cut(sample.ended_s)
        else:
            self._answers += 1
            share = 1 / min(self._answers, 2 * self.limit)
            self._usual_s += (sample.took_s - self._usual_s) * share
            self._served.add(sample, keep_s=2 * _WINDOW * self._usual_s)
        for answer in self._in_order.take(sample, _PATIENCE * self._usual_s):
            if not answer.refused and answer.sent_s > self._since_s - _INSTANT_S:
                self._learn(answer, sample.ended_s)
        return self.limit

    def _learn(self, answer: Sample, now_s: float) -> None:
        base, trial = self._base, self._trial
        level = trial or base
        # The first of many more are sent before the others are there to slow them down.
        full = min(level.limit, base.limit + 0.75 * (level.limit - base.limit))
        if answer.in_flight < full:
            self._reached = max(self._reached, answer.in_flight)
            self._unused += 1
            if trial and self._unused > max(base.limit, trial.limit):
                self._do_without(base, now_s)
            return
        level.add(answer.took_s)
        if trial is None:
            self._stay(answer, now_s)
        else:
            self._tried += 1
            if self._tried >= _FEWEST:
                (self._judge if self._climbed is None else self._climb)(base, trial, now_s)

    def _stay(self, answer: Sample, now_s: float) -> None:
        if self._has_moved(answer, now_s):
            return
        self._held += 1
        if self._climbed is not None:
            if self._base.count >= _FEWEST:
                self._try(self._bounded(2 * self._base.limit), now_s)
        elif self._held >= self._hold * self._base.limit:
            self._try(self._next(), now_s)

    def _climb(self, base: Level, trial: Level, now_s: float) -> None:
        if self._tried < trial.limit // 16:
            return
        climbed = self._climbed if self._climbed and self._climbed.count else base
        whole, last = worth(climbed, trial), worth(base, trial)
        flat = last.below(CLEARLY, sure=2)
        if whole.above(CLEARLY, sure=0.5) and not flat:
            self._climbed = climbed.joined(trial)
            self._stay_at(trial, now_s)
            self._try(self._bounded(2 * trial.limit), now_s)
        elif flat or whole.below(CLEARLY, sure=2) or self._tried >= 4 * trial.limit:
            # By Little's law: the throughput of now, times what answers took on the way.
            served = max(0.0, min(1.0, whole.value)) * (trial.seats - climbed.seats)
            knee = self._bounded(math.exp(climbed.seats + served))
            self._climbed, self._more = None, False
            self._hold, self._boost = 1.0, 2.0
            self._stay_at(self._level(knee), now_s)

    def _judge(self, base: Level, trial: Level, now_s: float) -> None:
        if self._tried < trial.limit:
            return
        more = trial.limit > base.limit
        found = worth(base, trial) if more else worth(trial, base)
        last = self._tried >= _ROUNDS * trial.limit
        if _is_better(found, more=more, last=last):
            self._stay_at(trial, now_s)
            self._hold, self._boost = 1.0, min(4.0, 2 * self._boost)
            if more and found.above(CLEARLY, sure=1):
                self._climbed = Level(trial.limit)
        elif last or _is_worse(found, more=more):
            if self._harms(trial.limit):
                self._harmed += self._answers - self._began_at + trial.limit
            self._stay_at(base, now_s)
            self._hold, self._boost = min(_RARELY, 1.5 * self._hold), 1.0
            self._more = not more

    def _do_without(self, base: Level, now_s: float) -> None:
        """Nobody wants as many as are tried; as many as are wanted, then."""
        self._stay_at(base, now_s)
        if self._reached > base.limit:
            self._try(self._reached, now_s)
        else:
            self._climbed, self._more = None, not self._more
            self._hold = min(_RARELY, 4 * self._hold)

    def _has_moved(self, answer: Sample, now_s: float) -> bool:
        """Follow the endpoint if its latest answers take longer, or less long, than before."""
        base, latest = self._base, self._latest
        latest.append(log_s(answer.took_s))
        enough = 2 * max(base.limit, 4)
        if len(latest) > enough:
            latest.popleft()
        if len(latest) < enough or base.count < 2 * enough:
            return False
        longer = sum(latest) / enough - base.mean
        if abs(longer) < max(_LONGER, 4 * math.sqrt(base.variance / enough)):
            return False
        self._levels.clear()
        self._climbed, self._more, self._hold = None, longer < 0, 1.0
        fewer = base.limit * math.exp(-max(longer, 0.0))
        self._stay_at(self._level(self._bounded(fewer)), now_s)
        return True

    def _cut(self, now_s: float) -> None:
        if now_s < self._cut_s + self._usual_s:  # one cut for all who were refused together
            return
        self._cut_s = now_s
        window_s = _WINDOW * self._usual_s
        served = math.ceil(self._served.in_flight(now_s, window_s) - 1e-9)
        if not self._served.covers(now_s, window_s):
            served = max(served, self._base.limit // 2)
        if served >= _NEARLY_ALL * self._base.limit:  # bad luck, and no reason to go down by it
            if self._trial is not None and self._trial.limit > self._base.limit:
                self._climbed, self._boost = None, 1.0
                self._hold = min(_RARELY, 2 * self._hold)
                self._stay_at(self._base, now_s)
            return
        self._climbed, self._more = None, True
        self._hold = min(_RARELY, 2 * self._hold)
        self._levels.clear()
        self._stay_at(self._level(max(self._least, served)), now_s)

    def _next(self) -> int:
        """The limit to try; the present one if there is none."""
        limit, variance = self._base.limit, self._base.variance
        # So far that the answers of a few rounds can tell the difference.
        error = math.sqrt(variance * 2 / (_ROUNDS * limit))
        step = max(_STEP, min(1.25, math.exp(error / 0.15)), math.exp(error / 0.35))
        step = min(2.0, step**self._boost)
        if not self._more:
            tried = self._bounded(min(_GRID[max(0, _index(limit) - 1)], limit / step))
        else:
            above = self._bounded(_GRID[_index(limit + 1)])
            tried = self._bounded(max(above, limit * step))
            if self._harmed > _HARM * self._answers:
                harmless = (to for to in (tried, above) if not self._harms(to))
                tried = next(harmless, limit)
        if tried == limit:
            self._more = not self._more
            self._hold = min(_RARELY, 4 * self._hold)
        return tried

    def _harms(self, limit: int) -> bool:
        """True if one would see in the p95 that so many are tried, and in vain."""
        base = self._base
        p95 = math.exp(_P95 * math.sqrt(base.variance))  # in medians
        return limit / base.limit - 1 > _LONGER * p95

    def _try(self, limit: int, now_s: float) -> None:
        self._held = self._tried = self._unused = self._reached = 0
        if limit != self._base.limit:
            self._trial = self._level(limit)
            self._trial.fade()
            self._since_s, self._began_at = now_s, self._answers

    def _stay_at(self, base: Level, now_s: float) -> None:
        if base is not self._trial:
            self._since_s = now_s
        self._base, self._trial = base, None
        self._held = 0
        self._latest.clear()

    def _level(self, limit: int) -> Level:
        return self._levels.setdefault(limit, Level(limit))

    def _bounded(self, limit: float) -> int:
        """The nearest limit that is ever tried: so each is met again, and better known."""
        at = _index(limit)
        if at and limit * limit < _GRID[at - 1] * _GRID[at]:
            at -= 1
        return max(self._least, min(self._most, _GRID[at]))


def _is_better(found: Worth, *, more: bool, last: bool) -> bool:
    """True if the trial's limit is the better one; at its end, if it is rather so than not.

    More and fewer alike: if fewer had to be the surer ones, one seat too many would stay, and
    where there are few seats that is a queue for all.
    """
    sure = 0 if last else _SURE
    return found.above(WORTH_IT, sure) if more else found.below(WORTH_IT, sure)


def _is_worse(found: Worth, *, more: bool) -> bool:
    return found.below(WORTH_IT, _SURE) if more else found.above(WORTH_IT, _SURE)


def _grid() -> list[int]:
    grid = [1]
    while grid[-1] < 2 * MOST:
        grid.append(max(grid[-1] + 1, round(grid[-1] * _STEP)))
    return grid


_GRID = _grid()


def _index(limit: float) -> int:
    """Where the first of the grid is that is not less."""
    return bisect.bisect_left(_GRID, limit)
