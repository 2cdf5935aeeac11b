"""The trace: what follows from the spans, and whose spans they are."""

from __future__ import annotations

import asyncio
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.clock import run_virtual
from agentlab.endpoint.contract.record import Recorder, Span
from agentlab.errors import ConfigError, EndpointError
from agentlab.lab.connection import connection
from agentlab.trace import Trace, attach, detach, tool, trace


def span(arrived_s: float, end_s: float | None, *, agent: str = "a", wait_s: float = 0.0) -> Span:
    """A complete answer; it waited `wait_s` for its slot."""
    return Span(
        request_id="req_1",
        agent=agent,
        arrived_s=arrived_s,
        started_s=arrived_s + wait_s,
        first_token_s=end_s,
        end_s=end_s,
        status=None if end_s is None else 200,
    )


def test_three_agents_one_after_the_other():
    """10, 15 and 12 s in a row: makespan 37, work 37, peak 1."""
    t = Trace([span(0, 10), span(10, 25), span(25, 37)])
    assert (t.makespan_s, t.work_s, t.peak) == (37, 37, 1)


def test_three_agents_together():
    """The same three at once: makespan 15, work 37, peak 3."""
    t = Trace([span(0, 10), span(0, 15), span(0, 12)])
    assert (t.makespan_s, t.work_s, t.peak) == (15, 37, 3)


def test_the_first_arrival_is_zero():
    """A run that began at 100 s on the endpoint's clock reads as one that began at 0."""
    t = Trace([span(104, 106), span(100, 103)])
    assert [(s.arrived_s, s.end_s) for s in t.spans] == [(0, 3), (4, 6)]


def test_waiting_for_a_slot_is_not_work():
    """A second of waiting lengthens the makespan, and not the work."""
    t = Trace([span(0, 2), span(0, 4, wait_s=2)])
    assert (t.work_s, t.makespan_s, t.peak) == (4, 4, 2)


def test_a_span_that_starts_at_zero_is_no_missing_span():
    """0.0 is a time like any other: it counts as service, first token and all."""
    first = Span(
        request_id="r", agent="a", arrived_s=0.0, started_s=0.0, first_token_s=0.0, end_s=2.0
    )
    assert (first.service_s, first.ttft_s, first.queued_s) == (2.0, 0.0, 0.0)


def test_a_request_in_flight_has_no_end_yet():
    """It counts for the peak, not for makespan or work, and the table says so."""
    t = Trace([span(0, 5), span(1, None)])
    assert (t.peak, t.makespan_s, t.work_s) == (2, 5, 5)
    assert "in flight" in t.table().splitlines()[2]


def test_an_empty_trace_is_zero_everywhere():
    """Nothing asked, and nothing to divide by."""
    t = Trace()
    assert (t.requests, t.makespan_s, t.work_s, t.peak) == (0, 0.0, 0.0, 0)


def test_the_table_has_a_line_for_each_request():
    """Agent, times to a tenth of a second, tokens and status, columns aligned."""
    t = Trace([span(0, 10, agent="research"), span(0, 15, agent="writer")])
    lines = t.table().splitlines()
    assert lines[1].replace(" ", "") == "research0.0s0.0s10.0s10.0s0200"
    assert len({len(line) for line in lines}) == 1


times = st.tuples(st.integers(0, 20), st.integers(1, 10))


@given(st.lists(times, max_size=25))
def test_the_peak_is_what_counting_second_by_second_finds(times: list[tuple[int, int]]):
    """Against an oracle: the most spans that cover any half-second."""
    t = Trace([span(start, start + length) for start, length in times])
    halves = [i + 0.5 for i in range(40)]
    first = min((start for start, _ in times), default=0)
    covered = [sum(s <= first + h < s + n for s, n in times) for h in halves]
    assert t.peak == max(covered, default=0)


def test_a_recorder_gives_what_came_after_a_mark():
    """Two before the mark, one after: only that one."""
    recorder = Recorder()
    recorder.add(span(0, 1))
    recorder.add(span(1, 2))
    mark = recorder.mark()
    recorder.add(span(2, 3, agent="late"))
    assert [s.agent for s in recorder.since(mark)] == ["late"]


def test_a_recorder_says_when_it_has_forgotten():
    """Three spans where two are kept: asking for all three is an error that counts them."""
    recorder = Recorder(keep=2)
    for at_s in range(3):
        recorder.add(span(at_s, at_s + 1))
    assert len(recorder.since(1)) == 2
    with pytest.raises(EndpointError, match="1 of 3 requests are no longer recorded"):
        recorder.since(0)


