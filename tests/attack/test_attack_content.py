"""The content system under hostile input: nothing hangs, is lost, or is paid for twice."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from markdown_it import MarkdownIt

from agentlab import lab
from agentlab._support.atomic import write_whole
from agentlab.commands.main import main
from agentlab.content import Content, ContentSystem, Journal, Settings, summary
from agentlab.content._publish import Article, publish
from agentlab.errors import ConfigError, ModelError
from agentlab.lab import on_headers, read

STEP = ("blog: tides", "research", "d1")
TOPICS = ["Why tides?", "Why ebb?", "Why moons?"]
YES = lab.Reply("Twice a day.", 9, 4, "stop")


def ids(values: list[Any]) -> list[str]:
    """Short names that a terminal can show."""
    return [f"{n}-{ascii(value)[:24]}" for n, value in enumerate(values)]


def hostile(name: str, values: list[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, values, ids=ids(values))


def answering(monkeypatch: pytest.MonkeyPatch, fake: Callable[[str], Any]) -> Counter[str]:
    """Answers of our own: what `fake` returns or raises for an agent; None for a usual one."""
    asked: Counter[str] = Counter()

    async def reply(prompt: str, *, agent: str, **options: Any) -> lab.Reply:
        asked[agent] += 1
        prompt.encode()  # as whoever sends it must
        await asyncio.sleep(1)
        own = fake(agent)
        if isinstance(own, Exception):
            raise own
        return own or lab.Reply(f"{agent.partition(':')[0]} says {len(prompt)}.", 9, 4, "stop")

    monkeypatch.setattr(lab, "reply", reply)
    return asked


def batch(
    topics: list[Any], *, out: Path | None = None, journal: Any = None, **settings: Any
) -> tuple[list[Content], str]:
    """What became of topics, in virtual time, and what the summary says of them."""
    with ContentSystem(Settings(**settings), out=out, journal=journal) as system:
        contents, _ = lab.simulate(system.batch_generate(topics))
        return contents, summary(contents, system.journal, system.settings)  # type: ignore[arg-type, return-value]


def statuses(contents: list[Content]) -> list[str]:
    return [content.status for content in contents]


# What is written down

TEXTS = [
    "a\0b",
    "\0",
    "\0" * 1000,
    "half \ud83c",
    "\udc00\ud800",
    "\udcff from a header",
    "\x1a0000",
    "\x1a\0\x1ad800",
    "\\x00 \\ud800 %00 &#0;",
    "\x01\x02\x1b[2J\x7f\x9b",
    "\ufeff\u2028\u2029\u202e\ufffd\uffff",
    "\U0010ffff \U0001f30a 한국",
    "e\u0301 \r\n\t ' \" ; -- %s {x} $1 ?",
    "x" * 1_000_000,
]


@hostile("text", TEXTS)
def test_any_text_comes_back_as_it_was(where, text):
    """As an answer, its reason, an error and in every part of a key, on both databases."""
    key = (text[:100], f"step {text[:100]}", f"asked {text[:100]}")
    with Journal(where) as journal:
        journal.sending(*key)
        journal.record(*key, lab.Reply(f"x{text}", 1, 1, text))
        journal.note(key[0], "quarantined", error=text)
    with Journal(where) as journal:
        assert journal.answer(*key) == lab.Reply(f"x{text}", 1, 1, text)
        assert journal.status(key[0]) == ("quarantined", 0, text)
        assert journal.answer(f"{key[0]}!", *key[1:]) is None


NO_COUNTS = [-1, -24_000, -(2**63), -(10**40), 2**63, 2**64, 10**40, True, None, 1.5, "7", b"7"]
NO_COUNTS += [float("nan"), float("inf"), [], 2**40 + 1]


@hostile("count", NO_COUNTS)
def test_what_is_no_count_is_not_billed(where, count):
    """Neither below zero nor beyond what a column holds; the answer is kept all the same."""
    with Journal(where) as journal:
        for job in ("blog: a", "blog: b"):
            journal.sending(job, "research", "d")
            journal.record(job, "research", "d", lab.Reply("cut", count, count, "length"))
            journal.record(job, "research", "d", YES._replace(prompt_tokens=count))
        answer = journal.answer("blog: a", "research", "d")
        assert answer is not None and answer.text == YES.text
        bill = journal.bill()
    assert (bill.requests, bill.answers, bill.prompt_tokens, bill.answer_tokens) == (2, 2, 0, 8)


@hostile("count", [0, 1, 2**31 - 1, 2**31, 2**32, 2**40])
def test_a_large_count_is_one(where, count):
    """Beyond 31 bits, too, and so is the sum of a few."""
    with Journal(where) as journal:
        journal.sending(*STEP)
        for _ in range(3):
            journal.record(*STEP, lab.Reply("cut", count, count, "length"))
        bill = journal.bill()
    assert (bill.prompt_tokens, bill.answer_tokens) == (3 * count, 3 * count)


ROWS = [
    ("steps", "prompt_tokens", -24_000),
    ("steps", "answer_tokens", 2**63 - 1),
    ("steps", "prompt_tokens", "many"),
    ("steps", "requests", "x"),
    ("steps", "requests", 1e300),
    ("steps", "answer", b"\xff\xfe"),
    ("steps", "answer", b"Twice \x00 a day"),
    ("steps", "finish_reason", 17),
    ("jobs", "failures", "x"),
    ("jobs", "failures", -(2**60)),
    ("jobs", "status", ""),
    ("jobs", "status", b"\xff"),
    ("jobs", "error", b"\x80"),
    ("jobs", "pages", "no JSON"),
    ("jobs", "pages", "[1]"),
    ("jobs", "pages", '{"../../x.md": 3}'),
    ("jobs", "pages", "[" * 100_000),
]


@hostile("damage", ROWS)
def test_a_row_of_nonsense_stops_nothing(fresh_lab, monkeypatch, tmp_path, damage):
    """Whatever somebody wrote into a column: the batch ends, its bill is none below zero."""
    answering(monkeypatch, lambda agent: None)
    batch(TOPICS, out=tmp_path)
    table, column, value = damage
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as database:
        database.execute(f"UPDATE agentlab_{table} SET {column} = ?", (value,))
        database.commit()
    contents, told = batch(TOPICS, out=tmp_path, prompt_price=1.0, answer_price=1.0)
    assert statuses(contents) == ["done"] * 3 and "-" not in told
    assert all(content.metrics.cost >= 0 for content in contents)  # type: ignore[operator]
    assert len(list(tmp_path.glob("*.md"))) == 3 and not list(tmp_path.parent.glob("*.md"))


def test_text_that_is_not_utf8_is_read(fresh_lab, monkeypatch, tmp_path):
    """A bit that fell over in an answer is seen in its page, and stops nothing."""
    answering(monkeypatch, lambda agent: None)
    batch(TOPICS, out=tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as database:
        database.execute("UPDATE agentlab_steps SET answer = CAST(X'41ff42' AS TEXT)")
        database.commit()
    contents, _ = batch(TOPICS, out=tmp_path)
    assert all(content.status == "done" for content in contents)


@pytest.mark.parametrize("answered", [True, False])
def test_an_older_version_that_wrote_in_between_locks_nobody_out(
    fresh_lab, monkeypatch, tmp_path, answered
):
    """Its answer to a question that was asked since then stays, and the batch goes on."""
    asked = answering(monkeypatch, lambda agent: None)
    batch(TOPICS, out=tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as database:
        if not answered:
            database.execute("UPDATE agentlab_steps SET answer = NULL WHERE step = 'research'")
        database.execute(
            "INSERT INTO agentlab_steps (job, step, asked, requests, answer, prompt_tokens, "
            "answer_tokens) SELECT job, step, 'old', 1, 'Old.', 5, 9 FROM agentlab_steps "
            "WHERE step = 'research'"
        )
        database.commit()
    contents, _ = batch(TOPICS, out=tmp_path)
    assert statuses(contents) == ["done"] * 3
    assert asked.total() == (12 if answered else 15)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as database:
        assert len(database.execute("SELECT * FROM agentlab_steps").fetchall()) == 15


# What an endpoint answers

ANSWERS = [
    "a\0b",
    "half \ud83c of one",
    "\udcff",
    "\x1b]0;title\x07\x1b[2J",
    "\u202etxt.exe",
    "\ufeffbom",
    "---\ntitle: mine\n---\n\ntext",
    "{research} {0} %s {{x}} ${y}",
    "x" * 300_000,
    "\r\n\r\rtext\x85\u2028",
    "\x1a0000",
    "[" * 100_000,
]


@hostile("text", ANSWERS)
def test_an_odd_answer_is_paid_for_once(fresh_lab, monkeypatch, where, tmp_path, text):
    """It goes through all steps and both databases; another run asks nothing, changes nothing."""
    answer = lab.Reply(text, 9, 4, "stop")
    asked = answering(monkeypatch, lambda agent: answer if TOPICS[1] in agent else None)
    contents, _ = batch(TOPICS, out=tmp_path / "out", journal=where)
    assert statuses(contents) == ["done"] * 3 and asked.total() == 12
    pages = {page: page.read_bytes() for page in (tmp_path / "out").iterdir()}
    contents, _ = batch(TOPICS, out=tmp_path / "out", journal=where)
    assert statuses(contents) == ["done"] * 3 and asked.total() == 12
    assert {page: page.read_bytes() for page in (tmp_path / "out").iterdir()} == pages


@hostile("words", ["\0", "\ud800", "\x1b[31m\r\n\x07red", "no\n" * 50_000, "", "%s {0} \u202e"])
def test_an_odd_error_is_one_line_for_one_topic(fresh_lab, monkeypatch, where, words):
    """A terminal shows it, both databases hold it, and nobody else is stopped by it."""
    error = ModelError(words, status=400, code=words, request_id=words, kind=words)
    answering(monkeypatch, lambda agent: error if agent == f"writer: {TOPICS[1]}" else None)
    contents, told = batch(TOPICS, journal=where, quarantine_after=1)
    assert statuses(contents) == ["done", "quarantined", "done"]
    assert len(told.splitlines()) == 3 and len(told.encode()) < 4_000
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f]", told)


ODD_ERRORS = [
    KeyError("x"),
    RuntimeError(),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    OverflowError("int too large"),
    RecursionError("too deep"),
    AssertionError("\0"),
    StopAsyncIteration(),
]


@hostile("error", ODD_ERRORS)
def test_an_error_that_nobody_foresaw_is_one_topics(fresh_lab, monkeypatch, error):
    """That topic is quarantined with the reason; the others are done."""
    answering(monkeypatch, lambda agent: error if agent == f"writer: {TOPICS[1]}" else None)
    contents, told = batch(TOPICS, quarantine_after=2)
    assert statuses(contents) == ["done", "quarantined", "done"]
    assert f"quarantined: {TOPICS[1]}: " in told and contents[1].error


@hostile("name", ["\0", "\ud800", "m\n\r", "x" * 100_000, "'; DROP TABLE agentlab_steps; --"])
def test_an_odd_models_name_is_sent_or_refused(fresh_lab, monkeypatch, name):
    """Before anything is paid for, in words; no traceback ends the batch."""
    asked = answering(monkeypatch, lambda agent: None)
    with lab.configure(model=name):
        contents, told = batch(TOPICS)
    good = name.isascii()
    assert statuses(contents) == ["done" if good else "left"] * 3
    assert asked.total() == (12 if good else 0) or asked["probe"] == asked.total()
    told.encode()


@pytest.mark.parametrize("bytes_", [3_000, 10_000, 100_000])
def test_an_answer_that_no_row_holds_is_paid_for_once(fresh_lab, monkeypatch, tmp_path, bytes_):
    """Its topic is quarantined, the rest is done, and --resume does not ask for it again."""
    long = lab.Reply("x" * (bytes_ + 1), 9, 4, "stop")
    poison = f"writer: {TOPICS[1]}"
    asked = answering(monkeypatch, lambda agent: long if agent == poison else None)
    for _ in range(2):
        with ContentSystem(out=tmp_path) as system:
            driver = system.journal._connection.connection.driver_connection
            driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, bytes_)  # type: ignore[union-attr]
            contents, _ = lab.simulate(system.batch_generate(TOPICS))
            assert statuses(contents) == ["done", "quarantined", "done"]  # type: ignore[arg-type]
    assert asked[poison] == 1 and "cannot hold it" in str(contents[1].error)  # type: ignore[index]


@pytest.mark.parametrize("letters", [3_000, 8_000])
def test_a_topic_that_no_index_holds_stops_nothing(fresh_lab, monkeypatch, postgres, letters):
    """PostgreSQL's keys have 2,700 bytes: nothing is sent for it, and the others are done."""
    long = "".join(chr(0x4E00 + n * 7 % 20_000) for n in range(letters))
    asked = answering(monkeypatch, lambda agent: None)
    contents, _ = batch([TOPICS[0], long, TOPICS[2]], journal=postgres)
    assert statuses(contents) == ["done", "quarantined", "done"]
    assert asked.total() == 8 and "cannot hold it" in str(contents[1].error)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_lacks_letters_is_refused(server, encoding):
    """Before anything is paid for; it names the encoding."""
    import psycopg

    with psycopg.connect(server, autocommit=True) as database:
        database.execute(f"DROP DATABASE IF EXISTS {encoding}")
        database.execute(f"CREATE DATABASE {encoding} ENCODING '{encoding}' TEMPLATE template0")
    with pytest.raises(ConfigError, match=encoding):
        Journal(server.replace("/postgres?", f"/{encoding.lower()}?"))


