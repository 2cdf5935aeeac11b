"""What callers felt of a run: response times, first tokens, goodput, and what it cost."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated

import numpy as np
from msgspec import UNSET, UnsetType
from msgspec.structs import replace
from pydantic import Field

from agentlab._support.fields import NotNegative, model
from agentlab.bench.arrivals import Seconds
from agentlab.bench.requests import Request

Dollars = Annotated[float, Field(ge=0, le=1e6)]


@model
class Slo:
    """A service level objective: what a `share` of the calls must keep in all parts.

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
        names = ("ttft_s", "itl_s", "response_s")
        return all(times_s.get(name, 0.0) <= (getattr(self, name) or math.inf) for name in names)


@model
class Window:
    """The calls that count: those due from `from_s` on and before `to_s`."""

    from_s: NotNegative = 0.0
    to_s: Seconds | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.to_s and self.to_s <= self.from_s:
            raise ValueError(f"to_s must be more than from_s, {self.from_s:g}; got {self.to_s:g}")

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
        prices = self.prompt, self.prompt if self.cached is UNSET else self.cached, self.answer
        tokens = [(r.prompt_tokens, r.cached_tokens, r.completion_tokens) for r in requests]
        prompt, cached, answer = np.sum(tokens, axis=0)
        return round(float(np.dot((prompt - cached, cached, answer), prices)) / 1e6, 9)


_STRETCHES = {
    "response_s": ("due_s", "returned_s"),
    "service_s": ("arrived_s", "end_s"),
    "queue_s": ("arrived_s", "started_s"),
    "ttft_s": ("sent_s", "first_token_s"),
}


def percentile(values: Iterable[float], percent: int) -> float:
    """Return the smallest value that `percent` of the values, one at least, do not exceed."""
    return float(np.percentile([*values], percent, method="inverted_cdf"))


def times_s(request: Request) -> dict[str, float]:
    """Return the times of an answered call, from its last request; unknown ones are left out."""
    ends_s = {name: [getattr(request, end) for end in ends] for name, ends in _STRETCHES.items()}
    times = {name: round(b - a, 9) for name, (a, b) in ends_s.items() if None not in (a, b)}
    first_s, end_s, gaps = request.first_token_s, request.end_s, request.completion_tokens - 1
    if first_s is not None and end_s is not None and gaps > 0:
        times["itl_s"] = round((end_s - first_s) / gaps, 9)
    return times


def last_of_each(rows: Iterable[Request]) -> list[Request]:
    """Return the last request of each call and run, due when the first of its turns was."""
    last: dict[tuple[int, str], Request] = {}
    for row in rows:
        call = row.run, row.call
        last[call] = replace(row, due_s=last[call].due_s) if call in last else row
    return [*last.values()]


def summarized(
    requests: Iterable[Request],
    slo: Slo | UnsetType = UNSET,
    window: Window | UnsetType = UNSET,
    price: Price | UnsetType = UNSET,
) -> dict[str, float]:
    """Return figures of the calls of a run that were due inside the window, by name.

    `calls` counts them, `answered` those with an answer. Of these, `response_p99_s` and its like
    are percentiles, by nearest rank: of response time (returned - due), service time (end -
    arrived), queue, TTFT (first token - sent) and ITL. `throughput` is answers per second, until
    the last of them is there, `goodput` those within the SLO, and `within` their share of all
    calls; a limit on a time that is unknown is kept. `dollars_per_task` and `..._per_success` are
    what all requests of the run cost, for each call and for each answer.
    """
    rows, counts = list(requests), window or Window()
    last = last_of_each(rows)
    due = [row for row in last if counts.holds(row.due_s)]
    answered = [row for row in due if row.ok]
    times = [times_s(row) for row in answered]
    over_s = max((row.returned_s or 0.0 for row in answered), default=0.0) - counts.from_s
    per_s = 1 / over_s if over_s > 0 else 0.0
    figures = {"calls": len(due), "answered": len(answered), "throughput": len(answered) * per_s}
    for name in (*_STRETCHES, "itl_s"):
        if known := [one[name] for one in times if name in one]:
            figures |= {f"{name[:-1]}p{p}_s": percentile(known, p) for p in (50, 90, 95, 99)}
    if slo and due:
        kept = sum(map(slo.keeps, times))
        figures |= {"goodput": kept * per_s, "within": kept / len(due)}
    if price and rows:
        dollars, successes = price.of(rows), sum(row.ok for row in last)
        figures["dollars_per_task"] = dollars / len(last)
        figures |= {"dollars_per_success": dollars / successes} if successes else {}
    return {name: round(float(value), 9) for name, value in figures.items()}
