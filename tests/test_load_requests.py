"""Every request of a run is kept: what client and endpoint saw of it, beside the results."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from agentlab.bench import experiment, measure, results
from agentlab.bench.requests import Calls, Request
from agentlab.errors import ConfigError
from agentlab.trace import Span

SMALL = "about: x\nworkloads: [{agents: 3}]\nengines: [sequential, asyncio]\n"


def measured(folder: Path, text: str, **options: Any) -> tuple[Path, results.Results]:
    folder.mkdir(exist_ok=True)
    (folder / "small.yaml").write_text(text, encoding="utf-8")
    file = folder / "out" / "small.json"
    return file, measure.run(experiment.load(folder / "small.yaml"), file, **options)


def times(row: Request) -> tuple[float | None, ...]:
    return row.due_s, row.asked_s, row.sent_s, row.arrived_s, row.end_s, row.returned_s


def test_in_virtual_time_a_row_is_exact(fresh_lab, tmp_path):
    """Three questions of 2 s, each due at 0: one after the other, and all at the same time."""
    file, made = measured(tmp_path, SMALL)
    rows = results.read_requests(file, len(made.measurements))
    assert [(row.run, *times(row)) for row in rows] == [
        (0, 0, 0, 0, 0, 2, 2),
        (0, 0, 2, 2, 2, 4, 4),
        (0, 0, 4, 4, 4, 6, 6),
        *[(1, 0, 0, 0, 0, 2, 2)] * 3,
    ]
    assert {(row.first_token_s, row.completion_tokens) for row in rows[3:]} == {(1.0, 11)}


def test_a_retry_is_a_row_of_its_own(fresh_lab, tmp_path):
    """What was refused, and what was answered after the back-off; the call was due once."""
    text = SMALL + "strategies: [retry]\n"
    text += "settings: {faults: [{kind: error, status: 503, calls: [1]}]}\n"
    file, made = measured(tmp_path, text)
    first, again, *_ = results.read_requests(file, 1)
    assert (first.call, first.attempt, first.status, first.fault) == ("agent_0", 1, 503, "error")
    assert (again.call, again.attempt, again.status, again.due_s) == ("agent_0", 2, 200, 0.0)
    assert again.asked_s == 0.0
    assert again.sent_s > 0.0
    assert made.measurements[0].elapsed_s == pytest.approx(again.sent_s + 6.0)


def test_a_step_is_due_when_its_needs_are_answered(fresh_lab, tmp_path):
    """The summary waits for research and analysis, and is due when the later of them is there."""
    text = "about: x\nworkloads: [{workflow: report, inputs: {topic: a, data: b}}]\n"
    file, _ = measured(tmp_path, text + "engines: [asyncio]\n")
    rows = {row.call: row for row in results.read_requests(file, 1)}
    ends = [rows[name].returned_s for name in rows if name != "report"]
    last = max(rows.values(), key=lambda row: row.sent_s)
    assert last.due_s == last.sent_s == max(end for end in ends if end != last.returned_s)


def test_two_runs_keep_the_same_bytes(fresh_lab, tmp_path):
    """In virtual time the requests are equal files, as the results are."""
    kept = [measured(tmp_path / name, SMALL)[0] for name in "ab"]
    first, second = (results.requests_file(file).read_bytes() for file in kept)
    assert first == second


def test_a_run_that_was_killed_leaves_both_consistent(fresh_lab, tmp_path, monkeypatch):
    """Rows without their measurement, and half a row, are gone after --resume: equal bytes."""
    whole, _ = measured(tmp_path / "whole", SMALL)
    write = results.write

    def killed(path: Path, some: Any) -> None:
        if len(some.measurements) == 2:
            raise KeyboardInterrupt
        write(path, some)

    monkeypatch.setattr(results, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, SMALL)
    monkeypatch.undo()
    file = tmp_path / "out" / "small.json"
    assert len(results.load(file).measurements) == 1
    torn = results.requests_file(file)
    assert b"\n1," in gzip.decompress(torn.read_bytes())  # of the second run, without its result
    torn.write_bytes(torn.read_bytes()[:-9])
    assert {row.run for row in results.read_requests(file, 1)} == {0}
    measured(tmp_path, SMALL, resume=True)
    assert torn.read_bytes() == results.requests_file(whole).read_bytes()
    assert file.read_bytes() == whole.read_bytes()


def test_a_crowd_keeps_no_requests(fresh_lab, tmp_path):
    """There may be a million of them; what an earlier run has left is removed."""
    file, _ = measured(tmp_path, SMALL)
    assert results.requests_file(file).exists()
    text = "about: x\nworkloads: [{agents: 3}]\nengines: [crowd]\nmax_concurrency: [2]\n"
    measured(tmp_path, text + "presets: [nim-8b]\n")
    assert not results.requests_file(file).exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("agent_1,1,", "agent_1,one,"),
        ("agent_1,1,0.0,", "agent_1,1,nan,"),
        ("agent_1,1,0.0,", "agent_1,1,-1,"),
        ("\n0,agent_1", "\n-1,agent_1"),
        (",length,", ",length,,,,,more,"),
    ],
)
def test_rows_that_are_no_requests_are_refused(fresh_lab, tmp_path, old, new):
    """With the file and the line: text for a number, what is no number, less than nothing."""
    file, _ = measured(tmp_path, SMALL)
    path = results.requests_file(file)
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new).encode()))
    with pytest.raises(ConfigError, match=r"small.requests.csv.gz', line [23]: "):
        results.read_requests(file, 2)


@pytest.mark.parametrize(
    "content", [b"no gzip", b"", gzip.compress(b"\xff\xfe", mtime=0), b"\x1f\x8b" * 9]
)
def test_a_file_that_is_no_table_is_refused(fresh_lab, tmp_path, content):
    """Or, if nothing is in it, has no requests."""
    file, _ = measured(tmp_path, SMALL)
    results.requests_file(file).write_bytes(content)
    if content:
        with pytest.raises(ConfigError, match=r"line 2: .*; measure again"):
            results.read_requests(file, 2)
    else:
        assert results.read_requests(file, 2) == []


def test_the_endpoint_s_clock_is_put_between_sent_and_returned():
    """Its zero is unknown: no request arrives before it is sent, none ends after its return."""
    calls = Calls({"a": (), "b": ()}, {})
    for name, sent_s, returned_s in (("a", 1.0, 3.5), ("b", 2.0, 5.1)):
        times = {"due_s": 0.0, "asked_s": 0.0, "sent_s": sent_s, "returned_s": returned_s}
        calls._sent[name] = [Request(run=0, call=name, attempt=1, status=200, **times)]
    spans = [
        Span(request_id=name, agent=name, arrived_s=at, started_s=at, end_s=at + 2, status=200)
        for name, at in (("a", 0.0), ("b", 1.5))
    ]
    first, second = calls.rows(spans, {})
    # a: 1.0 <= zero <= 1.5; b: 0.5 <= zero <= 1.6; the middle of 1.0 and 1.5.
    assert (first.arrived_s, first.end_s) == (1.25, 3.25)
    assert (second.arrived_s, second.end_s) == (2.75, 4.75)


def test_on_the_real_clock_rows_are_causal(fresh_lab, tmp_path):
    """Due, asked, sent, arrived, ended, returned: in this order for each of 24 requests."""
    text = "about: x\nworkloads: [{agents: 8}]\nengines: [sequential, asyncio, langgraph]\n"
    file, _ = measured(tmp_path, text + "clock: real\nsettings: {time_scale: 100}\n")
    rows = results.read_requests(file, 3)
    assert len(rows) == 24
    for row in rows:
        known = [at for at in times(row) if at is not None]
        assert known == sorted(known)
        assert len(known) == 6