# Topics

ODD_TOPICS = [
    "../../../etc/passwd",
    "C:\\con\\nul",
    "---",
    "title: x\n---\n# y",
    "\x00tides\x1b[2J",
    "\"quotes\" and 'quotes': #",
    "<script>alert(1)</script>",
    "{topic} {research} {0} %s $x",
    "\u202edetaolf",
    "e\u0301" * 500,
    "𝔸" * 300,
    "tides " * 20_000,
    ".",
    "-" * 300,
    "'; DROP TABLE agentlab_jobs; --",
]


@hostile("topic", ODD_TOPICS)
def test_an_odd_topic_is_written_about(fresh_lab, monkeypatch, tmp_path, topic):
    """In the folder and nowhere else, beside the others, and once."""
    asked = answering(monkeypatch, lambda agent: None)
    for _ in range(2):
        contents, _ = batch([TOPICS[0], topic, TOPICS[2]], out=tmp_path / "out")
        assert statuses(contents) == ["done"] * 3 and asked.total() == 12
    assert {file.parent for content in contents for file in content.files} == {tmp_path / "out"}
    assert len({file for content in contents for file in content.files}) == 6
    for file in contents[1].files:
        assert file.is_file()
    _, front, _ = contents[1].files[0].read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(front)["title"] == contents[1].topic


