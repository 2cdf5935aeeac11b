"""How far a learner is, from what the checks printed into the saved notebooks."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from lessons import NOTEBOOKS, Lesson
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from agentlab.commands import main as cli
from agentlab.errors import ConfigError

sys.path.insert(0, str(NOTEBOOKS.parent / "tools"))
import progress
from progress import lessons, text

CHECK = "with Check() as check:\n    ..."


def printed(*lines: str, source: str = CHECK):
    return new_code_cell(
        source, outputs=[new_output("stream", name="stdout", text=f"{line}\n") for line in lines]
    )


def saved(folder: Path, name: str, *cells) -> None:
    nbformat.write(new_notebook(cells=list(cells)), folder / name)


def exercise(number: int, *checks: str):
    """A heading, a stub that prints nothing, and a check that printed `checks`."""
    heading = new_markdown_cell(f"Solved above.\n\n### Exercise {number}: name {number} rivers\n\n")
    return [heading, new_code_cell("def rivers(): ..."), printed(*checks)]


def solved(folder: Path) -> list[list[bool]]:
    return [[one.solved for one in some] for some in lessons(folder).values()]


def test_a_fresh_clone_has_nothing_solved():
    """Every lesson's exercises are found, by another parser than the tests' own."""
    found = lessons(NOTEBOOKS)
    by_tests = [len(Lesson.load(NOTEBOOKS / name).exercises) for name in found]
    assert [len(some) for some in found.values()] == by_tests
    assert {e.solved for some in found.values() for e in some} == {False}
    total, following = text(found).splitlines()[-2:]
    assert total == f"0 of {sum(by_tests)} exercises solved."
    assert following.startswith("Next: 00_start_here.ipynb, exercise 1: ")


def test_each_exercise_stands_as_its_check_printed_last(tmp_path):
    """What is not yet solved, or never run, is not; other output is passed over."""
    cells = [*exercise(1, "river 1", "Solved."), *exercise(2, "Not yet: one river."), *exercise(3)]
    saved(tmp_path, "a.ipynb", *cells)
    (some,) = lessons(tmp_path).values()
    assert [one.solved for one in some] == [True, False, False]
    assert [one.title for one in some] == [f"name {n} rivers" for n in (1, 2, 3)]


def test_from_another_folder_the_courses_own_notebooks_are_read(tmp_path, monkeypatch, capsys):
    """The command works wherever it is typed."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["progress"]) == 0
    assert "00_start_here.ipynb" in capsys.readouterr().out


def test_what_a_lesson_prints_elsewhere_is_no_verdict(tmp_path):
    """Neither before the exercises nor after them: a cell that is no check gives none."""
    before, after = (printed("Solved.", source="print(verdict)") for _ in range(2))
    end = new_markdown_cell("## Key points")
    saved(tmp_path, "a.ipynb", before, *exercise(1), end, after)
    assert solved(tmp_path) == [[False]]


def test_a_cell_of_the_learners_own_does_no_harm(tmp_path):
    """Their tries stand between stub and check; what the check says comes after them."""
    heading, stub, check = exercise(1, "Not yet: one river.")
    saved(tmp_path, "a.ipynb", heading, stub, printed("Solved. I think", source="..."), check)
    assert solved(tmp_path) == [[False]]


def test_the_report_says_what_to_open_next(tmp_path):
    """A line a notebook, a total, and the first exercise that is open."""
    saved(tmp_path, "a.ipynb", *exercise(1, "Solved."))
    saved(tmp_path, "b.ipynb", *exercise(1, "Solved."), *exercise(2))
    assert text(lessons(tmp_path)).splitlines() == [
        "a.ipynb  1 of 1 solved",
        "b.ipynb  1 of 2 solved",
        "2 of 3 exercises solved.",
        "Next: b.ipynb, exercise 2: name 2 rivers.",
    ]


def test_all_solved_leaves_nothing_to_open(tmp_path):
    """No next line where there is nothing left."""
    saved(tmp_path, "a.ipynb", *exercise(1, "Solved."))
    assert text(lessons(tmp_path)).endswith("1 of 1 exercises solved.")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"cells": [{"cell_type": "markdown"}]}',
        b'{"cells": [5]}',
        b"\xff",
    ],
)
def test_a_broken_notebook_is_named(tmp_path, capsys, content):
    """A file that was cut in the middle of being saved, with the way out."""
    (tmp_path / "a.ipynb").write_bytes(content)
    saved(tmp_path, "b.ipynb", *exercise(1, "Solved."))
    assert cli.main(["progress", str(tmp_path)]) == 2
    assert "a.ipynb is no notebook" in capsys.readouterr().err


def test_a_notebook_without_exercises_counts_for_nothing(tmp_path):
    """A learner's own notes beside the lessons."""
    saved(tmp_path, "a.ipynb", printed("Solved."))
    assert text(lessons(tmp_path)).splitlines() == [
        "a.ipynb  0 of 0 solved",
        "0 of 0 exercises solved.",
    ]


def test_a_folder_without_notebooks_is_an_error(tmp_path, capsys):
    """It names the folder, and what to name in its place."""
    with pytest.raises(ConfigError, match="no notebook"):
        lessons(tmp_path)
    assert cli.main(["progress", str(tmp_path / "nowhere")]) == 2
    assert "nowhere'; name the folder" in capsys.readouterr().err


def test_lines_in_a_list_are_lines():
    """Jupyter stores texts as lists of lines; nbformat's own reader joins them."""
    cells = [
        {"cell_type": "markdown", "source": ["intro\n", "\n", "### Exercise 1: rivers\n"]},
        {
            "cell_type": "code",
            "source": CHECK.splitlines(keepends=True),
            "outputs": [{"name": "stdout", "output_type": "stream", "text": ["a\n", "Solved.\n"]}],
        },
    ]
    (one,) = progress.exercises(cells)
    assert (one.title, one.solved) == ("rivers", True)
