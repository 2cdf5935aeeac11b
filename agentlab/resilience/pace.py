"""A rate limit, kept by the client: sending what the endpoint will take, and no more.

Who sends at will is refused, and each refusal costs a round trip and, at most providers, counts
against the limit. The bound: N requests take at least (N - burst) / rate seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentlab import lab
from agentlab.errors import ConfigError


class TokenBucket:
    """Holds at most `burst`, gains `per_s` each model second; who takes what is not there waits.

    Those who wait are served in the order of their asking.

    Example:
        bucket = TokenBucket(per_s=50, burst=20)
        await bucket.take()
    """

    def __init__(self, per_s: float, burst: float):
        if per_s <= 0 or burst <= 0:
            raise ConfigError(f"a bucket needs per_s > 0 and burst > 0; got {per_s:g}, {burst:g}")
        self._per_s = per_s
        self._burst = burst
        self._level = float(burst)
        self._at_s: float | None = None

    async def take(self, amount: float = 1.0) -> None:
        """Take so much out, as soon as it is there.

        Raises:
            ConfigError: If it is more than the bucket ever holds.
        """
        if amount > self._burst:
            raise ConfigError(
                f"{amount:g} will never be in a bucket that holds {self._burst:g}; ask for less"
            )
        self._refill()
        # Who comes first owes first: the level goes below zero, and each waits for its own share.
        self._level -= amount
        if self._level < 0:
            try:
                await lab.sleep(-self._level / self._per_s)
            except BaseException:
                self._level += amount
                raise

    def lower_to(self, level: float) -> None:
        """Somebody else has taken from what this bucket models: no more than this is left."""
        self._refill()
        self._level = min(self._level, level)

    def _refill(self) -> None:
        now_s = lab.now_s()
        if self._at_s is not None:
            self._level = min(self._burst, self._level + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s


class Pace:
    """Requests and tokens a minute, as given or as the endpoint's headers say.

    Args:
        requests_per_minute: The limit; None takes what the endpoint says in its first answer.
        tokens_per_minute: The same for tokens.
        burst_s: How many seconds' worth may be sent at once; OpenAI's buckets hold a minute's.

    Example:
        pace = Pace(requests_per_minute=60)
        await pace.wait()
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        *,
        burst_s: float = 60.0,
    ):
        self._burst_s = burst_s
        self._buckets: dict[str, TokenBucket] = {}
        for kind, limit in (("requests", requests_per_minute), ("tokens", tokens_per_minute)):
            if limit is not None:
                self._limit(kind, limit)
        self._not_before_s = 0.0

    async def wait(self, tokens: float = 0) -> None:
        """Until one more request may be sent; `tokens` is what it may count for."""
        for kind, amount in (("requests", 1.0), ("tokens", tokens)):
            if amount and kind in self._buckets:
                await self._buckets[kind].take(amount)
        # Last, for a pause may have begun while this one waited for its share.
        while (left_s := self._not_before_s - lab.now_s()) > 0:
            await lab.sleep(left_s)

    def pause(self, seconds: float) -> None:
        """The endpoint refused: nobody sends anything for so many model seconds."""
        self._not_before_s = max(self._not_before_s, lab.now_s() + seconds)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take OpenAI's `x-ratelimit-*` headers from any answer into account."""
        for kind in ("requests", "tokens"):
            try:
                limit = float(headers[f"x-ratelimit-limit-{kind}"])
                left = float(headers[f"x-ratelimit-remaining-{kind}"])
            except (KeyError, ValueError):
                continue
            if limit > 0 and kind not in self._buckets:
                self._limit(kind, limit)
            if kind in self._buckets:
                self._buckets[kind].lower_to(left)

    def _limit(self, kind: str, per_minute: float) -> None:
        per_s = per_minute / 60
        burst = max(1.0, per_s * self._burst_s)
        self._buckets[kind] = TokenBucket(per_s, burst)
