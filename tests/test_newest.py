"""What `make newest` decides: outputs that changed, figures that moved, statements that are old."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import newest  # noqa: E402  tools/ is no package
import newest_report  # noqa: E402
from newest_report import WALL_CLOCK, Package  # noqa: E402

NAMES = ["crewai", "langchain-openai", "langgraph", "openai"]


def notebook(*texts: str, tags: tuple[str, ...] = ()) -> Any:
    """Cells that print these, one each."""
    cells = [
        new_code_cell(
            "show()",
            id=f"cell-{number}",
            metadata={"tags": [*tags], "shown": hashlib.sha256(b"show()").hexdigest()[:12]},
            execution_count=number,
            outputs=[new_output("stream", name="stdout", text=text)],
        )
        for number, text in enumerate(texts, 1)
    ]
    return new_notebook(cells=cells)


@pytest.mark.parametrize(
    ("before", "after", "pairs"),
    [
        ("it took 10 s", "it took 12 s", []),
        ("it took 10 s", "it took 12.1 s", [(10, 12.1)]),
        ("it took   10 s", "it took 9,999.5 s", [(10, 9999.5)]),
        ("0 retries of 7", "1 retries of 7", [(0, 1)]),
        ("-5 to 5", "-5 to -5", [(5, -5)]),
        ("it took 10 s", "it needed 99 s", []),
        ("LangGraph 1.2.22", "LangGraph 9.9.99", []),
        ("a\nb 10 s\nc 3", "new\na\nb 20 s\nc 3", [(10, 20)]),
    ],
)
def test_a_figure_has_moved_by_more_than_a_fifth(before: str, after: str, pairs: list[Any]):
    """Pairwise, in lines that are alike but for numbers; a version is not a number."""
    found = newest_report.moved(before.splitlines(), after.splitlines())
    assert [(figure.before, figure.after) for figure in found] == pairs


def test_a_changed_output_is_told_by_cell_with_its_lines():
    """The cell's number and id, what was there and what is; cells that are equal are not told."""
    (change,) = newest_report.changed_cells(
        "01_x", notebook("same", "kept\npeak 3"), notebook("same", "kept\npeak 4")
    )
    assert (change.number, change.cell) == (2, "cell-2")
    assert change.diff == ["-peak 3", "+peak 4"]
    assert [(figure.before, figure.after) for figure in change.moved] == [(3, 4)]


def test_what_each_run_draws_again_is_no_change():
    """Addresses of objects differ in every run."""
    before, after = notebook("<a at 0x7f00aa00>"), notebook("<a at 0x7f11bb11>")
    assert newest_report.changed_cells("01_x", before, after) == []


def test_wall_clock_changes_no_output_and_still_moves_a_figure():
    """Nothing is told of a cell of wall-clock time that is as fast as it was."""
    before = notebook("took 10 s", "took 10 s", tags=(WALL_CLOCK,))
    after = notebook("took 3 s", "took 11 s", tags=(WALL_CLOCK,))
    (change,) = newest_report.changed_cells("01_x", before, after)
    assert (change.number, change.diff, change.wall_clock) == (1, [], True)


def test_a_change_that_does_not_come_again_is_not_told():
    """It is the machine's; what is told of wall-clock time alone needs no second run."""
    (once,) = newest_report.changed_cells("01_x", notebook("3"), notebook("4"))
    clock = newest_report.Change("01_x", 7, "cell-7", [], [newest_report.Figure(1, 2, "")], True)
    assert newest_report.lasting([once, clock], []) == [clock]
    assert newest_report.lasting([once, clock], [once]) == [once, clock]


def test_statements_are_found_by_name():
    """One after the other, in prose and code; another package's name does not count."""
    text = (
        "Measured with **LangGraph** 1.2.22, CrewAI 1.15.30 and `openai==2.54`; not with "
        "openai-agents 0.9.1, langchain-openai 1.7.3 (which is one of its own), ChatOpenAI 0.75 s "
        "or openai 3."
    )
    found = [said[1:] for said in newest_report.statements("here", text, NAMES)]
    assert found == [
        ("langgraph", "1.2.22"),
        ("crewai", "1.15.30"),
        ("openai", "2.54"),
        ("langchain-openai", "1.7.3"),
    ]


@pytest.mark.parametrize(
    ("stated", "became"),
    [
        ("1.2", "current"),
        ("1.2.24", "current"),
        ("3.57", "current"),
        ("1.2.22", "old"),
        ("1.1.10", "earlier"),
        ("1.2.2", "earlier"),
    ],
)
def test_a_statement_is_as_old_as_it_is_exact(stated: str, became: str):
    """ "1.2" holds for 1.2.24, and 1.2.2 is not the beginning of 1.2.22."""
    assert newest_report.age(stated, "1.2.22", ["1.2.24", "3.57.0"]) == became


def test_who_keeps_a_version_old_is_named():
    """By what it asks for here; an extra, or another system, asks for nothing."""
    here = {
        "openai": Package("2.54.0", [], None),
        "crewai": Package("1.15.30", ["openai<3,>=2.30", 'pydantic<2.13; extra == "x"'], None),
        "pydantic": Package("2.14.4", [], None),
        "elsewhere": Package("1.0", ['openai<2; sys_platform == "nowhere"'], None),
    }
    elsewhere = {"openai": Package("3.57.0", [], None), "pydantic": Package("2.14.4", [], None)}
    assert newest_report.held_back(here, elsewhere) == {
        "openai 2.54.0 (3.57.0 elsewhere)": ["crewai 1.15.30 wants openai<3,>=2.30"]
    }


