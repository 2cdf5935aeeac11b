"""Fair shares: whose turn it is for a slot, and how a rate limit is divided.

Slots go to the learner who has had least. Each has a tag: the service that they have had, in
seconds of a slot. The next job is that of the least tag, and adds its own service to it. A learner
who comes, or comes back, starts at the tag that is being served, so nobody saves up turns.

A bucket alone serves the one who knocks most often. So each learner has one, too: a minute's limit
divided by those who asked in the last minute, or the teacher's limit for each if that is less.

Source: Goyal, Vin, Cheng, "Start-time Fair Queueing" (SIGCOMM 1996), with a learner for a flow.
Places in the queue: Choudhury, Hahne, "Dynamic Queue Length Thresholds" (1998).
"""

import math
from collections import deque
from collections.abc import Callable

from agentlab.endpoint.middleware.bucket import Bucket
from agentlab.endpoint.middleware.rate_limits import Limit, Limits, a_minutes
from agentlab.endpoint.physics.batch import Job

_ASKING_S = 60.0  # so long after a request a learner counts as one who asks


class FairQueue:
    """A queue for `Batch` that is fair by learner; `cost` says what a job counts for, above 0."""

    def __init__(self, cost: Callable[[Job], float] = lambda job: 1.0):
        self._cost = cost
        self._waiting: dict[str, deque[Job]] = {}  # in the order in which they came to wait
        self._tags: dict[str, float] = {}
        self._now = 0.0  # the tag of the job that got a slot last

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def admits(self, job: Job, places: int | None) -> bool:
        """Return True if `job` may wait: nobody has more places than are left."""
        return places is None or len(self._waiting.get(job.learner, ())) < places - len(self)

    def append(self, job: Job, /) -> None:
        if job.learner not in self._waiting:
            self._waiting[job.learner] = deque()
            self._tags[job.learner] = max(self._tags.get(job.learner, 0.0), self._now)
        self._waiting[job.learner].append(job)

    def popleft(self) -> Job:
        learner = min(self._waiting, key=self._tags.__getitem__)  # of equals, who waits longest
        self._now = self._tags[learner]
        job = self._waiting[learner][0]
        self._tags[learner] = round(self._now + self._cost(job), 9)
        self.remove(job)
        return job

    def remove(self, job: Job, /) -> None:
        self._waiting[job.learner].remove(job)
        if not self._waiting[job.learner]:
            del self._waiting[job.learner]

    def forget(self, learner: str) -> None:
        """Drop what is kept of a learner; if they come back, they start as a newcomer does."""
        if learner not in self._waiting:
            self._tags.pop(learner, None)


class Shares:
    """The limits of a class, as each learner meets them: "requests" and "tokens" per minute."""

    def __init__(self, for_all: dict[str, int | None], for_each: dict[str, int]):
        self._for_all = {kind: limit for kind, limit in for_all.items() if limit}
        self._for_each = {kind: limit for kind, limit in for_each.items() if limit}
        self._common = [Limit(k, a_minutes(n), "the class's") for k, n in self._for_all.items()]
        self._kept: dict[str, tuple[dict[str, Bucket], Limits]] = {}
        self._asked_s: dict[str, float] = {}

    def share(self, kind: str) -> int:
        """Return how many of `kind`, which is limited, each learner may send per minute by now."""
        of_all = self._for_all.get(kind, math.inf) // max(1, len(self._asked_s))
        return int(min(max(1, of_all), self._for_each.get(kind, math.inf)))

    def of(self, learner: str, now_s: float) -> Limits:
        """Return the limits of `learner`, who asks now."""
        asked_s = {**self._asked_s, learner: now_s}
        self._asked_s = {n: at_s for n, at_s in asked_s.items() if at_s > now_s - _ASKING_S}
        if learner not in self._kept:
            own = {kind: a_minutes(self.share(kind)) for kind in self._for_all | self._for_each}
            each = [Limit(kind, bucket, "your share") for kind, bucket in own.items()]
            self._kept[learner] = own, Limits(None, None, *each, *self._common)
        buckets, limits = self._kept[learner]
        for kind, bucket in buckets.items():
            if (share := self.share(kind)) != bucket.burst:
                bucket.resize(share / 60, share, now_s)
        return limits

    def forget(self, learner: str) -> None:
        self._kept.pop(learner, None)
        self._asked_s.pop(learner, None)
