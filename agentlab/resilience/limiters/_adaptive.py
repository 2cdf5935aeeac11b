"""A limit that finds the endpoint's knee from what it measures, and follows it.

A trial has more calls in flight, or fewer, until `evidence` tells whether that brings throughput:

    climbing   from the start to 4, then doubles, while throughput nearly doubles
    staying    at the knee; now and then a small trial, more calls and, unless known, fewer in turn
    following  answers take longer than the first ones here: fewer calls, by as much; or less long

Refusals cut the limit to what the endpoint was serving meanwhile, by Little's law. The trials are
those of PCC Vivace (Dong and others, NSDI 2018), the knee Kleinrock's, as in BBR (Cardwell, 2016).
"""

import bisect
import math
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from agentlab._support.fields import checked
from agentlab.resilience.limiters import _estimates as evidence
from agentlab.resilience.limiters._estimates import Lengths, Level, Served
from agentlab.resilience.limiters._slots import Sample

MOST = 10_000_000  # calls in flight that it can be told to try
_FIRST = 2  # answers, one after the other, before more calls are tried
_FIRST_STEP = 4  # of the climb: between 1 call and 2, few answers of unequal length tell nothing
_RARELY = 32  # answers per slot between two trials, at most
_STRAY = 32  # answers for which one refusal may come for no reason of load
_NEARLY_ALL = 0.85  # of the calls in flight: if so many are served, the limit is not the reason
_HARM = 0.03  # the share of answers that may suffer from trials
_WINDOW = 3  # times the usual: over this time it is counted what the endpoint served
_INSTANT_S = 1e-9  # times that are nearer are one, but for rounding
_CHANGES = 10_000  # that are remembered


@dataclass
class _Trial:
    level: Level
    began_at: int  # answers before it
    answers: int = 0  # with as many calls in flight as are tried
    unused: int = 0  # answers with fewer
    reached: int = 0  # the most in flight of those


class Change(NamedTuple):
    """A new limit from `time_s` on, in model seconds, and why."""

    time_s: float
    limit: int
    why: str


