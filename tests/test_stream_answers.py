"""Answers that come as a stream: put together, and what the bench makes of their first tokens."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from awkward import MODEL, Upstream
from httpx import Response
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from agentlab import lab
from agentlab.bench import measure, plots, report
from agentlab.bench import results as stored
from agentlab.bench.experiment import Experiment, Workload
from agentlab.commands.main import main
from agentlab.endpoint import presets
from agentlab.errors import AnswerRefused, AnswerTruncated, ConfigError, EndpointError, ModelError
from agentlab.lab import Reply, read

DONE = "data: [DONE]\n\n"


def chunk(finish: str | None = None, **delta: Any) -> str:
    part = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [part]})}\n\n"


def streamed(*events: str, status: int = 200) -> Response:
    headers = {"content-type": "text/event-stream; charset=utf-8"}
    return Response(status, headers=headers, content="".join(events))


def called(index: int, arguments: str, **more: Any) -> str:
    function = {"name": "search", "arguments": arguments} if more else {"arguments": arguments}
    return chunk(tool_calls=[{"index": index, "function": function, **more}])


def test_chunks_make_one_reply():
    """Texts are joined, the reason is the last, the tokens are those of the usage."""
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    events = [chunk(role="assistant", content=""), ": on its way\n\n", chunk(content="Dan")]
    events += [chunk(content="ube."), chunk("stop"), f"data: {json.dumps(usage)}\n\n", DONE]
    assert read(streamed(*events)) == Reply("Danube.", 5, 2, "stop")


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
def test_any_end_of_line_ends_an_event(end: str):
    """The standard has three."""
    events = [chunk(content="Danube."), chunk("stop"), DONE]
    assert read(streamed(*(event.replace("\n\n", end) for event in events))).text == "Danube."


@pytest.mark.parametrize(
    "again", [{}, {"id": None}, {"id": "b"}], ids=["once", "null", "each time"]
)
def test_a_call_of_a_tool_comes_in_pieces(again: dict[str, Any]):
    """Its id comes once, or each time; what Gemini wants back is kept."""
    events = [
        called(0, "", id="a", type="function", extra_content={"google": {"signature": "x"}}),
        called(0, '{"topic": "r'),
        called(0, 'ivers"}'),
        called(1, '{"top', id="b"),
        chunk(tool_calls=[{"index": 1, "function": {"arguments": 'ic": 1}'}, **again}]),
        chunk("tool_calls"),
    ]
    one, two = read(streamed(*events)).tool_calls
    assert (one.id, one.function.name, one.function.arguments) == (
        "a", "search", '{"topic": "rivers"}',
    )  # fmt: skip
    assert one.extra_content == {"google": {"signature": "x"}}
    assert (two.id, two.function.arguments) == ("b", '{"topic": 1}')


def test_calls_of_one_index_are_told_apart():
    """Ollama gives each call the index 0, and an id of its own."""
    events = [called(0, "{}", id="a"), called(0, "{}", id="b"), chunk("tool_calls")]
    assert [call.id for call in read(streamed(*events)).tool_calls] == ["a", "b"]


@pytest.mark.parametrize(
    ("events", "kind", "words"),
    [
        ([chunk(content="The riv")], EndpointError, "its stream ended before the answer did"),
        ([], EndpointError, "ended before"),
        ([chunk(content="The riv"), chunk("length")], AnswerTruncated, "'The riv'"),
        ([chunk(refusal="I "), chunk(refusal="can't."), chunk("stop")], AnswerRefused, "I can't."),
        ([chunk(content="a"), 'data: {"error": {"message": "No."}}\n\n'], ModelError, "200: No."),
        (['data: {"message": "Slow."}\n\n', DONE], ModelError, "200: Slow."),
        ([chunk(content="a"), "data: {\n\n"], ModelError, "no chat completion"),
        ([DONE], ModelError, "no chat completion"),
    ],
)
def test_what_is_no_whole_answer_is_an_error(events: list[str], kind: type, words: str):
    """Of the same classes as of a plain answer; one that breaks off is the endpoint's."""
    with pytest.raises(kind, match=words) as error:
        read(streamed(*events))
    assert type(error.value) is kind


def test_a_refusal_may_call_itself_a_stream():
    """What counts is its status."""
    with pytest.raises(ModelError, match="503: Busy") as error:
        read(Response(503, headers={"content-type": "text/event-stream"}, json={"error": "Busy."}))
    assert error.value.status == 503


