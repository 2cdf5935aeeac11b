"""Every answer that was paid for, written down before anything is made of it.

A call may be sent more than once, an answer is recorded at most once. A request is noted before
it leaves, so that after a kill the journal tells what may have been paid for in vain. What was
cut off, withheld or empty is paid for, too, but it is no answer: its tokens are kept, and it is
asked again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import filelock
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Executable,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from agentlab.errors import ConfigError, IncompleteAnswer, JournalError
from agentlab.lab import Reply

_SPARE_BYTES = 1 << 20
_LOCK = 0x6167656E746C6162  # "agentlab": PostgreSQL's advisory locks have numbers for names

_metadata = MetaData()
_steps = Table(
    "agentlab_steps",
    _metadata,
    Column("job", String, primary_key=True),
    Column("step", String, primary_key=True),
    Column("asked", String, primary_key=True),  # a digest: another question is another step
    Column("requests", Integer, nullable=False),
    Column("answer", Text),  # null until there is a whole one
    Column("prompt_tokens", Integer, nullable=False),
    Column("answer_tokens", Integer, nullable=False),
    Column("finish_reason", String),  # null in journals made before it was kept
)
_jobs = Table(
    "agentlab_jobs",
    _metadata,
    Column("job", String, primary_key=True),
    Column("status", String, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("error", Text),
    Column("pages", Text),  # JSON, name -> digest of what was published; null as above
)


class StepBill(NamedTuple):
    """What one step of a topic took, over all runs."""

    step: str
    requests: int
    prompt_tokens: int
    answer_tokens: int


class Earlier(NamedTuple):
    """An answer that was recorded when nobody asked whether it was whole."""

    job: str
    step: str
    asked: str
    answer: str
    answer_tokens: int


class Bill(NamedTuple):
    """What a journal says was sent, and what came of it.

    Attributes:
        answers: How many are whole.
        prompt_tokens, answer_tokens: Of whole answers and of others, for both are paid for.
    """

    requests: int
    answers: int
    prompt_tokens: int
    answer_tokens: int


class Journal:
    """A database of answers, which one process at a time may write.

    Args:
        where: A file, for SQLite; a URL for PostgreSQL (`postgresql://user@host/name`); None for
            one in memory, which ends with the process.

    Raises:
        ConfigError: If it cannot be opened, or another process has it.

    Example:
        >>> with Journal() as journal:
        ...     journal.sending("blog: tides", "research", "d1")
        ...     journal.record("blog: tides", "research", "d1", Reply("Twice a day.", 9, 4))
        ...     journal.answer("blog: tides", "research", "d1").text
        'Twice a day.'
    """

    def __init__(self, where: str | Path | None = None):
        url = str(where) if where is not None else ""
        self._file = None if where is None or "://" in url else Path(url)
        self._spare: Path | None = None
        self._lock: filelock.FileLock | None = None
        self.full = False
        """True since something could not be written for want of room, or only into the spare."""
        try:
            if self._file is not None:
                self._claim_file(self._file)
            self._connection = self._open(url)
        except BaseException:
            self._release()
            raise

    def _open(self, url: str) -> Connection:
        try:
            in_file = URL.create("sqlite", database=url or None)
            address = make_url(url) if "://" in url else in_file
            if address.drivername == "postgresql":
                # psycopg is the driver that is kept; the plain name would mean another one
                address = address.set(drivername="postgresql+psycopg")
            # In a notebook virtual time runs in a thread of its own, one after the other with this.
            threads = {"check_same_thread": False} if address.drivername == "sqlite" else {}
            engine = create_engine(address, connect_args=threads)
        except (SQLAlchemyError, ModuleNotFoundError) as error:
            raise ConfigError(_cannot_open(url, error)) from None
        try:
            return _connected(engine, url)
        except BaseException:
            engine.dispose()
            raise

    def _claim_file(self, file: Path) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(f"{file}.lock", timeout=0)
            lock.acquire()
            self._lock = lock
            # Room for what is in flight when the disk fills up. Real bytes: a hole keeps nothing.
            self._spare = file.with_name(f"{file.name}.spare")
            self._spare.write_bytes(b"\1" * _SPARE_BYTES)
        except filelock.Timeout:
            raise ConfigError(
                f"another process writes {file}; wait until it has ended, or choose another folder"
            ) from None
        except OSError as error:
            raise ConfigError(f"journal {file}: {error}; choose another place") from None

    def answer(self, job: str, step: str, asked: str) -> Reply | None:
        """What was answered before; None if nothing was, or nothing whole."""
        c = _steps.c
        columns = (c.answer, c.prompt_tokens, c.answer_tokens, func.nullif(c.finish_reason, ""))
        rows = self._read(select(*columns).where(*_key(job, step, asked), c.answer.is_not(None)))
        return Reply(*rows[0]) if rows else None

    def sending(self, job: str, step: str, asked: str) -> None:
        """A request is about to leave."""
        added = (
            _steps.update().where(*_key(job, step, asked)).values(requests=_steps.c.requests + 1)
        )
        if self._write(added):
            return
        self._write(
            _steps.insert().values(
                job=job, step=step, asked=asked, requests=1, prompt_tokens=0, answer_tokens=0
            )
        )

    def record(self, job: str, step: str, asked: str, reply: Reply | IncompleteAnswer) -> None:
        """Record an answer that has come. The first whole one stays: a second is not recorded.

        Of what is not whole, blank or cut off at a limit, only the tokens are kept, and the reason.

        Raises:
            JournalError: If it cannot be written, even into the space that is kept spare.
        """
        c = _steps.c
        whole = isinstance(reply, Reply) and reply.finish_reason != "length" and reply.text.strip()
        self._write(
            _steps.update()
            .where(*_key(job, step, asked), c.answer.is_(None))
            .values(
                answer=reply.text if whole else None,
                prompt_tokens=c.prompt_tokens + reply.prompt_tokens,
                answer_tokens=c.answer_tokens + reply.completion_tokens,
                finish_reason=reply.finish_reason or "",
            )
        )

    def earlier(self) -> list[Earlier]:
        """Answers of which no finish reason is known, because an earlier version recorded them."""
        c = _steps.c
        columns = (c.job, c.step, c.asked, c.answer, c.answer_tokens)
        unknown = c.answer.is_not(None), c.finish_reason.is_(None)
        return [Earlier(*row) for row in self._read(select(*columns).where(*unknown))]

    def adopt(self, answers: Iterable[tuple[Earlier, str | None]]) -> None:
        """Take earlier answers for ones to questions with these digests, or for none (None)."""
        changes = []
        for row, asked in answers:
            values = {"asked": asked} if asked else {"answer": None}
            key = _key(row.job, row.step, row.asked)
            changes.append(_steps.update().where(*key).values(finish_reason="", **values))
        self._write(*changes)

    def status(self, job: str) -> tuple[str, int, str | None]:
        """A topic's status ("open", "done" or "quarantined"), failures, and last error."""
        c = _jobs.c
        rows = self._read(select(c.status, c.failures, c.error).where(c.job == job))
        return (rows[0].status, rows[0].failures, rows[0].error) if rows else ("open", 0, None)

    def pages(self, job: str) -> dict[str, str]:
        """What was published of a topic: a file's name -> the digest of what was written there."""
        rows = self._read(select(_jobs.c.pages).where(_jobs.c.job == job))
        return json.loads(rows[0].pages or "{}") if rows else {}

    def note(
        self,
        job: str,
        status: str,
        *,
        failures: int = 0,
        error: str | None = None,
        pages: Mapping[str, str] | None = None,
    ) -> None:
        """Set a topic's status, and what is published of it; None leaves the latter as it is."""
        values: dict[str, Any] = {"status": status, "failures": failures, "error": error}
        values |= {} if pages is None else {"pages": json.dumps(pages)}
        if self._write(_jobs.update().where(_jobs.c.job == job).values(values)):
            return
        with suppress(IntegrityError):
            self._write(_jobs.insert().values(job=job, **values))

    def release(self) -> int:
        """Let every topic that is quarantined be tried again; how many there were."""
        quarantined = _jobs.c.status == "quarantined"
        return self._write(_jobs.update().where(quarantined).values(status="open", failures=0))

    def steps(self, job: str) -> list[StepBill]:
        """What each step of a topic took, in any order."""
        c = _steps.c
        columns = (c.step, c.requests, c.prompt_tokens, c.answer_tokens)
        return [StepBill(*row) for row in self._read(select(*columns).where(c.job == job))]

    def bill(self) -> Bill:
        """Requests sent, answers recorded, and the tokens of these."""
        c = _steps.c
        sums = [func.sum(c.requests), func.count(c.answer)]
        sums += [func.sum(c.prompt_tokens), func.sum(c.answer_tokens)]
        (row,) = self._read(select(*sums))
        return Bill(*(int(value or 0) for value in row))

    def _read(self, statement: Executable) -> Sequence[Any]:
        try:
            return self._connection.execute(statement).all()
        except (SQLAlchemyError, ConfigError) as error:
            raise JournalError(f"the journal cannot be read: {_why(error)}") from error
        finally:
            self._rollback()  # ends the transaction that reading began

    def _rollback(self) -> None:
        with suppress(SQLAlchemyError):  # of a connection that is gone there is nothing to undo
            self._connection.rollback()

    def _write(self, *statements: Executable) -> int:
        """Execute and commit all or none; how many rows were changed."""
        try:
            return self._committed(*statements)
        except JournalError as error:
            if not _out_of_space(error.__cause__):
                raise
            self.full = True
        if self._spare is not None:  # what is in flight is paid for: it gets the spare room
            self._spare.unlink(missing_ok=True)
        return self._committed(*statements, failure="the journal has no room left")

    def _committed(
        self, *statements: Executable, failure: str = "the journal cannot be written"
    ) -> int:
        try:
            changed = sum(self._connection.execute(each).rowcount for each in statements)
            self._connection.commit()
        except IntegrityError:
            self._rollback()
            raise
        except (SQLAlchemyError, ConfigError) as error:
            self._rollback()
            raise JournalError(f"{failure}: {_why(error)}") from error
        return changed

    def close(self) -> None:
        """Let another process have it."""
        with suppress(SQLAlchemyError):  # as above
            self._connection.close()
        self._connection.engine.dispose()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            if self._spare is not None:
                self._spare.unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()


