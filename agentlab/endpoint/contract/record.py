"""The endpoint's record of requests, from which a trace is made, and what load tools read of it.

They read Prometheus' text format, with vLLM's names; times are seconds of wall-clock time, as the
tool's own are. Sources: docs.vllm.ai (Metrics), prometheus.io (Exposition formats).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator
from itertools import accumulate, islice

import msgspec

from agentlab.errors import EndpointError

HUNG_UP = 499  # the status if the client went away before the end (nginx's code)
BROKEN_OFF = 0  # the status if the endpoint broke the connection off

_SLICE = 500  # requests that are counted without a pause: a few milliseconds
_LABEL = 'model_name="agentlab"'
_BOUNDS_S = [float(f"{digit}e{power}") for power in range(-4, 3) for digit in (1, 1.5, 2, 3, 5, 7)]
_TIMES = {
    "vllm:time_to_first_token_seconds": "from arrival to the first token",
    "vllm:inter_token_latency_seconds": "from one token to the next, each as its request's mean",
    "vllm:e2e_request_latency_seconds": "from arrival to the end",
    "vllm:request_queue_time_seconds": "in the queue",
}


class Span(msgspec.Struct, kw_only=True, gc=False):
    """One request, as the endpoint saw it; times are model seconds on the endpoint's clock.

    A request waits in the queue from `arrived_s` to `started_s`, is read (prefill) until
    `first_token_s`, and is answered (decode) until `end_s`. A time that has not come is None, and
    so is the first token's in the plain answer of a real model. `status` is an HTTP status,
    `HUNG_UP` or `BROKEN_OFF`; None in flight. `fault` names the planned fault that hit the
    request, `learner` who sent it to the endpoint of a class. `finish_reason` is "length" if an
    answer was cut at its limit, else "stop". `late_ms` is how much later than due the endpoint
    itself handed over a token, or the end: the most, in milliseconds of wall-clock time. A real
    model says neither.
    """

    request_id: str
    agent: str
    arrived_s: float
    started_s: float | None = None
    first_token_s: float | None = None
    end_s: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    status: int | None = None
    attempt: int = 1
    fault: str | None = None
    learner: str | None = None
    finish_reason: str | None = None
    late_ms: float | None = None

    @property
    def ok(self) -> bool:
        """True if the model answered in full, even if late or slowly."""
        return self.status == 200 and self.fault in (None, "stall", "drip")

    @property
    def queued_s(self) -> float:
        """The wait for a slot; 0 if the request never got one."""
        return 0.0 if self.started_s is None else round(self.started_s - self.arrived_s, 9)

    @property
    def ttft_s(self) -> float | None:
        """Time to first token, which includes the wait in the queue; None if there was none."""
        return None if self.first_token_s is None else round(self.first_token_s - self.arrived_s, 9)

    @property
    def service_s(self) -> float:
        """The time for which the model was busy with the request, without the wait for a slot."""
        if self.started_s is None or self.end_s is None:
            return 0.0
        return round(self.end_s - self.started_s, 9)

    def shifted(self, by_s: float) -> Span:
        """Return a copy for a clock whose zero lies `by_s` later."""
        moved = {
            name: None if (at_s := getattr(self, name)) is None else round(at_s - by_s, 9)
            for name in ("arrived_s", "started_s", "first_token_s", "end_s")
        }
        return msgspec.structs.replace(self, **moved)


class Recorder:
    """The record, in order of arrival; it keeps the newest `keep` spans.

    Example:
        >>> recorder = Recorder()
        >>> recorder.add(Span(request_id="req_1", agent="writer", arrived_s=0.0))
        >>> recorder.mark(), len(recorder.since(0))
        (1, 1)
    """

    alive = True

    def __init__(self, keep: int = 200_000):
        self._spans: deque[Span] = deque(maxlen=keep)
        self._seen = 0

    def add(self, span: Span) -> None:
        """Record a request as it arrives; the span is filled in as things happen to it."""
        self._spans.append(span)
        self._seen += 1

    def mark(self) -> int:
        """Return the number of spans so far, a place in the record."""
        return self._seen

    @property
    def oldest(self) -> int:
        """The place of the oldest span that is kept."""
        return self._seen - len(self._spans)

    def since(self, mark: int) -> list[Span]:
        """Return the spans recorded after `mark`; EndpointError if some of them are gone."""
        skip = mark - self.oldest
        if skip < 0:
            raise EndpointError(
                f"{-skip} of {self._seen - mark} requests are no longer recorded (the newest "
                f"{self._spans.maxlen} are kept); trace a shorter run"
            )
        return list(islice(self._spans, skip, None))


class Metrics:
    """Counts what was recorded since it was last read, so that a request costs nothing more."""

    def __init__(self, recorder: Recorder, time_scale: float):
        self._recorder, self._time_scale, self._mark = recorder, time_scale, 0
        self._in_flight: list[Span] = []
        self._tokens: Counter[str] = Counter()
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
        self._tokens.update(prompt=span.prompt_tokens, generation=span.completion_tokens)
        if span.ok:
            self._ends[span.finish_reason or "unknown"] += 1
            self._observe(span)
        elif span.status == HUNG_UP:
            self._ends["abort"] += 1

    def _observe(self, span: Span) -> None:
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
            ("prompt_tokens_total", "counter", "Tokens read.", {"": self._tokens["prompt"]}),
            (
                "generation_tokens_total",
                "counter",
                "Tokens made.",
                {"": self._tokens["generation"]},
            ),
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
