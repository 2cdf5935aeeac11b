"""Traces in the forms of others, as arrivals to be replayed, or as a trace of ours.

- Azure: github.com/Azure/AzurePublicDataset, LLM inference of 2023 and 2024
- BurstGPT: github.com/HPMLL/BurstGPT, with sessions and without
- Mooncake: github.com/kvcache-ai/Mooncake, FAST25-release/traces
- OpenTelemetry: OTLP/JSON of any program that follows the conventions
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from agentlab.convert import otel, perfetto
from agentlab.convert._rows import Row, Time, Tokens, checked, read
from agentlab.convert.spans import TIMES, possible
from agentlab.errors import ConfigError
from agentlab.trace import Span, ToolSpan, Trace

_COLUMNS = {  # a form's time -> its unit in nanoseconds, tokens of prompt and answer, session
    "arrived_s": (10**9, "prompt_tokens", "completion_tokens", "agent"),
    "arrived_ns": (1, "prompt_tokens", "completion_tokens", "session"),
    "TIMESTAMP": (1, "ContextTokens", "GeneratedTokens", ""),
    "Timestamp": (10**9, "Request tokens", "Response tokens", "Session ID"),
    "timestamp": (10**6, "input_length", "output_length", "session_id"),
}


class Arrival(NamedTuple):
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
    arrivals = [
        Arrival(span.arrived_s, span.prompt_tokens, span.completion_tokens, session)
        for session, span in _requests(Path(path), most)
        if span.prompt_tokens and not isinstance(span, ToolSpan)
    ]
    if not arrivals:
        raise ConfigError(f"trace {str(path)!r} has no requests with a prompt; give one that has")
    return arrivals


def load(path: str | Path) -> Trace:
    """Read a trace in any of these forms, or of those that `spans` writes, as one of ours.

    What a form does not tell is None, such as the end of a request in those of Mooncake.

    Raises:
        ConfigError: As `published` does.
    """
    trace = Trace(span for _, span in _requests(Path(path)))
    if not (trace.requests or trace.tools):
        raise ConfigError(f"trace {str(path)!r} has no requests; give one that has")
    return trace


def _requests(path: Path, most: int | None = None) -> list[tuple[str | None, Span]]:
    """Return each request with its session, by arrival; the first is at 0."""
    once = {str(row.get("span", where)): (where, row) for where, row in islice(_rows(path), most)}
    found = [_request(*row) for row in once.values()]
    first_ns = min((f["arrived_s"] for _, _, f in found if "operation" not in f), default=0)
    requests = []
    for where, session, fields in found:
        times_s = {name: (fields[name] - first_ns) / 10**9 for name in TIMES if name in fields}
        kind = ToolSpan if "operation" in fields else Span
        span = checked(where, "request", fields | times_s, kind)
        requests.append((session, possible(where, span)))
    return sorted(requests, key=lambda request: request[1].arrived_s)


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    for where, row in read(path):
        if "resourceSpans" in row:
            yield from otel.requests(where, row)
        elif "traceEvents" in row:
            yield from perfetto.requests(where, row)
        else:
            yield where, row


def _request(where: str, row: Row) -> tuple[str, str | None, Row]:
    """Return a request's session and the fields of its span, with times in nanoseconds."""
    at = next((name for name in _COLUMNS if name in row), None)
    if at is None:
        known = "a trace of Azure's, BurstGPT's or Mooncake's, OTLP/JSON, or one of ours"
        raise ConfigError(f"{where}: no time in the columns {list(row)!r:.200}; give {known}")
    unit_ns, prompt, output, session = _COLUMNS[at]
    names = ToolSpan.__struct_fields__ if row.get("operation") else Span.__struct_fields__
    fields = {name: row[name] for name in names if row.get(name) not in (None, "")}
    fields["arrived_s"] = row[at]
    if at == "TIMESTAMP":
        date = checked(where, at, row[at], datetime)
        since_1970_s = date.replace(tzinfo=date.tzinfo or UTC).timestamp()
        fields["arrived_s"] = round(since_1970_s * 10**6) * 1000
    for name in TIMES:
        if name in fields:
            told = checked(where, at if name == "arrived_s" else name, fields[name], Time)
            fields[name] = round(told * unit_ns)
    fields["prompt_tokens"] = checked(where, prompt, row.get(prompt), Tokens)
    fields["completion_tokens"] = checked(where, output, row.get(output), Tokens)
    whose = str(row.get(session) or "")
    return where, whose or None, {"request_id": where, "agent": whose} | fields