def test_a_trace_collects_only_what_arrives_inside_the_block():
    """Before and after the block leave no trace."""
    recorder = Recorder()
    attach(recorder)
    recorder.add(span(0, 1, agent="before"))
    with trace() as t:
        recorder.add(span(1, 2, agent="inside"))
    recorder.add(span(2, 3, agent="after"))
    assert [s.agent for s in t.spans] == ["inside"]


def test_a_source_that_appears_inside_the_block_is_collected():
    """The endpoint is started by its first use, which may be inside the block."""
    with trace() as t:
        recorder = Recorder()
        attach(recorder)
        recorder.add(span(0, 1, agent="first use"))
    assert [s.agent for s in t.spans] == ["first use"]


def test_an_open_trace_can_be_read():
    """Inside the block it shows what has arrived by now."""
    recorder = Recorder()
    attach(recorder)
    with trace() as t:
        recorder.add(span(0, 1))
        assert t.requests == 1
        recorder.add(span(1, 2))
        assert t.requests == 2


def test_traces_nest():
    """The inner block sees its own requests, the outer one sees all."""
    recorder = Recorder()
    attach(recorder)
    with trace() as outer:
        recorder.add(span(0, 1))
        with trace() as inner:
            recorder.add(span(1, 2))
    assert (inner.requests, outer.requests) == (1, 2)


def test_two_clocks_in_one_trace_are_refused():
    """Times of two clocks cannot be compared, and the message says what to do."""
    with pytest.raises(ConfigError, match="2 clocks"), trace():
        sources = [Recorder(), Recorder()]
        for source in sources:
            attach(source)
            source.add(span(0, 1))


def test_a_failing_block_still_fills_the_trace():
    """What happened up to the error is there to look at."""
    recorder = Recorder()
    attach(recorder)
    with pytest.raises(RuntimeError), trace() as t:
        recorder.add(span(0, 1))
        raise RuntimeError
    assert t.requests == 1


def test_seconds_add_up_an_agents_requests():
    """An agent that asks twice has the time of both; a wait for a slot does not count."""
    spans = [
        Span(request_id="1", agent="a", arrived_s=0, started_s=1, end_s=3),
        Span(request_id="2", agent="b", arrived_s=0, started_s=0, end_s=5),
        Span(request_id="3", agent="a", arrived_s=4, started_s=4, end_s=8),
    ]
    assert Trace(spans).seconds == {"a": 6, "b": 5}


class Crashed(Recorder):
    """A source that can be ended, and has no record then."""

    alive = True

    def mark(self) -> int:
        return self._answer(super().mark())

    def since(self, mark: int) -> list[Span]:
        return self._answer(super().since(mark))

    def _answer(self, answer):
        if not self.alive:
            raise EndpointError("it does not answer")
        return answer


def test_a_source_that_is_stopped_inside_the_block_leaves_its_spans():
    """They are read before it ends; what it does later no trace looks at."""
    recorder = Crashed()
    attach(recorder)
    with trace() as t:
        recorder.add(span(0, 1, agent="before"))
        detach(recorder)
        recorder.alive = False
        assert [s.agent for s in t.spans] == ["before"]
    with trace() as later:
        pass
    assert [s.agent for s in t.spans] == ["before"]
    assert later.requests == 0


def test_every_open_trace_keeps_what_it_saw_of_a_source_that_ends():
    """The inner block saw one request, the outer one two."""
    recorder = Recorder()
    attach(recorder)
    with trace() as outer:
        recorder.add(span(0, 1))
        with trace() as inner:
            recorder.add(span(1, 2))
            detach(recorder)
    assert (inner.requests, outer.requests) == (1, 2)


def test_one_source_after_another_is_two_clocks_only_if_both_were_asked():
    """A source that ends unasked leaves the trace to the next; two that were asked are refused."""

    def one_after_another(asked: list[bool]) -> Trace:
        with trace() as t:
            for number, is_asked in enumerate(asked):
                recorder = Recorder()
                attach(recorder)
                if is_asked:
                    recorder.add(span(number, number + 1))
                detach(recorder)
        return t

    assert one_after_another([False, True]).requests == 1
    with pytest.raises(ConfigError, match="2 clocks"):
        one_after_another([True, True])


def test_a_source_that_has_crashed_is_passed_over():
    """A trace that is opened later neither asks it nor fails."""
    recorder = Crashed()
    attach(recorder)
    recorder.alive = False
    with trace() as t:
        pass
    assert t.requests == 0