@hostile("topic", ["", " \n", "\0\x1b", "\ufeff", "half \ud83c", None, 5, b"tides", ["x"], 1.5])
def test_what_is_no_topic_is_refused(fresh_lab, monkeypatch, topic):
    """With what to do, and before anything is paid for."""
    asked = answering(monkeypatch, lambda agent: None)
    with pytest.raises(ConfigError, match="topic"):
        batch([TOPICS[0], topic])
    assert asked.total() == 0


@hostile("kind", ["novel", "", "BLOG", "blog\0", "\ud800", None, 5, ["blog"]])
def test_what_is_no_content_type_is_refused(fresh_lab, monkeypatch, kind):
    """Wherever it is given, with those that there are."""
    asked = answering(monkeypatch, lambda agent: None)
    with ContentSystem() as system:
        for work in (
            system.batch_generate(TOPICS, kind),
            system.generate_content(TOPICS[0], kind),
            system.first_question(TOPICS, kind),
        ):
            with pytest.raises(ConfigError, match="blog, comprehensive"):
                lab.simulate(work)
    assert asked.total() == 0


FILES = [
    b"\xff\xfe\x00",
    b"",
    b"\n\n# only\n",
    b"\x00\x00\n",
    b"\xed\xa0\x80 half of one\n",
    "Tides".encode("utf-16"),
]


