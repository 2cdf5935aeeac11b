"""How far a learner is: which exercises their saved notebooks show as solved.

What a check printed when it was last run is stored in the notebook, and is all that is read: there
is no other record that could be lost, or say something else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from agentlab.errors import ConfigError

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
    def solved(self) -> int:
        """How many of the exercises are solved."""
        return sum(exercise.standing == "solved" for exercise in self.exercises)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A folder's lessons, in the order of their names."""

    solved: int
    exercises: int
    next: str | None
    """The notebook with the first exercise that is not solved; None where all are."""
    lessons: list[Lesson]


def report(folder: Path) -> Report:
    """What the notebooks of a folder show as solved.

    Of a notebook and the copies that JupyterLab made of it (`NAME-Copy1.ipynb`) the one with the
    most exercises solved counts.

    Raises:
        ConfigError: If there is no such folder, or no notebook in it.

    Example:
        report(Path("notebooks")).solved
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
        next=next((one.notebook for one in lessons if one.solved < len(one.exercises)), None),
        lessons=lessons,
    )


def text(found: Report) -> str:
    """The report for people: a line a notebook, the total, and what to open next."""
    width = max(len(lesson.notebook) for lesson in found.lessons)
    lines = [f"{lesson.notebook:{width}}  {_line(lesson)}" for lesson in found.lessons]
    lines.append(f"{found.solved} of {found.exercises} exercises solved.")
    if found.next is not None:
        lines.append(f"Next: {found.next}, {_first_open(found)}.")
    return "\n".join(lines)


def json(found: Report) -> str:
    """The report for programs, such as a teacher's that collects a class's."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()


def _line(lesson: Lesson) -> str:
    if lesson.problem:
        return f"cannot be read: {lesson.problem}"
    if not lesson.exercises:
        return "no exercises"
    counts = Counter(exercise.standing for exercise in lesson.exercises)
    others = [f"{counts[kind]} {kind}" for kind in ("not yet", "not run") if counts[kind]]
    return "; ".join([f"{lesson.solved} of {len(lesson.exercises)} solved", *others])


def _first_open(found: Report) -> str:
    exercises = next(one.exercises for one in found.lessons if one.notebook == found.next)
    open_ = next(exercise for exercise in exercises if exercise.standing != "solved")
    return f"exercise {open_.number}: {open_.title}"


def _lesson(path: Path) -> Lesson:
    try:
        cells = msgspec.json.decode(path.read_bytes())["cells"]
        return Lesson(notebook=path.name, exercises=list(_exercises(cells)))
    except OSError as error:
        return Lesson(notebook=path.name, problem=str(error.strerror or error))
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        problem = (
            f"it is no notebook ({type(error).__name__}: {error}); restore it, or fetch it anew"
        )
        return Lesson(notebook=path.name, problem=problem)


def _exercises(cells: list[dict[str, Any]]) -> Iterator[Exercise]:
    """The exercises, each with what the cells up to the next heading have printed."""
    heading: tuple[str, str] | None = None
    printed: list[str] = []
    for cell in cells:
        if cell["cell_type"] == "code":
            printed += _printed(cell)
            continue
        if cell["cell_type"] != "markdown":
            continue
        source = _joined(cell["source"])
        for found in _HEADING.finditer(source):
            if heading is not None:
                yield _standing(*heading, printed)
            heading, printed = (found[1], found[2]), []
        if not _HEADING.search(source) and heading is not None and _SECTION.search(source):
            yield _standing(*heading, printed)
            heading = None
    if heading is not None:
        yield _standing(*heading, printed)


def _standing(number: str, title: str, printed: list[str]) -> Exercise:
    """What the last line that is a check's verdict says."""
    verdicts = [line for line in printed if line.startswith(("Solved.", "Not yet"))]
    last = verdicts[-1] if verdicts else ""
    standing: Standing = "not run"
    if last:
        standing = "solved" if last.startswith("Solved.") else "not yet"
    hint = last.removeprefix("Not yet").lstrip(": ") if standing == "not yet" else ""
    return Exercise(number=int(number), title=title, standing=standing, hint=hint)


def _printed(cell: dict[str, Any]) -> Iterator[str]:
    for output in cell.get("outputs", []):
        if output.get("name") == "stdout":
            yield from _joined(output["text"]).splitlines()


def _joined(text: str | list[str]) -> str:
    """A notebook has its texts whole or as lists of lines."""
    return text if isinstance(text, str) else "".join(text)
