"""`agentlab trace export` and `import`: a trace in other tools' forms, and theirs as a trace.

docs/traces.md says what each form can carry. The wheel has this file, too.

- OTLP/JSON with the names of OpenTelemetry's conventions for generative AI, version 0.1.0:
  opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding and
  github.com/open-telemetry/semantic-conventions-genai
- Chrome's trace events, which ui.perfetto.dev opens:
  docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
- Mooncake's lines, which load tools replay: github.com/kvcache-ai/Mooncake, FAST25-release/traces
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import msgspec

from agentlab._support.fields import checked
from agentlab._support.system import extras, write_whole
from agentlab.bench.published import (
    INFERENCE,
    OtlpSpan,
    converted,
    otlp_spans,
    published,
    read_rows,
)
from agentlab.errors import ConfigError
from agentlab.trace import AGENT, TOOL, Span, ToolSpan, Trace

_Row = dict[str, Any]
_TIMES = ("arrived_s", "started_s", "first_token_s", "end_s")
_COUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens", "attempt", "status", "late_ms")
_MOST = 10**9  # so that nanoseconds fit into 64 bits

OPERATION, FIRST_CHUNK = "gen_ai.operation.name", "gen_ai.response.time_to_first_chunk"
OURS = "agentlab."  # before the name of a span's field
NAMES = {
    "agent": "gen_ai.agent.name",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "finish_reason": "gen_ai.response.finish_reasons",
}


FORMS = ("otel", "perfetto", "mooncake", "csv")
BLOCK_TOKENS = 512  # of a prompt, for one of Mooncake's hashes
_PHASES = ("queue", "prefill", "decode")  # the wait for a slot, reading, answering


def carried(trace: Trace, form: str) -> list[Span]:
    """Return the requests, tools and agents that a form can carry, in order.

    A CSV carries all, Mooncake's requests that were answered, the others what has ended.
    """
    if form == "mooncake":
        return [s for s in trace.spans if s.ok and s.prompt_tokens and s.completion_tokens]
    spans = [s for s in [*trace.tools, *trace.spans] if form == "csv" or s.end_s is not None]
    return sorted(spans, key=lambda span: span.arrived_s)


def export(trace: Trace, form: str, *, model: str = "", began_ns: int = 0) -> bytes:
    """Write what one of the `FORMS` can carry of a trace, which is None or left out otherwise.

    A trace records neither the `model` nor when it began, in nanoseconds since 1970; of the forms
    only "otel" says them.
    """
    spans = [possible(f"request {span.request_id!r:.60}", span) for span in carried(trace, form)]
    if form == "otel":
        return _otel(spans, model, began_ns)
    return {"perfetto": _perfetto, "mooncake": _mooncake, "csv": _csv}[form](spans)


def _csv(spans: Sequence[Span]) -> bytes:
    with extras("course"):
        import pandas as pd  # takes a second

    rows = pd.DataFrame(map(msgspec.structs.asdict, spans), dtype=object)
    return str(rows.to_csv(index=False, lineterminator="\n")).encode()


def _mooncake(spans: Sequence[Span]) -> bytes:
    """Return a line per request; blocks that it found in the cache have the hashes of earlier ones.

    A trace records no prompts, so whose blocks they were is a guess: those of its agent's latest
    request, or of anybody's if that has more. What nobody is known to share has a hash of its own.
    """
    new, lines = count(), []
    latest: dict[str | None, list[int]] = {None: []}  # whole blocks of an agent, and of anybody
    for span in spans:
        known = max(latest.get(span.agent, []), latest[None], key=len)
        hashes = known[: span.cached_tokens // BLOCK_TOKENS]
        hashes += [next(new) for _ in range(-(-span.prompt_tokens // BLOCK_TOKENS) - len(hashes))]
        latest[span.agent] = latest[None] = hashes[: span.prompt_tokens // BLOCK_TOKENS]
        lengths = {"input_length": span.prompt_tokens, "output_length": span.completion_tokens}
        lines.append({"timestamp": round(span.arrived_s * 1000), **lengths, "hash_ids": hashes})
    return msgspec.json.Encoder().encode_lines(lines)


def _perfetto(spans: Sequence[Span]) -> bytes:
    """Return slices, requests with their phases inside, on as many tracks as an agent needs.

    A slice's arguments are the whole span.
    """
    tracks: list[tuple[str, float]] = []  # whose a track is, and when it is free again
    zero_s = min([0.0, *(span.arrived_s for span in spans)])  # Perfetto drops what is before 0
    events: list[_Row] = [_named("process_name", 0, "agentlab")]
    for span in spans:
        kind, name, whose, end_s = "request", "request", span.agent, span.end_s or 0.0
        if isinstance(span, ToolSpan):
            kind, name = "tool", f"{span.operation} {span.name}"
            whose = span.name if span.operation == AGENT else span.agent
        name += "" if span.ok else f": {span.fault or span.status}"
        free = (n for n, (of, at_s) in enumerate(tracks) if of == whose and at_s <= span.arrived_s)
        track = next(free, len(tracks))
        if track == len(tracks):
            events.append(_named("thread_name", track + 2, whose))  # 1 would be the main thread
        tracks[track : track + 1] = [(whose, end_s)]
        times_s: Any = pairwise([span.arrived_s, span.started_s, span.first_token_s, end_s])
        for cat, title, (from_s, until_s) in [
            (kind, name, (span.arrived_s, end_s)),
            *(("phase", *phase) for phase in zip(_PHASES, times_s, strict=True)),
        ]:
            if cat == kind or (None not in (from_s, until_s) and from_s < until_s):
                event = {"ph": "X", "cat": cat, "name": title, "pid": 1, "tid": track + 2}
                event["ts"] = round((from_s - zero_s) * 1e6, 3)
                event["dur"] = round((until_s - from_s) * 1e6, 3)
                events.append(event | ({"args": span} if cat == kind else {}))
    return msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms"})


def _named(what: str, track: int, name: str) -> _Row:
    return {"ph": "M", "name": what, "pid": 1, "tid": track, "args": {"name": name}}


def _otel(spans: Sequence[Span], model: str, began_ns: int) -> bytes:
    """Return OTLP/JSON: a trace for each agent that no other has started."""
    run = sha256(msgspec.json.encode(spans)).hexdigest()
    began_ns -= round(min([0.0, *(span.arrived_s for span in spans)]) * 1e9)
    written: list[_Row] = []
    around: dict[tuple[str, str | None], _Row] = {}  # a tool by its id, an agent by its name
    for number, span in enumerate(spans):
        parent, whose, kind = around.get(("agent", span.agent), {}), span.agent, 3  # CLIENT
        told: _Row = {OPERATION: "chat", "gen_ai.provider.name": "openai"}
        subject = model  # by which route a request came is not recorded
        if isinstance(span, ToolSpan):
            parent, kind = around.get(("id", span.parent), parent), 1  # INTERNAL
            subject = whose = span.name
            told = {OPERATION: span.operation, "gen_ai.conversation.id": span.session}
            if span.operation == TOOL:
                whose, told["gen_ai.tool.name"] = span.agent, span.name
            told[NAMES["agent"]] = whose or None
        else:
            told |= {"gen_ai.request.model": model or None, FIRST_CHUNK: span.ttft_s}
            told |= {key: getattr(span, name) for name, key in NAMES.items()}
        told |= {OURS + name: value for name, value in msgspec.structs.asdict(span).items()}
        if not span.ok:
            code = str(span.status) if span.status not in (200, 0) else None
            told["error.type"] = code or (span.fault or "_OTHER").partition(":")[0]
        row = {
            "traceId": parent.get("traceId", sha256(f"{run} {whose}".encode()).hexdigest()[:32]),
            "spanId": sha256(f"{run} {number}".encode()).hexdigest()[:16],
            "parentSpanId": parent.get("spanId", ""),
            "name": f"{told[OPERATION]} {subject}".strip(),
            "kind": kind,
            "startTimeUnixNano": str(began_ns + round(span.arrived_s * 1e9)),
            "endTimeUnixNano": str(began_ns + round((span.end_s or 0) * 1e9)),
            "attributes": _attributes(told),
            "status": {} if span.ok else {"code": 2},
        }
        written.append(row)
        if isinstance(span, ToolSpan):
            around["id", span.request_id] = row
            if span.operation == AGENT:
                around["agent", span.name] = row
    scope = {"scope": {"name": "agentlab"}, "spans": written}
    resource = {"attributes": _attributes({"service.name": "agentlab"})}
    return msgspec.json.encode({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})


def _attributes(told: _Row) -> list[_Row]:
    """Return attributes as OTLP/JSON has them, without those that are None."""
    kinds = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}
    attributes: list[_Row] = []
    for key, value in told.items():
        if value is not None:  # whole numbers have 64 bits, which JSON's have not
            held = {kinds[type(value)]: str(value) if type(value) is int else value}
            if key == NAMES["finish_reason"]:
                held = {"arrayValue": {"values": [held]}}
            attributes.append({"key": key, "value": held})
    return attributes


def load(path: str | Path) -> Trace:
    """Read a trace in any of these forms, or a published one, as one of ours.

    What a form does not tell is None, such as the end of a request in those of Mooncake.

    Raises:
        ConfigError: If a row is wrong, by file, line and field, or if there are no requests.
    """
    flat = (one for row in read_rows(Path(path)) for one in _flat(*row))
    rows = {row.get("span", where): (where, row) for where, row in flat}.values()
    if all("arrived_s" in row or "arrived_ns" in row for _, row in rows) and rows:
        return Trace(_spans(rows))
    return Trace(
        Span(
            request_id=f"request {number}",
            agent=one.session or "",
            arrived_s=one.at_s,
            prompt_tokens=one.prompt_tokens,
            completion_tokens=one.output_tokens,
        )
        for number, one in enumerate(published(path))
    )


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


def _spans(rows: Iterable[tuple[str, _Row]]) -> Iterator[Span]:
    """Yield the spans of rows that have their fields; nanoseconds become seconds from the first."""
    first_ns = min((row["arrived_ns"] for _, row in rows if "arrived_ns" in row), default=0)
    for where, row in rows:
        kind = ToolSpan if row.get("operation") else Span
        names = kind.__struct_fields__
        known = {name: row[name] for name in names if row.get(name) not in ("", None)}
        fields = {"agent": "", **known}
        if "arrived_ns" in row:
            fields["arrived_s"] = row["arrived_ns"]
            for name in {*_TIMES} & fields.keys():
                fields[name] = (fields[name] - first_ns) / 10**9
        yield possible(where, converted(where, "span", fields, kind))


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
        for place, span, told in otlp_spans(where, row):
            if told.get(OPERATION) in (*INFERENCE, TOOL, AGENT):
                ours = f"{OURS}arrived_s" in told
                fields = {key.removeprefix(OURS): value for key, value in told.items()}
                yield place, fields if ours else _foreign(span, told)
    else:
        yield where, row


def _foreign(span: OtlpSpan, told: _Row) -> _Row:
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


def run(options: argparse.Namespace) -> int:
    """Export or import, and say what the form cannot carry; return 0."""
    written = (_exported if options.command == "trace export" else _imported)(options)
    if options.out is None:
        sys.stdout.buffer.write(written)
        return 0
    try:
        write_whole(Path(options.out), written)
    except OSError as error:
        raise ConfigError(f"--out: {error}; name a file that can be made") from None
    return 0


def _exported(options: argparse.Namespace) -> bytes:
    trace = Trace.load(options.file)
    try:
        began_s = round(datetime.fromisoformat(options.began).timestamp())
    except ValueError:
        way = "write it as 2026-11-29T20:00:00Z"
        raise ConfigError(f"--began: {options.began!r} is no date; {way}") from None
    checked("--began", began_s, most=8 * 10**9)  # so that its nanoseconds fit into 64 bits
    written = export(trace, options.to, model=options.model, began_ns=began_s * 10**9)
    of = [*trace.spans, *trace.tools] if options.to != "mooncake" else trace.spans
    if left := len(of) - len(carried(trace, options.to)):
        reason = "were not answered" if options.to == "mooncake" else "have not ended"
        print(f"left out: {left} of {len(of)} spans, which {reason}", file=sys.stderr)
    return written


def _imported(options: argparse.Namespace) -> bytes:
    trace = load(options.file)
    spans = sorted([*trace.tools, *trace.spans], key=lambda span: span.arrived_s)
    return msgspec.json.Encoder().encode_lines(spans)
