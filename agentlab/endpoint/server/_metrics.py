"""What load tools read of the record: Prometheus' text format, with vLLM's names.

Times are seconds of wall-clock time, as the tool's own are.
Sources: docs.vllm.ai (Metrics), prometheus.io (Exposition formats).
"""

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

import msgspec

from agentlab._support import DATA
from agentlab.endpoint.contract.record import HUNG_UP, Recorder, Span

_SLICE = 500  # requests that are counted without a pause: a few milliseconds
_BOUNDS_S = [float(f"{digit}e{power}") for power in range(-4, 3) for digit in (1, 1.5, 2, 3, 5, 7)]
_METRICS: dict[str, list[str]] = msgspec.yaml.decode((DATA / "metrics.yaml").read_bytes())
_TIMES = [name for name, (kind, _) in _METRICS.items() if kind == "histogram"]


class Metrics:
    """Counts what was recorded since it was last read, so that a request costs nothing more."""

    def __init__(self, recorder: Recorder, time_scale: float):
        self._recorder, self._time_scale, self._mark = recorder, time_scale, 0
        self._in_flight: list[Span] = []
        self._tokens = Counter({"prompt_tokens_total": 0, "generation_tokens_total": 0})
        self._ends = Counter({"stop": 0, "length": 0, "abort": 0})
        self._within = {name: [0] * (len(_BOUNDS_S) + 1) for name in _TIMES}
        self._sums_s = dict.fromkeys(_TIMES, 0.0)

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
        return "\n".join([*self._lines(), ""]).encode()

    def _lines(self) -> Iterator[str]:
        waiting = sum(span.started_s is None for span in self._in_flight)
        now = {"num_requests_running": len(self._in_flight) - waiting}
        now |= {"num_requests_waiting": waiting, **self._tokens}
        told: dict[str, list[tuple[str, str, float]]] = {n: [("", "", v)] for n, v in now.items()}
        told["request_success_total"] = [
            ("", f',finished_reason="{why}"', n) for why, n in self._ends.items()
        ]
        for name, within in self._within.items():
            reached = zip([*_BOUNDS_S, "+Inf"], accumulate(within), strict=True)
            told[name] = [("_bucket", f',le="{bound_s}"', n) for bound_s, n in reached]
            told[name] += [("_sum", "", self._sums_s[name]), ("_count", "", sum(within))]
        for name, (kind, about) in _METRICS.items():
            yield f"# HELP vllm:{name} {about}\n# TYPE vllm:{name} {kind}"
            for end, label, value in told[name]:
                yield f'vllm:{name}{end}{{model_name="agentlab"{label}}} {value}'

    def _count(self, span: Span) -> None:
        self._tokens["prompt_tokens_total"] += span.prompt_tokens
        self._tokens["generation_tokens_total"] += span.completion_tokens
        if span.status == HUNG_UP:
            self._ends["abort"] += 1
        if not span.ok:
            return
        self._ends[span.finish_reason or "unknown"] += 1
        whole_s, first_s = (span.end_s or 0.0) - span.arrived_s, span.ttft_s
        gaps = 0 if first_s is None else max(span.completion_tokens - 1, 0)
        gap_s = (whole_s - (first_s or 0.0)) / max(gaps, 1)
        seen = ((first_s, 1), (gap_s, gaps), (whole_s, 1), (span.queued_s, 1))
        for name, (time_s, times) in zip(_TIMES, seen, strict=True):
            if time_s is not None:
                wall_s = time_s / self._time_scale
                self._within[name][bisect_left(_BOUNDS_S, wall_s)] += times
                self._sums_s[name] += wall_s * times
