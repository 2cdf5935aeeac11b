"""What load tools read of the record: Prometheus' text format, with vLLM's names.

Times are seconds of wall-clock time, as the tool's own are.
Sources: docs.vllm.ai (Metrics), prometheus.io (Exposition formats).
"""

import asyncio
from bisect import bisect_left
from collections import Counter
from functools import cache
from itertools import accumulate
from typing import Any

from agentlab.endpoint.contract.record import HUNG_UP, Recorder, Span
from agentlab.settings import DATA

_SLICE = 500  # requests that are counted without a pause: a few milliseconds
_BOUNDS_S = [float(f"{digit}e{power}") for power in range(-4, 3) for digit in (1, 1.5, 2, 3, 5, 7)]


class Metrics:
    """Counts what was recorded since it was last read, so that a request costs nothing more."""

    def __init__(self, recorder: Recorder, time_scale: float):
        self._recorder, self._time_scale, self._mark = recorder, time_scale, 0
        self._in_flight: list[Span] = []
        self._read = self._made = 0
        self._ends = Counter({"stop": 0, "length": 0, "abort": 0})
        self._within = [[0] * (len(_BOUNDS_S) + 1) for _ in range(4)]  # as the template has them
        self._sums_s = [0.0] * 4

    async def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        new = self._recorder.since(max(self._mark, self._recorder.oldest))
        spans, self._in_flight = [*self._in_flight, *new], []
        self._mark = self._recorder.mark()
        for number, span in enumerate(spans, 1):
            if span.end_s is None:
                self._in_flight.append(span)
            else:
                self._count(span)
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        bounds, waiting = [*_BOUNDS_S, "+Inf"], sum(s.started_s is None for s in self._in_flight)
        histograms = [[*zip(bounds, accumulate(each), strict=True)] for each in self._within]
        said: str = _template().render(
            running=len(self._in_flight) - waiting,
            waiting=waiting,
            read=self._read,
            made=self._made,
            ends=self._ends,
            histograms=[*zip(histograms, self._sums_s, strict=True)],
        )
        return said.encode()

    def _count(self, span: Span) -> None:
        self._read += span.prompt_tokens
        self._made += span.completion_tokens
        if span.status == HUNG_UP:
            self._ends["abort"] += 1
        if not span.ok:
            return
        self._ends[span.finish_reason or "unknown"] += 1
        whole_s, first_s = (span.end_s or 0.0) - span.arrived_s, span.ttft_s
        gaps = 0 if first_s is None else max(span.completion_tokens - 1, 0)
        gap_s = (whole_s - (first_s or 0.0)) / max(gaps, 1)
        seen = ((first_s, 1), (gap_s, gaps), (whole_s, 1), (span.queued_s, 1))
        for number, (time_s, times) in enumerate(seen):
            if time_s is not None:
                wall_s = time_s / self._time_scale
                self._within[number][bisect_left(_BOUNDS_S, wall_s)] += times
                self._sums_s[number] += wall_s * times


@cache
def _template() -> Any:
    from jinja2 import Template  # not at the start of an endpoint, which is seldom asked

    written = (DATA / "metrics.jinja").read_text(encoding="utf-8")
    return Template(written, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
