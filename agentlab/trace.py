"""The one observer: what the endpoint saw of every request, what tools ran, and what follows.

All times are model seconds; the first arrival, or the start of the first tool, is 0.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from itertools import accumulate, count
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec
from msgspec.structs import replace

from agentlab._support.asyncio_tools import running_loop
from agentlab._support.system import write_whole
from agentlab.clock import VirtualTimeLoop
from agentlab.endpoint.contract.record import Recorder
from agentlab.endpoint.contract.record import Span as Span
from agentlab.errors import AgentLabError, ConfigError, EndpointError

if TYPE_CHECKING:
    from agentlab.endpoint.server.process import EndpointProcess

    Source = Recorder | EndpointProcess  # what records spans, here or in a process of its own

TOOL, AGENT = "execute_tool", "invoke_agent"  # operations, in the words of OpenTelemetry


class ToolSpan(Span, kw_only=True):
    """A tool that an agent ran, or an agent that it started; `agent` is "" if nobody did.

    `operation` is `TOOL` or `AGENT`, `parent` the id of the one inside of which it ran, `session`
    the conversation's name, and `fault` the error. One that is `inferred` was not noted.
    """

    name: str
    agent: str = ""
    operation: str = TOOL
    parent: str | None = None
    session: str | None = None
    inferred: bool = False


class Turn(NamedTuple):
    """A request of an agent's, None before its first one, and the tools that it ran after it."""

    call: Span | None
    tools: list[ToolSpan]

    def bound_s(self, *, serial: bool = False) -> float:
        """Return the least time of the turn, with its tools at the same time or in a row."""
        took_s = [tool.service_s for tool in self.tools] or [0.0]
        call_s = 0.0 if self.call is None else self.call.service_s
        return round(call_s + (sum(took_s) if serial else max(took_s)), 9)


class Trace:
    """The spans of one run, sorted by arrival: requests, and the tools that were noted.

    Example:
        >>> two = [Span(request_id="a", agent="a", arrived_s=5, started_s=5, end_s=15, status=200),
        ...        Span(request_id="b", agent="b", arrived_s=5, started_s=5, end_s=20, status=200)]
        >>> t = Trace(two)
        >>> t.peak, t.work_s, t.makespan_s
        (2, 25, 15)
    """

    def __init__(self, spans: Iterable[Span] | Callable[[], Iterable[Span]] = ()):
        self._spans = spans if callable(spans) else _from_zero(spans)

    def _all(self) -> list[Span]:
        return _from_zero(self._spans()) if callable(self._spans) else list(self._spans)

    @property
    def spans(self) -> list[Span]:
        """The requests; while the block of the trace is open, those that have arrived by now."""
        return [span for span in self._all() if not isinstance(span, ToolSpan)]

    @property
    def tools(self) -> list[ToolSpan]:
        """The tools and the sub-agents that were noted, by their start."""
        return [span for span in self._all() if isinstance(span, ToolSpan)]

    @property
    def requests(self) -> int:
        """The number of requests that arrived, retries included."""
        return len(self.spans)

    @property
    def makespan_s(self) -> float:
        """The time from the first arrival to the last end, of a request or of a tool."""
        return max((span.end_s or 0.0 for span in self._all() if not _is_agent(span)), default=0.0)

    @property
    def work_s(self) -> float:
        """The time for which the model, or a tool, was busy, summed over all of them.

        Of an agent that runs as a tool, its own requests and tools count instead.
        """
        spans = self._all()
        around = {span.parent for span in spans if isinstance(span, ToolSpan)}
        busy = (s for s in spans if not _is_agent(s) and s.request_id not in around)
        return round(sum(span.service_s for span in busy), 9)

    @property
    def peak(self) -> int:
        """The most requests in flight together, waiting ones included."""
        return max_overlap((span.arrived_s, span.end_s) for span in self.spans)

    @property
    def turns(self) -> dict[str, list[Turn]]:
        """Agent -> its turns, by first arrival; what runs inside of a tool is part of that tool."""
        turns = {span.agent: [Turn(None, [])] for span in self.spans}
        around = {tool.request_id for tool in self.tools if tool.operation == TOOL}
        for span in self._all():
            if not isinstance(span, ToolSpan):
                turns[span.agent].append(Turn(span, []))
            elif span.agent in turns and span.parent not in around:
                turns[span.agent][-1].tools.append(span)
        return {agent: own if own[0].tools else own[1:] for agent, own in turns.items()}

    @property
    def seconds(self) -> dict[str, float]:
        """Agent -> the bound of its turns, by first arrival: model time, and each longest tool."""
        turns = self.turns.items()
        return {agent: round(sum(turn.bound_s() for turn in own), 9) for agent, own in turns}

    def inferred(self, least_s: float = 0.1) -> Trace:
        """Return a copy that has a tool, marked as `inferred`, in each gap of an agent's.

        A gap is a time of `least_s` or more between requests in which nothing of the agent's ran
        that was noted: a tool, a wait, or the client's own time.
        """
        spans = self._all()
        busy: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for span in spans:
            busy[span.agent].append((span.arrived_s, inf if span.end_s is None else span.end_s))
        for agent, own in busy.items():
            idle_s = accumulate((end_s for _, end_s in own), max)
            for from_s, (to_s, _) in zip(idle_s, own[1:], strict=False):
                if agent and to_s - from_s >= least_s:
                    gap = ToolSpan(request_id="gap", name="gap", agent=agent, arrived_s=from_s)
                    spans.append(replace(gap, started_s=from_s, end_s=to_s, inferred=True))
        return Trace(spans)

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together: what a bill would count."""
        return sum(span.prompt_tokens + span.completion_tokens for span in self.spans)

    def save(self, path: str | Path) -> None:
        """Write requests and tools to a file of JSON lines, whole or not at all."""
        write_whole(Path(path), msgspec.json.Encoder().encode_lines(self._all()))

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read what `save` or `agentlab serve --trace` wrote; else raise a ConfigError."""
        try:
            lines = msgspec.json.Decoder(dict).decode_lines(Path(path).read_bytes())
            kinds = [ToolSpan if "operation" in line else Span for line in lines]
            return cls(map(msgspec.convert, lines, kinds))
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
        took = f"work {self.work_s:.1f} s, makespan {self.makespan_s:.1f} s"
        return f"<Trace: {self.requests} requests, peak {self.peak}, {took}>"


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


