"""A rate limit, kept by the client, because a refusal costs a round trip and often counts, too.

The bound: N requests take at least (N - burst) / rate seconds.
"""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import anyio
import msgspec

from agentlab import lab
from agentlab._support.fields import checked
from agentlab.endpoint.contract.tokens import count_tokens
from agentlab.endpoint.middleware.bucket import Bucket
from agentlab.errors import ConfigError

_WINDOWS_S = (1.0, 60.0, 3600.0, 86_400.0)  # limits are counted by second, minute, hour or day


class RateLimit:
    """Keeps a rate limit: requests and tokens, as given or as the endpoint's first answer says.

    A minute's worth may be sent at the same time, as OpenAI's buckets allow.
    """

    def __init__(
        self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ):
        self._buckets: dict[str, Bucket] = {}
        self._learned: set[str] = set()
        for kind, limit in (("requests", requests_per_minute), ("tokens", tokens_per_minute)):
            checked(f"{kind}_per_minute", limit, above=True, optional=True)
            if limit is not None:
                self._buckets[kind] = _bucket(limit, 60)
        self._turn = anyio.Lock(fast_acquire=True)
        self._not_before_s = 0.0
        self._admitted_s: deque[float] = deque(maxlen=10_000)  # when, as far as is known

    async def wait(self, tokens: float = 0) -> None:
        """Wait in turn until one more request may be sent; `tokens` is what it may count for."""
        checked("tokens", tokens)
        async with self._turn:  # who is cancelled while it waits here has taken nothing
            while True:  # a wait may have grown meanwhile, and another bucket been learned
                now_s, amounts = lab.now_s(), self._amounts(tokens)
                waits_s = [bucket.wait_s(amount, now_s) for bucket, amount in amounts.items()]
                if self.paused_s > 0:
                    await lab.sleep_until(self._not_before_s)
                elif not any(waits_s):
                    break
                else:
                    await lab.sleep(max(waits_s))
            for bucket, amount in amounts.items():
                bucket.take(amount, now_s)
        self._admitted_s.append(lab.now_s())

    def _amounts(self, tokens: float) -> dict[Bucket, float]:
        """Return what a request takes out of each bucket."""
        amounts = {}
        for kind, bucket in self._buckets.items():
            amount = tokens if kind == "tokens" else 1.0
            if kind in self._learned:  # an estimate: against such a limit the endpoint decides
                amount = min(amount, bucket.burst)
            elif amount > bucket.burst:
                holds = f"a bucket that holds {bucket.burst:g} will never hold {amount:g}"
                raise ConfigError(f"{holds}; take less")
            amounts[bucket] = amount
        return amounts

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
            limit = lab.finite_number(headers.get(f"x-ratelimit-limit-{kind}", ""))
            left = lab.finite_number(headers.get(f"x-ratelimit-remaining-{kind}", ""))
            if left is None or limit is None or limit < 1e-6:
                continue
            if kind not in self._buckets:
                reset_s = lab.duration_s(headers.get(f"x-ratelimit-reset-{kind}", ""))
                counted_in_s = window_s(limit, left, reset_s)
                self._buckets[kind] = _bucket(limit, counted_in_s)
                self._learned.add(kind)
                if kind == "requests" and counted_in_s > 60:
                    self._learned.add("minute")  # there may be one that the headers do not tell
            self._buckets[kind].lower_to(left, lab.now_s())

    def refused(self) -> None:
        """Learn a minute's limit that no header tells: what the last minute admitted."""
        if self._admitted_s:
            self._admitted_s.pop()
        if "minute" in self._learned:
            admitted = sum(at_s > lab.now_s() - 60 for at_s in self._admitted_s)
            self._buckets["minute"] = _bucket(max(admitted, 1), 60)
            self._buckets["minute"].lower_to(0, lab.now_s())


def _bucket(limit: float, window_s: float) -> Bucket:
    return Bucket(limit / window_s, max(1.0, limit))


def window_s(limit: float, left: float, reset_s: float | None) -> float:
    """Return in which time a limit is counted: the minute, unless its reset says otherwise.

    Resets are rounded, so the nearest usual window is taken.
    """
    if not reset_s or left >= limit:
        return 60.0
    measured_s = limit * reset_s / (limit - left)
    return min(_WINDOWS_S, key=lambda window_s: abs(math.log(measured_s / window_s)))


def size_tokens(
    prompt: str, *, system: str | None = None, max_tokens: int | None = None, **options: Any
) -> float:
    """Estimate what a question counts for in a limit of tokens: texts, and its longest answer."""
    acted = [*(options.get("tools") or ()), *options.get("turns", ())]
    texts = [prompt, system or "", msgspec.json.encode(acted).decode() if acted else ""]
    return max(1, sum(map(count_tokens, texts)) + (max_tokens or 0))
