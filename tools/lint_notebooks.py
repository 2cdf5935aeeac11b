"""Check what can be seen of the notebooks without running them.

    python tools/lint_notebooks.py [FILE ...]

A notebook without stored outputs passes any comparison, so outputs and execution counts must be
there. The rules of reading are those of a lesson: more prose than code, short cells, predictions,
exercises with solutions, key points. What counts English words is not asked of a Korean twin.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"

KOREAN = NOTEBOOKS / "ko"

WALL_CLOCK = "nbval-ignore-output"  # tag: this output's subject is wall-clock time
FAILS = "raises-exception"  # tag: this cell is meant to fail
PARAMETERS = "parameters"  # tag: papermill puts other values behind this cell
AGENTS = ("09_tools", "09b_sub_agents")  # they define tools, agents and graphs: more cells, longer
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
METADATA = {"kernelspec": KERNEL, "language_info": {"name": "python"}}


def lessons() -> list[Path]:
    """Every lesson of the course, and then every Korean twin."""
    return sorted(NOTEBOOKS.glob("*.ipynb")) + sorted(KOREAN.glob("*.ipynb"))


def shown_name(path: Path) -> str:
    """A notebook's name, which tells a lesson from its twin."""
    return f"ko/{path.name}" if path.parent.name == "ko" else path.name


def lint(path: Path) -> Iterator[str]:
    """Everything about the notebook that should be mended, a line each."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    name = shown_name(path)
    for what in _lint_form(path, notebook):
        yield f"{name}: {what}"
    for number, cell in enumerate(code, 1):
        for what in _lint_cell(number, cell):
            yield f"{name} code cell {number}: {what}"
    for what in _lint_reading(name, notebook.cells, code):
        yield f"{name}: {what}"


def _lint_form(path: Path, notebook: NotebookNode) -> Iterator[str]:
    if notebook.metadata != METADATA:
        yield "its metadata is not the plain kind; refresh it"
    if path.stat().st_size > 1_000_000:
        yield "over 1 MB; show less, or plot smaller"
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        yield f"no valid notebook: {error.message}"
    text = path.read_text(encoding="utf-8")
    for what, pattern in {
        "a path of somebody's machine": r"/(?:home|Users|root)/\w+|[A-Z]:\\\\Users",
        "what looks like a key": r"\bsk-\w{8,}|\blab-[\w-]{20,}",
        "a call to mermaid.ink": r"mermaid\.ink",
        "a web font or script": r"https?://(?:cdn|fonts)\.",
    }.items():
        if found := re.search(pattern, text):
            yield f"{what} ({found[0][:30]}...); take it out"


def _lint_cell(number: int, cell: NotebookNode) -> Iterator[str]:
    tags = cell.metadata.get("tags", [])
    if cell.execution_count != number:
        yield f"execution count {cell.execution_count}, not {number}; refresh it"
    if extra := set(tags) - {WALL_CLOCK, FAILS, PARAMETERS}:
        yield f"unknown tag {', '.join(sorted(extra))}; nbval would not heed it"
    if "NBVAL_" in cell.source:
        yield "an NBVAL_ comment; use the tag, which refresh heeds as well"
    failed = any(output.output_type == "error" for output in cell.outputs)
    if failed != (FAILS in tags):
        yield f"stored error: {failed}, tagged {FAILS}: {FAILS in tags}; they must agree"
    if not cell.outputs and _shows_something(cell.source):
        yield "it shows something and stores no output; refresh it"


def _shows_something(source: str) -> bool:
    """True if the last line is a plain expression or the cell prints: there must be output."""
    if re.search(r"^(?:print|display)\(", source, re.MULTILINE):
        return True
    last = source.rstrip().splitlines()[-1] if source.strip() else ""
    return bool(re.match(r"plots\.\w+\(|\)$", last)) and "plots." in source


def _lint_reading(name: str, cells: list[NotebookNode], code: list[NotebookNode]) -> Iterator[str]:
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    lines = [sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in code]
    lesson, checks = [], []  # a check is not there to be read, so prose explains the others
    for cell, length in zip(code, lines, strict=True):
        (checks if "Check() as" in cell.source else lesson).append(length)
    widest = max((len(line) for cell in code for line in cell.source.splitlines()), default=0)
    words = sum(len(source.split()) for source in prose)
    everything = "\n".join(prose)
    predictions = everything.count("**Predict") + everything.count("**예측")
    ignored = sum(WALL_CLOCK in cell.metadata.get("tags", []) for cell in code)
    korean = name.startswith("ko/")
    short_name = name.removeprefix("ko/").removesuffix(".ipynb")
    least = 12 if short_name.startswith("00_") else 25
    of_agents = short_name in AGENTS
    most, median = (59, 5) if of_agents else (55, 4)
    rules = {
        f"{len(cells)} cells; {least} to {most} make a lesson": least <= len(cells) <= most,
        "fewer markdown cells than code cells": len(prose) >= len(code) - 3 * of_agents,
        f"code cells of more than {median} lines at the median": statistics.median(lines) <= median,
        "more than one code cell of over 13 lines": sum(n > 13 for n in lesson) <= 1,
        "a code cell of more than 14 lines; split it": max(lesson, default=0) <= 14,
        "a check of more than 15 lines; make fewer claims": max(checks, default=0) <= 15,
        f"a line of code of {widest} characters; 79 fit on a projector": widest <= 79,
        "less than ten words of prose for a line of code": korean or words >= 10 * sum(lesson),
        "fewer than two predictions": predictions >= 2,
        "fewer than two exercises with a solution": everything.count("<details>") >= 2,
        "an exercise lacks its check, hint or solution": _exercises_are_whole(cells),
        "no key points": bool(re.search("^## (Key points|핵심 정리)", everything, re.MULTILINE)),
        "no title": prose[0].startswith("# ") if prose else False,
        f"{ignored} of {len(code)} cells are not compared": ignored * 3 <= len(code),
    }
    yield from (what for what, kept in rules.items() if not kept)


def _exercises_are_whole(cells: list[NotebookNode]) -> bool:
    """True if each "### Exercise n: title" is followed by a check, and by a hint and a solution.

    In a Korean lesson it is "### 연습 문제 n: title".
    """
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    _, *exercises = re.split(r"^### (?:Exercise|연습 문제) \d+: .", prose, flags=re.MULTILINE)
    checks = sum("Check() as" in cell.source for cell in cells if cell.cell_type == "code")
    hint = re.compile(r"\*Hint\.\*|\*힌트\.\*|<summary>(Hint|힌트)</summary>")
    solution = re.compile("<summary>(Solution|풀이)</summary>")
    told = all(hint.search(one) and solution.search(one) for one in exercises)
    return told and checks == len(exercises)


def main(arguments: list[str]) -> int:
    paths = [Path(argument) for argument in arguments] or lessons()
    findings = [finding for path in paths for finding in lint(path)]
    print("\n".join(findings) or f"{len(paths)} notebooks: nothing to mend")
    return 1 if findings or not paths else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
