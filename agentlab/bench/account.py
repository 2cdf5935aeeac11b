"""Where the time went: what a run took beyond its bound, cause by cause, without remainder.

By hand, on a timeline of the run:

1. Cut each request into the stretches that `page/causes.json` describes.
2. A `barrier` waits for all calls before it. With `max_concurrency` a request waits for the next
   free slot, in the order in which they were sent, and that is part of `limit`.
3. Take one cause after the other out of the whole run, in the order of `CAUSES`, and let what
   waited for it move to the left. Its part is by how much the run ends earlier, down to the bound.

So no part is negative, and the sum is elapsed minus bound. What passed beside a longer chain costs
nothing, and of two causes that hide each other the first costs nothing. If the bound is work over
`max_concurrency`, `limit` is only what goes beyond it: slots that were empty while the last calls
ran. The bound is made of calls as they were served and of tools that were noted, so `prefill` and
such tools have no part, and `decode` only what a bound leaves that no call explains.

This is zeroing: J. K. Hollingsworth and B. P. Miller, "Parallel program performance metrics: a
comparison and validation", Supercomputing 1992. Times are whole nanoseconds, so sums are exact.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from agentlab.bench.experiment import varied
from agentlab.bench.report import PAGES, seconds
from agentlab.bench.requests import Request
from agentlab.bench.results import Results
from agentlab.errors import ConfigError

_FILE = Path(__file__).parent / "page" / "causes.json"
CAUSES: dict[str, dict[str, str]] = msgspec.json.decode(_FILE.read_bytes())
"""Cause -> what it `says`, what it `is`, and its look; in the order in which they are taken out."""

_THEN = ("network", "queue", "prefill", "decode", "late", "network")


class Segment(NamedTuple):
    """A stretch of the critical chain; there `prefill` and `decode` are the work itself."""

    call: str
    attempt: int
    cause: str
    from_ns: int
    to_ns: int


class Account(NamedTuple):
    """The nanoseconds of each cause beyond the bound, and what the last end waited for, from 0."""

    elapsed_ns: int
    bound_ns: int
    parts: dict[str, int]
    chain: list[Segment]


def account(
    rows: Sequence[Request],
    needs: Mapping[str, Sequence[str]],
    elapsed_s: float,
    bound_s: float,
    *,
    max_concurrency: int | None = None,
    time_scale: float = 1.0,
) -> Account:
    """Return where the time of one run went.

    `time_scale` is how many model seconds a second has, because `late_ms` is wall-clock time.

    Raises:
        ConfigError: If the bound is above elapsed, a time is no number, or there are several runs.

    Example:
        >>> row = Request(run=0, call="a", attempt=1, due_s=0, asked_s=0, sent_s=0, arrived_s=0,
        ...               started_s=3, first_token_s=4, end_s=9, returned_s=9, status=200)
        >>> account([row], {"a": ()}, elapsed_s=9, bound_s=6).parts["queue"]
        3000000000
    """
    if len({row.run for row in rows}) > 1:
        raise ConfigError("these are rows of several runs; account for each run by itself")
    if not 0 <= round(bound_s, 9) <= round(elapsed_s, 9) < 1e9:
        says = f"the bound, {bound_s} s, is not from 0 to the {elapsed_s} s that the run took;"
        raise ConfigError(f"{says} give both of the same run")
    elapsed_ns, bound_ns = round(elapsed_s * 1e9), round(bound_s * 1e9)
    back = [row for row in rows if row.returned_s is not None]  # nothing waited for the others
    back.sort(key=lambda row: (row.sent_s, row.returned_s))
    legs = _legs(back, needs, elapsed_ns, time_scale)
    slots = max_concurrency or len(legs)
    _ends_ns(legs, slots, None)
    parts, out, left_ns = dict.fromkeys(CAUSES, 0), set[str](), elapsed_ns
    for cause in CAUSES:
        out.add(cause)
        end_ns = max(_ends_ns(legs, slots, out), bound_ns)
        parts[cause], left_ns = left_ns - end_ns, end_ns
    parts["decode"] += left_ns - bound_ns
    return Account(elapsed_ns, bound_ns, parts, [*_chain(back, legs, elapsed_ns)][::-1])


class _Step(msgspec.Struct):
    """A cause that lasted until `until_ns`; with a number, until the leg of that number had ended.

    A `barrier` is for all legs before its number, a `limit` for the next free slot.
    """

    cause: str
    until_ns: int
    number: int | None = None
    ns: int = 0  # by how much it made the leg longer
    least_ns: int = 0  # so much is not taken out


def _legs(
    rows: list[Request], needs: Mapping[str, Sequence[str]], elapsed_ns: int, time_scale: float
) -> list[list[_Step]]:
    """Return for each row the steps that lead from 0 to its end, and last those of the run."""
    fields = "due_s asked_s sent_s arrived_s started_s first_token_s end_s end_s returned_s".split()
    exact = np.array([[getattr(row, f) for f in fields] for row in rows], float).reshape(-1, 9)
    if not np.isfinite(exact[:, [0, 1, 2, 8]]).all():
        raise ConfigError("a row of requests has a time that is no number of seconds")
    exact[:, 7] += [(row.late_ms or 0.0) / 1000 * time_scale for row in rows]
    # The client's clock is one and the endpoint's another: the client's own times stand.
    ordered = np.fmax.accumulate(np.minimum(exact, exact[:, 8:]), axis=1)
    times = np.rint(ordered * 1e9).clip(0, elapsed_ns).astype(int).tolist()
    # What others wait for: a call's last answer, or else its last failure.
    last: dict[str, int] = {}
    for number, row in enumerate(rows):
        both = last.get(row.call, number), number
        last[row.call] = max(both, key=lambda n: (rows[n].ok, times[n][8]))
    # One that was cut or slow, and is not the last, was asked for again.
    whole = [row.ok and not row.fault and row.finish_reason != "length" for row in rows]
    legs, quiet = list[list[_Step]](), list[tuple[int, int]]()
    before, latest_ns = dict[str, int](), 0
    for number, (row, (due, asked, sent, *stops)) in enumerate(zip(rows, times, strict=True)):
        if latest_ns <= sent:  # nothing is in flight
            quiet.append((latest_ns, number))
        latest_ns, previous = max(latest_ns, stops[-1]), before.get(row.call)
        before[row.call] = number
        waits = "limit" if previous is None else "tools" if whole[previous] else "retries"
        if previous is not None and times[previous][8] <= sent:
            steps = [_Step("after", sent, previous)]
            if waits == "tools" and due >= times[previous][8]:  # noted, and in the bound
                steps += [_Step("tools", due, least_ns=10**18), _Step("client", asked)]
                waits = "limit"
        else:
            awaited = [last[need] for need in needs.get(row.call, ()) if need in last]
            there = [n for n in awaited if n < number and times[n][8] <= asked]
            steps = [*(_Step("after", asked, n) for n in there), _Step("arrivals", due)]
            ended_ns, earlier = quiet[bisect_right(quiet, (asked, number)) - 1]
            if max([due, *(times[n][8] for n in there)]) < ended_ns:
                steps.append(_Step("barrier", asked, earlier))
            steps.append(_Step("client", asked))
        steps += [_Step("limit", sent, number), _Step(waits, sent)]
        counts = whole[number] or number == last[row.call]
        for cause, until_ns in zip(_THEN, stops, strict=True):
            stays_ns = 10**18 if counts and cause in ("prefill", "decode") else 0
            steps.append(_Step(cause if counts else "retries", until_ns, least_ns=stays_ns))
        legs.append(steps)
    ends = [_Step("after", times[number][8], number) for number in last.values()]
    return [*legs, [*ends, _Step("tail", elapsed_ns)]]


def _ends_ns(legs: list[list[_Step]], slots: int, out: Collection[str] | None) -> int:
    """Return when the run ends without the causes that are `out`; None measures the steps."""
    ends, latest, taken, at_ns = list[int](), [0], list[int](), 0
    for steps in legs:
        at_ns, free_ns = 0, heappop(taken) if len(taken) == slots else 0
        for step in steps:
            if step.number is None:
                end_ns = step.until_ns if out is None else at_ns + step.ns
            else:
                held = latest if step.cause == "barrier" else ends
                end_ns = min(free_ns if step.cause == "limit" else held[step.number], step.until_ns)
            if out is None:
                step.ns = max(end_ns - at_ns, 0)
            elif step.cause in out:
                end_ns = at_ns + min(step.ns, step.least_ns)
            at_ns = max(at_ns, end_ns)
        ends.append(at_ns)
        latest.append(max(latest[-1], at_ns))
        heappush(taken, at_ns)
    return at_ns


def _chain(rows: list[Request], legs: list[list[_Step]], at_ns: int) -> Iterator[Segment]:
    """Walk back from the run's end, from each call to the last one that it needs."""
    later: int | None = len(rows)
    while later is not None:
        call, attempt = (rows[later].call, rows[later].attempt) if later < len(rows) else ("", 0)
        steps, later = [step for step in legs[later] if step.ns], None
        for step in reversed(steps):
            if step.cause == "after":
                later = step.number
                break
            yield Segment(call, attempt, step.cause, at_ns - step.ns, at_ns)
            at_ns -= step.ns


