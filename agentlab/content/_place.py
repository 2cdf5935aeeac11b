"""Where a journal is, however that is spelt, and the right to write there.

A file is looked at before anything is written to it or beside it: what is no whole journal stays
as it is, so that whatever can be saved from it can still be saved.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import filelock
from sqlalchemy import make_url
from sqlalchemy.engine import URL

from agentlab.errors import ConfigError

SPARE_BYTES = 1 << 20
_BESIDE = ("-wal", "-shm", "-journal", ".lock", ".spare")
"""What SQLite and this module keep beside a journal."""


def locate(where: str | Path | None) -> tuple[URL, Path | None]:
    """Find the database's address, and the one file that it is in, links followed.

    Raises:
        SQLAlchemyError, ValueError: If it is no address.

    Example:
        >>> locate("sqlite:////tmp/a/../j.sqlite?timeout=9")[1] == locate("file:/tmp/j.sqlite")[1]
        True
        >>> locate("postgresql://lab@host/name")
        (postgresql+psycopg://lab@host/name, None)
    """
    if where in (None, ":memory:"):
        return URL.create("sqlite"), None
    if isinstance(where, str) and where.startswith("file:"):
        address = make_url(f"sqlite:///{where}")
    elif isinstance(where, str) and "://" in where:
        address = make_url(where)
    else:
        address = URL.create("sqlite", database=os.path.realpath(where))
    if address.drivername == "postgresql":
        # psycopg is the driver that is kept; the plain name would mean another one
        address = address.set(drivername="postgresql+psycopg")
    if address.get_backend_name() != "sqlite":
        return address, None
    name = address.database or ":memory:"
    if name.startswith("file:") and isinstance(where, str):
        address = address.update_query_dict({"uri": "true"})
        name = unquote(urlsplit(name).path) or ":memory:"
    if name == ":memory:" or address.query.get("mode") == "memory":
        return URL.create("sqlite"), None
    return address, Path(os.path.realpath(name))


class Claim:
    """The right of this process alone to write a journal's file, until it is released.

    Args:
        shown: The file as its user spelt it.

    Raises:
        ConfigError: If another process has it, or it is no whole journal.
    """

    def __init__(self, file: Path, shown: str):
        self._lock = filelock.FileLock(f"{file}.lock", timeout=0)
        self._spare: Path | None = None
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _refuse_what_is_no_file(file, shown)
            self._lock.acquire()
            _refuse_damage(file, shown)
            self._keep_room(Path(f"{file}.spare"))
        except filelock.Timeout:
            raise ConfigError(
                f"another process writes {shown}; wait until it has ended, or choose another folder"
            ) from None
        except OSError as error:
            self.release()
            raise ConfigError(f"journal {shown}: {error}; choose another place") from None
        except BaseException:
            self.release()
            raise

    def _keep_room(self, spare: Path) -> None:
        """Keep room for what is in flight when the disk fills up. Real bytes: a hole keeps nothing.

        One that is there is replaced only if it is ours, left by a process that was killed.
        """
        if spare.exists():
            if spare.stat().st_size > SPARE_BYTES or spare.read_bytes().strip(b"\1"):
                raise ConfigError(f"{spare} is in the journal's way, and none of its own; move it")
            spare.unlink()
        with spare.open("xb") as opened:  # follows no link
            self._spare = spare
            opened.write(b"\1" * SPARE_BYTES)

    def give_room(self) -> None:
        """Let what is in flight have the spare room."""
        if self._spare is not None:
            self._spare.unlink(missing_ok=True)
            self._spare = None

    def release(self) -> None:
        """Let another process have the file."""
        self.give_room()
        self._lock.release()


def way_out(error: BaseException | None, shown: str) -> str:
    """Say what to do about an error of SQLite's; empty where that is not known."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _save(shown)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
        return "; it cannot be written there, so copy it, and go on with --journal COPY"
    return ""


def _save(shown: str) -> str:
    new = shlex.quote(f"{shown}.saved")
    return (
        f"; save the answers that were paid for with: sqlite3 {shlex.quote(shown)} .recover | "
        f"sqlite3 {new} (a sqlite3 that lacks .recover, as Debian's does, says so; sqlite.org has "
        f"one), and go on with --journal {new}"
    )


def _refuse_what_is_no_file(file: Path, shown: str) -> None:
    for path in (file, *(Path(f"{file}{end}") for end in _BESIDE)):
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(found.st_mode):
            raise ConfigError(f"journal {shown}: {path} is a directory; give a file in it")
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"journal {shown}: {path} is a link or a device; give a file")
        if found.st_nlink > 1:  # SQLite keeps a log for each name, so two of them tear it apart
            raise ConfigError(
                f"journal {shown}: {path} has a second name, a hard link; give a copy of it"
            )


def _refuse_damage(file: Path, shown: str) -> None:
    """Read all of it, and write nothing: a log, too, stays where it is."""
    log = Path(f"{file}-wal")
    bytes_ = file.stat().st_size if file.exists() else 0
    if bytes_ == 0:
        if log.exists() and log.stat().st_size:  # which SQLite would now delete
            raise ConfigError(
                f"journal {shown} is empty, but its log {log} holds answers that were paid for; "
                f"copy the log, then make it readable with: truncate -s 4096 {shlex.quote(shown)}"
            )
        return
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            said = [str(row[0]) for row in database.execute("PRAGMA integrity_check")]
    except sqlite3.Error as error:
        cure = way_out(error, shown)
        raise ConfigError(f"journal {shown} cannot be opened: {error}{cure}") from None
    # A row that lacks a value is read all the same.
    found = [line for line in said if line != "ok" and not line.startswith("NULL value")]
    if bytes_ < 512:  # which SQLite would take for an empty database
        found = [f"it has {bytes_} bytes"]
    if found:
        why = " ".join(found[0].split())
        raise ConfigError(f"journal {shown} is damaged: {why}{_save(shown)}")
