"""A trace in the forms that others read; `published` reads them again.

docs/traces.md says what each can carry.

- OTLP/JSON: opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
- Chrome's trace events, which ui.perfetto.dev opens:
  docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
- Mooncake's lines, which load tools replay
"""

from collections.abc import Sequence
from hashlib import sha256
from itertools import count, pairwise
from typing import Any

import msgspec

from agentlab.bench.published import FIRST_CHUNK, NAMES, OPERATION, OURS, possible
from agentlab.trace import AGENT, TOOL, Span, ToolSpan, Trace

FORMS = ("otel", "perfetto", "mooncake", "csv")
BLOCK_TOKENS = 512  # of a prompt, for one of Mooncake's hashes
_PHASES = ("queue", "prefill", "decode")  # the wait for a slot, reading, answering
_Row = dict[str, Any]


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
