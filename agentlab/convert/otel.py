"""OTLP/JSON, with the names of OpenTelemetry's conventions for generative AI, version 0.1.0.

https://github.com/open-telemetry/semantic-conventions-genai and
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from agentlab.convert._rows import Row, checked

OPERATION = "gen_ai.operation.name"
COLUMNS = (  # of a request: when, tokens of its prompt and of its answer, session
    *("startTimeUnixNano", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"),
    "gen_ai.conversation.id",
)
_INFERENCE = ("chat", "text_completion", "generate_content")  # no embeddings, tools or agents


class _Attribute(msgspec.Struct):
    key: str
    value: Row


class _Span(msgspec.Struct):
    traceId: str
    spanId: str
    startTimeUnixNano: int
    endTimeUnixNano: int
    attributes: list[_Attribute] = []


class _Spans(msgspec.Struct):
    spans: list[_Span] = []


class _Scopes(msgspec.Struct):
    scopeSpans: list[_Spans] = []


def requests(where: str, row: Row) -> Iterator[tuple[str, Row]]:
    """Yield the requests to a model in a row that is OTLP/JSON, flat; any other as it is.

    Spans of tools and agents, and those that count no tokens, are left out. A span without a
    conversation belongs to the session of its trace.
    """
    if "resourceSpans" not in row:
        yield where, row
        return
    resources = checked(where, "resourceSpans", row["resourceSpans"], list[_Scopes])
    scopes = [scope for resource in resources for scope in resource.scopeSpans]
    _, prompt, output, session = COLUMNS
    for number, span in enumerate((span for scope in scopes for span in scope.spans), 1):
        attributes = {attribute.key: _plain(attribute.value) for attribute in span.attributes}
        if attributes.get(OPERATION) in _INFERENCE and prompt in attributes:
            unless_given = {output: 0, session: span.traceId}
            flat = unless_given | attributes | msgspec.structs.asdict(span)
            yield f"{where}, span {number}", flat


def _plain(value: Any) -> Any:
    """Return what an OTLP value holds; of a list, its first element."""
    held = next(iter(value.values()), None) if isinstance(value, dict) else value
    if isinstance(held, dict) and isinstance(held.get("values"), list):
        return _plain(next(iter(held["values"]), None))
    return held
