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
from agentlab.commands.main import main
from agentlab.content import Content, ContentSystem, Journal, Settings, summary
from agentlab.content._publish import Article, publish
from agentlab.errors import ConfigError, ModelError
from agentlab.lab import read

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


@hostile("name", ["\0", "m\n\r", "x" * 100_000, "'; DROP TABLE agentlab_steps; --"])
def test_an_odd_models_name_is_sent_or_refused(fresh_lab, monkeypatch, name):
    """Before anything is paid for, in words; no traceback ends the batch."""
    asked = answering(monkeypatch, lambda agent: None)
    with lab.configure(model=name):
        contents, told = batch(TOPICS)
    good = name.isascii()
    assert statuses(contents) == ["done" if good else "left"] * 3
    assert asked.total() == (12 if good else 0) or asked["probe"] == asked.total()
    told.encode()


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
    "e\u0301" * 300,
    "𝔸" * 300,
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


@hostile(
    "topic",
    ["", " \n", "\0\x1b", "\ufeff", "half \ud83c", "tides " * 200, None, 5, b"tides", ["x"], 1.5],
)
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
        ):
            with pytest.raises(ConfigError, match="blog or comprehensive"):
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
    answer = httpx.Response(
        status, headers={"retry-after": text}, content=b'{"error": {"message": "busy"}}'
    )
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


def test_what_breaks_in_mid_batch_says_how_to_save_the_answers(fresh_lab, monkeypatch, tmp_path):
    """The batch stops, and the message has the command."""
    file = made(tmp_path)

    def broken(agent: str) -> None:
        content = file.read_bytes()
        file.write_bytes(content[:4096] + b"Z" * (len(content) - 4096))

    answering(monkeypatch, broken)
    with ContentSystem(journal=file) as system:
        system.journal._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        system.journal._database.execute("PRAGMA cache_size=0")
        contents, _ = lab.simulate(system.batch_generate(TOPICS))
        assert statuses(contents) == ["left"] * 3  # type: ignore[arg-type]
        assert ".recover" in str(system.stopped) and "journal.sqlite" in str(system.stopped)


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


# Two writers

SPELLINGS = [
    "{file}",
    "{folder}/./x/../j.sqlite",
    "{folder}//j.sqlite",
    "j.sqlite",
    "./j.sqlite",
    "../{name}/j.sqlite",
    "{folder}/link.sqlite",
    "{folder}-link/j.sqlite",
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
    with Journal(file), pytest.raises(ConfigError, match="another process writes"):
        Journal(where)
    with Journal(where) as journal, pytest.raises(ConfigError, match="another process writes"):
        journal.sending(*STEP)
        Journal(file)
    with Journal(file) as journal:
        assert journal.bill().requests == 1


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
    """Nor over the part that a kill left of it, which goes."""
    victim, article = tmp_path / "victim", Article(TOPICS[0], "", "", "blog")
    part = tmp_path / f".{article.name}.md.0123456789abcdef.part"
    victim.write_bytes(b"mine")
    if how == "hard link":
        os.link(victim, part)
    elif how == "left":
        part.write_bytes(b"half")
    else:
        part.symlink_to(victim if how == "link" else tmp_path / "none")
    files = publish(tmp_path, article).files
    assert files[0].read_text() == article.markdown() and victim.read_bytes() == b"mine"
    assert {*tmp_path.iterdir()} == {victim, *files}


@pytest.mark.parametrize("what", ["folder", "link", "pipe"])
def test_what_is_in_a_pages_way_stays(fresh_lab, monkeypatch, tmp_path, what):
    """As an edited page does; it is named, and the batch goes on."""
    answering(monkeypatch, lambda agent: None)
    way = tmp_path / f"{Article(TOPICS[0], '', '', 'blog').name}.md"
    if what == "folder":
        way.mkdir()
    elif what == "pipe":
        os.mkfifo(way)
    else:
        way.symlink_to(tmp_path / "none")
    contents, _ = batch(TOPICS, out=tmp_path)
    assert statuses(contents) == ["done"] * 3
    assert way.is_dir() or way.is_fifo() or way.is_symlink()
    assert contents[0].kept == (way,) and not (tmp_path / "none").exists()


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
    _, page = publish(tmp_path, Article(text[:80], text, text, "blog")).files
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
    file, _ = publish(tmp_path, Article("x", "y", text, "blog")).files
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
        "a < b, 3 <4, <3 and x<=y",
        "See <https://example.org/a?b=c>.",
        "Wow! [a](https://example.org) & co.",
        "\\`no code\\` \\*",
    ],
)
def test_code_and_plain_text_stay_as_they_are(tmp_path, text):
    """Who writes about HTML may show it."""
    file, _ = publish(tmp_path, Article("x", "y", text, "blog")).files
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
    file, _ = publish(tmp_path, article).files
    front, _, rest = file.read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(front) == {"title": words, "description": words, "type": "blog"}
    assert rest == "\ntext\n"
    assert publish(tmp_path, article).files[0] == file


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


@pytest.mark.parametrize("first", list(NAMES), ids=list(NAMES.values()))
def test_a_second_ctrl_c_ends_it(model, tmp_path, first):
    """While the model says nothing: the way to go on, no spare, the first signal's code."""
    out = tmp_path / "out"
    with started(model, out) as life:
        life.send_signal(first)
        until_it_says(life, b"waiting for what is in flight")
        life.send_signal(signal.SIGINT)
        _, errors = life.communicate()
    assert life.returncode == 128 + first
    assert recorded(out) == Held.free and b"--resume" in errors
    assert b"Traceback" not in errors and not (out / "journal.sqlite.spare").exists()


def test_nohup_is_respected(model, tmp_path):
    """Who lets it ignore SIGHUP wants it to outlive the terminal: it is written to the end."""
    out = tmp_path / "out"
    with started(model, out, ignored=signal.SIGHUP) as life:
        life.send_signal(signal.SIGHUP)
        Held.go.set()
        said, _ = life.communicate()
    assert life.returncode == 0 and said.startswith(b"9 done")