@hostile("content", FILES)
def test_a_file_without_topics_is_refused(fresh_lab, tmp_path, capsys, content):
    """With its name, and exit code 2; no folder is made."""
    (tmp_path / "topics.txt").write_bytes(content)
    assert main(["write", str(tmp_path / "topics.txt"), "--out", str(tmp_path / "out")]) == 2
    assert "topics" in capsys.readouterr().err and not (tmp_path / "out").exists()


# Waits

RATES = [
    {"limit-requests": "100", "remaining-requests": "-1000000"},
    {"limit-requests": "-5", "remaining-requests": "0"},
    {"limit-requests": "0.0001", "remaining-requests": "0"},
    {"limit-requests": "1e-9", "remaining-requests": "1e-9"},
    {"limit-requests": "1e308", "remaining-requests": "0"},
    {"limit-requests": "nan", "remaining-requests": "inf"},
    {"limit-requests": "\xb2", "remaining-requests": "0"},
    {"limit-requests": "9" * 5000, "remaining-requests": "0"},
    {"limit-requests": "1", "remaining-requests": "0", "reset-requests": "365d"},
    {"limit-requests": "60", "remaining-requests": "0", "reset-requests": "1d"},
    {"limit-requests": "60", "remaining-requests": "0", "reset-requests": "-1d"},
    {"limit-tokens": "0.0001", "remaining-tokens": "0"},
    {"limit-tokens": "1", "remaining-tokens": "0", "reset-tokens": "30d"},
    {"limit-tokens": "1e-3", "remaining-tokens": "-1", "reset-tokens": "9" * 400 + "d"},
]


@hostile("told", RATES)
def test_a_rate_that_lets_nothing_through_ends_the_batch(fresh_lab, monkeypatch, told):
    """It is kept where that takes no longer than a wait may; else the batch stops and says why."""
    headers = {f"x-ratelimit-{name}": value for name, value in told.items()}

    def tell(agent: str) -> None:
        listener = on_headers.get()
        if listener is not None:
            listener(headers)

    answering(monkeypatch, tell)

    async def timed(system: ContentSystem) -> tuple[list[Content], float]:
        return await system.batch_generate(TOPICS), lab.now_s()

    with ContentSystem(Settings(longest_wait_seconds=100)) as system:
        (contents, ended_s), _ = lab.simulate(timed(system))  # type: ignore[misc]
        done = statuses(contents) == ["done"] * 3
        assert done or "longest_wait_seconds is 100" in str(system.stopped)
        assert ended_s <= 12 * (100 + 62)
        assert system.journal.bill().answers == system.journal.bill().requests


DELAYS = [
    ("nan", True),
    ("inf", True),
    ("-inf", True),
    ("-5", True),
    ("1e999", True),
    ("\xb2", True),
    ("soon", True),
    ("0", True),
    ("99", True),
    ("101", False),
    ("86400", False),
    ("1e300", True),  # more than a year is no time, either
    ("Fri, 31 Dec 9999 23:59:59 GMT", True),
    ("Mon, 01 Jan 0001 00:00:00 GMT", True),
    ("Thu, 99 Foo 2026 99:99:99 GMT", True),
    ("Wed, 21 Oct 2015 07:28:00 -2359", True),
]


@hostile("delay", DELAYS)
@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_is_asked_for_is_bounded(fresh_lab, monkeypatch, status, delay):
    """What is no time says nothing; a short one is kept; a longer one than the setting ends it."""
    text, kept = delay
    headers = [(b"retry-after", text.encode("latin-1"))]
    answer = httpx.Response(status, headers=headers, content=b'{"error": {"message": "busy"}}')
    once = iter([answer])

    def busy(agent: str) -> Any:
        for refusal in once:
            try:
                read(refusal)
            except ModelError as error:
                return error
        return None

    answering(monkeypatch, busy)
    with ContentSystem(Settings(longest_wait_seconds=100)) as system:
        contents, _ = lab.simulate(system.batch_generate(TOPICS))
        assert statuses(contents) == ["done" if kept else "left"] * 3  # type: ignore[arg-type]
        assert kept or "asks to wait" in str(system.stopped)


# Journals that are none, or no longer


def made(folder: Path) -> Path:
    """A journal with an answer for each of many topics, of several pages."""
    file = folder / "journal.sqlite"
    with Journal(file) as journal:
        for number in range(60):
            job = f"blog: {number}"
            journal.sending(job, "research", "d")
            journal.record(job, "research", "d", lab.Reply("word " * 100, 1, 1, "stop"))
    return file


