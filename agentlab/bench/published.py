"""Traces in the forms of others, as arrivals to be replayed, or as a trace of ours.

- Azure: github.com/Azure/AzurePublicDataset, LLM inference of 2023 and 2024
- BurstGPT: github.com/HPMLL/BurstGPT, with sessions and without
- Mooncake: github.com/kvcache-ai/Mooncake, FAST25-release/traces
- OpenTelemetry: OTLP/JSON with the names of its conventions for generative AI, version 0.1.0:
  github.com/open-telemetry/semantic-conventions-genai
- what `forms` writes
"""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec

from agentlab.errors import ConfigError
from agentlab.trace import AGENT, TOOL, Span, ToolSpan, Trace

_Row = dict[str, Any]
_Time = (  # nanoseconds since 1970 are whole, or they would be rounded
    Annotated[int, msgspec.Meta(ge=-(10**12), le=9 * 10**18)]
    | Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
)
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_COLUMNS = {  # a form's time -> its unit in nanoseconds, tokens of prompt and answer, session
    "arrived_s": (10**9, "prompt_tokens", "completion_tokens", "agent"),
    "arrived_ns": (1, "prompt_tokens", "completion_tokens", "session"),
    "TIMESTAMP": (1, "ContextTokens", "GeneratedTokens", ""),
    "Timestamp": (10**9, "Request tokens", "Response tokens", "Session ID"),
    "timestamp": (10**6, "input_length", "output_length", "session_id"),
}
_TIMES = ("arrived_s", "started_s", "first_token_s", "end_s")
_COUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens", "attempt", "status", "late_ms")
_MOST = 10**9  # so that nanoseconds fit into 64 bits

OPERATION, FIRST_CHUNK = "gen_ai.operation.name", "gen_ai.response.time_to_first_chunk"
INFERENCE = ("chat", "text_completion", "generate_content")  # embeddings are left out
OURS = "agentlab."  # before the name of a span's field
NAMES = {
    "agent": "gen_ai.agent.name",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "finish_reason": "gen_ai.response.finish_reasons",
}


class Arrival(msgspec.Struct, frozen=True):
    """One request of a published trace; `at_s` counts from the first one.

    Requests of equal `session` belong to one conversation, or to one run of an agent. A request
    that failed may have no output tokens.
    """

    at_s: float
    prompt_tokens: int
    output_tokens: int
    session: str | None = None


def published(path: str | Path, *, most: int | None = None) -> list[Arrival]:
    """Return the requests of a trace that have a prompt, by arrival; its columns tell its form.

    If `most` is given, the file is read no further than so many requests.

    Raises:
        ConfigError: If a row is wrong, by file, line and field, or if there are no requests.

    Example:
        >>> from agentlab.settings import DATA
        >>> published(DATA / "traces" / "azure.csv", most=2)[1]
        Arrival(at_s=4.25, prompt_tokens=410, output_tokens=96, session=None)
    """
    return [
        Arrival(span.arrived_s, span.prompt_tokens, span.completion_tokens, session)
        for session, span in _requests(Path(path), most)
        if span.prompt_tokens and not isinstance(span, ToolSpan)
    ]


def load(path: str | Path) -> Trace:
    """Read a trace in any of these forms as one of ours.

    What a form does not tell is None, such as the end of a request in those of Mooncake.

    Raises:
        ConfigError: As `published` does.
    """
    return Trace(span for _, span in _requests(Path(path)))


def possible(where: str, span: Span) -> Span:
    """Return a span, if its numbers can be; else raise a ConfigError."""
    for name in (*_TIMES, *_COUNTS):
        value = getattr(span, name)
        least = -_MOST if name in _TIMES else 0  # an agent may begin before its first request
        if value is not None and not least <= value <= _MOST:  # nan is refused, too
            most = f"{least:,} to {_MOST:,}"
            raise ConfigError(f"{where}: {name} must be from {most}; got {value!r:.60}")
    times_s = [at_s for name in _TIMES if (at_s := getattr(span, name)) is not None]
    if times_s != sorted(times_s):
        raise ConfigError(f"{where}: {', '.join(_TIMES)} must not decrease; got {times_s}")
    return span


def _requests(path: Path, most: int | None = None) -> list[tuple[str | None, Span]]:
    """Return each request with its session, by arrival; the first is at 0."""
    flat = (one for row in read_rows(path) for one in _flat(*row))
    once = {str(row.get("span", where)): (where, row) for where, row in islice(flat, most)}
    found = [(where, *_request(where, row)) for where, row in once.values()]
    if not found:
        raise ConfigError(f"trace {str(path)!r} has no requests; give one that has")
    first_ns = min((f["arrived_s"] for _, _, f in found if "operation" not in f), default=0)
    requests = []
    for where, session, fields in found:
        times_s = {name: (fields[name] - first_ns) / 10**9 for name in _TIMES if name in fields}
        kind = ToolSpan if "operation" in fields else Span
        span = converted(where, "request", fields | times_s, kind)
        requests.append((session, possible(where, span)))
    return sorted(requests, key=lambda request: request[1].arrived_s)


