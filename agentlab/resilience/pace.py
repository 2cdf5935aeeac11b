"""A rate limit, kept by the client: sending what the endpoint will take, and no more.

Who sends at will is refused, and each refusal costs a round trip and, at most providers, counts
against the limit. The bound: N requests take at least (N - burst) / rate seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from agentlab import lab
from agentlab.errors import ConfigError
from agentlab.model_time import finite_number


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
        self.burst = burst
        self._level = float(burst)
        self._at_s: float | None = None

    async def take(self, amount: float = 1.0) -> None:
        """Take so much out, as soon as it is there.

        Raises:
            ConfigError: If it is more than the bucket ever holds.
        """
        if amount > self.burst:
            raise ConfigError(
                f"{amount:g} will never be in a bucket that holds {self.burst:g}; ask for less"
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
            self._level = min(self.burst, self._level + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s


class Pace:
    """Keeps a rate limit: requests and tokens, as given or as the endpoint says.

    Args:
        requests_per_minute: The limit; None takes what the endpoint says in its first answer.
        tokens_per_minute: The same for tokens.
        burst_s: How many seconds' worth of a minute's limit may be sent at the same time;
            OpenAI's buckets hold a minute's.

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
        self._burst_share = burst_s / 60
        self._buckets: dict[str, TokenBucket] = {}
        self._learned: set[str] = set()
        for kind, limit in (("requests", requests_per_minute), ("tokens", tokens_per_minute)):
            if limit is not None:
                self._buckets[kind] = self._bucket(limit, 60)
        self._not_before_s = 0.0
        # Of the last minute, kept where an endpoint tells no limit by the minute.
        self._sent_s: deque[float] = deque(maxlen=10_000)
        self._refused_s: deque[float] = deque(maxlen=10_000)

    async def wait(self, tokens: float = 0) -> None:
        """Wait until one more request may be sent; `tokens` is what it may count for."""
        for kind, amount in (("requests", 1.0), ("minute", 1.0), ("tokens", tokens)):
            bucket = self._buckets.get(kind)
            if amount and bucket is not None:
                # The amount is an estimate: against a limit that was learned, the endpoint decides.
                await bucket.take(min(amount, bucket.burst) if kind in self._learned else amount)
        # Last, because a pause may have begun, or grown, while this one waited.
        waited_until_s = None
        while self.paused_s > 0 and self._not_before_s != waited_until_s:
            waited_until_s = self._not_before_s
            await lab.sleep_until(waited_until_s)
        self._sent_s.append(lab.now_s())

    @property
    def paused_s(self) -> float:
        """For how many more model seconds nobody sends anything."""
        return max(self._not_before_s - lab.now_s(), 0.0)

    def pause(self, seconds: float) -> None:
        """The endpoint refused: nobody sends anything for so many model seconds."""
        self._not_before_s = max(self._not_before_s, lab.now_s() + seconds)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take OpenAI's `x-ratelimit-*` headers from any answer into account."""
        for kind in ("requests", "tokens"):
            limit, left = (
                finite_number(headers.get(f"x-ratelimit-{what}-{kind}", ""))
                for what in ("limit", "remaining")
            )
            if not limit or left is None:
                continue
            if kind not in self._buckets:
                reset_s = lab.duration_s(headers.get(f"x-ratelimit-reset-{kind}", ""))
                counted_in_s = window_s(limit, left, reset_s)
                self._buckets[kind] = self._bucket(limit, counted_in_s)
                self._learned.add(kind)
                if kind == "requests" and counted_in_s > 60:
                    self._learned.add("minute")  # there may be one that the headers do not tell
            self._buckets[kind].lower_to(left)

    def refused(self) -> None:
        """A rate limit refused a request.

        Where the headers tell a day's limit only, what was admitted in the last minute is the
        limit by the minute.
        """
        now_s = lab.now_s()
        self._refused_s.append(now_s)
        if "minute" not in self._learned:
            return
        for times_s in (self._sent_s, self._refused_s):
            while times_s and times_s[0] <= now_s - 60:
                times_s.popleft()
        admitted = max(len(self._sent_s) - len(self._refused_s), 1)
        self._buckets["minute"] = self._bucket(admitted, 60)
        self._buckets["minute"].lower_to(0)

    def _bucket(self, limit: float, window_s: float) -> TokenBucket:
        return TokenBucket(limit / window_s, max(1.0, limit * self._burst_share))


WINDOWS_S = (1.0, 60.0, 3600.0, 86_400.0)
"""The times in which limits are counted: by the second, minute, hour or day."""


def window_s(limit: float, left: float, reset_s: float | None) -> float:
    """Tell in which time a limit is counted: the minute, unless its reset says otherwise.

    A limit whose bucket fills up again within `reset_s` gains (limit - left) / reset_s per second.
    That tells the window, but for the rounding of the reset, so the nearest usual one is taken.
    At Groq 14,400 requests are a day's: of these one is back after 6 s.

    Example:
        >>> window_s(14_400, 14_399, 6.0), window_s(500, 499, 0.12), window_s(500, 500, 0.0)
        (86400.0, 60.0, 60.0)
    """
    if not reset_s or left >= limit:
        return 60.0
    measured_s = limit * reset_s / (limit - left)
    return min(WINDOWS_S, key=lambda window_s: abs(math.log(measured_s / window_s)))
