"""A rate limit, kept by the client: sending what the endpoint will take, and no more.

Who sends at will is refused, and each refusal costs a round trip and, at most providers, counts
against the limit. The bound: N requests take at least (N - burst) / rate seconds.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping

from agentlab import lab
from agentlab._support.bucket import Bucket
from agentlab._support.numbers import checked
from agentlab.errors import ConfigError
from agentlab.model_time import finite_number


class TokenBucket:
    """Holds at most `burst`, gains `per_s` each model second; who takes what is not there waits.

    Those who wait are served in the order of their asking, and who stops waiting leaves nothing
    behind: it lets through what an exact bucket would, however many are cancelled.

    Example:
        bucket = TokenBucket(per_s=50, burst=20)
        await bucket.take()
    """

    def __init__(self, per_s: float, burst: float):
        checked("per_s", per_s, above=True)
        checked("burst", burst, above=True)
        self._bucket = Bucket(per_s, burst)
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def burst(self) -> float:
        """The most it holds, and the most that can be taken."""
        return self._bucket.burst

    async def take(self, amount: float = 1.0) -> None:
        """Take so much out, as soon as it is there.

        Raises:
            ConfigError: If it is more than the bucket ever holds, or no amount.
        """
        checked("amount", amount)
        if amount > self.burst:
            raise ConfigError(
                f"{amount:g} will never be in a bucket that holds {self.burst:g}; ask for less"
            )
        now_s = lab.now_s()
        if not self._waiting and not self._bucket.wait_s(amount, now_s):
            self._bucket.take(amount, now_s)
            return
        served = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, served))
        if len(self._waiting) == 1:
            self._serve()
        try:
            await served
        except BaseException:
            if served.cancelled():
                self._waiting = deque(each for each in self._waiting if each[1] is not served)
                self._serve()
            else:  # it was served in the same instant
                self.give_back(amount)
            raise

    def give_back(self, amount: float) -> None:
        """Put back what was taken, and not used."""
        self._bucket.take(-amount, lab.now_s())
        self._serve()

    def lower_to(self, level: float) -> None:
        """Somebody else has taken from what this bucket models: no more than this is left."""
        self._bucket.lower_to(level, lab.now_s())

    def _serve(self) -> None:
        """Let through who can be, and wake up again when the next one can."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_s = lab.now_s()
        while self._waiting:
            amount, served = self._waiting[0]
            if served.done():  # cancelled, and not yet told
                self._waiting.popleft()
                continue
            wait_s = self._bucket.wait_s(amount, now_s)
            if wait_s:
                self._timer = asyncio.get_running_loop().call_later(
                    wait_s / lab.model_seconds_a_second(), self._serve
                )
                return
            self._bucket.take(amount, now_s)
            self._waiting.popleft()
            served.set_result(None)


_LEAST_LIMIT = 1e-6
"""A header that tells a lower limit tells none."""


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
        checked("burst_s", burst_s, above=True)
        self._burst_share = burst_s / 60
        self._buckets: dict[str, TokenBucket] = {}
        self._learned: set[str] = set()
        for kind, limit in (("requests", requests_per_minute), ("tokens", tokens_per_minute)):
            if limit is not None:
                checked(f"{kind}_per_minute", limit, above=True)
                self._buckets[kind] = self._bucket(limit, 60)
        self._not_before_s = 0.0
        # Of the last minute, kept where an endpoint tells no limit by the minute.
        self._sent_s: deque[float] = deque(maxlen=10_000)
        self._refused_s: deque[float] = deque(maxlen=10_000)

    async def wait(self, tokens: float = 0) -> None:
        """Wait until one more request may be sent; `tokens` is what it may count for."""
        taken: list[tuple[TokenBucket, float]] = []
        try:
            for kind, amount in (("requests", 1.0), ("minute", 1.0), ("tokens", tokens)):
                bucket = self._buckets.get(kind)
                if amount and bucket is not None:
                    # An estimate: against a limit that was learned, the endpoint decides.
                    share = min(amount, bucket.burst) if kind in self._learned else amount
                    await bucket.take(share)
                    taken.append((bucket, share))
            # Last, because a pause may have begun, or grown, while this one waited.
            while self.paused_s > 0:
                await lab.sleep_until(self._not_before_s)
        except BaseException:
            for bucket, share in taken:
                bucket.give_back(share)
            raise
        self._sent_s.append(lab.now_s())

    @property
    def paused_s(self) -> float:
        """For how many more model seconds nobody sends anything."""
        return max(self._not_before_s - lab.now_s(), 0.0)

    def pause(self, seconds: float) -> None:
        """The endpoint refused: nobody sends anything for so many model seconds."""
        checked("seconds", seconds)
        self._not_before_s = max(self._not_before_s, lab.now_s() + seconds)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take OpenAI's `x-ratelimit-*` headers from any answer into account."""
        for kind in ("requests", "tokens"):
            limit, left = (
                finite_number(headers.get(f"x-ratelimit-{what}-{kind}", ""))
                for what in ("limit", "remaining")
            )
            if left is None or limit is None or limit < _LEAST_LIMIT:
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
