"""Continuous batching: who holds a slot, who waits, and when each answer is done.

Nothing here waits: the caller says what time it is, in model seconds, rounded to nanoseconds. All
requests decode in step, which takes longer the more there are. So one decode clock counts steps,
`v`, at 1 / itl(n) a second: a request is k tokens from its end k steps from now, whatever comes.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from agentlab.endpoint.physics.formulas import Physics


class QueueFull(Exception):
    """Every slot is taken, and so is every place in the queue."""


@dataclass(eq=False, slots=True)
class Job:
    """One request as the batch sees it: its size, jitter and sender, and what happened to it."""

    prompt_tokens: int
    output_tokens: int
    prefill_jitter: float = 1.0
    decode_jitter: float = 1.0
    learner: str = ""
    agent: str = ""
    arrived_s: float = math.nan
    started_s: float | None = None
    first_token_s: float | None = None
    end_s: float | None = None
    _v_first: float = math.nan


class Queue(Protocol):
    """Decides who is next: every job passes it on its way to a slot, even where one is free."""

    def admits(self, job: Job, places: int | None) -> bool:
        """Return True if `job` may wait here, where `places` jobs may (None: any number)."""

    def append(self, job: Job, /) -> None: ...
    def popleft(self) -> Job: ...
    def remove(self, job: Job, /) -> None: ...
    def __len__(self) -> int: ...


class Fifo(deque[Job]):
    """First come, first served."""

    def admits(self, job: Job, places: int | None) -> bool:
        return places is None or len(self) < places


class Batch:
    """The slots and the queue of one endpoint; by default the first to come is next.

    Example:
        >>> batch = Batch(Physics(prefill_base_s=1.0, itl_base_s=0.1, slots=1))
        >>> first, second = Job(0, output_tokens=91), Job(0, output_tokens=11)
        >>> _ = batch.submit(first, now_s=0.0), batch.submit(second, now_s=0.0)
        >>> _ = batch.advance(100.0)
        >>> first.end_s, second.started_s, second.end_s
        (10.0, 10.0, 12.0)
    """

    def __init__(self, physics: Physics, queue: Queue | None = None):
        self.physics = physics
        self.now_s = 0.0
        self.active = 0
        self._instant = physics.takes_no_time
        self._slots = math.inf if physics.slots is None else physics.slots
        self._changes = deque(sorted(physics.capacity, key=lambda change: change.from_s))
        self._queue: Queue = Fifo() if queue is None else queue
        self._prefilling: list[tuple[float, int, Job]] = []  # by time of the first token
        self._decoding: list[tuple[float, int, Job]] = []  # by decode step of the last token
        self._tie = itertools.count()  # equal times keep their order of arrival
        self._v, self._v_at_s, self._itl_s = 0.0, 0.0, physics.itl_s(0)

    def submit(self, job: Job, now_s: float) -> list[Job]:
        """Give `job` a slot or a place in the queue, or raise QueueFull; return what changed."""
        changed = self.advance(now_s)
        job.arrived_s = self.now_s
        if self._instant:
            job.started_s = job.first_token_s = job.end_s = self.now_s
            return [*changed, job]
        if self.active >= self._slots and not self._queue.admits(job, self.physics.queue):
            raise QueueFull
        self._queue.append(job)
        return changed + self._fill_slots()

    def cancel(self, job: Job, now_s: float) -> list[Job]:
        """End `job` here and free its slot; return the jobs that changed, the next one too."""
        changed = self.advance(now_s)
        if job.end_s is not None:
            return changed
        if job.started_s is None:
            self._queue.remove(job)
            job.end_s = self.now_s
            return [*changed, job]
        for heap in (self._prefilling, self._decoding):
            heap[:] = [entry for entry in heap if entry[2] is not job]
            heapq.heapify(heap)
        return changed + self._finish(job)

    def next_event_s(self) -> float:
        """Return when the next thing happens if nothing comes or goes; infinity if never."""
        first_token_s = self._prefilling[0][0] if self._prefilling else math.inf
        event_s = min(first_token_s, self._next_end_s())
        # How the slots change later matters only to those who wait.
        return min(event_s, self._next_change_s()) if self._queue else event_s

    def advance(self, now_s: float) -> list[Job]:
        """Let everything happen that is due by `now_s`; return the jobs that started or ended."""
        changed: list[Job] = []
        while (event_s := min(self.next_event_s(), self._next_change_s())) <= now_s:
            self.now_s = max(self.now_s, event_s)
            if self._next_change_s() <= event_s:  # to fewer than are taken: none is taken away
                self._slots = self._changes.popleft().slots
                changed += self._fill_slots()
            elif self._next_end_s() <= event_s:
                changed += self._finish(heapq.heappop(self._decoding)[2])
            else:
                changed += self._first_token(heapq.heappop(self._prefilling)[2])
        self.now_s = max(self.now_s, round(now_s, 9))
        return changed

    def tokens_by(self, job: Job, now_s: float) -> int:
        """Return how many tokens of `job` exist at `now_s`, which `advance` has reached."""
        if job.end_s is not None:
            return job.output_tokens
        if job.first_token_s is None or now_s < job.first_token_s:
            return 0
        steps = (self._v_at(now_s) - job._v_first) / job.decode_jitter
        return min(job.output_tokens, 1 + math.floor(steps + 1e-6))  # one due now counts

    def token_s(self, job: Job, token: int) -> float:
        """Return when token number `token` (from 1) is due if nothing comes or goes."""
        if job.first_token_s is None:
            return math.inf
        if token <= 1 or math.isnan(job._v_first):
            return job.first_token_s
        return self._time_of(job._v_first + (token - 1) * job.decode_jitter)

    def _fill_slots(self) -> list[Job]:
        started = []
        while self._queue and self.active < self._slots:
            job = self._queue.popleft()
            self._set_active(self.active + 1)
            prefill_s = self.physics.prefill_s(job.prompt_tokens, self.active) * job.prefill_jitter
            job.started_s = self.now_s
            job.first_token_s = round(self.now_s + prefill_s, 9)
            heapq.heappush(self._prefilling, (job.first_token_s, next(self._tie), job))
            started.append(job)
        return started

    def _first_token(self, job: Job) -> list[Job]:
        job._v_first = self._v_at(self.now_s)
        if job.output_tokens <= 1:
            return self._finish(job)
        v_end = job._v_first + (job.output_tokens - 1) * job.decode_jitter
        heapq.heappush(self._decoding, (v_end, next(self._tie), job))
        return []

    def _finish(self, job: Job) -> list[Job]:
        job.end_s = self.now_s
        self._set_active(self.active - 1)
        return [job, *self._fill_slots()]

    def _set_active(self, active: int) -> None:
        self.active = active
        itl_s = self.physics.itl_s(active)
        if itl_s != self._itl_s:  # else the old anchor is still good, and exact
            self._v = self._v_at(self.now_s)
            self._v_at_s, self._itl_s = self.now_s, itl_s

    def _v_at(self, now_s: float) -> float:
        # A decode that takes no time makes no steps: its jobs end at the anchor.
        return self._v + (now_s - self._v_at_s) / self._itl_s if self._itl_s else self._v

    def _time_of(self, v: float) -> float:
        return round(self._v_at_s + (v - self._v) * self._itl_s, 9)

    def _next_change_s(self) -> float:
        return self._changes[0].from_s if self._changes else math.inf

    def _next_end_s(self) -> float:
        return self._time_of(self._decoding[0][0]) if self._decoding else math.inf
