"""Published traces of real traffic, as arrivals that can be replayed.

- Azure: github.com/Azure/AzurePublicDataset, LLM inference of 2023 and 2024
- BurstGPT: github.com/HPMLL/BurstGPT, with sessions and without
- Mooncake: github.com/kvcache-ai/Mooncake, FAST25-release/traces
- OpenTelemetry: OTLP/JSON with the names of its conventions for generative AI, version 0.1.0:
  github.com/open-telemetry/semantic-conventions-genai
"""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import msgspec

from agentlab.errors import ConfigError

_Row = dict[str, Any]
_Time = (  # nanoseconds since 1970 are whole, or they would be rounded
    Annotated[int, msgspec.Meta(ge=0, le=9 * 10**18)]
    | Annotated[float, msgspec.Meta(ge=0, le=1e12)]
)
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_KNOWN = msgspec.yaml.decode(Path(__file__).with_suffix(".yaml").read_bytes())
INFERENCE: list[str] = _KNOWN["inference"]


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
    """Return the requests of a published trace by arrival; its columns tell which format it has.

    If `most` is given, only so many are taken, from the beginning of the file.

    Raises:
        ConfigError: If a row is wrong, by file, line and field, or if there are no requests.

    Example:
        >>> from agentlab.settings import DATA
        >>> published(DATA / "traces" / "azure.csv", most=2)[1]
        Arrival(at_s=4.25, prompt_tokens=410, output_tokens=96, session=None)
    """
    rows = (request for row in read_rows(Path(path)) for request in _inferences(*row))
    requests = sorted((_request(*row) for row in islice(rows, most)), key=itemgetter(0))
    if not requests:
        raise ConfigError(f"trace {str(path)!r} has no requests; give one that has")
    first_ns = requests[0][0]
    return [
        Arrival((at_ns - first_ns) / 10**9, prompt, output, session)
        for at_ns, prompt, output, session in requests
    ]


def _request(where: str, row: _Row) -> tuple[int, int, int, str | None]:
    columns = next((columns for columns in _KNOWN["formats"] if columns[0] in row), None)
    if columns is None:
        known = "Azure's, BurstGPT's, Mooncake's or OTLP/JSON"
        raise ConfigError(f"{where}: no time in the columns {list(row)!r:.200}; give {known}")
    at, prompt, output, session, unit_ns = columns
    time = row[at]
    if at == "TIMESTAMP":
        date = converted(where, at, time, datetime)
        time = round(date.replace(tzinfo=date.tzinfo or UTC).timestamp() * 10**6) * 1000
    return (
        round(converted(where, at, time, _Time) * unit_ns),
        converted(where, prompt, row.get(prompt), _Tokens),
        converted(where, output, row.get(output), _Tokens),
        str(row.get(session) or "") or None,
    )


def read_rows(path: Path) -> Iterator[tuple[str, _Row]]:
    """Yield the rows of a CSV, the objects of JSON lines, or the one of a JSON, and their place."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if text.lstrip()[:1] not in ("{", "["):
            mark = max(",;\t", key=text.partition("\n")[0].count)
            table = csv.DictReader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
            for row in table:
                if any(row.pop(None, ())):  # as a decimal comma makes, which moves all behind it
                    raise ConfigError(f"{path}:{table.line_num}: too many fields; quote {mark!r}")
                yield f"{path}:{table.line_num}", row
            return
        lines = text.split("\n")
        if not text.lstrip().partition("\n")[0].rstrip().endswith("}"):
            lines = [text]  # one object on many lines
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}:{number}", msgspec.json.decode(line, type=_Row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"trace {str(path)!r}: {error}; give a file of requests") from None
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


class OtlpSpan(msgspec.Struct):
    """A span of OTLP/JSON, by the names that it has there."""

    traceId: str
    spanId: str
    startTimeUnixNano: int
    endTimeUnixNano: int
    parentSpanId: str | None = None
    attributes: list[_Attribute] = []


class _Spans(msgspec.Struct):
    spans: list[OtlpSpan] = []


class _Scopes(msgspec.Struct):
    scopeSpans: list[_Spans] = []


def otlp_spans(where: str, row: _Row) -> Iterator[tuple[str, OtlpSpan, _Row]]:
    """Yield the spans of a row that is OTLP/JSON: the place, the span, and its attributes."""
    resources = converted(where, "resourceSpans", row["resourceSpans"], list[_Scopes])
    scopes = [scope for resource in resources for scope in resource.scopeSpans]
    for number, span in enumerate((span for scope in scopes for span in scope.spans), 1):
        told = {attribute.key: _plain(attribute.value) for attribute in span.attributes}
        yield f"{where}, span {number}", span, told


def _inferences(where: str, row: _Row) -> Iterator[tuple[str, _Row]]:
    """Yield the requests to a model in a row that is OTLP/JSON, flat; any other as it is.

    Spans of tools and agents, and those that count no tokens, are left out. A span without a
    conversation belongs to the session of its trace.
    """
    if "resourceSpans" not in row:
        yield where, row
        return
    _, prompt, output, session, _ = _KNOWN["formats"][-1]
    for place, span, told in otlp_spans(where, row):
        if told.get("gen_ai.operation.name") in INFERENCE and prompt in told:
            yield place, {output: 0, session: span.traceId, **told, **msgspec.structs.asdict(span)}


def _plain(value: Any) -> Any:
    """Return what an OTLP value holds; of a list, its first element."""
    while isinstance(value, dict | list):
        value = next(iter(value.values() if isinstance(value, dict) else value), None)
    return value