def _connected(engine: Engine, url: str) -> Connection:
    prepare = {"sqlite": _durable, "postgresql": _claim_database}
    if engine.dialect.name in prepare:
        event.listen(engine, "connect", prepare[engine.dialect.name])
    try:
        connection = engine.connect()
        _metadata.create_all(connection)
        _add_columns(connection)
        connection.commit()
    except SQLAlchemyError as error:
        raise ConfigError(_cannot_open(url, error)) from None
    return connection


def _add_columns(connection: Connection) -> None:
    """Give a journal that an earlier version made the columns that it lacks; all may be null."""
    for table in _metadata.sorted_tables:
        there = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                kind = column.type.compile(connection.dialect)
                connection.exec_driver_sql(
                    f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"
                )


def _key(job: str, step: str, asked: str) -> tuple[Any, ...]:
    c = _steps.c
    return (c.job == job, c.step == step, c.asked == asked)


def _durable(connection: sqlite3.Connection, _: object) -> None:
    """A commit is on the disk when it returns, power cuts included."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _claim_database(connection: Any, _: object) -> None:
    """The right to write is the connection's: one that replaces a lost one must get it anew."""
    with connection.cursor() as cursor:
        cursor.execute("select pg_try_advisory_lock(%s)", (_LOCK,))
        (ours,) = cursor.fetchone()
    connection.commit()
    if not ours:
        connection.close()
        raise ConfigError(
            "another process writes this database's journal; wait until it has ended, or give "
            "another database"
        )


def _out_of_space(error: BaseException | None) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return getattr(error.orig, "sqlstate", None) == "53100"  # PostgreSQL's disk_full


def _why(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def _cannot_open(url: str, error: Exception) -> str:
    with suppress(SQLAlchemyError):  # a URL that cannot be read hides no password either
        url = make_url(url).render_as_string(hide_password=True) if "://" in url else url
    return (
        f"journal {url!r} cannot be opened: {_why(error)}; give a file's path, or "
        "postgresql://USER@HOST/NAME with psycopg installed"
    )