def zeroed(start: int, end: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:start] + b"\0" * (end - start) + content[end:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "another file": lambda content: b"something else" * 1000,
    "a page": lambda content: b"<!doctype html><html>" * 100,
    "no magic": lambda content: b"X" * 16 + content[16:],
    "no header": zeroed(0, 100),
    "one byte": lambda content: b"\0",
    "header only": lambda content: content[:100],
    "a page only": lambda content: content[:4096],
    "half": lambda content: content[: len(content) // 2],
    "odd end": lambda content: content[: len(content) - 1000],
    "page 2": zeroed(4096, 8192),
    "page 3": zeroed(8192, 12288),
    "middle": lambda content: content[:20000] + b"Z" * 5000 + content[25000:],
    "reversed": lambda content: content[:100] + content[100:][::-1],
    "utf-16": lambda content: content.decode("latin1").encode("utf-16"),
    "page size": lambda content: content[:16] + b"\0\3" + content[18:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_stays_as_it_is(tmp_path, damage):
    """It is refused with its name, what is wrong, and how to save the answers; twice alike."""
    file = made(tmp_path)
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    before = file.read_bytes()
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"journal\.sqlite .*sqlite3 .* \.recover \| sqlite3"):
            Journal(file)
    assert file.read_bytes() == before
    assert not (tmp_path / "journal.sqlite.spare").exists()


@pytest.mark.parametrize("left", [0, None], ids=["emptied", "missing"])
def test_a_log_without_its_journal_is_not_deleted(tmp_path, left):
    """SQLite would: the message says how to make it readable, and that works."""
    with Journal(tmp_path / "a" / "j.sqlite") as journal:
        journal.sending(*STEP)
        journal.record(*STEP, YES)
        log = (tmp_path / "a" / "j.sqlite-wal").read_bytes()
    file, kept = tmp_path / "j.sqlite", tmp_path / "j.sqlite-wal"
    kept.write_bytes(log)
    if left is not None:
        file.write_bytes(b"")
    with pytest.raises(ConfigError, match="truncate -s 4096") as refused:
        Journal(file)
    assert kept.read_bytes() == log
    subprocess.run(str(refused.value).rpartition(": ")[2], shell=True, check=True)
    with Journal(file) as journal:
        assert journal.answer(*STEP) == YES


def test_what_breaks_in_mid_batch_says_how_to_save_the_answers(fresh_lab, monkeypatch, tmp_path):
    """The batch stops, and the message has the command."""
    file = made(tmp_path)

    def broken(agent: str) -> None:
        content = file.read_bytes()
        file.write_bytes(content[:4096] + b"Z" * (len(content) - 4096))

    answering(monkeypatch, broken)
    with ContentSystem(journal=file) as system:
        system.journal._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        system.journal._connection.exec_driver_sql("PRAGMA cache_size=0")
        system.journal._connection.commit()
        contents, _ = lab.simulate(system.batch_generate(TOPICS))
        assert statuses(contents) == ["left"] * 3  # type: ignore[arg-type]
        assert ".recover" in str(system.stopped) and "journal.sqlite" in str(system.stopped)


SCHEMAS = [
    "CREATE TABLE agentlab_steps (x)",
    "CREATE TABLE agentlab_jobs (job, status, failures, error, pages)",
    "CREATE VIEW agentlab_jobs AS SELECT 1 AS job, 'done' AS status, 0 AS failures",
    "CREATE TABLE agentlab_steps (job PRIMARY KEY, step, asked, requests, answer)",
    "CREATE TABLE agentlab_jobs (status PRIMARY KEY, job, failures)",
    "CREATE TABLE agentlab_jobs (job PRIMARY KEY)",
]


@hostile("schema", SCHEMAS)
def test_tables_of_the_same_name_are_left_alone(tmp_path, schema):
    """They are refused by name, and have the columns that they had."""
    file = tmp_path / "j.sqlite"
    with closing(sqlite3.connect(file)) as database:
        database.execute(schema)
    with pytest.raises(ConfigError, match=r"agentlab_.* is no journal's"):
        Journal(file)
    with closing(sqlite3.connect(file)) as database:
        assert (schema,) in database.execute("SELECT sql FROM sqlite_schema").fetchall()


@pytest.mark.parametrize("place", ["steps requests", "steps prompt_tokens", "jobs failures"])
def test_an_older_postgresql_journal_is_refused(postgres, place):
    """Its columns have 31 bits, which are too few for some counts; it stays as it is."""
    import psycopg

    table, column = f"agentlab_{place}".split()
    Journal(postgres).close()
    with psycopg.connect(postgres, autocommit=True) as database:
        database.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE INTEGER")
    with pytest.raises(ConfigError, match=f"{table} .* has an older format"):
        Journal(postgres)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "long name", "NUL", "half", "file/x"])
def test_a_place_that_holds_no_journal_is_refused(tmp_path, kind):
    """In words that have the place in them; nothing waits, and nothing is left behind."""
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    places = {"folder": ".", "device": "/dev/null", "long name": "x" * 300, "NUL": "a\0b"}
    places |= {"half": "a\ud800b"}
    with pytest.raises(ConfigError, match="journal"):
        Journal(tmp_path / places.get(kind, kind))
    assert {path.name for path in tmp_path.iterdir()} == {"file", "pipe"}
    assert (tmp_path / "file").read_text() == "mine"


def test_a_journal_that_may_not_be_written_is_refused(tmp_path):
    """It is read-only, so it is named, with what to do."""
    file = made(tmp_path)
    with pytest.raises(ConfigError, match="cannot be written there, so copy it"):
        Journal(f"sqlite:///{file}?mode=ro&uri=true".replace(str(file), f"file:{file}"))


# Two writers

SPELLINGS = [
    "{file}",
    "sqlite:///{file}",
    "sqlite+pysqlite:///{file}",
    "sqlite:///{file}?timeout=9",
    "sqlite:///{folder}/../{name}/j.sqlite",
    "sqlite:///file:{file}?uri=true",
    "sqlite:///file:{file}?mode=rw&uri=true",
    "file:{file}",
    "file://{file}",
    "file://localhost{file}?cache=private",
    "file:{folder}/%6a.sqlite",
    "{folder}/./x/../j.sqlite",
    "{folder}//j.sqlite",
    "j.sqlite",
    "./j.sqlite",
    "../{name}/j.sqlite",
    "sqlite:///j.sqlite",
    "sqlite:///./j.sqlite?check_same_thread=false",
    "file:j.sqlite",
    "file:./j.sqlite?mode=rwc",
    "{folder}/link.sqlite",
    "sqlite:///{folder}/link.sqlite",
    "file:link.sqlite",
    "{folder}-link/j.sqlite",
    "hard.sqlite",
    "sqlite:///{folder}/hard.sqlite",
]


