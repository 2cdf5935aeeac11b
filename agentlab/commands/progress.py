"""`agentlab progress`: which exercises a learner's saved notebooks show as solved.

What a check printed when it was last run is stored in the notebook, and is all that is read: there
is no other record that could be lost, or say something else.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from agentlab.errors import ConfigError
from agentlab.settings import DATA

DESCRIPTION = "Read from the saved notebooks which exercises are solved, and what is next."

Standing = Literal["solved", "not yet", "not run"]

_HEADING = re.compile(r"^#{2,4} Exercise (\d+)\b:?[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_SECTION = re.compile(r"^#{1,2} (?!Exercise )", re.MULTILINE)


class Exercise(msgspec.Struct, frozen=True, kw_only=True):
    """One exercise: its number and title, how it stands, and the hint that was given last."""

    number: int
    title: str
    standing: Standing
    hint: str = ""


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """One notebook's exercises; where it cannot be read, `problem` says why."""

    notebook: str
    exercises: list[Exercise] = []
    problem: str = ""

    @property
    def open(self) -> list[Exercise]:
        """The exercises that are not solved."""
        return [exercise for exercise in self.exercises if exercise.standing != "solved"]

    @property
    def solved(self) -> int:
        """How many of the exercises are solved."""
        return len(self.exercises) - len(self.open)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A folder's lessons, in the order of their names.

    Attributes:
        next: The notebook with the first exercise that is not solved; None where all are.
    """

    solved: int
    exercises: int
    next: str | None
    lessons: list[Lesson]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "folder", nargs="?", type=Path, help="default: notebooks, here or where the course lies"
    )
    parser.add_argument("--json", action="store_true", help="for a program to read")


def run(options: argparse.Namespace) -> int:
    """Report; return 1 if a notebook cannot be read."""
    here, course = Path("notebooks"), DATA.parent / "notebooks"
    found = report(options.folder or (here if here.is_dir() else course))
    if options.json:  # such as a teacher's program, which collects a class's
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        print(text(found))
    return 1 if any(lesson.problem for lesson in found.lessons) else 0


def report(folder: Path) -> Report:
    """Read what the notebooks of a folder show as solved.

    Of a notebook and the copies that JupyterLab made of it (`NAME-Copy1.ipynb`) the one with the
    most exercises solved counts.

    Raises:
        ConfigError: If there is no such folder, or no notebook in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"no folder {str(folder)!r}; name the one where the notebooks are")
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise ConfigError(
            f"no notebook (.ipynb) in {str(folder)!r}; name the folder where the lessons are"
        )
    copies: dict[str, list[Lesson]] = {}
    for path in paths:
        copies.setdefault(re.sub(r"-Copy\d+$", "", path.stem), []).append(_lesson(path))
    lessons = [max(group, key=lambda lesson: lesson.solved) for _, group in sorted(copies.items())]
    return Report(
        solved=sum(lesson.solved for lesson in lessons),
        exercises=sum(len(lesson.exercises) for lesson in lessons),
        next=next((lesson.notebook for lesson in lessons if lesson.open), None),
        lessons=lessons,
    )


def text(found: Report) -> str:
    """Write the report for people: a line per notebook, the total, and what to open next."""
    width = max(len(lesson.notebook) for lesson in found.lessons)
    lines = []
    for lesson in found.lessons:
        counts = Counter(exercise.standing for exercise in lesson.exercises)
        others = [f"; {counts[kind]} {kind}" for kind in ("not yet", "not run") if counts[kind]]
        line = f"{lesson.solved} of {len(lesson.exercises)} solved{''.join(others)}"
        if not lesson.exercises:
            line = f"cannot be read: {lesson.problem}" if lesson.problem else "no exercises"
        lines.append(f"{lesson.notebook:{width}}  {line}")
    lines.append(f"{found.solved} of {found.exercises} exercises solved.")
    for lesson in found.lessons:
        if lesson.open:
            first = lesson.open[0]
            lines.append(f"Next: {lesson.notebook}, exercise {first.number}: {first.title}.")
            break
    return "\n".join(lines)


def _lesson(path: Path) -> Lesson:
    try:
        cells = msgspec.json.decode(path.read_bytes())["cells"]
        return Lesson(notebook=path.name, exercises=list(_exercises(cells)))
    except OSError as error:
        return Lesson(notebook=path.name, problem=str(error.strerror or error))
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        problem = f"it is no notebook ({said}); restore it, or fetch it again"
        return Lesson(notebook=path.name, problem=problem)


def _exercises(cells: list[dict[str, Any]]) -> Iterator[Exercise]:
    """Yield the exercises, each with what the cells up to the next heading have printed."""
    heading: re.Match[str] | None = None
    printed: list[str] = []
    for cell in [*cells, {"cell_type": "markdown", "source": "# The end"}]:
        if cell["cell_type"] == "code":
            for output in cell.get("outputs", []):
                if output.get("name") == "stdout":
                    printed += "".join(output["text"]).splitlines()
        elif cell["cell_type"] == "markdown":
            source = "".join(cell["source"])  # a text is whole, or a list of lines
            found: list[re.Match[str] | None] = list(_HEADING.finditer(source))
            if not found and _SECTION.search(source):
                found = [None]
            for following in found:
                if heading is not None:
                    yield _exercise(heading, printed)
                heading, printed = following, []


def _exercise(heading: re.Match[str], printed: list[str]) -> Exercise:
    """Read how an exercise stands from the last line that is a check's verdict."""
    verdicts = [line for line in printed if line.startswith(("Solved.", "Not yet"))]
    last = verdicts[-1] if verdicts else ""
    standing: Standing = "not run"
    if last:
        standing = "solved" if last.startswith("Solved.") else "not yet"
    hint = last.removeprefix("Not yet").lstrip(": ") if standing == "not yet" else ""
    return Exercise(number=int(heading[1]), title=heading[2], standing=standing, hint=hint)
