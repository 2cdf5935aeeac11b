"""`agentlab progress`: which exercises a learner's saved notebooks show as solved.

What a check printed when it was last run is stored in the notebook, and is all that is read.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from agentlab.errors import ConfigError
from agentlab.settings import DATA

DESCRIPTION = "Read from the saved notebooks which exercises are solved, and what is next."

_HEADING = re.compile(r"^#{2,4} Exercise (\d+)\b:?[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_SECTION = re.compile(r"^#{1,2} (?!Exercise )", re.MULTILINE)
_END = {"cell_type": "markdown", "source": "# The end"}


class Exercise(NamedTuple):
    """One exercise; it stands as "solved", "not yet" or "not run"."""

    number: int
    title: str
    standing: str = "not run"


class Lesson(NamedTuple):
    """One notebook's exercises; where it cannot be read, `problem` says why."""

    notebook: str
    exercises: list[Exercise]
    problem: str = ""

    @property
    def solved(self) -> int:
        """How many of them are solved."""
        return sum(exercise.standing == "solved" for exercise in self.exercises)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "folder", nargs="?", type=Path, help="default: notebooks, here or where the course lies"
    )


def run(options: argparse.Namespace) -> int:
    """Report; return 1 if a notebook cannot be read."""
    here, course = Path("notebooks"), DATA.parent / "notebooks"
    found = lessons(options.folder or (here if here.is_dir() else course))
    print(text(found))
    return 1 if any(lesson.problem for lesson in found) else 0


def lessons(folder: Path) -> list[Lesson]:
    """Read what a folder's notebooks show as solved; a ConfigError, if there are none."""
    found = [_lesson(path) for path in sorted(folder.glob("*.ipynb"))]
    if not found:
        raise ConfigError(
            f"no notebook (.ipynb) in {str(folder)!r}; name the folder where the lessons are"
        )
    return found


def text(found: list[Lesson]) -> str:
    """Write for people: a line per notebook, the total, and what to open next."""
    width = max(len(lesson.notebook) for lesson in found)
    lines = []
    for lesson in found:
        counts = Counter(exercise.standing for exercise in lesson.exercises)
        others = [f"; {counts[kind]} {kind}" for kind in ("not yet", "not run") if counts[kind]]
        line = f"{lesson.solved} of {len(lesson.exercises)} solved{''.join(others)}"
        if not lesson.exercises:
            line = f"cannot be read: {lesson.problem}" if lesson.problem else "no exercises"
        lines.append(f"{lesson.notebook:{width}}  {line}")
    many = sum(len(lesson.exercises) for lesson in found)
    lines.append(f"{sum(lesson.solved for lesson in found)} of {many} exercises solved.")
    lines += [
        f"Next: {lesson.notebook}, exercise {exercise.number}: {exercise.title}."
        for lesson in found
        for exercise in lesson.exercises
        if exercise.standing != "solved"
    ][:1]
    return "\n".join(lines)


def _lesson(path: Path) -> Lesson:
    try:
        return Lesson(path.name, list(_exercises(json.loads(path.read_bytes())["cells"])))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        said = f"{type(error).__name__}: {error}"
        return Lesson(path.name, [], f"it is no notebook ({said}); restore it, or fetch it again")


def _exercises(cells: list[dict[str, Any]]) -> Iterator[Exercise]:
    """Yield the exercises, each as the cells up to the next heading have left it."""
    exercise: Exercise | None = None
    for cell in [*cells, _END]:
        if cell["cell_type"] == "code" and exercise is not None:
            exercise = exercise._replace(standing=_verdict(cell) or exercise.standing)
        elif cell["cell_type"] == "markdown":
            source = "".join(cell["source"])  # a text is whole, or a list of lines
            found = [Exercise(int(number), title) for number, title in _HEADING.findall(source)]
            if found or _SECTION.search(source):
                if exercise is not None:
                    yield exercise
                yield from found[:-1]
                exercise = found[-1] if found else None


def _verdict(cell: dict[str, Any]) -> str | None:
    """Return what the last check in a cell said; None if there was none."""
    outputs = [output for output in cell.get("outputs", []) if output.get("name") == "stdout"]
    lines = "\n".join("".join(output["text"]) for output in outputs).splitlines()
    verdicts = [line for line in lines if line.startswith(("Solved.", "Not yet"))]
    return ("solved" if verdicts[-1].startswith("Solved.") else "not yet") if verdicts else None