def _request(where: str, row: _Row) -> tuple[str | None, _Row]:
    """Return a request's session and the fields of its span, with times in nanoseconds."""
    at = next((name for name in _COLUMNS if name in row), None)
    if at is None:
        known = "Azure's, BurstGPT's or Mooncake's, OTLP/JSON, or one of ours"
        raise ConfigError(f"{where}: no time in the columns {list(row)!r:.200}; give {known}")
    unit_ns, prompt, output, session = _COLUMNS[at]
    names = ToolSpan.__struct_fields__ if row.get("operation") else Span.__struct_fields__
    fields = {name: row[name] for name in names if row.get(name) not in (None, "")}
    fields["arrived_s"] = row[at]
    if at == "TIMESTAMP":
        date = converted(where, at, row[at], datetime)
        since_1970_s = date.replace(tzinfo=date.tzinfo or UTC).timestamp()
        fields["arrived_s"] = round(since_1970_s * 10**6) * 1000
    for name in _TIMES:
        if name in fields:
            told = converted(where, at if name == "arrived_s" else name, fields[name], _Time)
            fields[name] = round(told * unit_ns)
    fields["prompt_tokens"] = converted(where, prompt, row.get(prompt), _Tokens)
    fields["completion_tokens"] = converted(where, output, row.get(output), _Tokens)
    whose = str(row.get(session) or "")
    return whose or None, {"request_id": where, "agent": whose} | fields


def read_rows(path: Path) -> Iterator[tuple[str, _Row]]:
    """Yield the rows of a CSV, the objects of JSON lines, or the one of a JSON, and their place."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if text.lstrip()[:1] not in ("{", "["):
            table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            yield from ((f"{path}:{table.line_num}", row) for row in table)
            return
        lines = text.split("\n")
        if not text.lstrip().partition("\n")[0].rstrip().endswith("}"):
            lines = [text]  # one object on many lines
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}:{number}", msgspec.json.decode(line, type=_Row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{str(path)!r}: {error}; give a file of requests") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"{path}:{number}: {error}; give JSON, or a table") from None


def converted(where: str, name: str, value: Any, kind: Any) -> Any:
    """Return a value as what it should be; a ConfigError says where it is not, and what it is."""
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {name}: {error}; got {value!r:.60}; correct it") from None


class _Attribute(msgspec.Struct):
    key: str
    value: _Row


class _OtlpSpan(msgspec.Struct):
    traceId: str
    spanId: str
    startTimeUnixNano: int
    endTimeUnixNano: int
    parentSpanId: str | None = None
    attributes: list[_Attribute] = []


class _Spans(msgspec.Struct):
    spans: list[_OtlpSpan] = []


class _Scopes(msgspec.Struct):
    scopeSpans: list[_Spans] = []


class _Event(msgspec.Struct):
    cat: str = ""
    args: _Row = {}


def _flat(where: str, row: _Row) -> Iterator[tuple[str, _Row]]:
    """Yield the requests, tools and agents in OTLP/JSON or in Perfetto's events; any other row."""
    if "traceEvents" in row:
        events = converted(where, "traceEvents", row["traceEvents"], list[_Event])
        for number, event in enumerate(events, 1):
            if event.cat in ("request", "tool"):
                yield f"{where}, event {number}", event.args
    elif "resourceSpans" in row:
        resources = converted(where, "resourceSpans", row["resourceSpans"], list[_Scopes])
        scopes = [scope for resource in resources for scope in resource.scopeSpans]
        for number, span in enumerate((span for scope in scopes for span in scope.spans), 1):
            told = {attribute.key: _plain(attribute.value) for attribute in span.attributes}
            if told.get(OPERATION) in (*INFERENCE, TOOL, AGENT):
                ours = f"{OURS}arrived_s" in told
                fields = {key.removeprefix(OURS): value for key, value in told.items()}
                yield f"{where}, span {number}", fields if ours else _foreign(span, told)
    else:
        yield where, row


def _foreign(span: _OtlpSpan, told: _Row) -> _Row:
    """Return what another program's span tells; a failure without a status has none."""
    start_ns, operation = span.startTimeUnixNano, told[OPERATION]
    row: _Row = {"arrived_ns": start_ns, "end_s": span.endTimeUnixNano, "span": span.spanId}
    row |= {"request_id": span.spanId, "agent": span.traceId}
    row |= {"prompt_tokens": 0, "completion_tokens": 0}
    row |= {name: told[key] for name, key in NAMES.items() if key in told}
    row["session"] = told.get("gen_ai.conversation.id") or span.traceId
    if isinstance(first_s := told.get(FIRST_CHUNK), float | int):
        row["first_token_s"] = start_ns + round(first_s * 1e9)
    if "error.type" not in told or "http.response.status_code" in told:
        row["status"] = told.get("http.response.status_code", 200)
    if operation not in INFERENCE:
        row |= {"operation": operation, "started_s": start_ns, "parent": span.parentSpanId}
        row["name"] = told.get("gen_ai.tool.name" if operation == TOOL else NAMES["agent"], "")
        row["agent"] = row["agent"] if operation == TOOL else ""
    return row


def _plain(value: Any) -> Any:
    """Return what an OTLP value holds; of a list, its first element."""
    while isinstance(value, dict | list):
        value = next(iter(value.values() if isinstance(value, dict) else value), None)
    return value
