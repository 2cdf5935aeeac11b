"""Traces that others wrote are read, and ours are read by others: what is in them, and no more."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as some
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from serving import serving

from agentlab.bench.published import Arrival, published
from agentlab.commands.main import COMMANDS, main
from agentlab.endpoint.server.app import local_app
from agentlab.errors import ConfigError
from agentlab.settings import DATA, Settings
from agentlab.trace import AGENT, Span, ToolSpan, Trace

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import load_tools  # noqa: E402  tools/ is no package
from trace_forms import FORMS, export, load  # noqa: E402

TRACES = DATA / "traces"
NUMBERS = count(1)
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
)


def file(folder: Path, text: str, name: str = "trace") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def attribute(key: str, value: Any) -> dict[str, Any]:
    kinds = {str: "stringValue", int: "intValue", float: "doubleValue"}
    as_text = str(value) if isinstance(value, int) else value
    return {"key": key, "value": {kinds[type(value)]: as_text}}


def otel_span(at_ns: int = 5, took_ns: int = 10, trace: str = "t", **attributes: Any) -> Any:
    given = {"operation_name": "chat", "usage_input_tokens": 3} | attributes
    named = {f"gen_ai.{name.replace('_', '.', 1)}": value for name, value in given.items()}
    return {
        "traceId": trace,
        "spanId": f"{next(NUMBERS):016x}",
        "name": "chat",
        "startTimeUnixNano": str(at_ns),
        "endTimeUnixNano": str(at_ns + took_ns),
        "attributes": [attribute(*pair) for pair in named.items()],
    }


def otlp(*spans: Any) -> str:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]})


# ---------------------------------------------------------------- published traces


def test_azures_dates_become_seconds(tmp_path: Path):
    """With seven digits, as in 2023, or with an offset, as in 2024; the first request is at 0."""
    rows = "2023-11-16 23:59:59.5000000,374,44\n2023-11-17 00:00:01.7512340,396,109\n"
    first, second = published(file(tmp_path, AZURE + rows))
    assert first == Arrival(0.0, 374, 44)
    assert second == Arrival(2.251234, 396, 109)
    rows = "2024-05-12 00:00:00+00:00,1,2\n2024-05-12 02:00:10.25+02:00,3,4\n"
    assert published(file(tmp_path, AZURE + rows))[1] == Arrival(10.25, 3, 4)


def test_burstgpt_is_read_with_sessions_and_without(tmp_path: Path):
    """Its later files have a column for them; a session that is not named is none."""
    rows = "5.0,s1,2,GPT-4,10,20,30,API log\n7.5,,3,GPT-4,11,0,11,API log\n"
    assert published(file(tmp_path, BURST + rows)) == [
        Arrival(0.0, 10, 20, "s1"),
        Arrival(2.5, 11, 0),
    ]
    older = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    row = "5,ChatGPT,472,18,490,Conversation log\n"
    assert published(file(tmp_path, older + row)) == [Arrival(0.0, 472, 18)]


def test_mooncakes_milliseconds_become_seconds(tmp_path: Path):
    """A line each, whatever else it holds."""
    lines = (
        '\n{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46]}\n\n'
        '{"timestamp": 30535, "input_length": 6472, "output_length": 26, "session_id": 7}\n'
    )
    expected = [Arrival(0.0, 6955, 52), Arrival(3.053, 6472, 26, "7")]
    assert published(file(tmp_path, lines)) == expected


@pytest.mark.parametrize("indent", [None, 2])
def test_opentelemetry_is_read_to_the_nanosecond(tmp_path: Path, indent: int | None):
    """On one line or on many; a conversation is a session, or else the trace is."""
    start_ns = 1_581_452_772_000_000_321
    document = json.loads(
        otlp(
            otel_span(start_ns, usage_output_tokens=4),
            otel_span(start_ns + 1_000_000_001, conversation_id="c"),
        )
    )
    expected = [Arrival(0.0, 3, 4, "t"), Arrival(1.000000001, 3, 0, "c")]
    assert published(file(tmp_path, json.dumps(document, indent=indent))) == expected


def test_opentelemetrys_batches_are_one_trace(tmp_path: Path):
    """A collector writes a line for each."""
    lines = [otlp(otel_span(7_000_000_000)), otlp(otel_span(5_000_000_000))]
    read = published(file(tmp_path, "\n".join(lines)))
    assert [arrival.at_s for arrival in read] == [0.0, 2.0]


def test_only_requests_to_a_model_are_arrivals(tmp_path: Path):
    """Tools, agents, embeddings, and spans of anything else pass without a word."""
    spans = [
        otel_span(1, operation_name="execute_tool", usage_input_tokens=0, tool_name="search"),
        otel_span(2, operation_name="invoke_agent", usage_input_tokens=90, agent_name="writer"),
        otel_span(3, operation_name="embeddings"),
        otel_span(9),
    ]
    other = {**otel_span(), "attributes": [attribute("http.request.method", "GET")]}
    assert published(file(tmp_path, otlp(*spans, other))) == [Arrival(0.0, 3, 0, "t")]


def test_rows_in_any_order_arrive_in_order(tmp_path: Path):
    """Equal ones are kept: two requests may be alike."""
    rows = [f"{second}.0,s,1,m,{second},1,1,log" for second in (3, 1, 2, 2)]
    read = published(file(tmp_path, BURST + "\n".join(rows)))
    assert [(arrival.at_s, arrival.prompt_tokens) for arrival in read] == [
        (0, 1),
        (1, 2),
        (1, 2),
        (2, 3),
    ]


def test_the_first_requests_of_a_long_file_suffice(tmp_path: Path):
    """What comes behind them is not looked at."""
    rows = "5.0,s,1,m,1,1,2,log\n6.0,s,1,m,1,1,2,log\nnonsense\n"
    assert len(published(file(tmp_path, BURST + rows), most=2)) == 2


@pytest.mark.parametrize(
    ("text", "place", "field", "got"),
    [
        (AZURE + "2023-11-16 18:15:46,1,2\nyesterday,3,4\n", ":3", "TIMESTAMP", "yesterday"),
        (AZURE + "2023-11-16 18:15:46,-1,2\n", ":2", "ContextTokens", "-1"),
        (AZURE + "2023-11-16 18:15:46,1.5,2\n", ":2", "ContextTokens", "1.5"),
        (AZURE + "2023-11-16 18:15:46,1\n", ":2", "GeneratedTokens", "None"),
        (AZURE + f"2023-11-16 18:15:46,1,{'9' * 400}\n", ":2", "GeneratedTokens", "9999"),
        (BURST + "nan,s,1,m,1,1,2,log\n", ":2", "Timestamp", "nan"),
        (BURST + "-1e300,s,1,m,1,1,2,log\n", ":2", "Timestamp", "-1e300"),
        (BURST + "1e300,s,1,m,1,1,2,log\n", ":2", "Timestamp", "1e300"),
        (BURST + "1,s,1,m,,1,2,log\n", ":2", "Request tokens", "''"),
        ('{"timestamp": "x", "input_length": 1, "output_length": 1}', ":1", "timestamp", "'x'"),
        ('{"timestamp": 1, "output_length": 1}', ":1", "input_length", "None"),
        ('{"timestamp": 1, "input_length": true, "output_length": 1}', ":1", "input_length", "Tr"),
        (
            otlp(otel_span(), otel_span(usage_input_tokens="many")),
            ":1, span 2",
            "input_tokens",
            "many",
        ),
        (otlp({**otel_span(), "attributes": {}}), ":1", "spans[0].attributes", ""),
        ('{"resourceSpans": {}}', ":1", "resourceSpans", "{}"),
        ('{"a": 1}', ":1", "'a'", ""),
        ('{"timestamp": 1, "input_length": 1, "output_length": 1}\n{"a', ":2", "JSON", ""),
        ('{"timestamp": NaN}', ":1", "JSON", ""),
        ("[" * 100_000, ":1", "", ""),
        ('{"a": ' * 100_000, ":1", "", ""),
        ("[1, 2]", ":1", "object", ""),
        ("a,b\n1,2\n", ":2", "'a', 'b'", ""),
        ("TIMESTAMP\n\0\n", ":2", "TIMESTAMP", ""),
        (AZURE, "", "no requests", ""),
        ("", "", "no requests", ""),
        (otlp(), "", "no requests", ""),
    ],
)
def test_what_is_wrong_is_named_by_line_and_field(
    tmp_path: Path, text: str, place: str, field: str, got: str
):
    """And with what the file says there."""
    path = file(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        published(path)
    assert all(part in str(error.value) for part in (str(path) + place, field, got)), error.value
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'TIMESTAMP,a\n"1,2\n'])
def test_what_cannot_be_read_is_refused(tmp_path: Path, content: bytes):
    """Bytes that are no text, and a quotation that never ends."""
    (tmp_path / "trace").write_bytes(content)
    for path in (tmp_path / "trace", tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError):
            published(path)


def test_no_spoilt_file_ends_in_another_error(tmp_path: Path):
    """Five hundred times a sample has one part of it replaced: it is read, or refused."""
    draw = random.Random(7)
    samples = [path.read_text() for path in sorted(TRACES.iterdir())] + [otlp(otel_span())]
    parts = ["", '"', ",", "{", "}", "[]", "null", "-1", "1e999", "NaN", "9" * 30, "\0", "\n", "é"]
    refused = 0
    for _ in range(500):
        text = draw.choice(samples)[:1500]
        at = draw.randrange(len(text))
        spoilt = text[:at] + draw.choice(parts) + text[at + draw.randrange(12) :]
        try:
            published(file(tmp_path, spoilt))
        except ConfigError:
            refused += 1
    assert 50 < refused < 500


@pytest.mark.parametrize("name", ["azure.csv", "burstgpt.csv", "mooncake.jsonl"])
def test_the_samples_are_traffic(name: str):
    """Requests spread over time, with lengths that differ."""
    read = published(TRACES / name)
    assert len(read) > 20 and read[-1].at_s > 10
    assert len({arrival.prompt_tokens for arrival in read}) > 15


# ---------------------------------------------------------------- there and back


def call(number: int = 1, **fields: Any) -> Span:
    times = {"arrived_s": 0.0, "started_s": 1.0, "first_token_s": 1.5, "end_s": 4.0}
    said = {"prompt_tokens": 600, "completion_tokens": 20, "status": 200, "finish_reason": "stop"}
    return Span(**({"request_id": f"req_{number}", "agent": "writer"} | times | said | fields))


RUN = Trace.load(TRACES / "agents.jsonl")


@some.composite
def calls(draw: Any) -> Span:
    """Any request that has ended: refused, cut, slow, of any agent, with or without a wait."""
    ticks = sorted(draw(some.lists(some.integers(0, 10**13), min_size=4, max_size=4)))
    arrived_s, started_s, first_s, end_s = (tick / 1e9 for tick in ticks)
    words = some.text("az09 한é,;\"'\\{}[]=@-", min_size=1, max_size=8)
    ok = draw(some.booleans())
    return Span(
        request_id=draw(words),
        agent=draw(words | some.just("")),
        arrived_s=arrived_s,
        started_s=draw(some.sampled_from([None, started_s])),
        first_token_s=draw(some.sampled_from([None, first_s])),
        end_s=end_s,
        prompt_tokens=draw(some.integers(0, 10**6)),
        completion_tokens=draw(some.integers(0, 10**6)),
        cached_tokens=draw(some.integers(0, 10**6)),
        status=200 if ok else draw(some.sampled_from([0, 429, 499, 503])),
        attempt=draw(some.integers(1, 9)),
        fault=draw(some.sampled_from([None, "stall"] if ok else [None, "error", "reset"])),
        learner=draw(some.none() | words),
        finish_reason=draw(some.sampled_from([None, "stop", "length", "tool_calls"])),
        late_ms=draw(some.none() | some.floats(0, 1e6)),
    )


@pytest.mark.parametrize("form", ["otel", "perfetto", "csv"])
@examples(max_examples=60)
@given(spans=some.lists(calls(), min_size=1, max_size=6))
def test_a_trace_comes_back_as_it_went(tmp_path_factory: Any, form: str, spans: list[Span]):
    """Every field of every request, to the nanosecond."""
    went = Trace(spans)
    path = tmp_path_factory.mktemp("there") / "trace"
    path.write_bytes(export(went, form, began_ns=1_700_000_000_123_456_789))
    assert sorted(map(msgspec.structs.astuple, load(path).spans), key=repr) == sorted(
        map(msgspec.structs.astuple, went.spans), key=repr
    )


def test_mooncake_carries_milliseconds_and_lengths(tmp_path: Path):
    """And nothing else: whatever it cannot say is None, or the default."""
    spans = [call(1, arrived_s=2.0006), call(2, arrived_s=3.0, agent="editor", prompt_tokens=5)]
    spans = [
        msgspec.structs.replace(s, started_s=None, first_token_s=None, end_s=5.0) for s in spans
    ]
    path = file(tmp_path, export(Trace(spans), "mooncake").decode())
    first, second = load(path).spans
    assert (second.arrived_s, second.prompt_tokens, second.completion_tokens) == (0.999, 5, 20)
    assert (second.started_s, second.end_s, second.status, second.agent) == (None, None, None, "")
    assert first.request_id != second.request_id


def test_what_is_in_flight_is_carried_by_a_table_alone():
    """A request without an end is no span of OpenTelemetry's, and no slice."""
    in_flight = call(2, end_s=None, status=None, first_token_s=None)
    both = Trace([call(1), in_flight])
    counts = {
        "otel": export(both, "otel").count(b'"spanId"'),
        "perfetto": export(both, "perfetto").count(b'"cat":"request"'),
        "mooncake": export(both, "mooncake").count(b"\n"),
        "csv": export(both, "csv").count(b"\n") - 1,
    }
    assert counts == {"otel": 1, "perfetto": 1, "mooncake": 1, "csv": 2}