NAMES = ["choices", "delta", "content", "tool_calls", "function", "arguments", "error", "usage"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=3))
def test_no_chunk_is_too_odd_to_be_an_error(chunks: list[Any]):
    """A reply, or an error of the lab's."""
    with contextlib.suppress(ModelError, EndpointError):
        events = [f"data: {json.dumps(one)}\n\n" for one in chunks]
        assert isinstance(read(streamed(*events, DONE)), Reply)


@pytest.mark.parametrize("kind", ["cut", "stream_error"])
def test_a_stream_that_breaks_off_fails_as_such(kind: str):
    """The local model's own faults, in virtual time."""
    fault = {"kind": kind, "probability": 1}
    with lab.configure(faults=[fault]):
        error, t = lab.simulate(
            lab.reply("Name three rivers.", stream=True), catch=(ModelError, EndpointError)
        )
    assert isinstance(error, EndpointError if kind == "cut" else ModelError)
    assert t.spans[0].fault == kind


def virtual(**changes: Any) -> Experiment:
    shape: dict[str, Any] = {"workloads": [Workload(agents=3, tokens=12)], "presets": ["nim-8b"]}
    return Experiment(about="x", **(shape | {"engines": ["asyncio"]} | changes))


def test_a_stream_changes_no_answer_and_no_time(tmp_path: Path):
    """In virtual time all rows are the same, and those of requests to the byte."""
    plain = measure.run(virtual(), tmp_path / "plain.json")
    streams = measure.run(virtual(stream=True), tmp_path / "streams.json")
    assert streams.measurements == plain.measurements
    both = [stored.requests_file(tmp_path / f"{name}.json") for name in ("plain", "streams")]
    assert both[0].read_bytes() == both[1].read_bytes()
    assert "stream" not in (tmp_path / "plain.json").read_text(encoding="utf-8")


def test_the_local_models_first_token_is_the_presets(tmp_path: Path):
    """TTFT and ITL of one agent are its formulas', exactly, and the report shows them."""
    one = virtual(workloads=[Workload(agents=1, tokens=11)], presets=["course"], stream=True)
    run = measure.run(one, tmp_path / "one.json")
    physics = presets.load("course").physics
    (row,) = run.measurements
    felt = row.felt
    assert felt["ttft_p50_s"] == physics.prefill_base_s == 1.0
    assert felt["itl_p50_s"] == physics.itl_base_s == 0.1
    assert "| 1.00 / 1.00 / 1.00 | 0.10 / 0.10 / 0.10 |" in report.markdown(run)


def test_a_crowd_has_no_client_that_streams():
    """It says so."""
    with pytest.raises(ConfigError, match="the engine crowd has no client"):
        virtual(engines=["crowd"], max_concurrency=[2], stream=True)


ASKED = "about: x\nclock: real\nrepeats: 1\nwarmups: 0\nworkloads: [{agents: 2}]\n"
SLO = "slo: {ttft_s: 30}\n"


@pytest.mark.parametrize(
    ("text", "says", "known"),
    [
        (ASKED + SLO + "stream: true\n", "the lab's own endpoint saw pass", True),
        (ASKED + SLO, "`stream: true` measures them", False),
    ],
)
def test_a_real_models_first_token_is_measured(
    fresh_lab: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    says: str,
    known: bool,
):
    """Every question is asked so, the first one, too; without streams the report says how."""
    monkeypatch.setattr(plots, "figure", lambda _: Figure())
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with Upstream() as upstream:
        monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
        monkeypatch.setenv("OPENAI_API_KEY", upstream.key)
        monkeypatch.setenv("OPENAI_MODEL", MODEL)
        assert main(["bench", str(path), "--yes", "--out", str(tmp_path)]) == 0
        assert {bool((seen.body or {}).get("stream")) for seen in upstream.asked} == {known}
        fresh_lab.stop()
    assert says in (tmp_path / "mine.md").read_text(encoding="utf-8")
    found = stored.load(tmp_path / "mine.json")
    for name in ("ttft_p50_s", "itl_p50_s"):
        assert all((name in m.felt) == known for m in found.measurements)
    assert all(0 < said.tokens <= 11 for m in found.measurements for said in m.said)