def test_a_record_that_is_lost_inside_the_block_is_an_error():
    """The trace would else lack requests in silence; it says so at the end and whenever read."""
    recorder = Crashed()
    attach(recorder)
    with pytest.raises(EndpointError, match="is lost: it does not answer"), trace() as t:
        recorder.alive = False
        detach(recorder)
    with pytest.raises(EndpointError, match="is lost"):
        _ = t.spans


def test_a_lost_record_does_not_hide_the_blocks_own_error():
    """What went wrong inside says more."""
    recorder = Crashed()
    attach(recorder)
    with pytest.raises(RuntimeError, match="the block's own"), trace():
        recorder.alive = False
        raise RuntimeError("the block's own")
    detach(recorder)


def test_a_trace_that_has_ended_is_sorted_once(monkeypatch: pytest.MonkeyPatch):
    """Fifty spans are moved to their zero fifty times, however often it is read after the block."""
    moved = []
    shifted = Span.shifted
    monkeypatch.setattr(
        Span, "shifted", lambda self, by_s: (moved.append(1), shifted(self, by_s))[1]
    )
    recorder = Recorder()
    attach(recorder)
    with trace() as t:
        for number in range(50):
            recorder.add(span(100 - number, 101 - number))
    assert (t.requests, t.peak, t.work_s, t.makespan_s) == (50, 1, 50, 50)
    assert [s.arrived_s for s in t.spans] == list(range(50))
    assert "50 requests" in repr(t)
    assert len(moved) == 50


def test_what_is_done_with_the_list_of_spans_leaves_the_trace_as_it_is():
    """The list is the reader's own."""
    t = Trace([span(0, 10), span(10, 25)])
    t.spans.clear()
    assert (t.requests, t.makespan_s) == (2, 25)


def test_a_trace_that_has_ended_stays_as_it_was():
    """An answer that comes after the block does not change what is kept of its request."""
    recorder = Recorder()
    attach(recorder)
    with trace() as t:
        in_flight = span(0, None)
        recorder.add(in_flight)
    in_flight.end_s, in_flight.status = 5.0, 200
    assert (t.spans[0].end_s, t.makespan_s) == (None, 0.0)


def test_a_trace_comes_back_from_disk(fresh_lab: ModuleType, tmp_path: Path):
    """Saved and loaded: the same spans; a broken file is refused."""
    with trace() as t:
        run_virtual(asyncio.wait_for(fresh_lab.ask("Describe tides.", agent="작가"), 1000))
    path = tmp_path / "run.jsonl"
    t.save(path)
    assert Trace.load(path).spans == t.spans
    assert [name.name for name in tmp_path.iterdir()] == ["run.jsonl"]
    path.write_text("{}")
    with pytest.raises(ConfigError, match=r"run.jsonl"):
        Trace.load(path)


def test_a_run_that_has_ended_is_held_by_no_later_trace(fresh_lab: ModuleType):
    """Else a thousand runs in virtual time, each traced, would keep all that they made."""

    async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
        await fresh_lab.ask("Name a river.")
        loop: Any = asyncio.get_running_loop()
        loop.kept = loop, connection()  # a circle, as a traceback makes it
        return weakref.ref(loop)

    ended = run_virtual(main()).result
    with trace():
        gc.collect()
        assert ended() is None


def test_simulations_in_threads_see_their_own(fresh_lab: ModuleType):
    """Both are open while both ask, and while both note a tool."""
    both = Barrier(2, timeout=60)

    async def program(name: str) -> None:
        both.wait()
        with tool(name):
            await fresh_lab.ask("Name three rivers.", agent=name)
        both.wait()

    def simulated(name: str) -> Trace:
        _, t = fresh_lab.simulate(program(name))
        return t

    with ThreadPoolExecutor(2) as threads:
        traces = threads.map(simulated, "ab")
    saw = [([span.agent for span in t.spans], [tool.name for tool in t.tools]) for t in traces]
    assert saw == [(["a"], ["a"]), (["b"], ["b"])]


def test_a_trace_inside_a_simulation_sees_what_comes_after_it(fresh_lab: ModuleType):
    """Also where the simulation has asked before."""

    async def program() -> list[str]:
        await fresh_lab.ask("Name three rivers.", agent="before")
        with trace() as t:
            await fresh_lab.ask("Name three rivers.", agent="inside")
        return [span.agent for span in t.spans]

    assert fresh_lab.simulate(program())[0] == ["inside"]
