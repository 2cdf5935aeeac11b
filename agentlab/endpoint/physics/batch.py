"""Continuous batching: who holds a slot, who waits, and when each answer is done.

Nothing here waits: the caller says what time it is, in model seconds, rounded to nanoseconds. All
requests decode in step, and how long a step takes changes as requests come and go. So one decode
clock, `v`, counts steps: a request is k tokens from its end k steps from now, whatever comes, and
prompts of q tokens in all are read q / `batched_tokens` steps from now. While nothing changes, a
step grows only with the tokens that are decoded, so that time is a parabola in `v`.
"""

import heapq
import itertools
import math
from collections import deque
from typing import Protocol

import msgspec

from agentlab.endpoint.physics.formulas import Physics
from agentlab.endpoint.physics.prefixes import BLOCK_TOKENS, Blocks, Prefixes


class QueueFull(Exception):
    """Every slot is taken, and so is every place in the queue."""


class Job(msgspec.Struct, eq=False):
    """One request as the batch sees it: its size, jitter and sender, and what happened to it."""

    prompt_tokens: int
    output_tokens: int
    prefill_jitter: float = 1.0
    decode_jitter: float = 1.0
    learner: str = ""
    agent: str = ""
    blocks: Blocks = ()
    arrived_s: float = math.nan
    started_s: float | None = None
    first_token_s: float | None = None
    end_s: float | None = None
    cached_tokens: int = 0
    preemptions: int = 0
    _order: int = 0  # when it got its slot, among all
    _steps: float = 0.0  # of its decode, done before `_v_first`
    _v_first: float = math.nan  # where the decode clock stood when it began, if it decodes
    _held: int = 0  # blocks of its prompt in memory


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
    """The slots, memory and queue of one endpoint; by default the first to come is next.

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
        self.active = 0  # how many hold a slot
        self._instant = physics.takes_no_time
        self._slots = math.inf if physics.slots is None else physics.slots
        self._kv_tokens = math.inf if physics.kv_tokens is None else physics.kv_tokens
        self._changes = deque(sorted(physics.capacity, key=lambda change: change.from_s))
        self._queue: Queue = Fifo() if queue is None else queue
        self._next: deque[Job] = deque()  # who comes before the queue: too large yet, or put back
        self._beginning: list[tuple[float, int, Job]] = []  # by the time at which they can be read
        self._unread: deque[Job] = deque()
        self._reading: list[Job] = []  # together, until the decode clock stands at `_v_read`
        self._v_read = self._v_slower = math.inf  # and where steps outgrow the handing on of tokens
        self._decoding: list[tuple[float, int, Job]] = []  # by decode step of the last token
        self._tie = itertools.count()  # equal times keep their order of arrival
        self._reserved_tokens = 0.0  # by those with a slot, who do not decode or do not grow
        self._prefixes = Prefixes()
        # The decode clock's anchor, and since then: a step's time, and by how much it grows.
        self._v, self._v_at_s, self._step_s, self._growth_s = 0.0, 0.0, physics.itl_s(0), 0.0
        self._context_tokens = 0.0  # at the anchor, of those that decode
        self._pace = self._paced = 0.0  # the tokens that a step makes, now and since the anchor
        self._read_s = 0.0  # what the prompts that are read add to a step
        self._due: tuple[float, float] | None = None  # what `_next_v` found, while it holds
        grows = physics.itl_per_context_token_s or physics.streaming_per_token_s
        self._tracks = physics.preempts or grows > 0

    def submit(self, job: Job, now_s: float) -> list[Job]:
        """Give `job` a slot or a place in the queue, or raise QueueFull; return what changed."""
        if self._instant:  # nothing else is ever under way
            self.now_s = max(self.now_s, round(now_s, 9))
            job.arrived_s = job.started_s = job.first_token_s = job.end_s = self.now_s
            return [job]
        due = now_s > self.now_s or self._changes
        changed = self.advance(now_s) if due else []
        job.arrived_s = self.now_s
        waits = self._queue or self._next or not self._has_room(job)
        if waits and not self._queue.admits(job, self.physics.queue):
            raise QueueFull
        self._queue.append(job)
        return changed + self._fill_slots()

    def cancel(self, job: Job, now_s: float) -> list[Job]:
        """End `job` here and free its slot; return the jobs that changed, the next one too."""
        changed = self.advance(now_s)
        if job.end_s is not None:
            return changed
        if job in self._next:
            self._next.remove(job)
        elif job.started_s is None:
            self._queue.remove(job)
        else:
            return changed + self._finish(job)
        job.end_s = self.now_s
        return [*changed, job]

    def next_event_s(self) -> float:
        """Return when the next thing happens if nothing comes or goes; infinity if never."""
        if self._unread and not self._reading:
            # So that all who come at this instant are read; a late clock's next instant is later.
            return max(round(self.now_s + 1e-9, 9), math.nextafter(self.now_s, math.inf))
        _, event_s = self._due or self._next_v()
        if self._beginning:
            event_s = min(event_s, self._beginning[0][0])
        if self._changes and (self._queue or self._next):  # they matter only to those who wait
            event_s = min(event_s, self._changes[0].from_s)
        return event_s

    def tokens_of(self, job: Job) -> int:
        """Return how many tokens of `job` exist by now."""
        if job.end_s is not None:
            return job.output_tokens
        if job.first_token_s is None or self.now_s < job.first_token_s:
            return 0
        steps = self._steps_of(job) / job.decode_jitter
        return min(job.output_tokens, 1 + math.floor(steps + 1e-6))  # one due now counts

    def token_s(self, job: Job, token: int) -> float:
        """Return when token number `token` (from 1) is due if nothing comes or goes."""
        if job.first_token_s is None:
            return math.inf
        if token <= 1:
            return job.first_token_s
        if math.isnan(job._v_first):  # its words begin later, or it was put back
            return math.inf if job.preemptions else job.first_token_s
        return self._time_of(job._v_first + (token - 1) * job.decode_jitter - job._steps)

    def read_s(self) -> float:
        """Return when the prompts that are read now will be; steps are shorter from then on."""
        return self._time_of(self._v_read)

    def advance(self, now_s: float) -> list[Job]:
        """Let all happen that is due by `now_s`; return who started, has words, or ended."""
        changed: list[Job] = []
        while True:
            v, v_s = self._due or self._next_v()
            begin_s = self._beginning[0][0] if self._beginning else math.inf
            change_s = self._changes[0].from_s if self._changes else math.inf
            event_s = begin_s if begin_s < v_s else v_s
            event_s = change_s if change_s < event_s else event_s
            if self._unread and not self._reading and self.now_s < min(event_s, now_s):
                self._read()
                continue
            if event_s > now_s:
                break
            if event_s > self.now_s:
                self.now_s = event_s
            if change_s <= event_s:  # to fewer than are taken: none is taken away
                self._slots = self._changes.popleft().slots
                changed += self._fill_slots()
            elif v_s > event_s:
                job = heapq.heappop(self._beginning)[2]
                if self.physics.batched_tokens is None:
                    changed += self._decode(job)
                else:
                    self._unread.append(job)
            elif self._decoding and self._decoding[0][0] <= v:
                changed += self._finish(self._decoding[0][2])
            elif self._v_read <= v:
                changed += self._have_read()
            elif self._v_slower <= v:
                self._retime()
            else:
                changed.append(self._put_back())
        if now_s > self.now_s:
            self.now_s = round(now_s, 9)
        return changed

    # Slots and memory.

    def _has_room(self, job: Job) -> bool:
        if self.active >= self._slots:
            return False
        if self._kv_tokens == math.inf or not self.active:
            return True
        needs: float = self._size(job)
        if job.blocks:
            shared = job.blocks[: (job.prompt_tokens - 1) // BLOCK_TOKENS]  # one token is read
            needs -= self._prefixes.match(shared)[1] * BLOCK_TOKENS
        if self.physics.preempts:
            needs += self.active  # the next step of everybody
        return self._used_tokens() + needs <= self._kv_tokens

    def _size(self, job: Job) -> float:
        if not self.physics.preempts:
            return job.prompt_tokens + job.output_tokens
        return job.prompt_tokens + job._steps / job.decode_jitter

    def _used_tokens(self) -> float:
        used = self._reserved_tokens - self._prefixes.saved_tokens
        if self.physics.preempts:
            used += self._context_tokens + (self._v_now() - self._v) * self._paced
        return used

    def _fill_slots(self) -> list[Job]:
        started = []
        while self.active < self._slots and (self._next or self._queue):
            job = self._next.popleft() if self._next else self._queue.popleft()
            if not self._has_room(job):
                self._next.appendleft(job)
                break
            self._start(job)
            started.append(job)
        return started

    def _start(self, job: Job) -> None:
        self.active += 1
        if job.started_s is None:
            job.started_s = self.now_s
        job._order = next(self._tie)
        if job.blocks:
            known, _ = self._prefixes.match(job.blocks[: (job.prompt_tokens - 1) // BLOCK_TOKENS])
            job.cached_tokens = known * BLOCK_TOKENS
            self._hold(job, known)
        self._reserved_tokens += self._size(job)
        self._prefixes.shrink(self._kv_tokens - self._used_tokens())
        physics, self._due = self.physics, None
        takes_s = physics.prefill_base_s
        if physics.batched_tokens is None:
            takes_s = physics.prefill_s(job.prompt_tokens - job.cached_tokens)
            self._retime()
        begins_s = round(self.now_s + takes_s * job.prefill_jitter, 9)
        if physics.batched_tokens is None and job.first_token_s is None:
            job.first_token_s = begins_s
        heapq.heappush(self._beginning, (begins_s, job._order, job))

    def _read(self) -> None:
        """Begin to read whole prompts, in their order, until a step is full; one in any case."""
        physics, tokens = self.physics, 0.0
        most = physics.batched_tokens or 0
        while self._unread:
            job = self._unread[0]
            size = job.prompt_tokens + job._steps / job.decode_jitter - job.cached_tokens
            if self._reading and tokens + size > most:
                break
            self._reading.append(self._unread.popleft())
            tokens += size
        steps = max(1.0, tokens / most)
        self._read_s = physics.reading_base_s + physics.prefill_per_token_s * tokens / steps
        self._v_read = self._v_now() + steps
        self._retime()

    def _have_read(self) -> list[Job]:
        read, self._reading, self._v_read, self._read_s = self._reading, [], math.inf, 0.0
        changed = [done for job in read for done in self._decode(job)]
        self._retime()
        return changed

    def _decode(self, job: Job) -> list[Job]:
        if job.blocks:
            self._hold(job, len(job.blocks))
        if job.first_token_s is None:
            job.first_token_s = self.now_s
        if job.output_tokens <= 1:
            return self._finish(job)
        if self._tracks:
            size = job.prompt_tokens + job._steps / job.decode_jitter
            self._context_tokens += size
            self._reserved_tokens -= size if self.physics.preempts else 0
            self._pace += 1 / job.decode_jitter
        job._v_first = self._v_now()
        v_end = job._v_first + (job.output_tokens - 1) * job.decode_jitter - job._steps
        heapq.heappush(self._decoding, (v_end, next(self._tie), job))
        self._due = None
        if self.physics.batched_tokens is not None:
            return [job]
        if self._tracks:
            self._retime()
        return []  # when it would have words was known since it began

    def _put_back(self) -> Job:
        """Take the memory of the newest that decodes; its words stay, and it is read again."""
        job = max((entry[2] for entry in self._decoding), key=lambda job: job._order)
        self._leave(job)
        job.preemptions += 1
        self._next.appendleft(job)
        return job

    def _finish(self, job: Job) -> list[Job]:
        self._leave(job)
        job.end_s = self.now_s
        return [job, *self._fill_slots()]

    def _leave(self, job: Job) -> None:
        self._prefixes.shrink(self._kv_tokens - self._used_tokens())  # which is never more
        if math.isnan(job._v_first):
            self._reserved_tokens -= self._size(job)
            self._beginning = [entry for entry in self._beginning if entry[2] is not job]
            heapq.heapify(self._beginning)
            for waiting in (self._unread, self._reading):
                if job in waiting:
                    waiting.remove(job)
            if not self._reading:
                self._v_read, self._read_s = math.inf, 0.0
        else:
            job._steps, job._v_first = self._steps_of(job), math.nan
            if self._decoding[0][2] is job:
                heapq.heappop(self._decoding)
            else:
                self._decoding = [entry for entry in self._decoding if entry[2] is not job]
                heapq.heapify(self._decoding)
            if self._tracks:
                self._context_tokens -= job.prompt_tokens + job._steps / job.decode_jitter
                self._pace = self._pace - 1 / job.decode_jitter if self._decoding else 0.0
            self._reserved_tokens -= 0 if self.physics.preempts else self._size(job)
        if job.blocks:
            self._hold(job, 0)
        self.active -= 1
        self._retime()

    def _hold(self, job: Job, blocks: int) -> None:
        """Keep so many blocks of the job's prompt in memory for it."""
        if blocks > job._held:
            self._prefixes.use(job.blocks[job._held : blocks])
        elif blocks < job._held:
            self._prefixes.leave(job.blocks[blocks : job._held])
        job._held = blocks

    # The decode clock.

    def _retime(self) -> None:
        """Set how long a step takes from now on."""
        physics, self._due = self.physics, None
        together = self.active
        if physics.batched_tokens is not None:
            together = len(self._decoding) + len(self._reading)
        step_s = physics.itl_base_s + physics.itl_per_active_s * together + self._read_s
        if self._tracks:
            v = self._v_now()
            self._context_tokens += (v - self._v) * self._paced
            step_s += physics.itl_per_context_token_s * self._context_tokens
            self._growth_s, self._paced = physics.itl_per_context_token_s * self._pace, self._pace
            least_s, self._v_slower = physics.streaming_per_token_s * together, math.inf
            if step_s < least_s - 1e-9:
                if self._growth_s:
                    self._v_slower = v + (least_s - step_s) / self._growth_s
                step_s, self._growth_s = least_s, 0.0
        elif step_s == self._step_s:  # the old anchor is still good, and exact
            return
        else:
            v = self._v_now()
        self._v, self._v_at_s, self._step_s = v, self.now_s, step_s

    def _v_now(self) -> float:
        since_s = self.now_s - self._v_at_s
        if self._growth_s:
            root = math.sqrt(self._step_s**2 + 2 * self._growth_s * since_s)
            return self._v + 2 * since_s / (self._step_s + root)
        # A decode that takes no time makes no steps: its jobs end at the anchor.
        return self._v + since_s / self._step_s if self._step_s else self._v

    def _time_of(self, v: float) -> float:
        if v == math.inf:
            return v
        steps = v - self._v
        return round(self._v_at_s + steps * (self._step_s + self._growth_s * steps / 2), 9)

    def _steps_of(self, job: Job) -> float:
        decoding = not math.isnan(job._v_first)
        return job._steps + (self._v_now() - job._v_first if decoding else 0.0)

    def _next_v(self) -> tuple[float, float]:
        """Return where the decode clock stands at its next event, and when that is."""
        v = min(self._v_read, self._v_slower)
        if self._decoding and self._decoding[0][0] <= v:
            v = self._decoding[0][0]
        if self.physics.preempts and self._paced and len(self._decoding) > 1:
            used = self._reserved_tokens - self._prefixes.saved_tokens + self._context_tokens
            v = min(v, self._v + (self._kv_tokens - used) / self._paced)
        self._due = v, self._time_of(v)
        return self._due
