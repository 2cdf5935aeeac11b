"""Every exercise can be solved, and its check sees that the solution is one."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SOLUTION = re.compile(r"<summary>Solution</summary>\s+```python\n(.+?)```", re.DOTALL)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_solutions_pass(path):
    """With the solution written below the stub, as a learner would, each check says Solved."""
    notebook = nbformat.read(path, as_version=4)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    solutions = SOLUTION.findall(prose)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    checks = [number for number, cell in enumerate(code) if '"Solved."' in cell.source]
    assert len(checks) == len(solutions) >= 2
    for number, solution in zip(checks, solutions, strict=True):
        assert "Not yet" in str(code[number].outputs)
        code[number - 1].source += f"\n\n{solution}"
    options = {
        "timeout": 120,
        "kernel_name": "python3",
        "resources": {"metadata": {"path": str(path.parent)}},
        "extra_arguments": ["--log-level=ERROR"],
    }
    NotebookClient(notebook, **options).execute()
    for number in checks:
        assert [output.text for output in code[number].outputs] == ["Solved.\n"]
