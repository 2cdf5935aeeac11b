"""Every answer that was paid for, written down before anything is made of it.

A call may be sent more than once, an answer is recorded at most once. A request is noted before
it leaves, so that after a kill the journal tells what may have been paid for in vain. What was
cut off, withheld or empty is paid for, too, but it is no answer: its tokens are kept, and it is
asked again.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Dialect,
    Engine,
    Executable,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    create_engine,
    event,
    false,
    inspect,
    literal,
    make_url,
    select,
)
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from agentlab.content.place import Claim, locate, way_out
from agentlab.errors import ConfigError, IncompleteAnswer, JournalError
from agentlab.lab import Reply

_LOCK = 0x6167656E746C6162  # "agentlab": PostgreSQL's advisory locks have numbers for names
_MOST = 1 << 40
"""No answer has more tokens, so that sums fit into 63 bits; a larger count is taken for none."""


class Unrecordable(JournalError):
    """A value that the database takes in no form: its topic's fault, and nobody else's."""


class _Text(TypeDecorator[str]):
    """Any text: PostgreSQL takes no NUL, and no database half of a surrogate pair."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return re.sub("[\0\x1a\ud800-\udfff]", lambda m: f"\x1a{ord(m[0]):04x}", str(value))

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        return re.sub("\x1a(0000|001a|d[89a-f][0-9a-f]{2})", lambda m: chr(int(m[1], 16)), text)


class _Count(TypeDecorator[int]):
    """A number of tokens or of times; 0 for what is none."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> int:
        return value if type(value) is int and 0 <= value <= _MOST else 0

    def process_result_value(self, value: Any, dialect: Dialect) -> int:
        return max(value, 0) if type(value) is int else 0


_metadata = MetaData()
_steps = Table(
    "agentlab_steps",
    _metadata,
    Column("job", _Text, primary_key=True),
    Column("step", _Text, primary_key=True),
    Column("asked", _Text, primary_key=True),  # a digest: another question is another step
    Column("requests", _Count, nullable=False),
    Column("answer", _Text),  # null until there is a whole one
    Column("prompt_tokens", _Count, nullable=False),
    Column("answer_tokens", _Count, nullable=False),
    Column("finish_reason", _Text),  # null in journals made before it was kept
)
_jobs = Table(
    "agentlab_jobs",
    _metadata,
    Column("job", _Text, primary_key=True),
    Column("status", _Text, nullable=False),
    Column("failures", _Count, nullable=False),
    Column("error", _Text),
    Column("pages", _Text),  # JSON, name -> digest of what was published; null as above
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

    requests: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0


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
        self._shown = "" if where is None else str(where)
        self._claim: Claim | None = None
        self.full = False
        """True since something could not be written for want of room, or only into the spare."""
        try:
            self._connection = self._open(where)
        except BaseException:
            self._release()
            raise

    def _open(self, where: str | Path | None) -> Connection:
        try:
            address, file = locate(where)
            if file is not None:
                self._claim = Claim(file, self._shown)
            # In a notebook virtual time runs in a thread of its own, one after the other with this.
            in_file = address.get_backend_name() == "sqlite"
            threads = {"check_same_thread": False} if in_file else {}
            return _connected(create_engine(address, connect_args=threads))
        except ConfigError:
            raise
        except (SQLAlchemyError, ModuleNotFoundError, ValueError, TypeError) as error:
            raise ConfigError(_cannot_open(self._shown, error)) from None

    def answer(self, job: str, step: str, asked: str) -> Reply | None:
        """What was answered before; None if nothing was, or nothing whole."""
        c = _steps.c
        columns = (c.answer, c.prompt_tokens, c.answer_tokens, c.finish_reason)
        rows = self._read(select(*columns).where(*_key(job, step, asked), c.answer.is_not(None)))
        if not rows:
            return None
        text, prompt_tokens, answer_tokens, finish_reason = rows[0]
        return Reply(text, prompt_tokens, answer_tokens, finish_reason or None)

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
                prompt_tokens=c.prompt_tokens + literal(reply.prompt_tokens, _Count),
                answer_tokens=c.answer_tokens + literal(reply.completion_tokens, _Count),
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
            key, now = _key(row.job, row.step, row.asked), _key(row.job, row.step, asked or "")
            values: dict[str, Any] = {"asked": asked} if asked else {"answer": None}
            if asked != row.asked and self._read(select(_steps.c.step).where(*now)):
                values = {}  # asked again since: an answer to what nobody asks any more
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
        try:
            pages = json.loads(rows[0].pages or "{}") if rows else {}
        except (ValueError, RecursionError):  # damaged
            pages = {}
        return pages if isinstance(pages, dict) else {}

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
        counts = (c.requests, c.answer.is_not(None), c.prompt_tokens, c.answer_tokens)
        rows = self._read(select(*counts))
        return Bill(*(sum(column) for column in zip(*rows, strict=True))) if rows else Bill()

    def _read(self, statement: Executable) -> Sequence[Any]:
        try:
            return self._connection.execute(statement).all()
        except (SQLAlchemyError, ConfigError) as error:
            raise JournalError(
                f"the journal cannot be read: {_why(error)}{self._way_out(error)}"
            ) from error
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
        if self._claim is not None:  # what is in flight is paid for
            self._claim.give_room()
        return self._committed(*statements, failure="the journal has no room left")

    def _committed(
        self, *statements: Executable, failure: str = "the journal cannot be written"
    ) -> int:
        try:
            changed = sum(self._connection.execute(each).rowcount for each in statements)
            self._connection.commit()
        except Exception as error:
            self._rollback()
            if _is_of_the_value(error):
                raise Unrecordable(f"the journal cannot hold it: {_why(error)}") from error
            raise JournalError(f"{failure}: {_why(error)}{self._way_out(error)}") from error
        return changed

    def _way_out(self, error: Exception) -> str:
        return way_out(getattr(error, "orig", None), self._shown)

    def close(self) -> None:
        """Let another process have it."""
        connection = self._connection
        with suppress(SQLAlchemyError):  # as above
            if connection.dialect.name == "postgresql" and not connection.invalidated:
                # Its server notices later that a connection is closed, and keeps the lock till then
                connection.rollback()
                connection.exec_driver_sql("select pg_advisory_unlock_all()")
        with suppress(SQLAlchemyError):
            connection.close()
        connection.engine.dispose()
        self._release()

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connected(engine: Engine) -> Connection:
    prepare = {"sqlite": _durable, "postgresql": _claim_database}
    if engine.dialect.name in prepare:
        # First, because SQLAlchemy asks something that not every encoding answers.
        event.listen(engine, "connect", prepare[engine.dialect.name], insert=True)
    try:
        connection = engine.connect()
        _metadata.create_all(connection)
        _bring_up_to_date(connection)
        connection.execute(_jobs.delete().where(false()))  # fails where it may only be read
        connection.commit()
    except BaseException:
        engine.dispose()
        raise
    return connection


def _bring_up_to_date(connection: Connection) -> None:
    """Give a journal that an earlier version made what it lacks: columns, and larger numbers."""
    found = inspect(connection)
    for table in _metadata.sorted_tables:
        there = {column["name"]: column["type"] for column in found.get_columns(table.name)}
        key = found.get_pk_constraint(table.name)["constrained_columns"]
        lacks = [c for c in table.columns if c.name not in there]
        needs = [c.name for c in lacks if not c.nullable]
        if needs or key != [c.name for c in table.primary_key]:
            raise ConfigError(
                f"the table {table.name} in {connection.engine.url!r} is no journal's: it lacks "
                f"{', '.join(needs) or 'the key'}; give another database"
            )
        alter = f"ALTER TABLE {table.name}"
        for column in lacks:
            new = column.type.compile(connection.dialect)
            connection.exec_driver_sql(f"{alter} ADD COLUMN {column.name} {new}")
        if connection.dialect.name == "postgresql":
            for name, kind in there.items():
                if str(kind) == "INTEGER":
                    connection.exec_driver_sql(f"{alter} ALTER COLUMN {name} TYPE BIGINT")


def _key(job: str, step: str, asked: str) -> tuple[Any, ...]:
    c = _steps.c
    return (c.job == job, c.step == step, c.asked == asked)


def _durable(connection: sqlite3.Connection, _: object) -> None:
    """A commit is on the disk when it returns, power cuts included."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.text_factory = lambda text: text.decode(errors="replace")


