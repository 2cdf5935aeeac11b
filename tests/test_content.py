"""The content system: limits as the endpoint saw them, nothing lost, nothing paid twice."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agentlab import lab
from agentlab.content import Content, ContentSystem, Journal, Settings
from agentlab.content._publish import Article
from agentlab.errors import ConfigError
from agentlab.trace import Trace

TOPICS = [f"Tides in harbour {number}" for number in range(1, 11)]


def batch(
    topics: list[str],
    *,
    out: Path | None = None,
    kind: Any = "blog",
    faults: list[dict[str, Any]] | None = None,
    **settings: Any,
) -> tuple[list[Content], Trace]:
    with (
        lab.configure(faults=faults or []),
        ContentSystem(Settings(**settings), out=out) as system,
    ):
        contents, t = lab.simulate(system.batch_generate(topics, kind))
    return contents, t  # type: ignore[return-value]


def statuses(contents: list[Content]) -> list[str]:
    return [content.status for content in contents]


@pytest.mark.parametrize("kind", ["blog", "comprehensive"])
def test_at_most_so_many_agents_at_once(fresh_lab, kind):
    """Ten topics and four agents: the endpoint saw four in flight, and the fifth never."""
    contents, t = batch(TOPICS, kind=kind, max_concurrent_agents=4)
    assert statuses(contents) == ["done"] * 10
    assert t.peak == 4
    assert t.requests == 10 * (4 if kind == "blog" else 8)


def test_comprehensive_work_is_parallel(fresh_lab):
    """One topic alone: three researchers at once; a blog has one agent at a time."""
    for kind, peak in (("blog", 1), ("comprehensive", 3)):
        (content,), t = batch(TOPICS[:1], kind=kind)
        assert (content.metrics.peak, t.peak) == (peak, peak)
        assert content.metrics.duration_s == pytest.approx(t.makespan_s)


def test_an_answer_takes_so_many_requests_at_most(fresh_lab):
    """An agent that always fails is sent three requests a try; after three tries it is given up."""
    wrong = [{"kind": "error", "status": 500, "agent": f"writer: {TOPICS[3]}", "probability": 1}]
    contents, t = batch(TOPICS, faults=wrong, retry_attempts=3, quarantine_after=3)
    assert statuses(contents) == ["done"] * 3 + ["quarantined"] + ["done"] * 6
    assert sum(span.agent == f"writer: {TOPICS[3]}" for span in t.spans) == 9
    assert sum(span.agent == f"research: {TOPICS[3]}" for span in t.spans) == 1  # kept
    assert contents[3].metrics.attempts == 9 and "500" in str(contents[3].error)


def test_no_request_takes_longer_than_the_timeout(fresh_lab):
    """One that hangs for 200 s is hung up on after 30 s, and asked again."""
    hang = [{"kind": "stall", "stall_s": 200, "agent": f"editor: {TOPICS[0]}", "calls": [1]}]
    contents, t = batch(TOPICS[:2], faults=hang, timeout_seconds=30)
    hung_up = [s for s in t.spans if s.status == 499 and s.end_s is not None]
    assert statuses(contents) == ["done", "done"]
    assert [s.end_s - s.arrived_s for s in hung_up if s.end_s] == [pytest.approx(30)] * len(hung_up)
    assert hung_up and contents[0].metrics.attempts > 1


def test_with_too_little_memory_it_slows_down(fresh_lab):
    """No process fits into 1 MB: one topic at a time, and all are done."""
    contents, t = batch(TOPICS[:3], max_memory_mb=1)
    assert statuses(contents) == ["done"] * 3
    assert t.peak == 1


def test_a_rate_is_kept(fresh_lab):
    """Ten a minute over 40 requests: ten at once, then one every six seconds, for 3 minutes."""
    contents, t = batch(TOPICS, requests_per_minute=10, max_concurrent_agents=40)
    arrived_s = [span.arrived_s for span in t.spans]
    assert statuses(contents) == ["done"] * 10 and len(arrived_s) == 40
    assert max(sum(0 <= b - a < 60 for b in arrived_s) for a in arrived_s) <= 20
    assert max(arrived_s) >= 180 - 1e-6


def test_the_metrics_are_what_the_endpoint_counted(fresh_lab):
    """Requests and tokens of the batch, and their price."""
    contents, t = batch(TOPICS, prompt_price=1.0, answer_price=2.0)
    metrics = [content.metrics for content in contents]
    assert sum(m.requests for m in metrics) == t.requests
    assert sum(m.prompt_tokens for m in metrics) == sum(s.prompt_tokens for s in t.spans)
    assert sum(m.answer_tokens for m in metrics) == sum(s.completion_tokens for s in t.spans)
    expected = sum(s.prompt_tokens + 2 * s.completion_tokens for s in t.spans) / 1e6
    assert sum(m.cost or 0 for m in metrics) == pytest.approx(expected)


def test_the_monitor_counts_what_the_endpoint_saw(fresh_lab):
    """Calls, attempts and failures of a whole batch, in one place."""
    once = [{"kind": "error", "status": 503, "agent": f"writer: {TOPICS[0]}", "calls": [1]}]
    with lab.configure(faults=once), ContentSystem() as system:
        _, t = lab.simulate(system.batch_generate(TOPICS[:3]))
    health = system.monitor.health()
    assert (health["calls"], health["failed"], health["in_flight"]) == (12, 0, 0)
    assert (health["attempts"], health["failed_attempts"]) == (t.requests, 1) == (13, 1)


def test_a_topic_is_written_once(fresh_lab, tmp_path):
    """However often it is given, and however it is spaced."""
    contents, t = batch([TOPICS[0], f"  {TOPICS[0].replace(' ', '  ')} ", TOPICS[0]], out=tmp_path)
    assert len(contents) == 1 and t.requests == 4
    assert len(list(tmp_path.glob("*.md"))) == 1


def test_two_at_once_about_one_topic_share_the_work(fresh_lab):
    """The second waits, and finds every answer there."""

    async def both(system: ContentSystem) -> list[Content]:
        return await asyncio.gather(*(system.generate_content(TOPICS[0]) for _ in range(2)))

    with ContentSystem() as system:
        contents, t = lab.simulate(both(system))
    assert t.requests == 4
    assert contents[0].article == contents[1].article  # type: ignore[index]


def test_another_run_sends_nothing_again(fresh_lab, tmp_path):
    """Neither the answers nor the files change."""
    batch(TOPICS, out=tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.*m*")}
    contents, t = batch(TOPICS, out=tmp_path)
    assert t.requests == 0 and statuses(contents) == ["done"] * 10
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_another_question_is_asked(fresh_lab, tmp_path):
    """What was answered to other words is no answer to these."""
    with Journal() as journal:
        journal.sending("blog: x", "research", "a")
        journal.record("blog: x", "research", "a", lab.Reply("yes", 1, 1))
        assert journal.answer("blog: x", "research", "b") is None


def test_siblings_of_a_failure_are_kept(fresh_lab):
    """One of three researchers fails: what the others were sent for is recorded all the same."""
    wrong = [{"kind": "error", "status": 400, "agent": f"limits: {TOPICS[0]}", "calls": [1]}]
    contents, t = batch(TOPICS[:1], kind="comprehensive", faults=wrong)
    assert statuses(contents) == ["done"]
    assert t.requests == 9  # eight, and the failed one


def test_a_wrong_key_stops_everything(fresh_lab):
    """No topic can succeed, so none is called poisoned, and few requests find out."""
    wrong = [{"kind": "error", "status": 401, "probability": 1}]
    contents, t = batch(TOPICS, faults=wrong)
    assert statuses(contents) == ["left"] * 10
    assert t.requests <= 4


def test_an_endpoint_that_is_down_poisons_no_topic(fresh_lab):
    """Nothing was ever answered: the batch stops, and all of it is left for later."""
    down = [{"kind": "error", "status": 503, "probability": 1}]
    contents, _ = batch(TOPICS, faults=down)
    assert statuses(contents) == ["left"] * 10


def test_an_outage_in_mid_batch_poisons_no_topic(fresh_lab, tmp_path):
    """Ten minutes of it: what was answered is kept, the rest is left, and another run ends it."""
    down = [{"kind": "error", "status": 503, "probability": 1, "between_s": [100, 700]}]
    contents, _ = batch(TOPICS, faults=down, out=tmp_path)
    assert set(statuses(contents)) == {"done", "left"}
    assert statuses(batch(TOPICS, out=tmp_path)[0]) == ["done"] * 10


def test_a_short_outage_stops_nothing(fresh_lab):
    """Who failed in it is tried again, without a mark against their name."""
    down = [{"kind": "reset", "probability": 1, "between_s": [60, 120]}]
    contents, _ = batch(TOPICS, faults=down, quarantine_after=2)
    assert statuses(contents) == ["done"] * 10


@pytest.mark.parametrize("between_s", [[10, 70], [0, 60], [10, 200]])
@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_a_refusal_that_meets_everybody_is_nobodys_fault(fresh_lab, status, between_s):
    """A minute or three of it, with whatever status: all are done, at few requests a topic."""
    busy = [{"kind": "error", "status": status, "probability": 1, "between_s": between_s}]
    contents, t = batch(TOPICS[:8], faults=busy)
    assert statuses(contents) == ["done"] * 8
    assert t.requests <= 32 + 8 * 7


@pytest.mark.parametrize("status", [408, 429, 503])
@pytest.mark.parametrize("from_s", [0, 30])
def test_patience_ends(fresh_lab, status, from_s):
    """What is refused for ever stops the batch, patience after it was given up; none is blamed."""
    busy = [{"kind": "error", "status": status, "probability": 1, "between_s": [from_s, 1e9]}]
    with lab.configure(faults=busy), ContentSystem(Settings(longest_wait_seconds=120)) as system:
        contents, t = lab.simulate(system.batch_generate(TOPICS[:8]))
    assert statuses(contents) == ["left"] * 8  # type: ignore[arg-type]
    assert "nothing is answered within 120 model seconds" in str(system.stopped)
    assert t.makespan_s - from_s <= 120 + 126  # back-off in a minute's window takes 63 to 126 s
    assert t.requests <= 64


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_is_too_long_is_not_begun(fresh_lab, status):
    """Asked to wait for an hour, it stops and says so; a wait of 100 seconds is kept."""
    busy = {"kind": "error", "status": status, "probability": 1, "between_s": [30, 130]}
    with lab.configure(faults=[busy | {"retry_after_s": 3600}]), ContentSystem() as system:
        contents, t = lab.simulate(system.batch_generate(TOPICS[:8]))
    assert statuses(contents) == ["left"] * 8 and t.makespan_s < 60  # type: ignore[arg-type]
    assert "wait 3,600 model seconds, and longest_wait_seconds is 300" in str(system.stopped)
    contents, t = batch(TOPICS[:8], faults=[busy | {"retry_after_s": 100}])
    assert statuses(contents) == ["done"] * 8 and t.requests <= 32 + 8


def test_a_stop_calls_patience_off(fresh_lab):
    """While an outage is waited for, nothing is in flight, so a stop takes no time."""

    async def stopped(system: ContentSystem) -> tuple[list[Content], float]:
        running = asyncio.create_task(system.batch_generate(TOPICS))
        await asyncio.sleep(100)
        system.stop("enough")
        return await running, lab.now_s()

    down = [{"kind": "error", "status": 503, "probability": 1, "between_s": [10, 1e9]}]
    with lab.configure(faults=down), ContentSystem() as system:
        (contents, ended_s), _ = lab.simulate(stopped(system))  # type: ignore[misc]
    assert statuses(contents) == ["left"] * 10 and ended_s == pytest.approx(100)


def test_a_request_that_nobody_can_answer_stops_everything(fresh_lab):
    """A 400 where nothing was ever answered: one more question tells that it meets everybody."""
    contents, t = batch(TOPICS, faults=[{"kind": "error", "status": 400, "probability": 1}])
    assert statuses(contents) == ["left"] * 10
    assert t.requests <= 5


def test_a_time_out_has_words(fresh_lab):
    """How long it was waited for, and the setting that makes it longer."""
    hang = [{"kind": "stall", "stall_s": 200, "agent": f"editor: {TOPICS[0]}", "probability": 1}]
    contents, _ = batch(TOPICS[:2], faults=hang, timeout_seconds=40)
    assert statuses(contents) == ["quarantined", "done"]
    words = "failed attempts: no answer within 40 model seconds; raise timeout_seconds"
    assert words in str(contents[0].error)


def test_topics_that_look_like_an_outage_are_quarantined(fresh_lab):
    """Two fail like an endpoint that is down, and nobody else is left; a token tells."""
    poison = [
        {"kind": "error", "status": 503, "agent": f"writer: {topic}", "probability": 1}
        for topic in TOPICS[:2]
    ]
    contents, t = batch(TOPICS[:3], faults=poison)
    assert statuses(contents) == ["quarantined", "quarantined", "done"]
    assert sum(span.agent == "probe" for span in t.spans) <= 6


@pytest.mark.parametrize("kind", ["blog", "comprehensive"])
def test_a_stop_does_not_wait_for_its_turn_at_a_rate(fresh_lab, kind):
    """Ten topics at ten requests a minute: what has not been sent needs no turn."""

    async def stopped(system: ContentSystem) -> tuple[list[Content], float]:
        running = asyncio.create_task(system.batch_generate(TOPICS, kind))
        await asyncio.sleep(100)
        system.stop("enough")
        began_s = lab.now_s()
        return await running, lab.now_s() - began_s

    with ContentSystem(Settings(requests_per_minute=10)) as system:
        (contents, waited_s), t = lab.simulate(stopped(system))  # type: ignore[misc]
        assert system.journal.bill().requests == system.journal.bill().answers == t.requests
    assert waited_s <= max(span.end_s - span.arrived_s for span in t.spans)
    assert "left" in statuses(contents) and "quarantined" not in statuses(contents)


def test_a_page_that_was_edited_stays(fresh_lab, tmp_path):
    """Another run publishes what is not there, and nothing over what somebody has changed."""
    batch(TOPICS[:2], out=tmp_path)
    edited, lost = sorted(tmp_path.glob("*.md"))
    edited.write_text("mine")
    lost.unlink()
    batch(TOPICS[:2], out=tmp_path)
    assert edited.read_text() == "mine" and lost.is_file()


def test_a_long_title_is_a_file_name(tmp_path):
    """However many bytes its letters have."""
    name = Article("가나다라마바사" * 40 + "𝔸" * 60, "", "", "blog").name
    assert len(name.encode()) < 230
    assert len(Article("𝔸" * 60, "", "", "blog").name.encode()) < 230


def test_a_stop_waits_for_what_is_in_flight(fresh_lab, tmp_path):
    """What was sent is answered and recorded; the next run asks only the rest."""

    async def stopped(system: ContentSystem) -> list[Content]:
        running = asyncio.create_task(system.batch_generate(TOPICS))
        await asyncio.sleep(60)
        system.stop("enough")
        return await running

    with ContentSystem(out=tmp_path) as system:
        contents, t = lab.simulate(stopped(system))
        bill = system.journal.bill()
    assert "left" in statuses(contents)  # type: ignore[arg-type]
    assert all(span.ok for span in t.spans)
    assert bill.requests == bill.answers == t.requests
    again, rest = batch(TOPICS, out=tmp_path)
    assert statuses(again) == ["done"] * 10
    assert t.requests + rest.requests == 40


def test_a_cancelled_batch_leaves_no_task(fresh_lab, tmp_path):
    """What is in flight is hung up on; the answers there were are kept."""

    async def cancelled(system: ContentSystem) -> int:
        running = asyncio.create_task(system.batch_generate(TOPICS))
        await asyncio.sleep(60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return len(asyncio.all_tasks())

    with ContentSystem(out=tmp_path) as system:
        left, t = lab.simulate(cancelled(system))
        answers = system.journal.bill().answers
    assert left == 1
    assert sum(span.ok for span in t.spans) == answers
    _, rest = batch(TOPICS, out=tmp_path)
    assert rest.requests == 40 - answers


@pytest.mark.parametrize("engine", ["sequential", "langgraph"])
def test_every_engine_writes_the_same(fresh_lab, tmp_path, engine):
    """Byte for byte, each in a folder of its own."""
    pages = []
    for name in ("asyncio", engine):
        batch(TOPICS[:2], out=tmp_path / name, kind="comprehensive", engine=name)
        files = sorted((tmp_path / name).glob("*.html"))
        pages.append([(file.name, file.read_bytes()) for file in files])
    assert pages[0] == pages[1] and len(pages[0]) == 2


def test_one_process_at_a_time(fresh_lab, tmp_path):
    """A second one on the same folder is refused; after the first it may."""
    with ContentSystem(out=tmp_path), pytest.raises(ConfigError, match="another process writes"):
        ContentSystem(out=tmp_path)
    ContentSystem(out=tmp_path).close()


@pytest.mark.parametrize("topic", ["", "  \n "])
def test_an_empty_topic_is_refused(fresh_lab, topic):
    """Before anything is sent."""
    with pytest.raises(ConfigError, match="empty"):
        batch([TOPICS[0], topic])


def test_one_text_is_no_list_of_topics(fresh_lab):
    """It would be a topic for each letter, and each of them paid for."""
    topics: Any = "tides"
    with pytest.raises(ConfigError, match="topics 'tides' are one text; give a list of texts"):
        batch(topics)


def test_there_are_two_types(fresh_lab):
    """Another one is refused, with their names."""
    with pytest.raises(ConfigError, match="blog or comprehensive"):
        batch(TOPICS, kind="novel")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_loses_nothing_that_was_paid_for(fresh_lab, tmp_path):
    """On a disk of 1.3 MB: it stops sending, records what was in flight, and goes on with room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=1280k", "tmpfs", str(disk)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    topics = [f"Tides in harbour {number}" for number in range(30)]
    try:
        with ContentSystem(out=disk) as system:
            contents, t = lab.simulate(system.batch_generate(topics, "comprehensive"))
            bill = system.journal.bill()
            assert "disk is full" in str(system.stopped)
        assert 0 < t.requests < 240
        assert "left" in statuses(contents)  # type: ignore[arg-type]
        assert bill.answers == t.requests  # each one that was sent is kept
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        again, rest = batch(topics, out=disk, kind="comprehensive")
        assert statuses(again) == ["done"] * 30
        assert t.requests + rest.requests == 240
    finally:
        subprocess.run(["umount", str(disk)], check=True)
