"""Published traces of real traffic, as arrivals that can be replayed.

- Azure: github.com/Azure/AzurePublicDataset, LLM inference of 2023 and 2024
- BurstGPT: github.com/HPMLL/BurstGPT, with sessions and without
- Mooncake: github.com/kvcache-ai/Mooncake, FAST25-release/traces
- OpenTelemetry: OTLP/JSON of any program that follows the conventions
"""

from datetime import UTC, datetime, timedelta
from itertools import islice
from operator import itemgetter
from pathlib import Path

import msgspec

from agentlab.convert import otel
from agentlab.convert._rows import Row, Time, Tokens, checked, read
from agentlab.errors import ConfigError

_FORMATS = [  # the columns: time, tokens of prompt and answer, session; a time's unit in ns
    ("TIMESTAMP", "ContextTokens", "GeneratedTokens", "", 1),
    ("Timestamp", "Request tokens", "Response tokens", "Session ID", 10**9),
    ("timestamp", "input_length", "output_length", "session_id", 10**6),
    (*otel.COLUMNS, 1),
]
_1970 = datetime(1970, 1, 1, tzinfo=UTC)


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
    rows = (request for row in read(Path(path)) for request in otel.requests(*row))
    requests = sorted((_request(*row) for row in islice(rows, most)), key=itemgetter(0))
    if not requests:
        raise ConfigError(f"trace {str(path)!r} has no requests; give one that has")
    first_ns = requests[0][0]
    return [
        Arrival((at_ns - first_ns) / 10**9, prompt, output, session)
        for at_ns, prompt, output, session in requests
    ]


def _request(where: str, row: Row) -> tuple[int, int, int, str | None]:
    columns = next((columns for columns in _FORMATS if columns[0] in row), None)
    if columns is None:
        known = "Azure's, BurstGPT's, Mooncake's or OTLP/JSON"
        raise ConfigError(f"{where}: no time in the columns {list(row)!r:.200}; give {known}")
    at, prompt, output, session, unit_ns = columns
    time = row[at]
    if at == "TIMESTAMP":
        date = checked(where, at, time, datetime)
        time = (date.replace(tzinfo=date.tzinfo or UTC) - _1970) // timedelta(microseconds=1) * 1000
    return (
        round(checked(where, at, time, Time) * unit_ns),
        checked(where, prompt, row.get(prompt), Tokens),
        checked(where, output, row.get(output), Tokens),
        str(row.get(session) or "") or None,
    )
