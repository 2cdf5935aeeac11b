"""A rate limit divided among the learners who ask.

A class's limit is one bucket, as any endpoint's. But a bucket alone serves whoever knocks most
often. So each learner has one too: a minute's limit divided by the number of those who asked in the
last minute, or the limit that the teacher set for each, whichever is less. Nothing here reads a
clock.
"""

from __future__ import annotations

from agentlab._support.bucket import Bucket
from agentlab.endpoint.limits import Limit, Limits, a_minutes

_ASKING_S = 60.0
"""So long after a request a learner counts as one who asks: the time of a limit a minute."""


class Shares:
    """The limits of a class, as each learner meets them; None or 0 where there is none.

    Args:
        for_all: "requests" or "tokens" -> how many a minute the whole class may send.
        for_each: The same for each learner.

    Example:
        >>> shares = Shares({"requests": 60}, {})
        >>> for name in ["Ada", "Bo", "Cleo"]:
        ...     shares.of(name, now_s=0.0).admit(1, 0.0, "m")
        >>> shares.share("requests")
        20
    """

    def __init__(self, for_all: dict[str, int | None], for_each: dict[str, int | None]):
        self._for_all = {kind: limit for kind, limit in for_all.items() if limit}
        self._for_each = {kind: limit for kind, limit in for_each.items() if limit}
        self._buckets: dict[str, dict[str, Bucket]] = {}
        self._limits: dict[str, Limits] = {}
        self._asked_s: dict[str, float] = {}
        self._common = [
            Limit(kind, a_minutes(limit), "the class's") for kind, limit in self._for_all.items()
        ]

    def __bool__(self) -> bool:
        return bool(self._for_all or self._for_each)

    def share(self, kind: str) -> int:
        """How many of `kind`, which is limited, each learner may send a minute by now."""
        bounds = []
        if kind in self._for_all:
            bounds.append(max(1, self._for_all[kind] // max(1, len(self._asked_s))))
        if kind in self._for_each:
            bounds.append(self._for_each[kind])
        return min(bounds)

    def of(self, learner: str, now_s: float) -> Limits:
        """The limits of `learner`, who asks now."""
        self._asked_s[learner] = now_s
        for name in [n for n, at_s in self._asked_s.items() if at_s <= now_s - _ASKING_S]:
            del self._asked_s[name]
        if learner not in self._limits:
            self._make(learner)
        for kind, bucket in self._buckets[learner].items():
            if (share := self.share(kind)) != bucket.burst:
                bucket.resize(share / 60, share, now_s)
        return self._limits[learner]

    def forget(self, learner: str) -> None:
        """Drop what is kept of `learner`."""
        for kept in (self._buckets, self._limits, self._asked_s):
            kept.pop(learner, None)

    def _make(self, learner: str) -> None:
        kinds = self._for_all | self._for_each
        self._buckets[learner] = {kind: a_minutes(self.share(kind)) for kind in kinds}
        own = [Limit(kind, b, "your share") for kind, b in self._buckets[learner].items()]
        self._limits[learner] = Limits(None, None, *own, *self._common)
