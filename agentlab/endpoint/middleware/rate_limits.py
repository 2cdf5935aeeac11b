"""Rate limits: requests and tokens per minute, as buckets that fill up all the time.

Source: OpenAI's guide on rate limits (headers, what a refusal says, `max_tokens` counted ahead).
"""

import math
from dataclasses import dataclass
from typing import Any

from agentlab.endpoint.contract.openai_json import RequestError, refusal
from agentlab.endpoint.middleware.bucket import Bucket


def a_minutes(amount: int) -> Bucket:
    """Return the bucket of a limit of `amount` per minute."""
    return Bucket(amount / 60, amount)


@dataclass(frozen=True)
class Limit:
    """A limit of one kind, "requests" or "tokens"; `whose` says so where it is not the model's."""

    kind: str
    bucket: Bucket
    whose: str = ""

    def left(self, now_s: float) -> int:
        """Return how much there is at `now_s`, in whole ones."""
        return math.floor(self.bucket.level(now_s) + 1e-6)


class Limits:
    """The limits of one endpoint per minute; None or 0 is none. `more` may be shared."""

    def __init__(self, requests: int | None, tokens: int | None, *more: Limit):
        own = (("requests", requests), ("tokens", tokens))
        self._limits = [*(Limit(kind, a_minutes(most)) for kind, most in own if most), *more]

    def __bool__(self) -> bool:
        return bool(self._limits)

    def admit(self, tokens: int, now_s: float, model: str) -> None:
        """Take one request of `tokens` tokens in, or raise a 429 that says when to try again."""
        amounts = {"requests": 1, "tokens": tokens}
        for limit in self._limits:
            if limit.bucket.wait_s(amounts[limit.kind], now_s):
                raise _refusal(limit, amounts[limit.kind], now_s, model)
        for limit in self._limits:
            limit.bucket.take(amounts[limit.kind], now_s)

    def headers(self, now_s: float, time_scale: float) -> list[tuple[bytes, bytes]]:
        """Return what is left, as every answer says it; times are the client's own seconds."""
        # Of several limits of a kind the one that is nearest counts: sorted, it comes last.
        ordered = sorted(self._limits, key=lambda each: -each.left(now_s))
        nearest = {limit.kind: limit for limit in ordered}
        said = {}
        for kind, limit in nearest.items():
            said[f"limit-{kind}"] = f"{limit.bucket.burst:.0f}"
            said[f"remaining-{kind}"] = f"{limit.left(now_s)}"
            full_in_s = limit.bucket.wait_s(limit.bucket.burst, now_s)
            said[f"reset-{kind}"] = duration(full_in_s / time_scale)
        return [(f"x-ratelimit-{name}".encode(), value.encode()) for name, value in said.items()]


def _refusal(limit: Limit, amount: int, now_s: float, model: str) -> RequestError:
    most, wait_s = round(limit.bucket.burst), limit.bucket.wait_s(amount, now_s)
    words: Any = {"kind": limit.kind, "unit": limit.kind[0].upper(), "model": model, "most": most}
    words |= {"whose": limit.whose and f", {limit.whose}", "amount": amount}
    if math.isinf(wait_s):
        return refusal("never_within_the_limit", **words)
    words |= {"used": most - limit.left(now_s), "again": duration(wait_s)}
    return refusal("rate_limit_reached", retry_after_s=wait_s, **words)


def duration(seconds: float) -> str:
    """Write a time as OpenAI's headers do: 20ms, 1.5s, 6m0s."""
    if 0 < seconds < 0.9995:
        return f"{max(round(seconds * 1000), 1)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return (f"{minutes:g}m" if minutes else "") + f"{round(rest, 3):g}s"
