"""Traces that others wrote are read, and ours are read by others: what is in them, and no more."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from agentlab.bench.published import Arrival, published
from agentlab.errors import ConfigError
from agentlab.settings import DATA

TRACES = DATA / "traces"
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
        "spanId": f"{at_ns:016x}",
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
        '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46]}\n\n'
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
        otel_span(operation_name=name)
        for name in ("execute_tool", "invoke_agent", "embeddings", "chat")
    ]
    other = {**otel_span(), "attributes": [attribute("http.request.method", "GET")]}
    assert len(published(file(tmp_path, otlp(*spans, other)))) == 1


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
        (BURST + "-1,s,1,m,1,1,2,log\n", ":2", "Timestamp", "-1"),
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
        (otlp({"traceId": "t"}), ":1", "spanId", ""),
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
    """Two thousand times a sample has one part of it replaced: it is read, or refused."""
    draw = random.Random(7)
    samples = [path.read_text() for path in sorted(TRACES.iterdir())] + [otlp(otel_span())]
    parts = ["", '"', ",", "{", "}", "[]", "null", "-1", "1e999", "NaN", "9" * 30, "\0", "\n", "é"]
    refused = 0
    for _ in range(2_000):
        text = draw.choice(samples)[:1500]
        at = draw.randrange(len(text))
        spoilt = text[:at] + draw.choice(parts) + text[at + draw.randrange(12) :]
        try:
            published(file(tmp_path, spoilt))
        except ConfigError:
            refused += 1
    assert 200 < refused < 2_000


@pytest.mark.parametrize("name", ["azure.csv", "burstgpt.csv", "mooncake.jsonl"])
def test_the_samples_are_traffic(name: str):
    """Requests spread over time, with lengths that differ."""
    read = published(TRACES / name)
    assert len(read) > 20 and read[-1].at_s > 10
    assert len({arrival.prompt_tokens for arrival in read}) > 15
