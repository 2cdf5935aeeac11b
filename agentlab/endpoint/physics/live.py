"""A batch on an event loop's clock: what `batch` decides, this waits for.

One timer, set to absolute deadlines, serves all: a late wake-up delays nothing that follows.
"""

import asyncio
import math

from agentlab.endpoint.physics.batch import Batch, Job, Queue
from agentlab.endpoint.physics.formulas import Physics


class LiveBatch:
    """Serves jobs on the running loop, at `time_scale` model seconds per second of its clock."""

    def __init__(self, physics: Physics, time_scale: float = 1.0, queue: Queue | None = None):
        self.batch = Batch(physics, queue)
        self.time_scale = time_scale
        self._loop = asyncio.get_running_loop()
        # In virtual time with a schedule, each answer is an event that may be late.
        self._arrive = getattr(self._loop, "arrive", lambda callback, *args: callback(*args))
        self._epoch = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf
        self._waiters: dict[Job, asyncio.Future[None]] = {}

    def now_s(self) -> float:
        """Return the model seconds since this batch was made."""
        return round((self._loop.time() - self._epoch) * self.time_scale, 9)

    def submit(self, job: Job) -> None:
        """Take `job` in; raise QueueFull where there is no place for it."""
        changed = self.batch.submit(job, self.now_s())
        if job.end_s is None:  # what takes no time changes nothing for others
            self._wake(changed)

    def cancel(self, job: Job) -> None:
        """End `job`, whose client has gone; a task that waits for it goes on immediately."""
        self._wake(self.batch.cancel(job, self.now_s()))

    def made(self, job: Job) -> int:
        """Return how many tokens of `job`'s answer exist by now."""
        self._wake(self.batch.advance(self.now_s()))
        return self.batch.tokens_of(job)

    async def started(self, job: Job) -> None:
        """Wait until `job` holds a slot, or is cancelled."""
        while job.started_s is None and job.end_s is None:
            await self._change(job)

    async def finished(self, job: Job) -> float | None:
        """Wait until the last token of `job` is there, or it is cancelled; return when it was due.

        Without anything to wait for it returns None: only the client can be late then.
        """
        waits = job.end_s is None
        while job.end_s is None:
            await self._change(job)
        return job.end_s if waits else None

    async def tokens(self, job: Job, after: int) -> tuple[int, float | None]:
        """Wait until a started `job` has more than `after` tokens.

        Return how many it has then, and when the next one was due, as `finished` does.
        """
        due_s = None if after else self.batch.token_s(job, 1)
        while (have := self.made(job)) <= after:
            due_s = self.batch.token_s(job, after + 1)
            if due_s == math.inf:  # its prompt is not read yet, or once more
                await self._change(job)
                continue
            # asyncio's clock may call a hair early, by its own resolution; a wake-up never is.
            wait_s = min(due_s, self.batch.read_s()) - self.now_s()
            await asyncio.sleep(max(wait_s, 1e-9) / self.time_scale)
        return have, due_s

    def _change(self, job: Job) -> asyncio.Future[None]:
        self._waiters[job] = waiter = self._loop.create_future()
        return waiter

    def _wake(self, changed: list[Job]) -> None:
        for job in changed:
            if (waiter := self._waiters.pop(job, None)) is not None:
                self._arrive(_settle, waiter)
        due_s = self.batch.next_event_s()
        if due_s == self._timer_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s, self._timer = due_s, None
        if due_s < math.inf:
            self._timer = self._loop.call_at(self._epoch + due_s / self.time_scale, self._on_timer)

    def _on_timer(self) -> None:
        due_s, self._timer_s = self._timer_s, math.inf
        # A coarse clock may call a hair early; what was due is due.
        self._wake(self.batch.advance(max(due_s, self.now_s())))


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
