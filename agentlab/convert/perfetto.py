"""Chrome's trace events, which https://ui.perfetto.dev and Perfetto's `trace_processor` open.

Format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import pairwise

import msgspec

from agentlab.convert._rows import Row, checked, inner
from agentlab.trace import AGENT, Span, ToolSpan

_PHASES = ("queue", "prefill", "decode")  # the wait for a slot, reading, answering


def requests(where: str, document: Row) -> Iterator[tuple[str, Row]]:
    """Yield the requests, tools and agents in trace events that we have written."""
    for number, event in enumerate(inner(where, [document], "traceEvents"), 1):
        if event.get("cat") in ("request", "tool"):
            at = f"{where}, event {number}"
            yield at, checked(at, "args", event.get("args"), Row)


def export(spans: Sequence[Span]) -> bytes:
    """Write what has ended as slices, requests with their phases inside, on a track per agent.

    An agent has as many tracks as run at the same time. A slice's arguments are the whole span.
    """
    events: list[Row] = [_name("process_name", 0, "agentlab")]
    free: dict[str, list[tuple[float, int]]] = {}  # agent -> when each of its tracks is free again
    zero_s = min([0.0, *(span.arrived_s for span in spans)])  # Perfetto drops what is before 0
    tracks = 1  # the process; a track of its number would be called the main thread
    for span in spans:
        kind, name, whose = "request", "request", span.agent
        if isinstance(span, ToolSpan):
            kind, name = "tool", f"{span.operation} {span.name}"
            whose = span.name if span.operation == AGENT else span.agent
        own, ended_s = free.setdefault(whose, []), span.end_s or 0.0
        if own and own[0][0] <= span.arrived_s:
            _, track = heappop(own)
        else:
            track = tracks = tracks + 1
            events.append(_name("thread_name", track, whose))
        heappush(own, (ended_s, track))
        name += "" if span.ok else f": {span.fault or span.status}"
        events.append(_slice(kind, name, track, span.arrived_s, ended_s, zero_s) | {"args": span})
        times_s = (span.arrived_s, span.started_s, span.first_token_s, ended_s)
        for phase, (start_s, end_s) in zip(_PHASES, pairwise(times_s), strict=True):
            if start_s is not None and end_s is not None and start_s < end_s:
                events.append(_slice("phase", phase, track, start_s, end_s, zero_s))
    return msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms"})


def _name(what: str, track: int, name: str) -> Row:
    return {"ph": "M", "name": what, "pid": 1, "tid": track, "args": {"name": name}}


def _slice(kind: str, name: str, track: int, start_s: float, end_s: float, zero_s: float) -> Row:
    """Return a slice; its times are microseconds, to the nanosecond."""
    times_us = {"ts": round((start_s - zero_s) * 1e6, 3), "dur": round((end_s - start_s) * 1e6, 3)}
    return {"ph": "X", "cat": kind, "name": name, "pid": 1, "tid": track, **times_us}
