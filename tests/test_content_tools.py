"""Tools of the content system: pages cite what was found, and no effect is had twice."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentlab import lab
from agentlab.content import Content, ContentSystem, Settings, search
from agentlab.errors import ConfigError
from agentlab.explore import Run, explore
from agentlab.settings import DATA
from agentlab.workflow import Step, Workflow

TOPIC = "Why are there two high tides a day?"
# The local model calls `look` and `book`, both in one turn, and then answers.
TRIP = Workflow(
    [
        Step("trip", "Look up {topic}, and book {topic}.", tools=("look", "book"), max_turns=3),
        Step("editor", "Write about {topic} in two sentences. {trip}"),
        Step("publisher", "Say it in one sentence. {editor}"),
    ],
    inputs=["topic"],
)
SHOWN = {"look": "\n\n".join(f"[{id}] Of {id}\nAll about it." for id in ("one", "two", "three"))}


class Calls:
    """Two tools, which take a second each, and how often each was begun and ended."""

    def __init__(self, results: dict[str, str] | None = None) -> None:
        self.begun, self.ended = Counter[str](), Counter[str]()
        self.results = {"look": "seen", "book": "booked"} | (results or {})

    def tool(self, name: str) -> Callable[..., Any]:
        async def function(place: str) -> str:
            self.begun[name, place] += 1  # type: ignore[index]
            await asyncio.sleep(1)
            self.ended[name, place] += 1  # type: ignore[index]
            return self.results[name]

        return function

    def system(self, journal: str | Path | None = None, **more: Any) -> ContentSystem:
        return ContentSystem(
            Settings(max_concurrent_agents=2, **more),
            journal=journal,
            tools={"look": self.tool("look")},
            effects={"book": self.tool("book")},
            workflows={"trip": TRIP},
        )


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> list[str]:
    """Answers of our own, one after the other, and then what the local model says."""
    asked, left, real = list[str](), list(answers), lab.reply

    async def reply(prompt: str, *, agent: str, **options: Any) -> lab.Reply:
        asked.append(agent)
        if not left:
            return await real(prompt, agent=agent, **options)
        own = left.pop(0)
        return lab.Reply(own, 9, 4, "stop") if isinstance(own, str) else own

    monkeypatch.setattr(lab, "reply", reply)
    return asked


def write(system: ContentSystem, topic: str, kind: str) -> tuple[Content, Any]:
    content, t = lab.simulate(system.generate_content(topic, kind))
    return content, t  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (TOPIC, ["two-tides", "two-tides", "one-tide"]),
        ("Tides in harbour 5", ["harbours", "harbours", "one-tide"]),
        ("MOONS", ["moon-orbit", "moon-orbit", "other-moons"]),
        ("rising bread", ["bread", "bread"]),
        ("what is it", []),
        ("quantum jumps", []),
    ],
)
def test_a_search_finds_the_same_everywhere(words, ids):
    """The passages that share the most words, those of a title twice; or it says that none does."""
    found = search(words)
    assert [block.partition("]")[0][1:] for block in found.split("\n\n") if ids] == ids
    assert ids or found == f"Nothing was found for {words!r}; search in other words."


def test_every_document_of_ours_is_found_by_its_title():
    """And its result begins with id and title."""
    corpus = yaml.safe_load((DATA / "corpus" / "sea.yaml").read_text(encoding="utf-8"))
    for id, document in corpus["documents"].items():
        assert f"[{id}] {document['title']}\n" in search(document["title"])
    assert len(corpus["documents"]) == 17


def test_a_page_cites_what_was_found(fresh_lab, tmp_path):
    """Id and title of each document, in Markdown and in HTML; five requests and one search."""
    with ContentSystem(out=tmp_path) as system:
        content, t = write(system, TOPIC, "sourced")
    assert content.status == "done" and t.requests == 5
    assert [tool.name for tool in t.tools if tool.operation == "execute_tool"] == ["search"]
    assert content.article is not None
    assert [id for id, _ in content.article.sources] == ["two-tides", "one-tide"]
    pages = [file.read_text(encoding="utf-8") for file in content.files]
    first = "- [two-tides] Why most coasts have two high tides a day\n"
    assert f"## Sources\n\n{first}- [one-tide] Coasts with one high tide a day\n" in pages[0]
    assert "<li>[two-tides] Why most coasts have two high tides a day</li>" in pages[1]


def test_only_what_was_returned_and_used_is_cited(fresh_lab, monkeypatch, tmp_path):
    """Not what a search brought and no text names, nor what a text names and no search brought."""

    calls = (_call("1", "look", '{"place": "x"}'),)
    answering(
        monkeypatch,
        lab.Reply("", 9, 4, "tool_calls", calls),
        "Three [three], one [one], and a dream [dreamt].",
        "A text that names [dreamt] and [one].",
        "A sentence.",
    )
    with Calls(SHOWN).system() as system:
        content, _ = write(system, "x", "trip")
    assert content.article is not None
    assert content.article.sources == (("three", "Of three"), ("one", "Of one"))


def test_without_sources_there_is_no_section(fresh_lab, tmp_path):
    """Nothing found, nothing cited: the page says nothing of sources."""
    with ContentSystem(out=tmp_path) as system:
        content, _ = write(system, "Quantum jumps", "sourced")
    assert content.article is not None and content.article.sources == ()
    assert "Sources" not in content.files[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("engine", ["sequential", "langgraph"])
def test_every_engine_cites_the_same(fresh_lab, tmp_path, engine):
    """The same bytes, from a journal of its own."""
    pages = []
    for name in ("asyncio", engine):
        with ContentSystem(Settings(engine=name), out=tmp_path / name) as system:
            content, _ = write(system, TOPIC, "sourced")
        pages.append([file.read_bytes() for file in content.files])
    assert pages[0] == pages[1] and len(pages[0]) == 2


def test_another_run_asks_and_calls_nothing(fresh_lab, tmp_path):
    """Turns and calls are in the journal, a row for each, and the page comes out the same."""
    calls = Calls(SHOWN)
    for requests in (4, 0):
        with calls.system(tmp_path / "j.sqlite") as system:
            content, t = write(system, "Oslo", "trip")
        assert (content.status, t.requests) == ("done", requests)
    assert set(calls.begun.values()) == {1} and len(calls.begun) == 2
    with closing(sqlite3.connect(tmp_path / "j.sqlite")) as database:
        rows = database.execute("SELECT step, tool, arguments, nth, result FROM agentlab_calls")
        arguments = '{"place": "Oslo"}'
        assert sorted(rows) == [
            ("trip", "book", arguments, 1, "booked"),
            ("trip", "look", arguments, 1, SHOWN["look"]),
        ]


def test_a_failing_tool_is_told_to_the_model(fresh_lab):
    """What it raised is its result; it is recorded, and the call is not made again."""
    begun = Counter[str]()

    def book(place: str) -> str:
        begun[place] += 1
        raise ValueError(f"no room in {place}")

    with Calls().system() as system:
        system.tools["book"] = type(system.tools["book"])("book", book, effect=True)
        content, t = write(system, "Oslo", "trip")
        again, none = write(system, "Oslo", "trip")
        rows = system.journal._database.execute("SELECT result FROM agentlab_calls").fetchall()
    assert (content.status, again.status, t.requests, none.requests) == ("done", "done", 4, 0)
    assert ("ValueError: no room in Oslo",) in rows and begun == {"Oslo": 1}


def test_equal_calls_of_a_turn_are_two(fresh_lab, monkeypatch):
    """The model calls `book` twice with the same words: both are made, and both recorded."""
    twice = tuple(_call(id, "book", '{"place": "x"}') for id in ("1", "2"))
    answering(monkeypatch, lab.Reply("", 9, 4, "tool_calls", twice), "Notes.", "Text.", "So.")
    calls = Calls()
    with calls.system() as system:
        content, _ = write(system, "x", "trip")
        rows = system.journal._database.execute("SELECT nth FROM agentlab_calls").fetchall()
    assert content.status == "done" and calls.begun == {("book", "x"): 2}
    assert sorted(rows) == [(1,), (2,)]


def test_killed_anywhere_no_effect_is_had_twice(tmp_path: Path):
    """A finished call is not made again; one that was cut off is told, settled, and gone on from.
    Answers of earlier turns are not paid again."""
    lab.configure(upstream=None)
    number, seen = 0, Counter[str]()

    def program(run: Run) -> None:
        nonlocal number
        number += 1
        journal, calls = tmp_path / f"{number}.sqlite", Calls(SHOWN)
        with calls.system(journal) as system:
            run.until_killed(system.batch_generate(["Oslo", "Rome"], "trip"))
            before = system.journal.bill()
        with calls.system(journal) as system:
            contents, t = run(system.batch_generate(["Oslo", "Rome"], "trip"))
            requests, after = t.requests, system.journal.bill()
            cut_off = [content for content in contents if content.status == "quarantined"]
            for content in cut_off:
                assert "may have happened" in str(content.error)
                call = ("book", content.topic)
                assert calls.begun[call] == 1, "it was not called again"  # type: ignore[index]
                told = str(content.error).partition("settle(")[2].partition(",")[0]
                system.journal.settle(int(told), "booked")
            assert system.journal.release() == len(cut_off)
            contents, t = run(system.batch_generate(["Oslo", "Rome"], "trip"))
            requests += t.requests
            after = system.journal.bill()
        seen["cut off" if cut_off else "not"] += 1
        assert [content.status for content in contents] == ["done", "done"]
        assert [c.article.sources for c in contents if c.article] == [tuple(ALL)] * 2
        assert {n for call, n in calls.begun.items() if call[0] == "book"} == {1}
        assert after.answers == 8 and requests == 8 - before.answers
        for file in tmp_path.glob(f"{number}.*"):
            file.unlink()

    explore(program, runs=60)
    assert seen["cut off"] and seen["not"]


ALL = [(id, f"Of {id}") for id in ("one", "two", "three")]


def test_what_was_not_made_is_made(fresh_lab, tmp_path):
    """Settled without a result, a call that was cut off is made again, and no third time."""
    calls = Calls()

    async def cancelled(system: ContentSystem) -> None:
        running = asyncio.create_task(system.batch_generate(["Oslo"], "trip"))
        while not calls.begun["book", "Oslo"]:  # type: ignore[index]
            await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with calls.system(tmp_path / "j.sqlite") as system:
        lab.simulate(cancelled(system))
    for _ in range(2):
        with calls.system(tmp_path / "j.sqlite") as system:
            content, t = write(system, "Oslo", "trip")
            assert (content.status, t.requests) == ("quarantined", 0)
            assert "journal.settle(2, result)" in str(content.error)
            system.journal.release()
    with calls.system(tmp_path / "j.sqlite") as system:
        system.journal.settle(2)
        assert write(system, "Oslo", "trip")[0].status == "done"
        with pytest.raises(ConfigError, match="no call 2 was cut off"):
            system.journal.settle(2)
    assert calls.begun["book", "Oslo"] == 2 and calls.ended["book", "Oslo"] == 1  # type: ignore[index]


def test_a_stop_waits_for_the_calls_of_an_answer(fresh_lab, tmp_path):
    """What is in flight is answered, and what it calls is done, recorded, and not done again."""
    calls = Calls()

    async def stopped(system: ContentSystem) -> list[Content]:
        running = asyncio.create_task(system.batch_generate(["Oslo"], "trip"))
        await asyncio.sleep(0.5)
        system.stop("enough")
        return await running

    with calls.system(tmp_path / "j.sqlite") as system:
        contents, t = lab.simulate(stopped(system))
    assert [content.status for content in contents] == ["left"]  # type: ignore[union-attr]
    assert t.requests == 1 and set(calls.ended.values()) == {1}
    with calls.system(tmp_path / "j.sqlite") as system:
        content, t = write(system, "Oslo", "trip")
    assert (content.status, t.requests) == ("done", 3) and set(calls.begun.values()) == {1}


def test_an_agent_without_an_end_is_given_up(fresh_lab, monkeypatch):
    """It calls tools in each of its answers: its topic is quarantined, and asked no more."""
    more = [lab.Reply("", 9, 4, "tool_calls", (_call("1", "book", "{}"),))] * 9
    asked = answering(monkeypatch, *more)
    with Calls().system() as system:
        content, _ = write(system, "x", "trip")
    assert content.status == "quarantined" and "max_turns" in str(content.error)
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("steps", "inputs", "words"),
    [
        ([Step("editor", "{topic}")], "topic", "no step 'publisher'"),
        ([Step("editor", "{city}"), Step("publisher", "{editor}")], "city", "takes the inputs"),
    ],
)
def test_a_workflow_that_is_no_content_type_is_refused(steps, inputs, words):
    """A missing step, another input: said when the system is made."""
    with pytest.raises(ConfigError, match=words):
        ContentSystem(workflows={"own": Workflow(steps, inputs=[inputs])})


def test_a_tool_without_a_function_stops_the_batch(fresh_lab):
    """Before anything is sent, with the name of the tool; no topic is blamed."""
    steps = [Step("editor", "{topic}", tools=("fly",)), Step("publisher", "{editor}")]
    own = Workflow(steps, inputs=["topic"], name="own")
    with ContentSystem(workflows={"own": own}) as system:
        content, t = write(system, "x", "own")
    assert (content.status, t.requests) == ("left", 0)
    assert "no functions for the tools 'fly' of 'own'" in str(content.error)


def test_what_is_no_function_is_no_tool():
    """Said when the system is made."""
    with pytest.raises(ConfigError, match="tool 'look' is 3"):
        ContentSystem(tools={"look": 3})  # type: ignore[dict-item]


def test_an_older_journal_is_read(fresh_lab, tmp_path):
    """One from before there were calls: nothing that is in it is asked again."""
    with ContentSystem(out=tmp_path) as system:
        write(system, TOPIC, "blog")
        system.journal._database.execute("DROP TABLE agentlab_calls")
    with ContentSystem(out=tmp_path) as system:
        assert write(system, TOPIC, "blog")[1].requests == 0
        assert write(system, TOPIC, "sourced")[0].status == "done"


def _function(name: str, arguments: str) -> Any:
    from agentlab.lab._read import _Function

    return _Function(name, arguments)


def _call(id: str, name: str, arguments: str) -> lab.ToolCall:
    return lab.ToolCall(id, _function(name, arguments))
