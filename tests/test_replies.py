"""What the local model says: the form and language asked for, and no sentence twice."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys

import pytest

from agentlab.endpoint.answers._prompt import read
from agentlab.endpoint.answers.replies import Replies
from agentlab.endpoint.contract.tokens import count_tokens
from agentlab.settings import DATA

REPLIES = Replies(DATA / "replies")

REPORT = """Write one report from these results.

Research:
# Notes on tides
## Currents
- strong

Answer in this format:
# Final report

## Summary
## Main findings
## Conclusion
"""
BULLETS = """Research the following topic in depth: tidal power

Answer in this format:
- Key concepts
- Main features
- Use cases
"""
NUMBERED = """Conduct research on tidal power:
1. Current state
2. Key tools
3. Costs

Provide detailed findings.
"""
SHAPE = """Analyse the market for tidal power. Answer in JSON:
{
    "size": "how large",
    "growth": 0.5,
    "players": ["one", "two", "three"],
    "open": true,
    "detail": {"years": 3}
}"""
KOREAN = """다음 주제에 대해 연구하세요: 조력 발전
다음 형식으로 응답하세요:
- 핵심 개념
- 주요 특징
"""


def reply(prompt: str, seed: int = 1) -> str:
    return (
        REPLIES.prepared(prompt) or REPLIES.writer(prompt, random.Random(seed), (), False).write()
    )


def sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])\\s+", text) if part]


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("Say hello and tell me in one sentence what you are.", 31),
        ("Research: what is parallel processing for AI agents?", 91),
        ("Analyse: where does a workflow of agents lose time?", 141),
        ("Write: a short note that makes the case for parallel agents.", 111),
    ],
)
def test_prepared_answers_have_the_length_that_lessons_count_on(prompt: str, tokens: int):
    """91, 141 and 111 tokens: 10, 15 and 12 s on the course preset."""
    assert count_tokens(reply(prompt)) == tokens


def test_a_prepared_answer_does_not_depend_on_chance_or_white_space():
    """Whatever the draw, and however the prompt is broken into lines."""
    prompt = "Research: what is parallel processing for AI agents?"
    assert reply(prompt, seed=2) == reply(prompt.replace(" ", "\n  "), seed=3)


def test_headings_come_in_the_order_asked_for_each_with_text():
    """The four headings of the report, and none of those that were given."""
    answer = reply(REPORT)
    titles = re.findall(r"^#+ (.+)$", answer, re.MULTILINE)
    assert titles == ["Final report", "Summary", "Main findings", "Conclusion"]
    assert all(len(body.split()) > 10 for body in re.split(r"^## .+$", answer, flags=re.M)[1:])


def test_a_summary_names_what_it_was_given():
    """Earlier results are not ignored."""
    assert "Notes on tides, Currents" in reply(REPORT)


def test_bullets_come_in_the_order_asked_for():
    """One line for each item, with a sentence."""
    lines = reply(BULLETS).splitlines()
    titles = [re.match(r"- \*\*(.+)\*\*: .{20,}", line) for line in lines]
    assert [t and t[1] for t in titles] == ["Key concepts", "Main features", "Use cases"]


def test_numbered_aspects_stay_numbered():
    """1 to 3, in order."""
    lines = reply(NUMBERED).splitlines()
    assert [line.split("**")[:2] for line in lines] == [
        ["1. ", "Current state"],
        ["2. ", "Key tools"],
        ["3. ", "Costs"],
    ]


def test_json_has_the_shape_that_was_shown():
    """The same keys, the same types, lists as long, and nothing beside the JSON."""
    answer = json.loads(reply(SHAPE))
    assert list(answer) == ["size", "growth", "players", "open", "detail"]
    assert [type(answer[key]) for key in answer] == [str, float, list, bool, dict]
    assert (len(answer["players"]), type(answer["detail"]["years"])) == (3, int)


@pytest.mark.parametrize(
    "prompt",
    [
        'Answer in JSON: {{"title": "x", "risks": ["y"]}}',
        'Answer in JSON: {"title": ..., "risks": [ ... ] }  // both are needed',
        "Return JSON with the keys title and risks about the launch.",
    ],
)
def test_json_that_is_only_sketched_is_valid_all_the_same(prompt: str):
    """Doubled braces, an unfinished example, or named keys."""
    assert list(json.loads(reply(prompt))) == ["title", "risks"]


def test_a_korean_prompt_is_answered_in_korean():
    """Items and sentences; hardly a Latin letter."""
    answer = reply(KOREAN)
    assert answer.startswith("- **핵심 개념**: ")
    assert len(re.findall("[가-힣]", answer)) > 10 * len(re.findall("[A-Za-z]", answer))


@pytest.mark.parametrize(
    ("prompt", "count", "unit"),
    [
        ("Describe tides in one sentence.", 1, r"[.!?](?:\s|$)"),
        ("Describe tides in three short sentences.", 3, r"[.!?](?:\s|$)"),
        ("Explain tides in 4 bullets.", 4, r"^- "),
        ("Write two paragraphs about tides.", 2, r"(?:^|\n\n)\S"),
        ("조수를 두 문장으로 설명하세요.", 2, r"[.](?:\s|$)"),
        ("조수에 대해 3개 항목으로 쓰세요.", 3, r"^- "),
    ],
)
def test_a_length_asked_for_is_kept(prompt: str, count: int, unit: str):
    """Sentences, bullets and paragraphs are counted exactly."""
    assert len(re.findall(unit, reply(prompt), re.MULTILINE)) == count


@pytest.mark.parametrize("words", [40, 120, 250])
def test_a_number_of_words_is_kept_to_the_nearest_sentence(words: int):
    """For ten different draws."""
    for seed in range(10):
        answer = reply(f"Write about {words} words about tidal power.", seed)
        assert abs(len(answer.split()) - words) <= 10


@pytest.mark.parametrize("prompt", ["Write 300 words about tides.", REPORT, NUMBERED, BULLETS])
def test_no_sentence_is_said_twice(prompt: str):
    """The bank runs dry before it repeats."""
    for seed in range(20):
        said = re.findall(r"[^.:\n]{15,}\.", reply(prompt, seed))
        assert len(said) == len(set(said)) > 0


@pytest.mark.parametrize(
    ("prompt", "topic"),
    [
        ("Name three rivers.", "three rivers"),
        ("Describe tides in two sentences.", "tides"),
        ("Write about 120 words about rate limits.", "rate limits"),
        ("Get the orders of Ana", "the orders of Ana"),
        ("Topic: tidal power\nWrite a report.", "tidal power"),
        ("조력 발전에 대해 쓰세요.", "조력 발전"),
        ("Who was Ada? Answer in JSON with the keys name and born.", "Who was Ada"),
    ],
)
def test_the_topic_is_a_phrase_of_the_prompt(prompt: str, topic: str):
    """And never the whole prompt."""
    assert read(prompt).topic == topic


@pytest.mark.parametrize("prompt", ["", " ", "{", "#", "- ", "?", "{}", "a" * 10_000, "1 words"])
def test_any_prompt_gets_an_answer(prompt: str):
    """However odd."""
    assert reply(prompt)


def test_answers_are_the_same_in_another_process():
    """With another hash seed: only the draw decides."""
    code = (
        "import random; from agentlab.endpoint.answers.replies import Replies; "
        "from agentlab.settings import DATA; "
        "print(Replies(DATA / 'replies').writer(%r, random.Random(9), (), False).write(), end='')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code % REPORT], env={"PYTHONHASHSEED": "12"}, capture_output=True
    )
    assert ran.stdout.decode() == reply(REPORT, seed=9)
