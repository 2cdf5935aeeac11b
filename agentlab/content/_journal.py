"""Every answer that was paid for, written down before anything is made of it.

A call may be sent more than once, an answer is recorded at most once. A request is noted before
it leaves, so that after a kill the journal tells what may be paid for, and has not come.
"""

import json
import os
import shlex
import sqlite3
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from filelock import FileLock, Timeout

from agentlab._support import DATA
from agentlab.errors import ConfigError, IncompleteAnswer, JournalError
from agentlab.lab import Reply

_MOST = 1 << 40
"""No answer has more tokens, so that sums fit into 63 bits; a larger count is taken for none."""
_SPARE_BYTES = 1 << 20

_CALL = ("job", "step", "asked", "tool", "arguments", "nth")
_SQL = msgspec.yaml.decode((DATA / "journal.yaml").read_bytes(), type=dict[str, str])


class Bill(NamedTuple):
    """What was sent, and what came of it; an answer that is not whole is paid for, too.

    `attempts` is the most requests that one answer took.
    """

    requests: int = 0
    answers: int = 0  # whole ones
    prompt_tokens: int = 0
    answer_tokens: int = 0
    attempts: int = 0


class Journal(ExitStack[bool | None]):
    """A database of answers, which one process at a time may write, until it is closed.

    `where` is a file of SQLite's, or None for one in memory. `full` is True once there was no room
    but the spare.

    Raises:
        ConfigError: If it cannot be opened, is damaged, or another process has it.

    Example:
        >>> with Journal() as journal:
        ...     journal.sending("blog: tides", "research", "d1")
        ...     journal.record("blog: tides", "research", "d1", Reply("Twice a day.", 9, 4))
        ...     journal.answer("blog: tides", "research", "d1").text
        'Twice a day.'
    """

    def __init__(self, where: str | Path | None = None):
        super().__init__()
        self.full = False
        self._spare: Path | None = None
        try:
            self._file = None if where is None else self._claimed(where)
            # In a notebook virtual time runs in a thread of its own, one after the other with this.
            how: Any = {"isolation_level": None, "check_same_thread": False}
            opened = sqlite3.connect(self._file or ":memory:", **how)
            self._database = self.enter_context(closing(opened))
            for each in ("log", "on_disk", "steps", "jobs", "calls"):
                self._database.execute(_SQL[each])
        except (OSError, ValueError, sqlite3.Error) as error:
            self.close()
            if isinstance(error, ConfigError):
                raise
            said = f"journal {where} cannot be opened: {_why(error)}"
            raise ConfigError(f"{said}; give another file's path") from None

    def _claimed(self, where: str | Path) -> Path:
        """Keep others from a file, with room for when the disk is full; return its path."""
        file = Path(os.path.realpath(where))  # links followed
        if "://" in str(where) or (file.exists() and not file.is_file()):
            raise ConfigError(f"journal {where} is no file; give a file's path")
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.enter_context(FileLock(f"{file}.lock", timeout=0))
        except Timeout:
            cure = "wait until it has ended, or choose another folder"
            raise ConfigError(f"another process writes {where}; {cure}") from None
        _refuse_damage(file)
        self._spare = Path(f"{file}.spare")
        self._spare.unlink(missing_ok=True)  # a killed process's; a link is not followed
        self.callback(self._spare.unlink, missing_ok=True)
        with self._spare.open("xb") as room:
            room.write(b"\1" * _SPARE_BYTES)  # real bytes, because a hole keeps no room
        return file

    def answer(self, job: str, step: str, asked: str) -> Reply | None:
        """Return what was answered before; None if nothing was, or nothing whole."""
        found = self._read("answer", job=job, step=step, asked=asked)
        if found and isinstance(found[0], bytes):
            return msgspec.json.decode(found[0], type=Reply)
        return Reply(*found) if found else None

    def sending(self, job: str, step: str, asked: str) -> None:
        """Note that a request is about to leave."""
        self._write("sending", job=job, step=step, asked=asked)

    def record(self, job: str, step: str, asked: str, reply: Reply | IncompleteAnswer) -> None:
        """Record an answer that has come. The first whole one stays: a second is not recorded.

        Of what is not whole, blank or cut off at a limit, only the tokens are kept.
        """
        answer: str | bytes | None = None
        if isinstance(reply, Reply) and reply.finish_reason != "length":
            text = reply.text if reply.text.strip() else None
            answer = msgspec.json.encode(reply) if reply.tool_calls else text
        sent, made = _tokens(reply.prompt_tokens), _tokens(reply.completion_tokens)
        self._write("record", job=job, step=step, asked=asked, answer=answer, sent=sent, made=made)

    def calling(self, *call: str | int) -> tuple[int | None, str | None]:
        """Note that a tool is about to be called; return the number and the result of last time.

        A call is job, step, what was asked, tool, arguments, and a count of those that are alike.
        """
        given: Any = dict(zip(_CALL, call, strict=True))
        found: tuple[int, str | None] | None = self._read("call", **given)
        if found is None:
            self._write("calling", **given)
        return found or (None, None)

    def called(self, result: str, *call: str | int) -> None:
        """Record what came of a call."""
        self._write("called", result=result, **dict[str, Any](zip(_CALL, call, strict=True)))

    def settle(self, number: int, result: str | None = None) -> None:
        """Say how a call that was cut off ended: its result, or None if it was never made."""
        if not self._write("forget" if result is None else "settle", number=number, result=result):
            raise ConfigError(f"no call {number} was cut off; take the number from the error")

    def standing(self, job: str) -> tuple[str, int, str | None, dict[str, str]]:
        """Return a topic's status, failures, last error, and its pages: name -> digest.

        It is "open", as one that was never noted is, "done" or "quarantined".
        """
        noted = self._read("standing", job=job) or ("open", 0, None, None)
        return *noted[:3], json.loads(noted[3] or "{}")

    def note(
        self, job: str, status: str, *, failures: int = 0, error: str | None = None,
        pages: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Set a topic's status; `pages` of None leaves what is published of it as it is."""
        told = None if pages is None else json.dumps(pages)
        self._write("note", job=job, status=status, failures=failures, error=error, pages=told)

    def release(self) -> int:
        """Let every topic that is quarantined be tried again; return how many there were."""
        return self._write("release")

    def bill(self, job: str | None = None) -> Bill:
        """Add up a topic's requests, answers and tokens, or those of all topics."""
        return Bill(*(int(each or 0) for each in self._read("bill", job=job)))

    def _read(self, name: str, **values: Any) -> Any:
        """Return the one row that is found, or None."""
        try:
            return self._database.execute(_SQL[name], values).fetchone()
        except sqlite3.Error as error:
            raise self._failure("cannot be read", error) from error

    def _write(self, name: str, again: bool = False, **values: Any) -> int:
        """Execute and commit, at need with the spare room; return how many rows were changed."""
        try:
            return int(self._database.execute(_SQL[name], values).rowcount)
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if again or code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                what = "has no room left" if again else "cannot be written"
                raise self._failure(what, error) from error
        self.full = True
        if self._spare is not None:  # what is in flight is paid for
            self._spare.unlink(missing_ok=True)
        return self._write(name, again=True, **values)

    def _failure(self, what: str, error: Exception) -> JournalError:
        damaged = self._file if type(error) is sqlite3.DatabaseError else None
        cure = f"; {_how_to_save(damaged)}" if damaged else ""
        return JournalError(f"the journal {what}: {_why(error)}{cure}")


def _refuse_damage(file: Path) -> None:
    """Read all of it before anything is written, so that it can still be saved."""
    if not file.exists() or file.stat().st_size == 0:
        return
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        why = " ".join(found.split())
        raise ConfigError(f"journal {file} is damaged: {why}; {_how_to_save(file)}")


def _how_to_save(file: Path) -> str:
    old, new = shlex.quote(str(file)), shlex.quote(f"{file}.saved")
    saved = f"save its answers with: sqlite3 {old} .recover | sqlite3 {new}"
    return f"{saved}, and go on with --journal {new}"


def _tokens(count: Any) -> int:
    return count if type(count) is int and 0 <= count <= _MOST else 0


def _why(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
