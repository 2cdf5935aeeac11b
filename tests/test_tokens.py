"""The token estimate: lossless, near the usual rules, and the same everywhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.clock import run_virtual
from agentlab.endpoint.contract import tokens
from agentlab.endpoint.contract.tokens import A_TURN, count_all, count_tokens, first_pieces, split
from agentlab.settings import DATA

T = TypeVar("T")

ENGLISH = (
    "Parallel processing means that several agents have a question in flight at one and the same "
    "time. An agent spends nearly all of its time waiting for a model, and a program that waits "
    "can just as well wait for ten answers as for one."
)
KOREAN = (
    "병렬 처리는 여러 에이전트가 동시에 질문을 보내는 방식입니다. 에이전트는 대부분의 시간을 "
    "모델을 기다리는 데 쓰므로, 기다리는 프로그램은 하나를 기다리든 열을 기다리든 같습니다."
)


KINDS = yaml.safe_load(Path(__file__).with_name("o200k.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_text_has_about_as_many_tokens_as_with_o200k(kind: str):
    """Within 15% over all texts of the kind."""
    counted = sum(count_tokens(each["text"]) for each in KINDS[kind])
    theirs = sum(each["o200k"] for each in KINDS[kind])
    assert counted / theirs == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("language", ["english", "korean"])
def test_prose_of_the_course_is_split_by_letters_and_syllables_alone(language: str):
    """The times that lessons predict rest on it: 8 letters, 2 syllables, or a mark of its own."""
    phrases = yaml.safe_load((DATA / "replies" / f"{language}.yaml").read_text(encoding="utf-8"))
    simple = re.compile(r" ?[A-Za-z]{1,8}| ?[가-힣]{1,2}| ?[^\w\s]|\S")
    for phrase in [*phrases["sentences"], *phrases["aspects"]]:
        said = re.sub(r"\{\w+\}", "tides", phrase)
        assert list(split(said)) == simple.findall(said)


@pytest.mark.parametrize("prose", [ENGLISH, KOREAN, ENGLISH + " Café, naïve, Œuvre, Müller."])
def test_a_foreign_name_changes_only_the_words_before_it(prose: str):
    """A text in another language stays what it is, but for some sixty letters at most."""
    pieces, with_name = split(prose), split(f"{prose} {'. ' * 40} Wałęsa")
    assert with_name[: len(pieces) - 1] == pieces[:-1]
    assert split(f"Σ {prose}")[1:] == split(f"- {prose}")[1:]


@settings(max_examples=40)
@given(st.text(max_size=200))
def test_the_pieces_are_the_text(text: str):
    """Joined, they give back any text whatever, and there are as many as are counted."""
    assert "".join(split(text)) == text
    assert len(split(text)) == count_tokens(text)


def test_no_piece_is_empty():
    """Each stands for a token."""
    assert all(split(ENGLISH + KOREAN + "\n\n  _a__b 12345 {}"))


def test_plain_english_has_a_little_more_than_a_token_a_word():
    """Between 1.05 and 1.35, punctuation included."""
    assert 1.05 < count_tokens(ENGLISH) / len(ENGLISH.split()) < 1.35


def test_korean_has_a_token_for_one_and_a_half_to_two_syllables():
    """Punctuation aside."""
    syllables = sum("가" <= letter <= "힣" for letter in KOREAN)
    assert 1.4 < syllables / count_tokens(KOREAN.replace(".", "").replace(",", "")) < 2.0


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("2026", 2), ("\n\n", 1), ("?!", 2)]
)
def test_small_texts(text: str, tokens: int):
    """Nothing, a letter, four digits, line breaks, two marks."""
    assert count_tokens(text) == tokens


TOKENS_ALIKE = st.text(st.sampled_from("aZé가힣07 \t\n__.,!\u2028\x00\U0001f40c"), max_size=60)


@settings(max_examples=50)
@given(st.lists(TOKENS_ALIKE, max_size=4))
def test_what_is_counted_in_turns_is_the_same(texts: list[str]):
    """Short and long texts together, added up."""
    texts = [(text * 20_000)[:40_000] for text in texts[:1]] + texts
    assert run_virtual(count_all(texts)).result == sum(map(count_tokens, texts))


@given(TOKENS_ALIKE, st.integers(0, 50))
def test_the_first_pieces_are_those_of_the_whole(text: str, many: int):
    """Of long texts, too."""
    for whole in (text, text * 500):
        assert first_pieces(whole, many) == list(split(whole)[:many])


async def turns_during(work: Awaitable[T]) -> tuple[T, int]:
    """What `work` returns, and how often the event loop turned meanwhile."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    result = await work
    counting.cancel()
    return result, turns


@pytest.mark.parametrize("text", ["a b ", "word", "가", "中", " ", "\n", "!", "_", '"),'])
def test_a_long_text_keeps_nobody_waiting(text: str):
    """Of a million characters no more than 4,000 tokens are counted in one turn of the loop."""
    long = text * (1_000_000 // len(text))
    counted, turns = run_virtual(turns_during(count_all([long]))).result
    assert counted == count_tokens(long)
    assert turns >= counted // A_TURN


def test_many_short_texts_keep_nobody_waiting():
    """What is split in one turn is counted over all texts."""
    _, turns = run_virtual(turns_during(count_all(["one two three"] * 50_000))).result
    assert turns >= 50_000 * 3 // A_TURN


def test_short_texts_take_no_turn():
    """In virtual time nothing changes for the requests of a lesson."""
    _, turns = run_virtual(turns_during(count_all(["one two three"] * 100))).result
    assert turns == 0


@settings(max_examples=200)
@given(st.text(st.characters(max_codepoint=127), max_size=200))
def test_ascii_text_is_split_as_any_other(text: str):
    """The shorter pattern for it gives the pieces that the whole one gives."""
    assert list(split(text)) == tokens._RE.piece.findall(text)