@hostile("spelling", SPELLINGS)
def test_a_second_writer_is_refused_however_it_spells_the_file(tmp_path, monkeypatch, spelling):
    """And where it is the first, the plain spelling is the second."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "j.sqlite"
    Journal(file).close()
    (tmp_path / "x").mkdir()
    (tmp_path / "link.sqlite").symlink_to("j.sqlite")
    folder = tmp_path.with_name(f"{tmp_path.name}-link")
    folder.symlink_to(tmp_path.name)
    where = spelling.format(file=file, folder=tmp_path, name=tmp_path.name)
    if "hard" in spelling:
        os.link(file, tmp_path / "hard.sqlite")
        with pytest.raises(ConfigError, match="hard link"):
            Journal(where)
        return
    with Journal(file), pytest.raises(ConfigError, match="another process writes"):
        Journal(where)
    with Journal(where) as journal, pytest.raises(ConfigError, match="another process writes"):
        journal.sending(*STEP)
        Journal(file)
    with Journal(file) as journal:
        assert journal.bill().requests == 1


@hostile(
    "where",
    ["sqlite://", "sqlite:///:memory:", "file::memory:", "file:x?mode=memory", ":memory:", None],
)
def test_a_journal_in_memory_leaves_no_file(tmp_path, monkeypatch, where):
    """Two of them are two."""
    monkeypatch.chdir(tmp_path)
    with Journal(where) as journal, Journal(where) as other:
        journal.sending(*STEP)
        assert (journal.bill().requests, other.bill().requests) == (1, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", [".spare", ".lock", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("how", ["link", "dangling", "hard link"])
def test_what_lies_beside_a_journal_is_followed_nowhere(tmp_path, end, how):
    """A link in the place of a file of ours: refused by name, and what it leads to is as it was."""
    victim, beside = tmp_path / "victim", tmp_path / f"j.sqlite{end}"
    victim.write_bytes(b"mine")
    if how == "hard link":
        os.link(victim, beside)
    else:
        beside.symlink_to(victim if how == "link" else tmp_path / "none")
    with pytest.raises(ConfigError, match=re.escape(beside.name)):
        Journal(tmp_path / "j.sqlite")
    assert victim.read_bytes() == b"mine" and not (tmp_path / "none").exists()
    assert beside.is_symlink() == (how != "hard link")


@hostile("content", [b"mine", b"\1" * 100 + b"x", b"\1" * ((1 << 20) + 1), b"\0" * 100])
def test_a_spare_of_somebody_elses_stays(tmp_path, content):
    """Only what a killed process of ours left is replaced."""
    spare = tmp_path / "j.sqlite.spare"
    spare.write_bytes(content)
    with pytest.raises(ConfigError, match="none of its own"):
        Journal(tmp_path / "j.sqlite")
    assert spare.read_bytes() == content


@pytest.mark.parametrize("size", [0, 1, 4096, 1 << 20])
def test_a_spare_that_a_kill_left_is_ours(tmp_path, size):
    """Whole or not."""
    spare = tmp_path / "j.sqlite.spare"
    spare.write_bytes(b"\1" * size)
    with Journal(tmp_path / "j.sqlite"):
        assert spare.stat().st_size == 1 << 20
    assert not spare.exists()


@pytest.mark.parametrize("how", ["link", "dangling", "hard link", "left"])
def test_a_page_is_written_over_no_link(tmp_path, how):
    """Nor is the part that becomes it."""
    victim, part = tmp_path / "victim", tmp_path / ".page.md.part"
    victim.write_bytes(b"mine")
    if how == "hard link":
        os.link(victim, part)
    elif how == "left":
        part.write_bytes(b"half")
    else:
        part.symlink_to(victim if how == "link" else tmp_path / "none")
    write_whole(tmp_path / "page.md", b"page")
    assert (tmp_path / "page.md").read_bytes() == b"page" and victim.read_bytes() == b"mine"
    assert {path.name for path in tmp_path.iterdir()} == {"victim", "page.md"}


@pytest.mark.parametrize("kind", [".md", ".html"])
@pytest.mark.parametrize("what", ["folder", "link", "pipe"])
def test_what_is_in_a_pages_way_stays(fresh_lab, monkeypatch, tmp_path, kind, what):
    """The page has another name then, and the batch goes on."""
    answering(monkeypatch, lambda agent: None)
    way = tmp_path / f"{Article(TOPICS[0], '', '', 'blog').name}{kind}"
    if what == "folder":
        way.mkdir()
    elif what == "pipe":
        os.mkfifo(way)
    else:
        way.symlink_to(tmp_path / "none")
    contents, _ = batch(TOPICS, out=tmp_path)
    assert statuses(contents) == ["done"] * 3
    assert way.is_dir() or way.is_fifo() or way.is_symlink()
    assert way not in contents[0].files and not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", [".md", ".html"])
def test_a_folder_in_the_place_of_a_published_page_stays(fresh_lab, monkeypatch, tmp_path, kind):
    """As a page that was edited does, and the batch goes on."""
    answering(monkeypatch, lambda agent: None)
    contents, _ = batch(TOPICS, out=tmp_path)
    (page,) = (file for file in contents[0].files if file.suffix == kind)
    page.unlink()
    page.mkdir()
    contents, _ = batch(TOPICS, out=tmp_path)
    assert statuses(contents) == ["done"] * 3 and page.is_dir()


# Pages

MARKUP = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a <b onclick='x'>b</b> c",
    "</main></body><script>x</script>",
    "<!-- comment --><?php x ?><![CDATA[x]]>",
    "<SCRIPT\nsrc=//evil>\n</SCRIPT>",
    "- item\n\n      <iframe src=x></iframe>",
    "> <form action=x>",
    "# `\n<script>x</script>\n`",
    "`a\nb <i> `<script>`",
    "\\<script>x\\</script>",
    "\\\\<script>x</script>",
    "```\n<script>never closed",
    "   ```\n<b>\n   ```\n<script>",
    "<pre>\n```\n<script>\n```\n</pre>",
    "<style>*{background:url(//evil)}</style>",
    "<svg/onload=x>",
    '<a href="`"><script>`',
    "[x]: <y>\n\n<b>",
    "``` `<script>` ```\n<x>",
    "<div>\n\n`<script>`\n\n</div>",
    "[" * 20_000 + "<script>",
]
PICTURES = [
    "![x](http://evil/x.png)",
    "![](//evil/x.png)",
    "![a][r]\n\n[r]: https://evil/x.png",
    "![r]\n\n[r]: http://evil/x.png",
    "[![x](http://evil/x.png)](http://evil)",
    "\\![x](http://evil/x.png) \\\\![y](http://evil/y.png)",
    "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "# ![x](<http://evil/x.png> 'title')",
    "![x](javascript:alert(1)) [y](javascript:alert(1)) [z](vbscript:x) [d](data:text/html,x)",
]


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


TAGS = set("html head meta title body main h1 h2 h3 p a em strong code pre ul ol li br".split())


@hostile("text", MARKUP + PICTURES)
def test_a_page_loads_and_runs_nothing(tmp_path, text):
    """No tag but Markdown's own, nothing with a source, no link that runs, and a policy on top."""
    _, page = publish(tmp_path, Article(text[:80], text, text, "blog"))
    tags = Tags(page.read_text(encoding="utf-8")).tags
    assert {tag for tag, _ in tags} <= TAGS | {"blockquote"}
    names = {name for _, attributes in tags for name in attributes}
    assert names <= {"charset", "http-equiv", "name", "content", "href", "class", "title", "start"}
    links = [attributes["href"] or "" for tag, attributes in tags if tag == "a"]
    assert not [link for link in links if re.match("(javascript|vbscript|data:text)", link)]
    metas = [attributes for tag, attributes in tags if tag == "meta"]
    assert metas[1]["http-equiv"] == "Content-Security-Policy"
    assert str(metas[1]["content"]).startswith("default-src 'none'")


