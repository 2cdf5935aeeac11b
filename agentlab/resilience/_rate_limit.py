"""A rate limit, kept by the client, because a refusal costs a round trip and often counts, too.

The bound: N requests take at least (N - burst) / rate seconds.
"""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import anyio

from agentlab import lab
from agentlab._support.bucket import Bucket
from agentlab._support.fields import checked
from agentlab.endpoint.contract.tokens import count_tokens
from agentlab.errors import ConfigError

_WINDOWS_S = (1.0, 60.0, 3600.0, 86_400.0)  # limits are counted by second, minute, hour or day


class TokenBucket:
    """A bucket whose callers wait in turn; one that is cancelled leaves nothing behind."""

    def __init__(self, per_s: float, burst: float):
        self.level = Bucket(per_s, burst)
        self._turn = anyio.Lock(fast_acquire=True)

    async def take(self, amount: float = 1.0) -> None:
        """Take `amount` out as soon as it is there; more than it ever holds is a ConfigError."""
        if amount > self.level.burst:
            holds = f"a bucket that holds {self.level.burst:g} will never hold {amount:g}"
            raise ConfigError(f"{holds}; take less")
        async with self._turn:
            while wait_s := self.level.wait_s(amount, lab.now_s()):
                await lab.sleep(wait_s)
            self.level.take(amount, lab.now_s())


class RateLimit:
    """Keeps a rate limit: requests and tokens, as given or as the endpoint's first answer says.

    A minute's worth may be sent at the same time, as OpenAI's buckets allow.
    """

    def __init__(
        self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ):
        self._buckets: dict[str, TokenBucket] = {}
        self._learned: set[str] = set()
        for kind, limit in (("requests", requests_per_minute), ("tokens", tokens_per_minute)):
            checked(f"{kind}_per_minute", limit, above=True, optional=True)
            if limit is not None:
                self._buckets[kind] = _bucket(limit, 60)
        self._not_before_s = 0.0
        self._admitted_s: deque[float] = deque(maxlen=10_000)  # when, as far as is known

    async def wait(self, tokens: float = 0) -> None:
        """Wait until one more request may be sent; `tokens` is what it may count for."""
        checked("tokens", tokens)
        taken: list[tuple[TokenBucket, float]] = []
        try:
            for kind, amount in (("requests", 1.0), ("minute", 1.0), ("tokens", tokens)):
                bucket = self._buckets.get(kind)
                if amount and bucket is not None:
                    # An estimate: against a limit that was learned, the endpoint decides.
                    share = min(amount, bucket.level.burst) if kind in self._learned else amount
                    await bucket.take(share)
                    taken.append((bucket, share))
            # Last, because a pause may have begun, or grown, while this one waited.
            while self.paused_s > 0:
                await lab.sleep_until(self._not_before_s)
        except BaseException:
            for bucket, share in taken:
                bucket.level.take(-share, lab.now_s())
            raise
        self._admitted_s.append(lab.now_s())

    @property
    def paused_s(self) -> float:
        """Model seconds for which nobody sends anything from now on."""
        return max(self._not_before_s - lab.now_s(), 0.0)

    def pause(self, seconds: float) -> None:
        """Let nobody send anything for so many model seconds, because the endpoint refused."""
        checked("seconds", seconds)
        self._not_before_s = max(self._not_before_s, lab.now_s() + seconds)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take OpenAI's `x-ratelimit-*` headers of any answer into account."""
        for kind in ("requests", "tokens"):
            limit, left = (
                lab.finite_number(headers.get(f"x-ratelimit-{what}-{kind}", ""))
                for what in ("limit", "remaining")
            )
            if left is None or limit is None or limit < 1e-6:
                continue
            if kind not in self._buckets:
                reset_s = lab.duration_s(headers.get(f"x-ratelimit-reset-{kind}", ""))
                counted_in_s = window_s(limit, left, reset_s)
                self._buckets[kind] = _bucket(limit, counted_in_s)
                self._learned.add(kind)
                if kind == "requests" and counted_in_s > 60:
                    self._learned.add("minute")  # there may be one that the headers do not tell
            self._buckets[kind].level.lower_to(left, lab.now_s())

    def refused(self) -> None:
        """Learn a minute's limit that no header tells: what the last minute admitted."""
        if self._admitted_s:
            self._admitted_s.pop()
        if "minute" in self._learned:
            admitted = sum(at_s > lab.now_s() - 60 for at_s in self._admitted_s)
            self._buckets["minute"] = _bucket(max(admitted, 1), 60)
            self._buckets["minute"].level.lower_to(0, lab.now_s())


def _bucket(limit: float, window_s: float) -> TokenBucket:
    return TokenBucket(limit / window_s, max(1.0, limit))


def window_s(limit: float, left: float, reset_s: float | None) -> float:
    """Return in which time a limit is counted: the minute, unless its reset says otherwise.

    Resets are rounded, so the nearest usual window is taken.
    """
    if not reset_s or left >= limit:
        return 60.0
    measured_s = limit * reset_s / (limit - left)
    return min(_WINDOWS_S, key=lambda window_s: abs(math.log(measured_s / window_s)))


def size_tokens(
    prompt: str, *, system: str | None = None, max_tokens: int | None = None, **_: Any
) -> float:
    """Estimate what a question counts for in a limit of tokens: texts, and its longest answer."""
    return max(1, count_tokens(prompt) + count_tokens(system or "") + (max_tokens or 0))
