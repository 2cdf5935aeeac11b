"""OTLP/JSON, with the names of OpenTelemetry's conventions for generative AI, version 0.1.0.

https://github.com/open-telemetry/semantic-conventions-genai and
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from agentlab.convert._rows import Row, Time, checked, inner
from agentlab.trace import AGENT, TOOL, Span, ToolSpan

_START, _END = "startTimeUnixNano", "endTimeUnixNano"
_OPERATION, _FIRST_CHUNK = "gen_ai.operation.name", "gen_ai.response.time_to_first_chunk"
_STATUS = "http.response.status_code"  # which the conventions leave to spans of HTTP
_INFERENCE = ("chat", "text_completion", "generate_content")  # embeddings are left out
_OURS = {name: f"agentlab.{name}" for name in ToolSpan.__struct_fields__}
_NAMES = _OURS | {
    "agent": "gen_ai.agent.name",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "finish_reason": "gen_ai.response.finish_reasons",
}


def requests(where: str, document: Row) -> Iterator[tuple[str, Row]]:
    """Yield the requests, tools and agents in OTLP/JSON, with the names of our spans.

    Of another program's span times are nanoseconds, and a request without a conversation belongs
    to the session of its trace. The status is None if it failed without any.
    """
    scopes = inner(where, inner(where, [document], "resourceSpans"), "scopeSpans")
    for number, span in enumerate(inner(where, scopes, "spans"), 1):
        at = f"{where}, span {number}"
        told = {str(a.get("key")): _plain(a.get("value")) for a in inner(at, [span], "attributes")}
        operation = told.get(_OPERATION)
        if operation not in (*_INFERENCE, TOOL, AGENT):
            continue
        if _OURS["arrived_s"] in told:
            names = _NAMES if operation in _INFERENCE else _OURS
            row = {name: told[key] for name, key in names.items() if key in told}
        else:
            row = _foreign(at, span, told)
        yield at, {"span": span.get("spanId"), **row}


def _foreign(at: str, span: Row, told: Row) -> Row:
    """Return what another program's span tells."""
    start_ns, end_ns = (checked(at, name, span.get(name), Time) for name in (_START, _END))
    row: Row = {"arrived_ns": start_ns, "end_s": end_ns, "request_id": span.get("spanId")}
    row |= {"agent": span.get("traceId"), "prompt_tokens": 0, "completion_tokens": 0}
    row |= {name: told[key] for name, key in _NAMES.items() if key in told}
    row["session"] = told.get("gen_ai.conversation.id") or span.get("traceId")
    if _FIRST_CHUNK in told:
        first_s = checked(at, _FIRST_CHUNK, told[_FIRST_CHUNK], Time)
        row["first_token_s"] = start_ns + round(first_s * 1e9)
    if "error.type" not in told or _STATUS in told:
        row["status"] = told.get(_STATUS, 200)
    if (operation := told[_OPERATION]) not in _INFERENCE:
        row |= {"operation": operation, "started_s": start_ns, "parent": span.get("parentSpanId")}
        row["name"] = told.get("gen_ai.tool.name" if operation == TOOL else _NAMES["agent"], "")
        row["agent"] = row["agent"] if operation == TOOL else ""
    return row


def export(spans: Sequence[Span], *, model: str = "", began_ns: int = 0) -> bytes:
    """Write what has ended as OTLP/JSON: a trace for each agent that no other has started.

    A trace of ours records neither the `model` nor when it began, in nanoseconds since 1970.
    """
    run = sha256(msgspec.json.encode(spans)).hexdigest()
    began_ns -= round(min([0.0, *(span.arrived_s for span in spans)]) * 1e9)
    written: list[Row] = []
    around: dict[tuple[str, str | None], Row] = {}  # a tool by its id, an agent by its name
    for number, span in enumerate(spans):
        parent = around.get(("agent", span.agent), {})
        if isinstance(span, ToolSpan):
            parent = around.get(("id", span.parent), parent)
        whose = span.name if isinstance(span, ToolSpan) and span.operation == AGENT else span.agent
        row = _written(span, model, began_ns) | {
            "traceId": parent.get("traceId", sha256(f"{run} {whose}".encode()).hexdigest()[:32]),
            "spanId": sha256(f"{run} {number}".encode()).hexdigest()[:16],
            "parentSpanId": parent.get("spanId", ""),
        }
        written.append(row)
        if isinstance(span, ToolSpan):
            around["id", span.request_id] = row
            if span.operation == AGENT:
                around["agent", span.name] = row
    scope = {"scope": {"name": "agentlab"}, "spans": written}
    resource = {"attributes": _attributes({"service.name": "agentlab"})}
    return msgspec.json.encode({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})


def _written(span: Span, model: str, began_ns: int) -> Row:
    if isinstance(span, ToolSpan):
        operation, subject = span.operation, span.name
        told: Row = {_OPERATION: operation, "gen_ai.conversation.id": span.session}
        told |= {key: getattr(span, name) for name, key in _OURS.items()}
        if operation == TOOL:
            told["gen_ai.tool.name"] = span.name
        told[_NAMES["agent"]] = (span.agent or None) if operation == TOOL else span.name
    else:
        operation, subject = "chat", model  # by which route a request came is not recorded
        told = {_OPERATION: operation, "gen_ai.provider.name": "openai", _FIRST_CHUNK: span.ttft_s}
        told |= {"gen_ai.request.model": model or None}
        told |= {_NAMES[name]: getattr(span, name) for name in Span.__struct_fields__}
    if not span.ok:
        code = str(span.status) if span.status not in (200, 0) else None
        told["error.type"] = code or (span.fault or "_OTHER").partition(":")[0]
    return {
        "name": f"{operation} {subject}".strip(),
        "kind": 3 if operation in _INFERENCE else 1,  # CLIENT; tools and agents are INTERNAL
        _START: str(began_ns + round(span.arrived_s * 1e9)),
        _END: str(began_ns + round((span.end_s or 0) * 1e9)),
        "attributes": _attributes(told),
        "status": {} if span.ok else {"code": 2},
    }


def _attributes(told: Row) -> list[Row]:
    """Return attributes as OTLP/JSON has them, without those that are None."""
    return [
        {"key": key, "value": _value(key, value)}
        for key, value in told.items()
        if value is not None
    ]


def _value(key: str, value: Any) -> Row:
    if key == _NAMES["finish_reason"]:
        return {"arrayValue": {"values": [{"stringValue": value}]}}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}  # whole numbers have 64 bits, which JSON's have not
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}


def _plain(value: Any) -> Any:
    """Return what an OTLP value holds; of a list, its first element."""
    held = next(iter(value.values()), None) if isinstance(value, dict) else value
    if isinstance(held, dict) and isinstance(held.get("values"), list):
        return _plain(next(iter(held["values"]), None))
    return held
