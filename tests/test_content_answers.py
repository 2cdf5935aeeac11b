"""Whole answers only: what is cut off, withheld or empty is paid for, told, and never published."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentlab import engines, lab
from agentlab.content import Content, ContentSystem, Settings, read_topics, summary
from agentlab.errors import (
    AnswerEmpty,
    AnswerFiltered,
    AnswerRefused,
    ConfigError,
    ModelError,
    ReasoningExhausted,
)
from agentlab.lab import connection
from agentlab.settings import DATA
from agentlab.workflow import Workflow

TOPICS = ["Why tides?", "Why ebb?", "Why moons?"]
Fake = Callable[[str], Any]


@pytest.fixture
def asked(monkeypatch) -> Counter[str]:
    """How often each agent was asked."""
    return answering(monkeypatch, lambda agent: None)


def answering(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> Counter[str]:
    """Answers of our own: what `fake` returns or raises for an agent; None for the usual one."""
    asked: Counter[str] = Counter()

    async def reply(prompt: str, *, agent: str, **options: Any) -> lab.Reply:
        asked[agent] += 1
        own = fake(agent)
        if isinstance(own, Exception):
            raise own
        text = f"{connection.current().model} says {len(prompt)} to {agent}."
        return own or lab.Reply(text, 9, 4, "stop")

    monkeypatch.setattr(lab, "reply", reply)
    return asked


def batch(out: Path | None = None, topics: list[str] = TOPICS, **settings: Any) -> list[Content]:
    with ContentSystem(Settings(**settings), out=out) as system:
        return lab.simulate(system.batch_generate(topics))[0]  # type: ignore[return-value]


def statuses(contents: list[Content]) -> list[str]:
    return [content.status for content in contents]


CUT = lab.Reply("Twice a day the wa", 9, 1000, "length")
FACTS: dict[str, Any] = {"prompt_tokens": 9, "completion_tokens": 1000}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (CUT, "'editor': .*1000 tokens.*raise max_tokens.*blog.yaml"),
        (ReasoningExhausted("all of it; raise max_tokens", **FACTS), "raise max_tokens.*blog.yaml"),
        (AnswerFiltered("withheld", **FACTS), "'editor': withheld"),
        (AnswerRefused("I cannot", **FACTS), "'editor': I cannot"),
    ],
)
def test_what_is_no_whole_answer_costs_one_request(fresh_lab, monkeypatch, tmp_path, answer, words):
    """It is paid for once, its topic is quarantined with the reason, and nothing is published."""
    poison = f"editor: {TOPICS[1]}"
    asked = answering(monkeypatch, lambda agent: answer if agent == poison else None)
    with ContentSystem(out=tmp_path) as system:
        contents = lab.simulate(system.batch_generate(TOPICS))[0]
        bill = system.journal.bill()
        told = summary(contents, system.journal, system.settings)
    assert statuses(contents) == ["done", "quarantined", "done"]
    assert asked[poison] == 1
    assert bill.answer_tokens == 10 * 4 + 1000 and bill.answers == 10
    assert len(list(tmp_path.glob("*.md"))) == 2
    assert re.search(words, told), told


def test_an_empty_answer_is_asked_for_again(fresh_lab, monkeypatch):
    """Whatever made it may be gone; both are paid for, and the second is kept."""
    empty = iter([AnswerEmpty("no text", **FACTS)])
    answering(monkeypatch, lambda agent: next(empty, None) if "editor" in agent else None)
    with ContentSystem() as system:
        contents = lab.simulate(system.batch_generate(TOPICS[:1]))[0]
        bill = system.journal.bill()
    assert statuses(contents) == ["done"]
    assert (bill.requests, bill.answers, bill.answer_tokens) == (5, 4, 4 * 4 + 1000)


def test_another_run_asks_again_for_what_was_cut_off(fresh_lab, monkeypatch, tmp_path):
    """And for nothing else: what is whole is kept."""
    answering(monkeypatch, lambda agent: CUT if agent.startswith("editor") else None)
    assert statuses(batch(tmp_path)) == ["quarantined"] * 3
    asked = answering(monkeypatch, lambda agent: None)
    with ContentSystem(out=tmp_path) as system:
        assert system.journal.release() == 3
        assert statuses(lab.simulate(system.batch_generate(TOPICS))[0]) == ["done"] * 3
    assert asked.total() == 6  # an editor and a publisher each


def test_the_local_model_answers_within_the_limits(fresh_lab):
    """Each step of both workflows ends by itself, so that lesson 06 has whole texts."""
    ended: Counter[str | None] = Counter()

    async def all_steps() -> None:
        for kind in ("blog", "comprehensive"):
            values = {"topic": "Why tides?"}
            for step in Workflow.load(kind).steps:
                reply = await lab.reply(
                    step.asked(values), max_tokens=step.max_tokens, temperature=0
                )
                values[step.name] = reply.text
                ended[reply.finish_reason] += 1

    lab.simulate(all_steps())
    assert ended == {"stop": 12}


def test_another_model_is_asked_and_published(fresh_lab, tmp_path):
    """The same prompts to another model are new questions, and their answers replace the pages."""
    pages = []
    for model in ("small", "large", "large"):
        with lab.configure(model=model), ContentSystem(out=tmp_path) as system:
            contents, t = lab.simulate(system.batch_generate(TOPICS))
        pages.append({path.name: path.read_bytes() for path in tmp_path.glob("why-*")})
        assert statuses(contents) == ["done"] * 3
    assert pages[0].keys() == pages[1].keys() and pages[1] == pages[2]
    assert not set(pages[0].values()) & set(pages[1].values())
    assert t.requests == 0  # nobody asks the second one twice


def test_another_prompt_leaves_an_edited_page_and_says_so(fresh_lab, asked, tmp_path):
    """The others are replaced; each run tells until the page is moved away."""
    edited = batch(tmp_path)[0].files[0]
    edited.write_text("mine")
    assert not any(content.kept for content in batch(tmp_path))  # nothing new to tell
    for _ in range(2):
        with lab.configure(model="other"), ContentSystem(out=tmp_path) as system:
            contents = lab.simulate(system.batch_generate(TOPICS))[0]
            told = summary(contents, system.journal, system.settings)
        assert [content.kept for content in contents] == [(edited,), (), ()]
        assert f"{edited} was edited" in told and edited.read_text() == "mine"
    edited.unlink()
    with lab.configure(model="other"):
        assert not any(content.kept for content in batch(tmp_path))
    assert edited.is_file()


def test_a_larger_limit_asks_nothing_that_is_whole(fresh_lab, asked, monkeypatch, tmp_path):
    """Raised for a topic that was cut off, it makes no other one be paid for twice."""
    batch(tmp_path)
    before = asked.total()
    with ContentSystem(out=tmp_path) as system:
        blog = Workflow.load("blog")
        larger = [type(step)(step.name, step.prompt, max_tokens=9000) for step in blog.steps]
        system._workflows["blog"] = Workflow(
            name="blog", about=blog.about, inputs=blog.inputs, steps=larger
        )
        assert statuses(lab.simulate(system.batch_generate(TOPICS))[0]) == ["done"] * 3
    assert asked.total() == before


def test_one_topic_in_two_forms_is_one(fresh_lab, asked, tmp_path):
    """Letters composed or not, spaces and control characters: one payment, one page."""
    forms = [unicodedata.normalize(form, "café in 한국") for form in ("NFC", "NFD")]
    contents = batch(tmp_path, [*forms, "café\x0bin\u2028한국", "\x00café in 한국\x85"])
    assert len(contents) == 1 and asked.total() == 4
    assert len(list(tmp_path.glob("*.md"))) == 1


def test_only_line_ends_end_a_topic(tmp_path):
    """Not a form feed, not Unicode's separators, and no control character."""
    file = tmp_path / "topics.txt"
    file.write_bytes("a\x0cb\u2028c\x85d\x1de\r\nf\rg\n\n#h\nf\n".encode())
    assert read_topics(file) == ["a b c d e", "f", "g", "f"]


