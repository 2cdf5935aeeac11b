"""Every exercise can be solved, its check says so, and a wrong answer gets a hint of its own.

Of each lesson only what its exercises need is run: the cells whose names they use, and then stub
and check once for each answer, all in one kernel.
"""

from __future__ import annotations

import pytest
import yaml
from lessons import NOTEBOOKS, Exercise, Lesson, run

LESSONS = [Lesson.load(path) for path in sorted(NOTEBOOKS.glob("*.ipynb"))]


def wrong_answers(lesson: Lesson) -> dict[int, list[dict[str, str]]]:
    """Exercise -> what a class writes, each with the words that its hint must have."""
    path = NOTEBOOKS.parent / "tests" / "wrong_answers" / f"{lesson.path.stem}.yaml"
    given: dict[int, list[dict[str, str]]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return given


def verdicts(lesson: Lesson, exercise: Exercise, answers: list[str]) -> list[str]:
    return []


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)
def test_answers_get_what_they_deserve(lesson: Lesson):
    """A stub and a wrong answer: "Not yet", its own hint, no traceback; the solution: "Solved."."""
    wrong = wrong_answers(lesson)
    assert sorted(wrong) == [exercise.number for exercise in lesson.exercises]
    cells = lesson.needed([one["answer"] for some in wrong.values() for one in some])
    checks: list[tuple[int, int, str]] = []  # exercise, cell, answer
    for exercise in lesson.exercises:
        mistakes = [one["answer"] for one in wrong[exercise.number]]
        for answer in ["", *mistakes, exercise.solution]:
            cells += [f"{exercise.stub}\n\n{answer}", *exercise.between, exercise.check]
            checks.append((exercise.number, len(cells) - 1, answer))
    said = run(lesson.path.parent, cells)
    for exercise in lesson.exercises:
        untouched, *hints, solved = [
            said[cell] for number, cell, _ in checks if number == exercise.number
        ]
        assert untouched.startswith("Not yet: ")
        assert solved == "Solved.\n"
        for one, hint in zip(wrong[exercise.number], hints, strict=True):
            assert hint.startswith("Not yet: ")
            assert [one["hint"] in other for other in hints] == [other is hint for other in hints]
