"""Whose turn it is: the slots go to whoever has had least, not to whoever asks most.

Each learner has a tag: the service that they have had, in seconds of a slot. The next job is that
of the least tag, and adds its own service to it. Who comes, or comes back, starts at the tag that
is being served: nobody saves up turns by staying away, and nobody waits for more than one job of
each of those who are there. With 1,000 requests waiting one learner still gets one share.

Source: Goyal, Vin, Cheng, "Start-time Fair Queueing" (SIGCOMM 1996), with a learner for a flow; as
a virtual token counter by Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024).
Places in the queue: Choudhury, Hahne, "Dynamic Queue Length Thresholds" (1998).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable

from agentlab.endpoint.batch import Job

_MOST_TAGS = 1000


def turns(job: Job) -> float:
    """Counts jobs alike, however long: fair by turns."""
    return 1.0


class FairQueue:
    """A queue for `Batch` that is fair by learner, and first come, first served for each.

    Args:
        cost: What a job counts for; above 0.

    Example:
        >>> queue = FairQueue()
        >>> for name in "AAAB":
        ...     queue.append(Job(0, 1, learner=name))
        >>> [queue.popleft().learner for _ in range(4)]
        ['A', 'B', 'A', 'A']
    """

    def __init__(self, cost: Callable[[Job], float] = turns):
        self._cost = cost
        self._waiting: dict[str, deque[Job]] = {}  # in the order in which they came to wait
        self._tags: dict[str, float] = {}
        self._now = 0.0  # the tag of the job that got a slot last
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def admits(self, job: Job, places: int | None) -> bool:
        """True if `job` may wait: nobody has more places than are left.

        So one learner alone gets half of them, two get a third each, and there is always room
        for a newcomer while there are more places than learners.
        """
        if places is None:
            return True
        return len(self._waiting.get(job.learner, ())) < places - self._length

    def append(self, job: Job, /) -> None:
        if job.learner not in self._waiting:
            self._waiting[job.learner] = deque()
            self._tags[job.learner] = max(self._tags.get(job.learner, 0.0), self._now)
        self._waiting[job.learner].append(job)
        self._length += 1

    def popleft(self) -> Job:
        learner = min(self._waiting, key=self._tags.__getitem__)  # of equals, who waits longest
        self._now = self._tags[learner]
        job = self._waiting[learner].popleft()
        self._tags[learner] = round(self._now + self._cost(job), 9)
        self._leave(learner)
        return job

    def remove(self, job: Job, /) -> None:
        self._waiting[job.learner].remove(job)
        self._leave(job.learner)

    def _leave(self, learner: str) -> None:
        self._length -= 1
        if not self._waiting[learner]:
            del self._waiting[learner]
        if len(self._tags) > _MOST_TAGS:  # whoever comes back with an old one starts at now
            self._tags = {
                name: tag
                for name, tag in self._tags.items()
                if tag > self._now or name in self._waiting
            }

    @property
    def waiting(self) -> Counter[tuple[str, str]]:
        """(Learner, agent) -> how many of their requests wait here."""
        return Counter((job.learner, job.agent) for jobs in self._waiting.values() for job in jobs)

    @property
    def oldest_s(self) -> float | None:
        """When the one that has waited longest arrived; None where nobody waits."""
        return min((jobs[0].arrived_s for jobs in self._waiting.values()), default=None)


def jain(shares: Iterable[float]) -> float:
    """How fair a division is: 1 where all shares are equal, 1/n where one has everything.

    Source: Jain, Chiu, Hawe, "A Quantitative Measure of Fairness" (1984).

    Example:
        >>> jain([2, 2, 2]), jain([6, 0, 0])
        (1.0, 0.3333333333333333)
    """
    given = list(shares)
    squares = sum(share * share for share in given)
    return sum(given) ** 2 / (len(given) * squares) if squares else 1.0
