"""What load tools read of the record: Prometheus' text format, with vLLM's names.

Times are seconds of wall-clock time, as the tool's own are.
Sources: docs.vllm.ai (Metrics), prometheus.io (Exposition formats).
"""

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

from agentlab.endpoint.contract.record import HUNG_UP, Recorder, Span

_SLICE = 500  # requests that are counted without a pause: a few milliseconds
_LABEL = 'model_name="agentlab"'
_BOUNDS_S = [float(f"{digit}e{power}") for power in range(-4, 3) for digit in (1, 1.5, 2, 3, 5, 7)]
_TIMES = {
    "vllm:time_to_first_token_seconds": "from arrival to the first token",
    "vllm:inter_token_latency_seconds": "from one token to the next, each as its request's mean",
    "vllm:e2e_request_latency_seconds": "from arrival to the end",
    "vllm:request_queue_time_seconds": "in the queue",
}


class Metrics:
    """Counts what was recorded since it was last read, so that a request costs nothing more."""

    def __init__(self, recorder: Recorder, time_scale: float):
        self._recorder, self._time_scale, self._mark = recorder, time_scale, 0
        self._in_flight: list[Span] = []
        self._read = self._made = 0
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
        return "".join(f"{line}\n" for line in self._lines()).encode()

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
        for name, (time_s, times) in zip(_TIMES, seen, strict=True):
            if time_s is not None:
                wall_s = time_s / self._time_scale
                self._within[name][bisect_left(_BOUNDS_S, wall_s)] += times
                self._sums_s[name] += wall_s * times

    def _lines(self) -> Iterator[str]:
        waiting = sum(span.started_s is None for span in self._in_flight)
        running = len(self._in_flight) - waiting
        for name, kind, about, samples in (
            ("num_requests_running", "gauge", "Requests that hold a slot.", {"": running}),
            ("num_requests_waiting", "gauge", "Requests in the queue.", {"": waiting}),
            ("prompt_tokens_total", "counter", "Tokens read.", {"": self._read}),
            ("generation_tokens_total", "counter", "Tokens made.", {"": self._made}),
            ("request_success_total", "counter", "Requests by how they ended.", self._ends),
        ):
            yield f"# HELP vllm:{name} {about}"
            yield f"# TYPE vllm:{name} {kind}"
            for reason, value in samples.items():
                more = f',finished_reason="{reason}"' if reason else ""
                yield f"vllm:{name}{{{_LABEL}{more}}} {value}"
        for name, within in self._within.items():
            yield f"# HELP {name} Seconds of wall-clock time {_TIMES[name]}."
            yield f"# TYPE {name} histogram"
            for bound_s, count in zip([*_BOUNDS_S, "+Inf"], accumulate(within), strict=True):
                yield f'{name}_bucket{{{_LABEL},le="{bound_s}"}} {count}'
            yield f"{name}_sum{{{_LABEL}}} {self._sums_s[name]:.9g}"
            yield f"{name}_count{{{_LABEL}}} {sum(within)}"
