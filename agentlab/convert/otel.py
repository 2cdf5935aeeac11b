"""OTLP/JSON, with the names of OpenTelemetry's conventions for generative AI, version 0.1.0.

https://github.com/open-telemetry/semantic-conventions-genai and
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from agentlab.convert._rows import Row, Time, checked, inner
from agentlab.trace import Span

_START, _END = "startTimeUnixNano", "endTimeUnixNano"
_OPERATION, _FIRST_CHUNK = "gen_ai.operation.name", "gen_ai.response.time_to_first_chunk"
_STATUS = "http.response.status_code"  # which the conventions leave to spans of HTTP
_INFERENCE = ("chat", "text_completion", "generate_content")  # no embeddings, tools or agents
_NAMES = {name: f"agentlab.{name}" for name in Span.__struct_fields__} | {
    "agent": "gen_ai.agent.name",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "finish_reason": "gen_ai.response.finish_reasons",
}


def requests(where: str, document: Row) -> Iterator[tuple[str, Row]]:
    """Yield the requests to a model in OTLP/JSON, with the names of our `Span`.

    Of another program's span times are nanoseconds, and a request without a conversation belongs
    to the session of its trace. The status is None if it failed without any.
    """
    scopes = inner(where, inner(where, [document], "resourceSpans"), "scopeSpans")
    for number, span in enumerate(inner(where, scopes, "spans"), 1):
        at = f"{where}, span {number}"
        told = {str(a.get("key")): _plain(a.get("value")) for a in inner(at, [span], "attributes")}
        if told.get(_OPERATION) not in _INFERENCE:
            continue
        ours = {name: told[key] for name, key in _NAMES.items() if key in told}
        theirs: Row = {}
        if "arrived_s" not in ours:
            start_ns, end_ns = (checked(at, name, span.get(name), Time) for name in (_START, _END))
            theirs = {"arrived_ns": start_ns, "end_s": end_ns, "request_id": span.get("spanId")}
            theirs |= {"agent": span.get("traceId"), "prompt_tokens": 0, "completion_tokens": 0}
            theirs["session"] = told.get("gen_ai.conversation.id") or span.get("traceId")
            if _FIRST_CHUNK in told:
                first_s = checked(at, _FIRST_CHUNK, told[_FIRST_CHUNK], Time)
                theirs["first_token_s"] = start_ns + round(first_s * 1e9)
            if "error.type" not in told or _STATUS in told:
                theirs["status"] = told.get(_STATUS, 200)
        yield at, {"span": span.get("spanId"), **theirs, **ours}


def export(spans: Sequence[Span], *, model: str = "", began_ns: int = 0) -> bytes:
    """Write requests that have ended as OTLP/JSON, those of each agent as one OpenTelemetry trace.

    A trace of ours records neither the `model` nor when it began, in nanoseconds since 1970.
    """
    run = sha256(msgspec.json.encode(spans)).hexdigest()
    written = [_written(run, number, span, model, began_ns) for number, span in enumerate(spans)]
    scope = {"scope": {"name": "agentlab"}, "spans": written}
    resource = {"attributes": _attributes({"service.name": "agentlab"})}
    return msgspec.json.encode({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})


def _written(run: str, number: int, span: Span, model: str, began_ns: int) -> Row:
    operation = "chat"  # the endpoint does not record by which route a request came
    told = {_OPERATION: operation, "gen_ai.provider.name": "openai", _FIRST_CHUNK: span.ttft_s}
    told |= {"gen_ai.request.model": model or None}
    if not span.ok:
        code = str(span.status) if span.status not in (200, 0) else None
        told["error.type"] = code or span.fault or "_OTHER"
    told |= {key: getattr(span, name) for name, key in _NAMES.items()}
    return {
        "traceId": sha256(f"{run} {span.agent}".encode()).hexdigest()[:32],
        "spanId": sha256(f"{run} {number}".encode()).hexdigest()[:16],
        "name": f"{operation} {model}".strip(),
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
    if isinstance(value, int):
        return {"intValue": str(value)}  # whole numbers have 64 bits, which JSON's have not
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}


def _plain(value: Any) -> Any:
    """Return what an OTLP value holds; of a list, its first element."""
    held = next(iter(value.values()), None) if isinstance(value, dict) else value
    if isinstance(held, dict) and isinstance(held.get("values"), list):
        return _plain(next(iter(held["values"]), None))
    return held