@hostile("text", MARKUP + PICTURES)
def test_a_site_generator_obeys_no_markup_of_a_models(tmp_path, text):
    """CommonMark with raw HTML allowed finds none in the Markdown, and no image."""
    file, _ = publish(tmp_path, Article("x", "y", text, "blog"))
    body = file.read_text(encoding="utf-8").split("---\n", 2)[2]
    found = [
        token.type
        for block in MarkdownIt("commonmark", {"html": True, "maxNesting": 5}).parse(body)
        for token in [block, *(block.children or ())]
    ]
    assert not {"html_block", "html_inline", "image"} & set(found)


@hostile(
    "text",
    [
        "```html\n<b>bold</b>\n```",
        "~~~~\n<b> ``` </b>\n~~~~",
        "Use `<b>` and ``<i> ` </i>`` here.",
        "a < b, 3 <4, <3 and x<=y",
        "See <https://example.org/a?b=c>.",
        "Wow! [a](https://example.org) & co.",
        "\\`no code\\` \\*",
    ],
)
def test_code_and_plain_text_stay_as_they_are(tmp_path, text):
    """Who writes about HTML may show it."""
    file, _ = publish(tmp_path, Article("x", "y", text, "blog"))
    assert file.read_text(encoding="utf-8").endswith(f"---\n\n{text}\n")


FRONT = [
    "---",
    "a\n---\nlayout: evil",
    '"a\': b" #c',
    "{{ x }} {% y %}",
    "!!python/object:os.system",
    "&a *a",
    "- x",
    "null",
    "\u2028\u2029",
    "a: b: c",
    "x" * 5_000,
    "yes",
    "...\n%TAG",
]


@hostile("words", FRONT)
def test_a_front_matter_holds_three_texts(tmp_path, words):
    """Whatever is in a title or a description ends none of them and adds no field."""
    article = Article(words, words, "text", "blog")
    file, _ = publish(tmp_path, article)
    front, _, rest = file.read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(front) == {"title": words, "description": words, "type": "blog"}
    assert rest == "\ntext\n"
    assert publish(tmp_path, article)[0] == file


# Settings

NONSENSE = [
    {"max_concurrent_agents": 0},
    {"max_concurrent_agents": 10**30},
    {"max_concurrent_agents": 1.5},
    {"max_memory_mb": -1},
    {"retry_attempts": float("inf")},
    {"quarantine_after": 10**9},
    {"timeout_seconds": 1e-300},
    {"timeout_seconds": float("inf")},
    {"timeout_seconds": float("nan")},
    {"longest_wait_seconds": float("inf")},
    {"longest_wait_seconds": -1},
    {"longest_wait_seconds": 1e300},
    {"requests_per_minute": 0},
    {"requests_per_minute": "9" * 5000},
    {"prompt_price": float("inf"), "answer_price": 1},
    {"prompt_price": float("nan"), "answer_price": 1},
    {"prompt_price": 1, "answer_price": -1e-9},
    {"engine": "\ud800"},
    {"engine": ["asyncio"]},
    {"\0": 1},
]