class Adaptive:
    """Finds out how many calls the endpoint serves well: from `initial` up, and at most `most`.

    Attributes:
        history: The limit's latest 10,000 changes; `time_s, limit, why = zip(*limit.history)`.

    Example:
        >>> limit = Adaptive(most=200)
        >>> for n in range(2):
        ...     _ = limit.update(Sample(ended_s=n + 1.0, took_s=1.0, in_flight=1))
        >>> limit
        <Adaptive: limit 4, within 1 to 200; 1 in flight, answers seen: 2>
        >>> limit.history[-1]
        Change(time_s=2.0, limit=4, why='climbing')
    """

    def __init__(self, initial: int = 1, *, most: int = 1000):
        checked("initial", initial, least=1, most=MOST, whole=True)
        checked("most", most, least=initial, most=MOST, whole=True)
        self._most = most
        self.history: deque[Change] = deque(maxlen=_CHANGES)
        self._in_flight = 0  # when the latest call was sent
        self._levels: dict[int, Level] = {}  # all that were tried in the present state of things
        self._lengths, self._served = Lengths(), Served()
        self._usual_s = 0.0
        self._answers = self._harmed = 0
        self._refusals = 0.0  # lately; those that came together are one
        self._since_s = self._cut_s = -math.inf  # when the limit changed, and when it was cut
        self._more = True  # whether the next trial is one of more calls
        self._hold = 1.0  # answers per slot until the next trial: grows with failure
        self._trial: _Trial | None = None
        self._base = self._level(initial)
        self._climbed: Level | None = self._base  # all of the climb; None once it is over
        self._fewer: Level | None = None  # fewer calls than the base's, found worse
        self._stay_at(self._base, -math.inf, "the beginning")

    def __repr__(self) -> str:
        now = f"limit {self.limit}, within 1 to {self._most}; {self._in_flight} in flight"
        return f"<Adaptive: {now}, answers seen: {self._answers}>"

    @property
    def limit(self) -> int:
        """The most calls in flight."""
        return self._trial.level.limit if self._trial else self._base.limit

    def update(self, sample: Sample) -> int:
        """Learn from a call that ended, and return the limit from now on."""
        if not self.history:
            self.history.append(Change(sample.sent_s, self.limit, self._why))
        before, self._in_flight = self.limit, sample.in_flight
        if sample.refused:
            self._cut(sample.ended_s)
        else:
            self._answers += 1
            self._refusals = max(0.0, self._refusals - 1 / _STRAY)
            share = 1 / min(self._answers, 2 * self.limit)
            self._usual_s += (sample.took_s - self._usual_s) * share
            self._lengths.add(sample)
            self._served.add(sample, keep_s=2 * _WINDOW * self._usual_s)
            if sample.sent_s > self._since_s - _INSTANT_S:
                self._learn(sample, sample.ended_s)
        if self.limit != before:
            self.history.append(Change(sample.ended_s, self.limit, self._why))
        return self.limit

    def _learn(self, answer: Sample, now_s: float) -> None:
        base, trial = self._base, self._trial
        if trial is None:
            if answer.in_flight >= base.limit:
                base.add(answer)
                self._stay(answer, now_s)
            return
        # The first of many more are sent before the others are there to slow them down.
        limit = trial.level.limit
        if answer.in_flight < min(limit, base.limit + 0.75 * (limit - base.limit)):
            trial.reached = max(trial.reached, answer.in_flight)
            trial.unused += 1
            if trial.unused > max(base.limit, limit):
                self._do_without(trial, now_s)
            return
        trial.level.add(answer)
        trial.answers += 1
        if trial.answers % max(1, limit // 8):  # to conclude takes time, and so few tell little
            return
        if self._climbed is not None and trial.answers >= max(evidence.FEWEST, limit // 16):
            self._climb(self._climbed, trial, now_s)
        elif self._climbed is None and trial.answers >= max(evidence.FEWEST, limit):
            self._judge(trial, now_s)

    def _stay(self, answer: Sample, now_s: float) -> None:
        """Follow the endpoint if it has changed; begin a trial when it is time."""
        base, latest = self._base, self._latest
        latest.append(answer)
        enough = len(latest) == latest.maxlen and base.first.count >= 2 * len(latest)
        if enough and self._held % max(1, base.limit // 8) == 0:
            longer = evidence.longer(base.first, Level(base.limit, self._lengths, answers=latest))
            if longer:
                self._levels.clear()
                self._climbed, self._more, self._hold = None, longer < 0, 1.0
                fewer = base.limit * math.exp(-max(longer, 0.0))
                self._stay_at(self._level(self._bounded(fewer)), now_s, "answers take longer")
                return
        self._held += 1
        if self._climbed is not None:
            if base.count >= _FIRST:
                self._try(self._bounded(max(_FIRST_STEP, 2 * base.limit)), now_s)
        elif self._held >= self._hold * base.limit:
            self._try(self._next(), now_s)

    def _climb(self, climbed: Level, trial: _Trial, now_s: float) -> None:
        whole = partial(evidence.worth, climbed, trial.level)
        flat = evidence.worth(self._base, trial.level, plus=2) < evidence.CLEARLY
        limit = trial.level.limit
        if whole(plus=-1) > evidence.CLEARLY and not flat:
            self._climbed = climbed.joined(trial.level)
            self._stay_at(trial.level, now_s, "climbing")
            self._try(self._bounded(2 * limit), now_s)
        elif flat or whole(plus=2) < evidence.CLEARLY or trial.answers >= 4 * limit:
            # By Little's law: the throughput of now, times what answers took on the way.
            served = max(0.0, min(1.0, whole())) * (trial.level.log_limit - climbed.log_limit)
            knee = self._bounded(math.exp(climbed.log_limit + served))
            self._climbed, self._more, self._hold = None, False, 1.0
            self._stay_at(self._level(knee), now_s, "the end of the climb")

    def _judge(self, trial: _Trial, now_s: float) -> None:
        """Take over the trial's limit, or return to the one before, once it is clear which."""
        base, level = self._base, trial.level
        last = trial.answers >= max(evidence.ENOUGH, evidence.ROUNDS * level.limit)
        better = evidence.is_better(base, level, last=last)
        if better:
            more = level.limit > base.limit
            clear = more and evidence.worth(base, level, plus=-1) > evidence.CLEARLY
            self._stay_at(level, now_s, "the trial was better")
            self._hold = 1.0
            if clear:
                self._climbed = level
        elif better is False:
            if evidence.harms(base, level.limit):
                self._harmed += self._answers - trial.began_at + level.limit
            self._stay_at(base, now_s, "the trial was not better")
            self._hold = min(_RARELY, 1.5 * self._hold)
            self._more = level.limit <= base.limit
            self._fewer = level if self._more else self._fewer

    def _do_without(self, trial: _Trial, now_s: float) -> None:
        """End a trial of more calls than are made; try as many as are."""
        self._stay_at(self._base, now_s, "so many are not asked for")
        if trial.reached > self._base.limit:
            self._try(trial.reached, now_s)
        else:
            self._climbed, self._hold = None, min(_RARELY, 2 * self._hold)

    def _cut(self, now_s: float) -> None:
        if now_s < self._cut_s + self._usual_s:  # one for all that were refused together
            return
        self._cut_s = now_s
        self._refusals += 1
        if self._refusals <= 1:
            return
        served = math.ceil(self._served.in_flight(now_s, _WINDOW * self._usual_s) - 1e-9)
        if served >= _NEARLY_ALL * self._base.limit:  # bad luck, and not a reason to go down
            if self.limit > self._base.limit:
                self._climbed, self._hold = None, min(_RARELY, 2 * self._hold)
                self._stay_at(self._base, now_s, "a refusal")
            return
        self._climbed, self._more, self._hold = None, True, min(_RARELY, 2 * self._hold)
        self._levels.clear()
        self._stay_at(self._level(max(1, served)), now_s, "a refusal")

    def _next(self) -> int:
        """Return the limit to try, or the present one if there is none."""
        limit, fewer = self._base.limit, self._fewer
        if not self._more and fewer is not None and fewer.count >= evidence.FEWEST:
            surely = evidence.worth(fewer, self._base, plus=-evidence.SURE)
            self._more = surely > evidence.WORTH_IT
            fewer.fade()  # it is believed less each time
        more = self._more
        step = evidence.step(self._base)
        if not more:
            tried = self._bounded(min(_GRID[max(0, _index(limit) - 1)], limit / step))
        else:
            above = self._bounded(_GRID[_index(limit + 1)])
            tried = self._bounded(max(above, limit * step))
            if self._harmed > _HARM * self._answers:
                harmless = (to for to in (tried, above) if not evidence.harms(self._base, to))
                tried = next(harmless, limit)
        if tried == limit:
            self._more = not more
            self._hold = min(_RARELY, 4 * self._hold) if more else self._hold
        return tried

    def _try(self, limit: int, now_s: float) -> None:
        self._held = 0
        if limit != self._base.limit:
            level = self._level(limit)
            level.fade()
            self._trial, self._since_s = _Trial(level, self._answers), now_s
            trial = "a trial of more" if limit > self._base.limit else "a trial of fewer"
            self._why = trial if self._climbed is None else "climbing"

    def _stay_at(self, base: Level, now_s: float, why: str) -> None:
        if self._trial is None or base is not self._trial.level:
            self._since_s = now_s
        if base is not self._base:
            self._fewer = None
        self._base, self._trial, self._held, self._why = base, None, 0, why
        self._latest: deque[Sample] = deque(maxlen=max(2 * base.limit, evidence.ENOUGH))

    def _level(self, limit: int) -> Level:
        return self._levels.setdefault(limit, Level(limit, self._lengths))

    def _bounded(self, limit: float) -> int:
        """Return the nearest limit of the grid: so each is met again, and better known."""
        at = _index(limit)
        if at and limit * limit < _GRID[at - 1] * _GRID[at]:
            at -= 1
        return min(self._most, _GRID[at])


_GRID = [1]
while _GRID[-1] < 2 * MOST:
    _GRID.append(max(_GRID[-1] + 1, round(_GRID[-1] * evidence.STEP)))


def _index(limit: float) -> int:
    return bisect.bisect_left(_GRID, limit)