def test_who_refuses_a_python_is_named_with_its_range():
    packages = {
        "crewai": Package("1.15.30", [], "<3.14,>=3.10"),
        "nbval": Package("0.11.0", [], ">=3.7, <4"),
        "old": Package("1.0", [], None),
    }
    assert newest_report.refusing(packages, "3.14") == ["crewai 1.15.30 (`<3.14,>=3.10`)"]


def test_an_environment_asks_for_everything_but_what_it_is_without():
    """No extra of our own, CrewAI left out, openai 3 asked for beside what the project wants."""
    said = newest_report.project()
    everything = newest_report.requirements(said)
    course, openai3 = newest.NEWEST
    less = newest_report.requirements(said, openai3.without, openai3.more)
    assert newest_report.requirements(said, course.without, course.more) == everything
    assert {*everything} - {*less} == {line for line in everything if line.startswith("crewai")}
    assert less[-1] == "openai>=3"
    assert not any(line.startswith("agentlab") for line in everything)


def test_what_cannot_run_there_does_not():
    """A lesson named after the package that is missing; tests that install the lock."""
    course, openai3 = newest.NEWEST
    everywhere = {path.stem for path in newest.lessons(openai3)}
    assert {path.stem for path in newest.lessons(course)} - everywhere == {
        "03_crewai",
        "03b_crewai_failures",
    }
    assert not {"tests/test_setup.py", "tests/test_wheel.py"} & {*newest.test_files(True)}


def test_tests_that_import_a_framework_run_by_default():
    few, many = ({*newest.test_files(everything)} for everything in (False, True))
    assert few < many
    assert "tests/test_engines.py" in few
    assert "tests/test_fair.py" in many - few


def test_the_page_keeps_what_a_person_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Above the mark; below it the same runs give the same bytes."""
    page = tmp_path / "newest.md"
    page.write_text(f"By hand.\n{newest_report.BELOW}old", encoding="utf-8")
    monkeypatch.setattr(newest_report, "PAGE", page)
    versions = {"lock": "2.54.0", "course": "2.54.0", "openai3": "3.57.0"}
    for name, version in versions.items():
        (tmp_path / name).mkdir()
        facts = {"openai": [version, [], None], "crewai": ["1.0", ["openai<3"], "<3.14"]}
        (tmp_path / name / "installed.json").write_text(json.dumps(facts), encoding="utf-8")
    facts = {"date": "2026-11-29", "python": "3.11", "all_tests": False}
    facts["next_python"] = {"course": "", "openai3": "no wheel of x"}
    (tmp_path / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    written = []
    for _ in range(2):
        newest_report.write(tmp_path, ROOT / "notebooks")
        written.append(page.read_text(encoding="utf-8"))
    assert written[0] == written[1]
    assert written[0].startswith(f"By hand.\n{newest_report.BELOW}\n## Run on 2026-11-29")
    assert "| openai | 2.54.0 | 2.54.0 | 3.57.0 |" in written[0]
    assert "crewai 1.0 wants openai<3" in written[0]
    assert "refused by crewai 1.0 (`<3.14`). Each has a wheel for it." in written[0]


def test_failures_are_read_with_their_reason(tmp_path: Path):
    """Of a test, of its fixture, and of a file that cannot be imported."""
    file = tmp_path / "tests.xml"
    file.write_text(
        """<testsuites><testsuite>
        <testcase classname="" name="tests.test_a" file="tests/test_a.py"><error
         message="collection failure">Traceback:
E   ModuleNotFoundError: No module named 'x'</error></testcase>
        <testcase name="test_p[x y]" file="tests/test_b.py"><failure
         message="AssertionError: hmm&#10;assert 1 == 2">long</failure></testcase>
        <testcase name="test_good" file="tests/test_b.py"/>
        </testsuite></testsuites>""",
        encoding="utf-8",
    )
    assert newest_report.failures(file) == {
        "test_a.py::cannot be imported": "ModuleNotFoundError: No module named 'x'",
        "test_b.py::test_p[x y]": "AssertionError: hmm assert 1 == 2",
    }
    assert newest_report.tests_run(file) == 3
    assert newest_report.failures(tmp_path / "none.xml") == {}


def test_who_tried_to_leave_is_told_once(tmp_path: Path):
    """Whatever the process; no attempt is no line."""
    assert newest_report.attempts(tmp_path) == []
    line = "socket.getaddrinfo 'x.example' in process {}: post (telemetry.py:3)\n"
    (tmp_path / "attempts.txt").write_text(line.format(7) + line.format(8), encoding="utf-8")
    assert newest_report.attempts(tmp_path) == [
        "socket.getaddrinfo 'x.example': post (telemetry.py:3)"
    ]


def test_what_is_written_names_no_folder_of_a_machine():
    """Neither of this one, nor, on the page that is stored, of the one that ran it."""
    text = newest_report.neutral(f"\x1b[31m{ROOT}/agentlab/a.py and {sys.prefix}/lib/b.py\x1b[0m")
    assert text == "agentlab/a.py and lib/b.py"
    page = newest_report.PAGE.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.…/])/(?:tmp|root|home|work|usr|Users)/\S+", page) == []
