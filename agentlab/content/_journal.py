"""Every answer that was paid for, written down before anything is made of it.

A call may be sent more than once, an answer is recorded at most once. A request is noted before
it leaves, so that after a kill the journal tells what may have been paid for but not received.
What was cut off, withheld or empty is paid for, too, but it is no answer: its tokens are kept, and
it is asked again.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from agentlab.content._place import Claim, locate, way_out
from agentlab.errors import ConfigError, IncompleteAnswer, JournalError
from agentlab.lab import Reply

_LOCK = 0x6167656E746C6162  # "agentlab": PostgreSQL's advisory locks have numbers for names
_MOST = 1 << 40
"""No answer has more tokens, so that sums fit into 63 bits; a larger count is taken for none."""


class Unrecordable(JournalError):
    """A value that the database takes in no form: its topic's fault, and nobody else's."""


class _Text(sa.TypeDecorator[str]):
    """Any text: PostgreSQL takes no NUL, and no database half of a surrogate pair."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        if value is None:
            return None
        return re.sub("[\0\x1a\ud800-\udfff]", lambda m: f"\x1a{ord(m[0]):04x}", str(value))

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> str | None:
        if value is None:
            return None
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        return re.sub("\x1a(0000|001a|d[89a-f][0-9a-f]{2})", lambda m: chr(int(m[1], 16)), text)


class _Count(sa.TypeDecorator[int]):
    """A number of tokens or of times; anything else is 0."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> int:
        return value if type(value) is int and 0 <= value <= _MOST else 0

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> int:
        return max(value, 0) if type(value) is int else 0


_metadata = sa.MetaData()
_steps = sa.Table(
    "agentlab_steps",
    _metadata,
    sa.Column("job", _Text, primary_key=True),
    sa.Column("step", _Text, primary_key=True),
    sa.Column("asked", _Text, primary_key=True),  # a digest: another question is another step
    sa.Column("requests", _Count, nullable=False),
    sa.Column("answer", _Text),  # null until there is a whole one
    sa.Column("prompt_tokens", _Count, nullable=False),
    sa.Column("answer_tokens", _Count, nullable=False),
    sa.Column("finish_reason", _Text),
)
_jobs = sa.Table(
    "agentlab_jobs",
    _metadata,
    sa.Column("job", _Text, primary_key=True),
    sa.Column("status", _Text, nullable=False),
    sa.Column("failures", _Count, nullable=False),
    sa.Column("error", _Text),
    sa.Column("pages", _Text),  # JSON, name -> digest of what was published
)
_NEW = {"finish_reason", "pages"}
"""Columns that journals of the first format, until November 2026, did not have."""


class Bill(NamedTuple):
    """What a journal says was sent, and what came of it.

    Attributes:
        answers: How many are whole.
        prompt_tokens, answer_tokens: Of all answers, because one that is not whole is paid for.
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
        ConfigError: If it cannot be opened, has an older format, or another process has it.

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
        """True after something could not be written for lack of room, or only into the spare."""
        try:
            address, file = locate(where)
            if file is not None:
                self._claim = Claim(file, self._shown)
            self._connection = _connected(address)
        except BaseException as error:
            self._release()
            cannot = (SQLAlchemyError, ModuleNotFoundError, ValueError, TypeError)
            if isinstance(error, ConfigError) or not isinstance(error, cannot):
                raise
            raise ConfigError(_cannot_open(self._shown, error)) from None

    def answer(self, job: str, step: str, asked: str) -> Reply | None:
        """Return what was answered before; None if nothing was, or nothing whole."""
        c = _steps.c
        columns = (c.answer, c.prompt_tokens, c.answer_tokens, c.finish_reason)
        rows = self._read(sa.select(*columns).where(*_key(job, step, asked), c.answer.is_not(None)))
        if not rows:
            return None
        text, prompt_tokens, answer_tokens, finish_reason = rows[0]
        return Reply(text, prompt_tokens, answer_tokens, finish_reason or None)

    def sending(self, job: str, step: str, asked: str) -> None:
        """Note that a request is about to leave."""
        row = _steps.update().where(*_key(job, step, asked))
        if not self._write(row.values(requests=_steps.c.requests + 1)):
            new = {"requests": 1, "prompt_tokens": 0, "answer_tokens": 0}
            self._write(_steps.insert().values(job=job, step=step, asked=asked, **new))

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
                prompt_tokens=c.prompt_tokens + sa.literal(reply.prompt_tokens, _Count),
                answer_tokens=c.answer_tokens + sa.literal(reply.completion_tokens, _Count),
                finish_reason=reply.finish_reason or "",
            )
        )

    def status(self, job: str) -> tuple[str, int, str | None]:
        """Return a topic's status ("open", "done" or "quarantined"), failures, and last error."""
        c = _jobs.c
        rows = self._read(sa.select(c.status, c.failures, c.error).where(c.job == job))
        return (rows[0].status, rows[0].failures, rows[0].error) if rows else ("open", 0, None)

    def pages(self, job: str) -> dict[str, str]:
        """Return the digest of what was published in each of a topic's files, by their names."""
        rows = self._read(sa.select(_jobs.c.pages).where(_jobs.c.job == job))
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
        if not self._write(_jobs.update().where(_jobs.c.job == job).values(values)):
            self._write(_jobs.insert().values(job=job, **values))

    def release(self) -> int:
        """Let every topic that is quarantined be tried again; return how many there were."""
        quarantined = _jobs.c.status == "quarantined"
        return self._write(_jobs.update().where(quarantined).values(status="open", failures=0))

    def bills(self, job: str | None = None) -> list[Bill]:
        """Return what each step of a topic took, or of all topics, in any order."""
        c = _steps.c
        counts = (c.requests, c.answer.is_not(None), c.prompt_tokens, c.answer_tokens)
        of_job = [] if job is None else [c.job == job]
        return [Bill(*row) for row in self._read(sa.select(*counts).where(*of_job))]

    def bill(self) -> Bill:
        """Add up the requests sent, the answers recorded, and their tokens."""
        return Bill(*map(sum, zip(Bill(), *self.bills(), strict=True)))

    def _read(self, statement: sa.Executable) -> Sequence[Any]:
        try:
            return self._connection.execute(statement).all()
        except (SQLAlchemyError, ConfigError) as error:
            raise self._failure("the journal cannot be read", error) from error
        finally:
            self._rollback()  # ends the transaction that reading began

    def _write(self, statement: sa.Executable, *, again: bool = False) -> int:
        """Execute and commit, at need with the spare room; return how many rows were changed."""
        try:
            changed = self._connection.execute(statement).rowcount
            self._connection.commit()
            return int(changed)
        except Exception as error:
            self._rollback()
            if _is_of_the_value(error):
                raise Unrecordable(f"the journal cannot hold it: {_why(error)}") from error
            if again or not _out_of_space(error):
                what = "has no room left" if again else "cannot be written"
                raise self._failure(f"the journal {what}", error) from error
        self.full = True
        if self._claim is not None:  # what is in flight is paid for
            self._claim.give_room()
        return self._write(statement, again=True)

    def _rollback(self) -> None:
        with suppress(SQLAlchemyError):  # there is nothing to undo if the connection is gone
            self._connection.rollback()

    def _failure(self, what: str, error: Exception) -> JournalError:
        cure = way_out(getattr(error, "orig", None), self._shown)
        return JournalError(f"{what}: {_why(error)}{cure}")

    def close(self) -> None:
        """Let another process have it."""
        _disconnect(self._connection)
        self._release()

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connected(address: sa.URL) -> sa.Connection:
    if address.get_backend_name() == "sqlite":
        # In a notebook virtual time runs in a thread of its own, one after the other with this.
        engine = sa.create_engine(address, connect_args={"check_same_thread": False})
        sa.event.listen(engine, "connect", _durable)
    else:
        engine = sa.create_engine(address)
        # First, because SQLAlchemy asks something that not every encoding answers.
        sa.event.listen(engine, "connect", _claim_database, insert=True)
    connection = engine.connect()
    try:
        _refuse_other_tables(connection)
        _metadata.create_all(connection)
        connection.execute(_jobs.delete().where(sa.false()))  # fails where it may only be read
        connection.commit()
    except BaseException:
        _disconnect(connection)
        raise
    return connection


