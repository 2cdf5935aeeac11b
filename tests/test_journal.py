"""The journal: every answer once, one writer, and what a full disk leaves."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from agentlab.content import Journal
from agentlab.content._journal import Bill
from agentlab.errors import AnswerRefused, ConfigError, JournalError
from agentlab.lab import Reply

YES, NO = Reply("yes", 10, 1), Reply("no", 10, 2)
STEP = ("blog: tides", "research", "d1")


def test_an_answer_is_recorded_once(where):
    """The first stays, whatever comes later; requests are counted all the same."""
    with Journal(where) as journal:
        journal.sending(*STEP)
        assert journal.answer(*STEP) is None
        journal.sending(*STEP)
        journal.record(*STEP, YES)
        journal.record(*STEP, NO)
        assert journal.answer(*STEP) == YES
        assert journal.bill() == Bill(2, answers=1, prompt_tokens=10, answer_tokens=1, attempts=2)


def test_what_is_not_whole_is_paid_for_and_asked_again(where):
    """Cut off at a limit, blank, or said to be a part: its tokens count, and it is no answer."""
    with Journal(where) as journal:
        journal.sending(*STEP)
        journal.record(*STEP, Reply("half", 10, 1, "length"))
        journal.record(*STEP, Reply(" \n", 10, 2, "stop"))
        journal.record(*STEP, AnswerRefused("no", prompt_tokens=10, completion_tokens=3))
        assert journal.answer(*STEP) is None
        assert journal.bill() == Bill(1, answers=0, prompt_tokens=30, answer_tokens=6, attempts=1)
        journal.record(*STEP, Reply("yes", 10, 1, "stop"))
        found = journal.answer(*STEP)
    assert found is not None and found.text == "yes"


def test_it_is_there_again(where):
    """After closing and opening, in any language."""
    with Journal(where) as journal:
        journal.sending("blog: 밀물", "연구", "d")
        journal.record("blog: 밀물", "연구", "d", Reply("하루 두 번 \U0001f30a", 3, 4))
        journal.note("blog: 밀물", "quarantined", failures=3, error="500")
    with Journal(where) as journal:
        found = journal.answer("blog: 밀물", "연구", "d")
        assert found is not None and found.text == "하루 두 번 \U0001f30a"
        assert journal.standing("blog: 밀물") == ("quarantined", 3, "500", {})
        assert journal.standing("blog: other") == ("open", 0, None, {})


def test_one_process_writes_it(where):
    """A second is refused until the first has closed it."""
    with Journal(where), pytest.raises(ConfigError, match=r"^another process writes"):
        Journal(where)
    Journal(where).close()


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense://x", "postgresql://lab@127.0.0.1:9/x"])
def test_what_cannot_be_opened_is_named(url):
    """With what would do instead."""
    with pytest.raises(ConfigError, match="is no file; give a file's path"):
        Journal(url)


def test_a_file_that_is_none_is_refused(tmp_path):
    """It is left as it is."""
    file = tmp_path / "journal.sqlite"
    file.write_bytes(b"something else" * 100)
    with pytest.raises(ConfigError, match="not a database"):
        Journal(file)
    assert file.read_bytes() == b"something else" * 100
    assert not (tmp_path / "journal.sqlite.spare").exists()


def test_a_name_is_a_files(tmp_path):
    """Whatever is in it: a question mark begins no options here."""
    with Journal(tmp_path / "a?b" / "j.sqlite") as journal:
        journal.sending(*STEP)
    assert (tmp_path / "a?b" / "j.sqlite").is_file() and not (tmp_path / "a").exists()


def test_another_thread_may_use_it(where):
    """As virtual time's does in a notebook, where the journal was opened outside of it."""
    with Journal(where) as journal, ThreadPoolExecutor(1) as pool:
        pool.submit(journal.sending, *STEP).result()
        pool.submit(journal.record, *STEP, YES).result()
        assert journal.answer(*STEP) == YES


def test_without_room_an_answer_is_refused_and_the_rest_is_kept(tmp_path):
    """A database that may not grow: an error, and what was recorded can still be read."""
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.sending(*STEP)
        journal.record(*STEP, YES)
        (pages,) = journal._database.execute("PRAGMA page_count").fetchone()
        journal._database.execute(f"PRAGMA max_page_count={pages}")
        journal.sending("blog: other", "research", "d1")
        with pytest.raises(JournalError, match="no room left"):
            journal.record("blog: other", "research", "d1", Reply("long " * 10_000, 1, 1))
        assert journal.full
        assert journal.answer(*STEP) == YES
    with closing(sqlite3.connect(tmp_path / "j.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_nothing_is_left_behind(tmp_path):
    """The spare room goes with the journal's end; the log is folded into the file."""
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.sending(*STEP)
        assert (tmp_path / "j.sqlite.spare").stat().st_size == 1 << 20
    assert {path.name for path in tmp_path.iterdir()} <= {"j.sqlite", "j.sqlite.lock"}
