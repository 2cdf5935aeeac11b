"""What callers felt of a run: response times, first tokens, goodput, and what it cost."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import Field

from agentlab._support.fields import Count, NotNegative, model
from agentlab.bench.arrivals import Seconds
from agentlab.bench.requests import Figure, Request

PERCENTS = (50, 90, 95, 99)
Dollars = Annotated[float, Field(ge=0, le=1e6)]


@model
class Slo:
    """A service level objective: what a `share` of the calls must keep, all of it at once.

    Attributes:
        ttft_s: The time to first token, from when the request was sent.
        itl_s: The mean time between the tokens that follow.
        response_s: From when a call was due until the client had its answer.
    """

    ttft_s: Seconds | UnsetType = UNSET
    itl_s: Seconds | UnsetType = UNSET
    response_s: Seconds | UnsetType = UNSET
    share: Annotated[float, Field(gt=0, le=1)] = 0.99

    def __post_init__(self) -> None:
        if not str(self):
            raise ValueError("give ttft_s, itl_s or response_s, or several")

    def __str__(self) -> str:
        limits = {"TTFT": self.ttft_s, "ITL": self.itl_s, "response": self.response_s}
        return ", ".join(f"{name} {limit:g} s" for name, limit in limits.items() if limit)

    def keeps(self, times_s: Mapping[str, float]) -> bool:
        """Return whether a call with these times, as `times_s` gives them, is within it."""
        limits = {
            name: getattr(self, name) or math.inf for name in ("ttft_s", "itl_s", "response_s")
        }
        return all(times_s.get(name, 0.0) <= limit for name, limit in limits.items())


@model
class Window:
    """The calls that count: those due from `from_s` on and before `to_s`."""

    from_s: NotNegative = 0.0
    to_s: Seconds | UnsetType = UNSET

    def holds(self, due_s: float) -> bool:
        """Return whether a call that is due then counts."""
        return self.from_s <= due_s < (self.to_s or math.inf)


@model
class Price:
    """Dollars for a million tokens of prompts, of their cached part, and of answers."""

    prompt: Dollars
    answer: Dollars
    cached: Dollars | UnsetType = UNSET

    def of(self, requests: Iterable[Request]) -> float:
        """Return what requests cost; what is cached costs its own price, if it has one."""
        cached = self.prompt if self.cached is UNSET else self.cached
        millionths = sum(
            (one.prompt_tokens - one.cached_tokens) * self.prompt
            + one.cached_tokens * cached
            + one.completion_tokens * self.answer
            for one in requests
        )
        return round(millionths / 1e6, 9)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of the `calls` that were due inside the window, in model seconds.

    Attributes:
        percentiles: Of response time (returned - due), service time (end - arrived), queue, TTFT
            (first token - sent) and ITL: the `PERCENTS` of the answered calls, by nearest rank.
        throughput: Answered calls per second, until the last of them was answered.
        goodput: The same of those that kept the SLO; `within` is their share of all calls.
        dollars: What all requests of the run cost, failed ones and those outside included.
    """

    calls: Count
    answered: Count
    percentiles: dict[str, tuple[Figure, Figure, Figure, Figure]]
    throughput: Figure
    goodput: Figure | UnsetType = UNSET
    within: Figure | UnsetType = UNSET
    dollars: Figure | UnsetType = UNSET

    def figure(self, name: str) -> float | UnsetType:
        """Return one of its figures by name: `goodput`, `dollars_per_task`, `response_p99_s`."""
        if parts := re.fullmatch(r"(\w+)_p(\d+)_s", name):
            values = self.percentiles.get(f"{parts[1]}_s")
            return values[PERCENTS.index(int(parts[2]))] if values else UNSET
        many = {"dollars_per_task": self.calls, "dollars_per_success": self.answered}.get(name)
        if many and self.dollars is not UNSET:
            return self.dollars / many
        return getattr(self, name, UNSET)


_STRETCHES = {
    "response_s": ("due_s", "returned_s"),
    "service_s": ("arrived_s", "end_s"),
    "queue_s": ("arrived_s", "started_s"),
    "ttft_s": ("sent_s", "first_token_s"),
}


def percentile(values: Iterable[float], percent: int) -> float:
    """Return the smallest value that `percent` of the values, one at least, do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def times_s(request: Request) -> dict[str, float]:
    """Return the times of an answered call, from its last request; unknown ones are left out."""
    ends_s = {name: [getattr(request, end) for end in ends] for name, ends in _STRETCHES.items()}
    times = {name: round(b - a, 9) for name, (a, b) in ends_s.items() if None not in (a, b)}
    first_s, end_s, gaps = request.first_token_s, request.end_s, request.completion_tokens - 1
    if first_s is not None and end_s is not None and gaps > 0:
        times["itl_s"] = round((end_s - first_s) / gaps, 9)
    return times


def summarized(
    requests: Iterable[Request],
    slo: Slo | UnsetType = UNSET,
    window: Window | UnsetType = UNSET,
    price: Price | UnsetType = UNSET,
) -> Summary:
    """Return the figures of one run. A limit of the SLO on a time that is unknown is kept."""
    rows, counts = list(requests), window or Window()
    last = {row.call: row for row in rows}
    due = [row for row in last.values() if counts.holds(row.due_s)]
    answered = [(row.returned_s or 0.0, times_s(row)) for row in due if row.ok]
    over_s = max((at_s for at_s, _ in answered), default=0.0) - counts.from_s
    kept = sum(slo.keeps(times) for _, times in answered) if slo else 0
    percentiles = {}
    for name in (*_STRETCHES, "itl_s"):
        if known := [times[name] for _, times in answered if name in times]:
            p50, p90, p95, p99 = (percentile(known, percent) for percent in PERCENTS)
            percentiles[name] = p50, p90, p95, p99
    return Summary(
        calls=len(due),
        answered=len(answered),
        percentiles=percentiles,
        throughput=round(len(answered) / over_s, 9) if over_s else 0.0,
        goodput=round(kept / over_s if over_s else 0.0, 9) if slo else UNSET,
        within=round(kept / max(len(due), 1), 9) if slo else UNSET,
        dollars=price.of(rows) if price else UNSET,
    )
