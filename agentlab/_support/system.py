"""What the system does for a process: whole files, lists, packages, many sockets."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agentlab.errors import ConfigError


def write_whole(path: Path, content: bytes) -> None:
    """Replace or make a file: its readers find the old content or the new one, never a part.

    It is on the disk when this returns. If it cannot be written, the old file stays.
    """
    part = path.with_name(f".{path.name}.{os.urandom(8).hex()}.part")  # nobody else's
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_list(file: str | Path, what: str, read: Callable[[str], str] = str.strip) -> list[str]:
    """Read a file's entries, a line each, without comments; a ConfigError if there are none."""
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {str(file)!r}: {error}; give a text file in UTF-8") from None
    entries = [entry for entry in map(read, lines) if entry and not entry.startswith("#")]
    if not entries:
        raise ConfigError(f"{what} {str(file)!r}: there are none; write one per line")
    return entries


@contextmanager
def extras(extra: str) -> Iterator[None]:
    """Turn a missing package, in a block that imports, into a ConfigError: `extra` brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = f"{error.name} is not installed"
        raise ConfigError(f"{missing}; in the checkout: pip install '.[{extra}]'") from None


def allow_many_connections() -> None:
    """Raise this process's limit on open files to what the system allows: sockets count."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 65_536)
    with suppress(OSError, ValueError):  # macOS refuses what its kernel cannot do
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