@hostile("given", NONSENSE)
def test_a_setting_that_cannot_work_is_refused(given):
    """By its name, in a message that can be shown."""
    name = next(iter(given))
    with pytest.raises(ConfigError) as refused:
        Settings(**given)
    said = str(refused.value)
    assert (name in said or repr(name) in said or "price" in said) and len(said) < 1_000
    said.encode()


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
SETTINGS_FILES = [
    f"{BOMB}max_memory_mb: *a9\n",
    "[" * 100_000,
    "max_memory_mb: " + "9" * 5_000,
    "max_memory_mb: .inf\n",
    "timeout_seconds: .nan\n",
    "? [a, b]\n: 1\n",
    "!!python/object/apply:os.system [true]\n",
    "max_memory_mb: 2026-11-29\n",
    "\0",
    "a: b: c",
    "--- 1\n--- 2\n",
]


@hostile("text", SETTINGS_FILES)
def test_a_settings_file_that_cannot_work_is_refused(tmp_path, text):
    """By its name, and without being blown up."""
    file = tmp_path / "content.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"content\.yaml") as refused:
        Settings.load(file)
    assert len(str(refused.value)) < 20_000


# Signals


class Held(BaseHTTPRequestHandler):
    """A model that answers some questions, and holds the others until it is told."""

    protocol_version = "HTTP/1.1"
    free = 3
    held: threading.Semaphore
    go: threading.Event
    asked = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        with LOCK:
            Held.asked += 1
            wait = Held.asked > self.free
        if wait:
            self.held.release()
            self.go.wait(60)
        body = (
            b'{"choices": [{"message": {"content": "Twice a day."}, "finish_reason": "stop"}],'
            b' "usage": {"prompt_tokens": 5, "completion_tokens": 2}}'
        )
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: Any) -> None:
        pass


LOCK = threading.Lock()
IN_FLIGHT = 2


@pytest.fixture
def model() -> Iterator[str]:
    Held.held, Held.go, Held.asked = threading.Semaphore(0), threading.Event(), 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Held)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    Held.go.set()
    server.shutdown()
    thread.join()
    server.server_close()


def started(model: str, out: Path, ignored: int | None = None) -> subprocess.Popen[bytes]:
    """`agentlab write`, when it has as much in flight as it may."""
    topics = out.with_suffix(".txt")
    topics.write_text("\n".join(f"Tides {number}" for number in range(9)))
    environment = os.environ | {
        "OPENAI_BASE_URL": model,
        "OPENAI_API_KEY": "none",
        "AGENTLAB_CONTENT_MAX_CONCURRENT_AGENTS": str(IN_FLIGHT),
        "AGENTLAB_PROGRESS": "0",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    environment.pop("AGENTLAB_LOCAL", None)

    def dispositions() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)

    life = subprocess.Popen(
        [sys.executable, "-m", "agentlab", "write", str(topics), "--out", str(out), "--resume"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=dispositions,
    )
    for _ in range(IN_FLIGHT):
        Held.held.acquire()
    return life


def until_it_says(life: subprocess.Popen[bytes], words: bytes) -> None:
    assert life.stderr is not None
    for line in life.stderr:
        if words in line:
            return
    raise AssertionError(f"it ended without {words!r}")


NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}


def recorded(out: Path) -> int:
    with closing(sqlite3.connect(out / "journal.sqlite")) as database:
        query = "SELECT count(answer) FROM agentlab_steps"
        return int(database.execute(query).fetchone()[0])


@pytest.mark.parametrize("number", list(NAMES), ids=list(NAMES.values()))
def test_the_first_signal_waits_for_what_is_in_flight(model, tmp_path, number):
    """What was sent is recorded, the summary is printed, no spare is left, the code is usual."""
    out = tmp_path / "out"
    with started(model, out) as life:
        life.send_signal(number)
        until_it_says(life, b"waiting for what is in flight")
        Held.go.set()
        said, errors = life.communicate()
    assert life.returncode == 128 + number
    assert recorded(out) == Held.asked == Held.free + IN_FLIGHT
    assert b"left" in said and f"stopped: {NAMES[number]}.".encode() in errors
    assert b"Traceback" not in errors and not (out / "journal.sqlite.spare").exists()


@pytest.mark.parametrize("second", list(NAMES), ids=list(NAMES.values()))
@pytest.mark.parametrize("first", list(NAMES), ids=list(NAMES.values()))
def test_the_second_signal_ends_it(model, tmp_path, first, second):
    """Of whatever kind, while the model says nothing: a summary, no spare, the first one's code."""
    out = tmp_path / "out"
    with started(model, out) as life:
        life.send_signal(first)
        until_it_says(life, b"waiting for what is in flight")
        life.send_signal(second)
        said, errors = life.communicate()
    assert life.returncode == 128 + first
    assert recorded(out) == Held.free and b"left" in said
    assert b"Traceback" not in errors and not (out / "journal.sqlite.spare").exists()


def test_nohup_is_respected(model, tmp_path):
    """Who lets it ignore SIGHUP wants it to outlive the terminal: it is written to the end."""
    out = tmp_path / "out"
    with started(model, out, ignored=signal.SIGHUP) as life:
        life.send_signal(signal.SIGHUP)
        Held.go.set()
        said, _ = life.communicate()
    assert life.returncode == 0 and said.startswith(b"9 done")
