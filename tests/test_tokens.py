"""The token estimate: lossless, near the usual rules, and the same everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.endpoint.tokens import count_tokens, split

ENGLISH = (
    "Parallel processing means that several agents have a question in flight at one and the same "
    "time. An agent spends nearly all of its time waiting for a model, and a program that waits "
    "can just as well wait for ten answers as for one."
)
KOREAN = (
    "병렬 처리는 여러 에이전트가 동시에 질문을 보내는 방식입니다. 에이전트는 대부분의 시간을 "
    "모델을 기다리는 데 쓰므로, 기다리는 프로그램은 하나를 기다리든 열을 기다리든 같습니다."
)


@given(st.text())
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