def _is_agent(span: Span) -> bool:
    return isinstance(span, ToolSpan) and span.operation == AGENT


def _from_zero(spans: Iterable[Span]) -> list[Span]:
    ordered = sorted(spans, key=lambda span: span.arrived_s)
    # An agent begins as its program does, before its client and the endpoint are there.
    zero_s = next((span.arrived_s for span in ordered if not _is_agent(span)), 0.0)
    return [span.shifted(zero_s) for span in ordered]


_sources: WeakKeyDictionary[Source, object] = WeakKeyDictionary()  # -> its simulation, if any


class _View:
    """What one open trace sees: its place in each record, and the spans of sources that ended."""

    def __init__(self) -> None:
        self.of = simulation.get()
        for source in [source for source in list(_sources) if not source.alive]:
            detach(source)
        there = [source for source, of in list(_sources.items()) if self.of in (None, of)]
        self.marks = {source: source.mark() for source in there}
        self.ended: list[tuple[Source, list[Span]]] = []
        self.tools: list[tuple[object, ToolSpan]] = []  # each beside the clock that it was noted by
        self.lost: EndpointError | None = None

    def spans(self) -> list[Span]:
        if self.lost is not None:
            raise EndpointError(f"what this trace saw is lost: {self.lost}")
        live = [(source, source.since(mark)) for source, mark in self.marks.items()]
        runs = [run for run in [*self.ended, *live] if run[1]]
        loops = {loop for loop, _ in self.tools}
        clocks = len(runs) + len(loops - {source.loop for source, _ in runs})
        if clocks > 1:
            saw = f"this trace saw {clocks} clocks, whose times cannot be compared"
            raise ConfigError(f"{saw}; open a trace of its own for each run")
        # Without a request, the time of tools is that of the model that they would have asked.
        runs += [run for run in live if run[0].loop in loops]
        source, spans = runs[0] if runs else (Recorder(), [])
        return [*spans, *(tool.shifted(source.zero_s, source.time_scale) for _, tool in self.tools)]


_open: list[_View] = []
_around: ContextVar[ToolSpan | None] = ContextVar("around", default=None)
_numbers = count(1)
simulation: ContextVar[object] = ContextVar("simulation", default=None)  # which this is part of


def _looking() -> list[_View]:
    """Return the open traces, without those of other simulations, which run in other threads."""
    mine = simulation.get()
    return [view for view in list(_open) if mine is None or view.of in (None, mine)]


def attach(source: Source) -> None:
    """Let every trace, open now or opened later, collect from `source`."""
    _sources[source] = simulation.get()
    for view in _looking():
        view.marks[source] = 0  # from its very beginning


def detach(source: Source) -> None:
    """Let the open traces keep what `source` has recorded; none looks at it again."""
    _sources.pop(source, None)
    for view in _open:
        if source in view.marks:
            try:
                view.ended.append((source, source.since(view.marks.pop(source))))
            except EndpointError as error:
                view.lost = error


def begin(name: str, **facts: Any) -> ToolSpan:
    """Note in the open traces that a tool begins now, for a callback; `end` notes its end.

    Around a block, use `tool` or `agent`. The `facts` are fields of `ToolSpan`.
    """
    loop, now_s = _reading()
    facts |= {"name": name, "arrived_s": now_s, "started_s": now_s}
    begun = ToolSpan(request_id=f"tool_{next(_numbers)}", **facts)
    if (around := _around.get()) is not None:
        begun.parent, begun.session = around.request_id, begun.session or around.session
        begun.agent = begun.agent or (around.name if around.operation == AGENT else around.agent)
    for view in _looking():
        view.tools.append((loop, begun))
    return begun


def end(begun: ToolSpan, error: object = None) -> None:
    """Note that what `begin` noted has ended, and the `error` if it failed."""
    begun.end_s, begun.status = _reading()[1], 200
    if isinstance(error, BaseException):
        error = f"{type(error).__name__}: {error}".removesuffix(": ")
    begun.fault = begun.fault if error is None else str(error)


def _reading() -> tuple[object, float]:
    loop = running_loop()
    return (loop, loop.time()) if isinstance(loop, VirtualTimeLoop) else (None, time.monotonic())


@contextmanager
def tool(name: str, **facts: Any) -> Iterator[ToolSpan]:
    """Note that the block is a tool of the `agent` that is given, or else of the agent around it.

    Example:
        with trace() as t, tool("search", agent="writer"):
            await lab.sleep(5)
        print(t.tools)
    """
    begun = begin(name, **facts)
    outer = _around.set(begun)
    try:
        yield begun
        end(begun)
    except BaseException as error:
        end(begun, error)
        raise
    finally:
        with suppress(ValueError):  # a generator left early is closed in another context
            _around.reset(outer)


agent = partial(tool, operation=AGENT)
"""Note that the block is an agent of that name; a `session` is its conversation's name."""


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
    view = _View()
    opened = Trace(view.spans)
    _open.append(view)
    try:
        yield opened
        opened._spans = opened._all()
    except BaseException:
        with suppress(AgentLabError):  # the block's own error says more
            opened._spans = opened._all()
        raise
    finally:
        _open.remove(view)