def _disconnect(connection: sa.Connection) -> None:
    with suppress(SQLAlchemyError):  # as above
        if connection.dialect.name == "postgresql" and not connection.invalidated:
            # Its server notices later that a connection is closed, and keeps the lock till then
            connection.rollback()
            connection.exec_driver_sql("select pg_advisory_unlock_all()")
    with suppress(SQLAlchemyError):
        connection.close()
    connection.engine.dispose()


def _refuse_other_tables(connection: sa.Connection) -> None:
    """Refuse tables that have our names and not our columns."""
    found = sa.inspect(connection)
    for table in _metadata.sorted_tables:
        if not found.has_table(table.name):
            continue
        columns = {column["name"]: str(column["type"]) for column in found.get_columns(table.name)}
        key = found.get_pk_constraint(table.name)["constrained_columns"]
        lacks = [column.name for column in table.columns if column.name not in columns]
        where = f"the table {table.name} in {connection.engine.url!r}"
        if key != [column.name for column in table.primary_key] or set(lacks) - _NEW:
            raise ConfigError(
                f"{where} is no journal's: it lacks {', '.join(lacks) or 'the key'}; give another "
                "database"
            )
        small = connection.dialect.name == "postgresql" and "INTEGER" in columns.values()
        if lacks or small:
            raise ConfigError(
                f"{where} has an older format; finish that journal with the version of Agent Lab "
                "that began it, or start a new one with --out or --journal"
            )


def _key(job: str, step: str, asked: str) -> tuple[Any, ...]:
    c = _steps.c
    return (c.job == job, c.step == step, c.asked == asked)


def _durable(connection: sqlite3.Connection, _: object) -> None:
    """Make a commit be on the disk when it returns, power cuts included."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.text_factory = lambda text: text.decode(errors="replace")


def _claim_database(connection: Any, _: object) -> None:
    """Take the right to write. It is the connection's: one that replaces a lost one needs it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "select pg_try_advisory_lock(%s), current_setting('server_encoding')", (_LOCK,)
        )
        ours, encoding = cursor.fetchone()
    connection.commit()
    if ours and encoding in ("UTF8", b"UTF8"):
        return
    connection.close()
    if ours:
        raise ConfigError(
            f"the database's encoding is {encoding!s}, which does not hold every letter; give one "
            "that was made WITH ENCODING 'UTF8'"
        )
    raise ConfigError(
        "another process writes this database's journal; wait until it has ended, or give another "
        "database"
    )


def _out_of_space(error: Exception) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    full = code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return full or getattr(error.orig, "sqlstate", None) == "53100"  # PostgreSQL's disk_full


def _is_of_the_value(error: Exception) -> bool:
    """Return True where another value could be written: this one is too long, for example."""
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
            shown = sa.make_url(shown).render_as_string(hide_password=True)
    instead = "; give a file's path, or postgresql://USER@HOST/NAME with psycopg installed"
    instead = way_out(getattr(error, "orig", None), shown) or instead
    return f"journal {shown!r} cannot be opened: {_why(error)}{instead}"