def accounts(results: Results, rows: Iterable[Request]) -> dict[str, Account]:
    """Return where the time of each case's first run went, by the name of the case.

    A run whose requests were not kept has none, and neither has one that took less than its bound,
    as happens on the real clock.
    """
    kept: dict[int, list[Request]] = {}
    for row in rows:
        kept.setdefault(row.run, []).append(row)
    asked, axes, found = results.experiment, varied(results.measured), dict[str, Account]()
    time_scale = asked.chosen.time_scale if asked.clock == "real" else 1.0
    for number, m in enumerate(results.measurements):
        name = m.case.named(axes)
        if name in found or number not in kept or m.error or m.bound_s > m.elapsed_s:
            continue
        workflow, _ = asked.by_name[m.case.workload].drawn(m.case.seed, number=m.workflow or 0)
        limits: Any = {"max_concurrency": m.case.max_concurrency, "time_scale": time_scale}
        found[name] = account(kept[number], workflow.needs, m.elapsed_s, m.bound_s, **limits)
    return found


def page(results_name: str, cases: Mapping[str, Account]) -> str:
    """Return a page in HTML for cases by their names; the chain of the one that lost most is open.

    Example:
        >>> page("two < three", {}).splitlines()[-2:]
        ['</body>', '</html>']
    """
    parts = {cause: sum(account.parts[cause] for account in cases.values()) for cause in CAUSES}
    total = {cause: ns for cause, ns in parts.items() if ns}
    opened = max(cases, key=lambda case: sum(cases[case].parts.values()), default="")
    told = {"total": total, "opened": opened, "causes": CAUSES, "seconds": seconds}
    return PAGES.get_template("where.html").render(name=results_name, cases=cases, **told).lstrip()
