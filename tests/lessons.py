"""The exercises of a lesson, and the cells that they need: what a test runs in place of it all."""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
from lesson_process import printed_by

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
HEADING = re.compile(r"^### Exercise (\d+): (.+)$", re.MULTILINE)
SOLUTION = re.compile(r"<summary>Solution</summary>\s+```python\n(.+?)```", re.DOTALL)


class Exercise(NamedTuple):
    """What the learner finds: a stub, cells between (if any), a check; below it, a solution."""

    number: int
    stub: str
    between: list[str]
    check: str
    solution: str


class Lesson(NamedTuple):
    path: Path
    before: list[str]
    """The code cells before the first exercise."""
    exercises: list[Exercise]

    @classmethod
    def load(cls, path: Path) -> Lesson:
        cells = nbformat.read(path, as_version=4).cells
        before: list[str] = []
        found: list[Exercise] = []
        code = before
        for cell in cells:
            if cell.cell_type == "code":
                code.append(cell.source)
                continue
            if found and (solution := SOLUTION.search(cell.source)):
                number, stub, *between, check = found[-1].number, *code
                found[-1] = Exercise(number, stub, between, check, solution[1])
            for number in HEADING.findall(cell.source):
                code = []
                found.append(Exercise(int(number[0]), "", [], "", ""))
        return cls(path, before, found)

    def needed(self, answers: Iterable[str] = ()) -> list[str]:
        """Of the cells before, those without which the exercises and `answers` cannot run."""
        missing: set[str] = set()
        there: set[str] = set()
        for exercise in self.exercises:
            for text in (exercise.stub, *exercise.between, exercise.check):
                uses, binds = _names(text)
                missing |= uses - there
                there |= binds
        missing |= {name for text in answers for name in _names(text)[0] - there}
        return _binding(self.before, missing)

    def up_to(self, words: str) -> list[str]:
        """The cell with these words in it, after those before it without which it cannot run."""
        number = next(n for n, cell in enumerate(self.before) if words in cell)
        cell = self.before[number]
        return [*_binding(self.before[:number], _names(cell)[0]), cell]


def run(folder: Path, cells: list[str], timeout_s: float = 120) -> list[str]:
    """What each cell prints, all run in one process; a cell that fails ends the test."""
    return list(printed_by(folder, cells, timeout_s))


def _binding(cells: list[str], missing: set[str]) -> list[str]:
    """Those of the cells that bind the missing names, or a name that such a cell needs."""
    kept: list[str] = []
    for cell in reversed(cells):
        if missing & _names(cell)[1]:
            needed = _without_loops(cell, missing)
            kept.insert(0, needed)
            uses, binds = _names(needed)
            missing = missing - binds | uses
    return kept


def _without_loops(cell: str, missing: set[str]) -> str:
    """The cell without the loops at its end, which only show what it has defined."""
    lines = cell.splitlines()
    if any(line.lstrip().startswith(("%", "!")) for line in lines):
        return cell
    body = ast.parse(cell).body
    while isinstance(body[-1], ast.For) and not missing & _names(ast.unparse(body[-1]))[1]:
        del lines[body.pop().lineno - 1 :]
    return "\n".join(lines)


def _names(cell: str) -> tuple[set[str], set[str]]:
    """The names that a cell takes from elsewhere, and those that it binds for others."""
    # A magic is no Python; nothing that others need begins in such a line.
    lines = [re.sub(r"^( *)[%!].*", r"\1pass", line) for line in cell.splitlines()]
    # As a function of its own: `await` is allowed there, and what it binds is local to it.
    body = "\n".join(f"    {line}" for line in lines)
    table = symtable.symtable(f"async def cell():\n{body}\n    pass", "cell", "exec")
    top = table.get_children()[0]
    binds = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_local()}
    return set(_globals(top)), binds


def _globals(scope: symtable.SymbolTable) -> Iterator[str]:
    yield from (symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global())
    for inner in scope.get_children():
        yield from _globals(inner)
