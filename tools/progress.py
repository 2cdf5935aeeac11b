"""`agentlab progress`: which exercises a learner's saved notebooks show as solved.

What a check printed when it was last run is stored in the notebook, and is all that is read. The
wheel has this file, too.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from agentlab.errors import ConfigError
from agentlab.settings import DATA

_HEADING = re.compile(r"^#{2,4} (?:Exercise|연습 문제) (\d+)\b:?[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_VERDICT = re.compile(r"^(?:(Solved\.|풀었습니다\.)|Not yet|아직입니다)", re.MULTILINE)


class Exercise(NamedTuple):
    """One exercise, and whether its check said so when it was last run."""

    number: int
    title: str
    solved: bool = False


def run(options: argparse.Namespace) -> int:
    """Report; return 0."""
    here, course = Path("notebooks"), DATA.parent / "notebooks"
    print(text(lessons(Path(options.folder or (here if here.is_dir() else course)))))
    return 0


def lessons(folder: Path) -> dict[str, list[Exercise]]:
    """Return notebook -> its exercises, or its Korean twin's, if more are solved in that.

    It is a ConfigError if there is none, or one is broken.
    """
    found = dict[str, list[Exercise]]()
    for path in sorted([*folder.glob("*.ipynb"), *folder.glob("ko/*.ipynb")], key=lambda p: p.name):
        try:
            some = exercises(json.loads(path.read_bytes())["cells"])
            before = found.get(path.name, some)
            found[path.name] = max(before, some, key=lambda these: sum(e.solved for e in these))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            broken = f"{path} is no notebook ({type(error).__name__}: {error})"
            raise ConfigError(f"{broken}; restore it, or fetch it again") from None
    if not found:
        raise ConfigError(f"no notebook in {str(folder)!r}; name the folder where the lessons are")
    return found


def text(found: dict[str, list[Exercise]]) -> str:
    """Write for people: a line per notebook, the total, and what to open next."""
    width = max(map(len, found))
    lines, left, every = [], list[str](), 0
    for name, some in found.items():
        open_ones = [exercise for exercise in some if not exercise.solved]
        left += [f"Next: {name}, exercise {e.number}: {e.title}." for e in open_ones]
        every += len(some)
        lines.append(f"{name:{width}}  {len(some) - len(open_ones)} of {len(some)} solved")
    lines.append(f"{every - len(left)} of {every} exercises solved.")
    return "\n".join([*lines, *left[:1]])


def exercises(cells: list[dict[str, Any]]) -> list[Exercise]:
    """Return the exercises, each as its check has left it when it was last run."""
    found: list[Exercise] = []
    for cell in cells:
        source = "".join(cell["source"])  # a text is whole, or a list of lines
        if cell["cell_type"] == "markdown":
            found += [Exercise(int(n), title) for n, title in _HEADING.findall(source)]
        elif found and "Check() as" in source:
            outputs = [o for o in cell.get("outputs", []) if o.get("name") == "stdout"]
            printed = "\n".join("".join(output["text"]) for output in outputs)
            if verdicts := _VERDICT.findall(printed):
                found[-1] = found[-1]._replace(solved=bool(verdicts[-1]))
    return found
