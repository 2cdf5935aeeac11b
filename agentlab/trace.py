"""The one observer: what the endpoint saw of every request, and what follows from it.

All times are model seconds; the first arrival is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

import msgspec

from agentlab._support.system import write_whole
from agentlab.endpoint.contract.record import Recorder
from agentlab.endpoint.contract.record import Span as Span
from agentlab.errors import AgentLabError, ConfigError, EndpointError

if TYPE_CHECKING:
    from agentlab.endpoint.server.process import EndpointProcess

    Source = Recorder | EndpointProcess  # what records spans, here or in a process of its own


class Trace:
    """The spans of one run, sorted by arrival, with the first arrival at 0.

    Example:
        >>> two = [Span(request_id="a", agent="a", arrived_s=5, started_s=5, end_s=15, status=200),
        ...        Span(request_id="b", agent="b", arrived_s=5, started_s=5, end_s=20, status=200)]
        >>> t = Trace(two)
        >>> t.peak, t.work_s, t.makespan_s
        (2, 25, 15)
    """

    def __init__(self, spans: Iterable[Span] | Callable[[], Iterable[Span]] = ()):
        self._spans = spans if callable(spans) else _from_first_arrival(spans)

    @property
    def spans(self) -> list[Span]:
        """The spans; while the block of the trace is open, those that have arrived by now."""
        return _from_first_arrival(self._spans()) if callable(self._spans) else list(self._spans)

    @property
    def requests(self) -> int:
        """The number of requests that arrived, retries included."""
        return len(self.spans)

    @property
    def makespan_s(self) -> float:
        """The time from the first arrival to the last end."""
        return max((span.end_s for span in self.spans if span.end_s is not None), default=0.0)

    @property
    def work_s(self) -> float:
        """The time for which the model was busy, summed over all requests."""
        return round(sum(span.service_s for span in self.spans), 9)

    @property
    def speedup(self) -> float:
        """Work over makespan: requests served at the same time, on average; nan if it took none."""
        return self.work_s / self.makespan_s if self.makespan_s else float("nan")

    @property
    def peak(self) -> int:
        """The most requests in flight together, waiting ones included."""
        return max_overlap((span.arrived_s, span.end_s) for span in self.spans)

    @property
    def seconds(self) -> dict[str, float]:
        """Agent -> the time for which the model was busy with its requests, by first arrival."""
        seconds: dict[str, float] = {}
        for span in self.spans:
            seconds[span.agent] = round(seconds.get(span.agent, 0.0) + span.service_s, 9)
        return seconds

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together: what a bill would count."""
        return sum(span.prompt_tokens + span.completion_tokens for span in self.spans)

    def save(self, path: str | Path) -> None:
        """Write the spans to a file of JSON lines, whole or not at all."""
        write_whole(Path(path), msgspec.json.Encoder().encode_lines(self.spans))

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read what `save` or `agentlab serve --trace` wrote; else raise a ConfigError."""
        try:
            return cls(msgspec.json.Decoder(Span).decode_lines(Path(path).read_bytes()))
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(f"trace {str(path)!r}: {error}; give one that was saved") from None

    def table(self) -> str:
        """Return one line per request: agent, times, tokens, and how it ended."""
        rows = [["agent", "arrived", "queued", "first token", "end", "tokens", "status"]]
        for span in self.spans:
            times_s = (span.arrived_s, span.queued_s, span.first_token_s, span.end_s)
            times = ("-" if at_s is None else f"{at_s:.1f} s" for at_s in times_s)
            ended = "in flight" if span.status is None else f"{span.status} {span.fault or ''}"
            rows.append([span.agent, *times, str(span.completion_tokens), ended.strip()])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        )

    def __repr__(self) -> str:
        return (
            f"<Trace: {self.requests} requests, peak {self.peak}, "
            f"work {self.work_s:.1f} s, makespan {self.makespan_s:.1f} s>"
        )


def max_overlap(stretches: Iterable[tuple[float, float | None]]) -> int:
    """Return the largest number of intervals that overlap; an end of None is never.

    Example:
        >>> max_overlap([(0, 10), (5, 15), (10, 20)])
        2
    """
    both = list(stretches)
    starts = [(start_s, 1) for start_s, _ in both]
    ends = [(end_s, -1) for _, end_s in both if end_s is not None]
    changes = sorted([*starts, *ends])  # at one instant, -1 sorts before +1
    return max(accumulate(change for _, change in changes), default=0)


def _from_first_arrival(spans: Iterable[Span]) -> list[Span]:
    ordered = sorted(spans, key=lambda span: span.arrived_s)
    return [span.shifted(ordered[0].arrived_s) for span in ordered]


_sources: WeakSet[Source] = WeakSet()


class _View:
    """What one open trace sees: its place in each record, and the spans of sources that ended."""

    def __init__(self) -> None:
        self.marks = {source: source.mark() for source in list(_sources)}
        self.ended: list[list[Span]] = []
        self.lost: EndpointError | None = None

    def spans(self) -> list[Span]:
        if self.lost is not None:
            raise EndpointError(f"what this trace saw is lost: {self.lost}")
        runs = [*self.ended, *(source.since(mark) for source, mark in self.marks.items())]
        seen = [spans for spans in runs if spans]
        if len(seen) > 1:
            raise ConfigError(
                f"this trace saw {len(seen)} clocks, whose times cannot be compared; "
                "open a trace of its own for each run"
            )
        return seen[0] if seen else []


_open: list[_View] = []


def attach(source: Source) -> None:
    """Let every trace, open now or opened later, collect from `source`."""
    _sources.add(source)
    for view in _open:
        view.marks[source] = 0  # from its very beginning


def detach(source: Source) -> None:
    """Let the open traces keep what `source` has recorded; none looks at it again."""
    _sources.discard(source)
    for view in _open:
        if source in view.marks:
            try:
                view.ended.append(source.since(view.marks.pop(source)))
            except EndpointError as error:
                view.lost = error


@contextmanager
def trace() -> Iterator[Trace]:
    """Collect what the endpoint sees of requests that arrive inside the block, from any framework.

    Raises:
        ConfigError: If the block ran on two clocks, such as two virtual runs or two endpoints.
        EndpointError: If the endpoint crashed inside the block, and its record is lost.

    Example:
        with trace() as t:
            await lab.ask("Name three rivers.", agent="geographer")
        print(t.peak, t.makespan_s)
    """
    for source in [source for source in _sources if not source.alive]:
        detach(source)
    view = _View()
    opened = Trace(view.spans)
    _open.append(view)
    try:
        yield opened
        opened._spans = opened.spans
    except BaseException:
        with suppress(AgentLabError):  # the block's own error says more
            opened._spans = opened.spans
        raise
    finally:
        _open.remove(view)
