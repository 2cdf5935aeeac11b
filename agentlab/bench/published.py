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
import yaml

from agentlab.errors import ConfigError

_Row = dict[str, Any]
_Time = (  # nanoseconds since 1970 are whole, or they would be rounded
    Annotated[int, msgspec.Meta(ge=0, le=9 * 10**18)]
    | Annotated[float, msgspec.Meta(ge=0, le=1e12)]
)
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_INFERENCE = ("chat", "text_completion", "generate_content")  # no embeddings, tools or agents
_FORMATS: list[dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
)


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
    form = next((form for form in _FORMATS if form["at"] in row), None)
    if form is None:
        known = "Azure's, BurstGPT's, Mooncake's or OTLP/JSON"
        raise ConfigError(f"{where}: no time in the columns {list(row)!r:.200}; give {known}")
    time = row[form["at"]]
    if form["at"] == "TIMESTAMP":
        date = _checked(where, form["at"], time, datetime)
        time = round(date.replace(tzinfo=date.tzinfo or UTC).timestamp() * 10**6) * 1000
    at_ns = round(_checked(where, form["at"], time, _Time) * form["unit_ns"])
    columns = form["prompt"], form["output"]
    prompt, output = (_checked(where, name, row.get(name), _Tokens) for name in columns)
    return at_ns, prompt, output, str(row.get(form["session"]) or "") or None


def read_rows(path: Path) -> Iterator[tuple[str, _Row]]:
    """Yield the rows of a CSV, the objects of JSON lines, or the one of a JSON, and their place."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if text.lstrip()[:1] not in ("{", "["):
            table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            yield from ((f"{path}:{table.line_num}", row) for row in table)
            return
        lines = text.split("\n")
        if not lines[0].rstrip().endswith("}"):
            lines = [text]  # one object on many lines
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}:{number}", msgspec.json.decode(line, type=_Row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{str(path)!r}: {error}; give a file of requests") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"{path}:{number}: {error}; give JSON, or a table") from None


def _checked(where: str, name: str, value: Any, kind: Any) -> Any:
    """Return a value as what it should be; a ConfigError says where it is not, and what it is."""
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {name}: {error}; got {value!r:.60}; correct it") from None


class _Attribute(msgspec.Struct):
    key: str
    value: _Row


class _Span(msgspec.Struct):
    traceId: str
    startTimeUnixNano: int
    attributes: list[_Attribute] = []


class _Spans(msgspec.Struct):
    spans: list[_Span] = []


class _Scopes(msgspec.Struct):
    scopeSpans: list[_Spans] = []


def _inferences(where: str, row: _Row) -> Iterator[tuple[str, _Row]]:
    """Yield the requests to a model in a row that is OTLP/JSON, flat; any other as it is.

    Spans of tools and agents, and those that count no tokens, are left out. A span without a
    conversation belongs to the session of its trace.
    """
    if "resourceSpans" not in row:
        yield where, row
        return
    resources = _checked(where, "resourceSpans", row["resourceSpans"], list[_Scopes])
    scopes = [scope for resource in resources for scope in resource.scopeSpans]
    names = _FORMATS[-1]
    for number, span in enumerate((span for scope in scopes for span in scope.spans), 1):
        told = {one.key: next(iter(one.value.values()), None) for one in span.attributes}
        if told.get("gen_ai.operation.name") in _INFERENCE and names["prompt"] in told:
            missing = {names["output"]: 0, names["session"]: span.traceId}
            flat = missing | told | msgspec.structs.asdict(span)
            yield f"{where}, span {number}", flat
