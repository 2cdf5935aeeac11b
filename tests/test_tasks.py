"""Tasks that a program can check: right answers computed, parts that make the whole."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest

from agentlab.errors import ConfigError
from agentlab.learning import tasks
from agentlab.learning.tasks import KINDS, draw, said, sequence

SPLIT = [kind for kind in KINDS if kind != "chain"]


def solved(prompt: str) -> str:
    """The oracle: another solver, which reads the prompt alone, as a model would."""
    question = prompt.splitlines()[0]
    numbers = [int(number) for number in re.findall(r"\d+", question)]
    if question.startswith("What is"):
        return str(eval(question.removeprefix("What is ").rstrip("?")))
    if question.startswith("Write these letters"):
        return "".join(reversed(question.split(": ")[1]))
    if question.startswith("How many"):
        return str(len([number for number in numbers[1:] if number > 50]))
    if question.startswith("Sort"):
        return ", ".join(str(number) for number in sorted(numbers))
    value = numbers[0]
    for step in re.findall(r"Double it|Add \d+", question):
        value = value * 2 if step == "Double it" else value + int(step.split()[1])
    return str(value)


@pytest.mark.parametrize("kind", KINDS)
def test_right_answers_are_right(kind):
    """Another solver, which has only the prompts, finds the same answers to whole and parts."""
    for number in range(50):
        task = draw(kind, number)
        for question in (task.whole, *task.parts):
            assert solved(question.prompt) == question.answer


@pytest.mark.parametrize("kind", KINDS)
def test_mistakes_are_wrong_and_differ(kind):
    """No mistake is the right answer, and no two mistakes are one."""
    for number in range(50):
        task = draw(kind, number)
        for question in (task.whole, *task.parts):
            assert len({question.answer, *question.mistakes}) == 4


@pytest.mark.parametrize("kind", SPLIT)
def test_right_parts_make_the_right_whole(kind):
    """Put together, the right answers to the parts are the right answer to the whole."""
    for number in range(50):
        task = draw(kind, number)
        assert task.join([part.answer for part in task.parts]) == task.whole.answer


@pytest.mark.parametrize("kind", SPLIT)
def test_one_wrong_part_spoils_the_whole(kind):
    """Whatever the mistakes, and in however many parts: they never make up for each other."""
    for number in range(10):
        task = draw(kind, number)
        said_of_each = [(part.answer, *part.mistakes) for part in task.parts]
        right = [
            texts for texts in itertools.product(*said_of_each) if task.right(task.join(texts))
        ]
        assert right == [tuple(part.answer for part in task.parts)]


def test_a_chain_cannot_be_split():
    """Its parts, right or wrong, never make the right whole: each misses what came before."""
    for number in range(50):
        task = draw("chain", number)
        said_of_each = [(part.answer, *part.mistakes) for part in task.parts]
        joined = {task.join(texts) for texts in itertools.product(*said_of_each)}
        assert task.whole.answer not in joined


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("I add.\nAnswer: 42", "42"),
        ("Answer: 41\nNo, wait.\n**answer:** 42.", "42"),
        ("Answer: 3,4 ,  5.", "3, 4, 5"),
        ("It is 42", "It is 42"),
        ("line\nlast", "last"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_what_was_said_is_found_in_many_forms(text, answer):
    """The last answer counts, however it is spaced or marked; else the last line does."""
    assert said(text) == answer


def test_an_answer_of_another_form_is_wrong():
    """Words where numbers were asked for leave nothing to put together, and are no error."""
    for kind in ("counting", "sorting", "chain"):
        task = draw(kind, 0)
        assert task.join(["1", "about two", "3"]) == ""
        assert not task.right("")


def test_all_kinds_come_about_equally_often():
    """Of 2,000 tasks each kind gets about a fifth, and numbers count through."""
    some = sequence(2000)
    assert [task.number for task in some] == list(range(2000))
    counts = Counter(task.kind for task in some)
    assert set(counts) == set(KINDS)
    assert all(340 < count < 460 for count in counts.values())


def test_another_seed_makes_other_tasks():
    """The same one makes the same."""
    assert sequence(20, seed=3) == sequence(20, seed=3) != sequence(20, seed=4)


def test_unknown_kind_is_refused():
    """A misspelt kind gets the list to choose from."""
    with pytest.raises(ConfigError, match="no kind 'sums' of tasks; choose one of arithmetic"):
        tasks.draw("sums", 0)