def _claim_database(connection: Any, _: object) -> None:
    """The right to write is the connection's: one that replaces a lost one must get it anew."""
    with connection.cursor() as cursor:
        cursor.execute(
            "select pg_try_advisory_lock(%s), current_setting('server_encoding')", (_LOCK,)
        )
        ours, encoding = cursor.fetchone()
    connection.commit()
    if encoding not in ("UTF8", b"UTF8"):
        connection.close()
        raise ConfigError(
            f"the database's encoding is {encoding!s}, which does not hold every letter; give one "
            "that was made WITH ENCODING 'UTF8'"
        )
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


def _is_of_the_value(error: Exception) -> bool:
    """True where another value could be written: it is too long, say."""
    if isinstance(error, ConfigError):
        return False
    state = str(getattr(getattr(error, "orig", None), "sqlstate", None))
    wrong = (ValueError, TypeError, OverflowError, DataError, IntegrityError)
    return isinstance(error, wrong) or state.startswith(("22", "54"))


def _why(error: Exception) -> str:
    return (str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__])[0]


def _cannot_open(shown: str, error: Exception) -> str:
    with suppress(SQLAlchemyError, ValueError):  # what cannot be read hides no password either
        if "://" in shown:
            shown = make_url(shown).render_as_string(hide_password=True)
    instead = way_out(getattr(error, "orig", None), shown) or (
        "; give a file's path, or postgresql://USER@HOST/NAME with psycopg installed"
    )
    return f"journal {shown!r} cannot be opened: {_why(error)}{instead}"