def test_half_a_character_is_refused(fresh_lab):
    """No file could hold it, so nothing is sent."""
    with pytest.raises(ConfigError, match="whole characters"):
        batch(topics=["tides \ud83c"])


def test_a_page_whose_title_was_edited_stays_the_topics_own(fresh_lab, asked, tmp_path):
    """The journal knows it, so a new front matter makes no second page."""
    page = batch(tmp_path)[0].files[0]
    page.write_text(page.read_text().replace("title: Why tides?", "title: The moon"))
    with lab.configure(model="other"):
        contents = batch(tmp_path)
    assert contents[0].kept == (page,) and "The moon" in page.read_text()
    assert len(list(tmp_path.glob("*.md"))) == 3


def test_a_reply_without_text_is_none(fresh_lab, monkeypatch, tmp_path):
    """It is asked for three times in each of three tries, as what may pass is."""
    poison, blank = f"writer: {TOPICS[1]}", lab.Reply(" \n", 9, 1, "stop")
    asked = answering(monkeypatch, lambda agent: blank if agent == poison else None)
    assert statuses(batch(tmp_path)) == ["done", "quarantined", "done"]
    assert asked[poison] == 9 and len(list(tmp_path.glob("*.md"))) == 2


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModelError("no key", status=401, code=None, request_id=None), "no topic.*no key"),
        (
            ModelError("no 0", status=400, code=None, request_id=None, param="temperature"),
            "no topic.*no 0",
        ),
        (ReasoningExhausted("the limit is used up"), "no topic.*used up.*blog.yaml"),
        (
            ModelError("over", status=429, code=None, request_id=None, kind="insufficient_quota"),
            "no topic.*over",
        ),
    ],
)
def test_what_every_topic_would_meet_ends_a_batch(fresh_lab, monkeypatch, error, words):
    """It costs what was in flight, and no topic is blamed."""
    asked = answering(monkeypatch, lambda agent: error)
    with ContentSystem(Settings(max_concurrent_agents=1)) as system:
        contents = lab.simulate(system.batch_generate(TOPICS))[0]
        assert re.search(words, str(system.stopped)), system.stopped
    assert asked.total() == 1 and statuses(contents) == ["left"] * 3


@pytest.mark.parametrize(
    ("name", "topic"),
    [
        ("blog", "Why are there two high tides a day?"),
        ("blog", "밀물은 왜 하루에 두 번 오나요?"),
        ("comprehensive", "Why are there two high tides a day?"),
    ],
)
def test_the_articles_of_lesson_06_are_the_prepared_ones(name: str, topic: str):
    """Each step's prompt is in the file of replies: word for word, with the answers before it."""
    prepared = yaml.safe_load((DATA / "replies" / "course.yaml").read_text(encoding="utf-8"))
    replies = {entry["reply"] for entry in prepared}
    answers, _ = lab.simulate(engines.run(Workflow.load(name), {"topic": topic}))
    assert set(answers.values()) <= replies
