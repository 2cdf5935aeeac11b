"""The rows of a file of requests, each with where it stands, and their values, checked."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from agentlab.errors import ConfigError

Row = dict[str, Any]
Time = (  # nanoseconds since 1970 are whole, or they would be rounded
    Annotated[int, msgspec.Meta(ge=0, le=9 * 10**18)]
    | Annotated[float, msgspec.Meta(ge=0, le=1e12)]
)
Tokens = Annotated[int, msgspec.Meta(ge=0, le=10**9)]


def read(path: Path) -> Iterator[tuple[str, Row]]:
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
                yield f"{path}:{number}", msgspec.json.decode(line, type=Row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"trace {str(path)!r}: {error}; give a file of requests") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"{path}:{number}: {error}; give JSON, or a table") from None


def checked(where: str, name: str, value: Any, kind: Any) -> Any:
    """Return a value as what it should be; a ConfigError says where it is not, and what it is."""
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {name}: {error}; got {value!r:.60}; correct it") from None