# ---------------------------------------------------------------- what others find in it


def proto(trace: Trace, **options: Any) -> list[ProtoSpan]:
    """The spans as OpenTelemetry's own code reads them."""
    data = ParseDict(json.loads(export(trace, "otel", **options)), TracesData())
    return [span for one in data.resource_spans for s in one.scope_spans for span in s.spans]


def attributes(span: ProtoSpan) -> dict[str, Any]:
    found = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        found[each.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return found


def test_opentelemetry_finds_a_request_by_its_conventions():
    """Their names, a CLIENT span called by its operation and model, times since 1970."""
    (span,) = proto(Trace([call(cached_tokens=512)]), model="gpt-4o", began_ns=10**18)
    assert (span.name, span.kind) == ("chat gpt-4o", ProtoSpan.SPAN_KIND_CLIENT)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (10**18, 10**18 + 4 * 10**9)
    hex_digits = len(span.trace_id) * 4 / 3, len(span.span_id) * 4 / 3  # read as base64
    assert (*hex_digits, span.status.code) == (32, 16, 0)
    said = attributes(span)
    assert {key: value for key, value in said.items() if not key.startswith("agentlab.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.agent.name": "writer",
        "gen_ai.usage.input_tokens": 600,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 512,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 1.5,
    }


@pytest.mark.parametrize(
    ("ended", "error"),
    [
        ({"status": 429}, "429"),
        ({"status": 503, "fault": "error"}, "503"),
        ({"status": 200, "fault": "cut"}, "cut"),
        ({"status": 0, "fault": "reset"}, "reset"),
        ({"status": 0}, "_OTHER"),
    ],
)
def test_opentelemetry_finds_what_failed(ended: dict[str, Any], error: str):
    """The status is an error; its type is HTTP's code, or else the fault that was planned."""
    (span,) = proto(Trace([call(**ended)]))
    assert (span.status.code, attributes(span)["error.type"]) == (2, error)
    assert "gen_ai.request.model" not in attributes(span) and span.name == "chat"


def test_each_agents_requests_are_one_trace_of_opentelemetrys():
    """No two spans have the same number, and no two runs the same traces."""
    run = [call(1), call(1), call(3, agent="editor")]
    spans = proto(Trace(run))
    assert len({span.span_id for span in spans}) == 3
    assert spans[0].trace_id == spans[1].trace_id != spans[2].trace_id
    other = proto(Trace([*run, call(4)]))
    assert not {span.trace_id for span in spans} & {span.trace_id for span in other}


def test_the_spans_of_others_become_a_trace(tmp_path: Path):
    """Their times from the first start on; an agent without a name is its trace."""
    second = otel_span(
        2_000_000_000, 3_000_000_000, usage_output_tokens=9, response_time_to_first_chunk=0.25
    )
    failed = otel_span(1_000_000_000, agent_name="editor")
    refused = otel_span(2_500_000_000)
    refused["attributes"].append(attribute("http.response.status_code", 429))
    for each in (failed, refused):
        each["attributes"].append(attribute("error.type", "RateLimitError"))
    first, last, third = load(file(tmp_path, otlp(second, failed, refused))).spans
    assert third.status == 429
    assert (first.agent, first.arrived_s, first.status) == ("editor", 0.0, None)
    assert (last.agent, last.arrived_s, last.first_token_s, last.end_s) == ("t", 1.0, 1.25, 4.0)
    assert (last.status, last.prompt_tokens, last.completion_tokens) == (200, 3, 9)


@pytest.mark.parametrize("times", [{"endTimeUnixNano": "-5"}, {"startTimeUnixNano": "16"}])
def test_a_span_that_ends_before_it_starts_is_refused(tmp_path: Path, times: dict[str, str]):
    """By file, line and span."""
    with pytest.raises(ConfigError, match=r":1, span 1: .*end_s"):
        load(file(tmp_path, otlp({**otel_span(), **times})))


def test_what_an_exporter_sent_again_counts_once(tmp_path: Path):
    """Delivery is at least once, so a span with the same number is the same span."""
    again = otel_span()
    assert load(file(tmp_path, f"{otlp(again)}\n{otlp(again, otel_span())}")).requests == 2


def slices(trace: Trace) -> list[dict[str, Any]]:
    events = json.loads(export(trace, "perfetto"))["traceEvents"]
    assert {event["ph"] for event in events} == {"X", "M"}
    return [event for event in events if event["ph"] == "X"]


def test_perfetto_finds_a_request_and_its_phases():
    """In microseconds; a phase that took no time is no slice."""
    found = [(each["name"], each["ts"], each["dur"]) for each in slices(Trace([call()]))]
    assert found == [
        ("request", 0, 4e6),
        ("queue", 0, 1e6),
        ("prefill", 1e6, 0.5e6),
        ("decode", 1.5e6, 2.5e6),
    ]
    no_wait = call(started_s=0.0, first_token_s=None, status=503, fault="error")
    assert [each["name"] for each in slices(Trace([no_wait]))] == ["request: error"]


def test_perfetto_has_a_track_for_each_request_in_flight():
    """Slices on one track lie beside or inside each other, or Perfetto would drop some."""
    for trace in (RUN, Trace(call(n, arrived_s=n / 20, started_s=None) for n in range(20))):
        tracks: dict[int, list[tuple[int, int]]] = {}
        for each in slices(trace):
            start_ns, took_ns = round(each["ts"] * 1000), round(each["dur"] * 1000)
            tracks.setdefault(each["tid"], []).append((start_ns, -took_ns))
        for own in tracks.values():
            open_until: list[int] = []
            for start_ns, minus_ns in sorted(own):
                while open_until and open_until[-1] <= start_ns:
                    open_until.pop()
                assert not open_until or start_ns - minus_ns <= open_until[-1]
                open_until.append(start_ns - minus_ns)
    events = json.loads(export(RUN, "perfetto"))["traceEvents"]
    named = [e["args"]["name"] for e in events if e["name"] == "thread_name"]
    assert set(named) == {span.agent for span in RUN.spans}


def test_mooncake_shares_as_many_blocks_as_were_cached():
    """Whole blocks of the agent's latest request; a new block for what nobody is known to share."""
    spans = [
        call(1, agent="a", arrived_s=0.0, started_s=None, prompt_tokens=1300),
        call(2, agent="b", arrived_s=0.1, started_s=None, prompt_tokens=100),
        call(3, agent="a", arrived_s=0.2, started_s=None, prompt_tokens=1600, cached_tokens=1299),
        call(4, agent="c", arrived_s=0.3, started_s=None, prompt_tokens=600, cached_tokens=520),
    ]
    lines = [json.loads(line) for line in export(Trace(spans), "mooncake").splitlines()]
    assert [line["hash_ids"] for line in lines] == [[0, 1, 2], [3], [0, 1, 4, 5], [0, 6]]
    assert [len(line["hash_ids"]) for line in lines] == [
        -(-line["input_length"] // 512) for line in lines
    ]


def test_mooncake_replays_only_what_was_answered():
    """A refusal belongs to the limit that refused, and a retry to who tried again."""
    spans = [call(1), call(2, status=429), call(3, completion_tokens=0), call(4, fault="cut")]
    assert export(Trace(spans), "mooncake").count(b"\n") == 1


def test_a_trace_is_the_same_bytes_each_time():
    """Whatever the form: no clock, no chance."""
    for form in FORMS:
        assert export(RUN, form) == export(Trace.load(TRACES / "agents.jsonl"), form)


# ---------------------------------------------------------------- tools and agents


def ran(number: int, name: str, from_s: float, to_s: float, **fields: Any) -> ToolSpan:
    times = {"arrived_s": from_s, "started_s": from_s, "end_s": to_s}
    return ToolSpan(
        **({"request_id": f"tool_{number}", "name": name, "status": 200} | times | fields)
    )


def with_tools() -> Trace:
    """An editor asks, then runs a search that fails, and a writer who asks, too."""
    return Trace(
        [
            ran(1, "editor", -0.5, 9.0, operation=AGENT, session="c1"),
            call(1, agent="editor", cached_tokens=0),
            ran(2, "search", 4.0, 5.0, agent="editor", parent="tool_1", fault="ValueError: no"),
            ran(3, "ask_writer", 4.0, 8.75, agent="editor", parent="tool_1"),
            ran(4, "writer", 4.25, 8.5, agent="editor", operation=AGENT, parent="tool_3"),
            call(2, arrived_s=4.5, started_s=4.5, first_token_s=5.0, end_s=8.0),
        ]
    )


@pytest.mark.parametrize("form", ["otel", "perfetto", "csv"])
def test_tools_and_agents_come_back_as_they_went(tmp_path: Path, form: str):
    """Beside the requests, with all that is known of them."""
    went = with_tools()
    path = tmp_path / "trace"
    path.write_bytes(export(went, form, began_ns=10**18))
    back = load(path)
    assert (back.spans, back.tools) == (went.spans, went.tools)
    assert len(back.tools) == 4 and back.tools[0].arrived_s == -0.5


def test_opentelemetry_finds_one_tree_of_agents_and_tools():
    """INTERNAL spans by the conventions' names; whatever an agent does lies inside of its span."""
    spans = proto(with_tools())
    names = {span.span_id: span.name for span in spans}
    tree = {span.name: names.get(span.parent_span_id) for span in spans if span.name != "chat"}
    assert tree == {
        "invoke_agent editor": None,
        "execute_tool search": "invoke_agent editor",
        "execute_tool ask_writer": "invoke_agent editor",
        "invoke_agent writer": "execute_tool ask_writer",
    }
    asked = [names[span.parent_span_id] for span in spans if span.name == "chat"]
    assert asked == ["invoke_agent editor", "invoke_agent writer"]
    assert len({span.trace_id for span in spans}) == 1
    kinds = {span.name: span.kind for span in spans}
    assert kinds.pop("chat") == ProtoSpan.SPAN_KIND_CLIENT
    assert set(kinds.values()) == {ProtoSpan.SPAN_KIND_INTERNAL}
    (search,) = [span for span in spans if span.name == "execute_tool search"]
    said = attributes(search)
    assert (said["gen_ai.tool.name"], said["gen_ai.agent.name"]) == ("search", "editor")
    assert (search.status.code, said["error.type"]) == (2, "ValueError")
    assert attributes(spans[0])["gen_ai.conversation.id"] == "c1"
    assert min(span.start_time_unix_nano for span in spans) == 0


def test_perfetto_finds_tools_on_the_track_of_their_agent():
    """And an agent around all that it did, from 0 on: Perfetto drops what is before."""
    found = {each["name"]: (each["ts"], each["dur"]) for each in slices(with_tools())}
    assert found["execute_tool ask_writer"] == (4.5e6, 4.75e6)
    assert found["invoke_agent editor"] == (0, 9.5e6)
    assert "execute_tool search: ValueError: no" in found


def test_mooncake_has_requests_only():
    """A load tool has nothing to run a tool with."""
    assert export(with_tools(), "mooncake").count(b"\n") == 2


def test_the_tools_of_others_become_tools(tmp_path: Path):
    """By the conventions' names; a parent is the span that holds it."""
    agent = otel_span(1_000_000_000, operation_name="invoke_agent", agent_name="writer")
    tool = otel_span(2_000_000_000, operation_name="execute_tool", tool_name="search")
    tool["parentSpanId"] = agent["spanId"]
    asked = otel_span(1_500_000_000)
    trace = load(file(tmp_path, otlp(agent, tool, asked)))
    first, second = trace.tools
    assert (first.name, first.operation, first.arrived_s) == ("writer", "invoke_agent", -0.5)
    assert (second.name, second.operation, second.arrived_s) == ("search", "execute_tool", 0.5)
    assert second.parent == first.request_id and trace.requests == 1


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("form", ["otel", "perfetto", "csv"])
def test_the_command_takes_a_trace_there_and_back(tmp_path: Path, form: str):
    """The file is the same to the byte."""
    there, back = tmp_path / "there", tmp_path / "back.jsonl"
    went = TRACES / "agents.jsonl"
    assert main(["trace", "export", str(went), "--to", form, "--out", str(there)]) == 0
    assert main(["trace", "import", str(there), "--out", str(back)]) == 0
    assert back.read_bytes() == went.read_bytes()


def test_the_command_says_what_it_leaves_out(capfdbinary: Any):
    """On the error stream, so that the other can be a file."""
    assert main(["trace", "export", str(TRACES / "agents.jsonl"), "--to", "mooncake"]) == 0
    out, err = capfdbinary.readouterr()
    left = sum(not span.ok for span in RUN.spans)
    assert left and f"left out: {left} of {RUN.requests} spans".encode() in err
    assert out == export(RUN, "mooncake")


def test_the_command_dates_a_trace(tmp_path: Path):
    """For tools that show when something happened."""
    out = tmp_path / "otel.json"
    command = ["trace", "export", str(TRACES / "agents.jsonl"), "--to", "otel", "--out", str(out)]
    assert main([*command, "--began", "2026-11-29T20:00:00+00:00", "--model", "m"]) == 0
    assert b'"startTimeUnixNano":"1795982400000000000"' in out.read_bytes()
    assert b'"chat m"' in out.read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "azure.csv", "--to", "csv"],
        ["export", "none", "--to", "csv"],
        ["import", "none"],
        ["import", "azure.csv", "--out", "/no/such/folder/file"],
        ["export", "agents.jsonl", "--to", "otel", "--began", "yesterday"],
        ["export", "agents.jsonl", "--to", "otel", "--began", "9999-01-01"],
        ["export", "agents.jsonl", "--to", "otel", "--began", "1900-01-01"],
    ],
)
def test_the_command_refuses_what_makes_no_sense(arguments: list[str], capsys: Any):
    """Exit code 2, one line, and nothing on the other stream."""
    verb, name, *rest = arguments
    assert main(["trace", verb, str(TRACES / name), *rest]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("agentlab: ") and said.err.count("\n") == 1 and not said.out


def test_the_command_has_the_forms_that_there_are():
    """Its choices stand in a file that imports nothing."""
    assert COMMANDS["trace export"]["options"]["--to"]["choices"] == [*FORMS]


@pytest.mark.parametrize(
    "fields",
    [
        {"end_s": 1e300},
        {"arrived_s": -1e300, "end_s": 1e300},
        {"end_s": float("inf")},
        {"started_s": float("nan")},
        {"end_s": 0.5},
        {"prompt_tokens": -1},
        {"completion_tokens": 10**30},
        {"late_ms": -1.0},
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_impossible_numbers_are_not_passed_on(form: str, fields: dict[str, Any]):
    """A file that was edited by hand may hold anything."""
    spoilt = Trace([call(**fields)])
    with pytest.raises(ConfigError, match="req_1"):
        export(spoilt, form)


# ---------------------------------------------------------------- a load tool replays it

GUIDELLM = Path(os.environ.get("AGENTLAB_LOAD_TOOLS", ROOT / "build/load-tools/bin")) / "guidellm"


@pytest.mark.skipif(not GUIDELLM.exists(), reason=f"no {GUIDELLM}; docs/traces.md installs it")
def test_guidellm_replays_an_exported_trace(tmp_path: Path):
    """As many requests as the file has lines, with just the answers' lengths that it gives."""
    trace = file(tmp_path, export(RUN, "mooncake").decode(), "run.jsonl")
    words = file(tmp_path, (ROOT / "README.md").read_text(), "words.txt")
    tokenizer = str(tmp_path / "tokenizer")
    python = str(GUIDELLM.with_name("python"))
    subprocess.run([python, "-c", load_tools.TOKENIZER, str(words), tokenizer], check=True)

    async def replayed() -> list[Span]:
        served = local_app(Settings(preset="instant"), time_scale=1.0)
        async with serving(served) as url:
            command = [
                *(str(GUIDELLM), "run", "--disable-console"),
                *("--backend", f"kind=openai_http,target={url.removesuffix('/v1')},model=local"),
                *("--profile", "kind=replay,time_scale=0.001"),
                *("--tokenizer", f"kind=huggingface_auto,model={tokenizer}"),
                *("--data", f"kind=mooncake,source.kind=json_file,source.path={trace}"),
                *("--output", f"kind=json,path={tmp_path / 'report.json'}"),
            ]
            offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
            tool = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=offline)
            assert await tool.wait() == 0
        return served.recorder.since(0)

    spans = asyncio.run(replayed())
    sent = published(trace)
    assert len(spans) == len(sent) and all(span.ok for span in spans)
    assert sorted(span.completion_tokens for span in spans) == sorted(
        arrival.output_tokens for arrival in sent
    )
    (said,) = json.loads((tmp_path / "report.json").read_text())["benchmarks"]
    state = said["scheduler_state"]  # of 0.8.1, which ends without counting its last answer
    assert (state["created_requests"], state["errored_requests"]) == (len(sent), 0)
