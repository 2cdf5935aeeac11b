"""The notebooks' lint and refresh, with negative controls: no defect slips by."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import lint_notebooks  # noqa: E402  tools/ is no package
import refresh_notebooks  # noqa: E402

GOOD = ROOT / "notebooks" / "01_sequential.ipynb"


def printed(text: str) -> Any:
    return new_output("stream", name="stdout", text=text)


def picture(height: float) -> Any:
    figure, axis = plt.subplots(figsize=(1, 1))
    axis.bar([0], [height])
    axis.set_ylim(0, 1)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    plt.close(figure)
    return new_output("display_data", {"image/png": base64.b64encode(data.getvalue()).decode()})


def changed(tmp_path: Path, change: Callable[[Any], object]) -> list[str]:
    """What lint finds in a good lesson after `change`, which is given its code cells."""
    notebook = nbformat.read(GOOD, as_version=4)
    change([cell for cell in notebook.cells if cell.cell_type == "code"])
    path = tmp_path / "01_changed.ipynb"
    nbformat.write(notebook, path)
    return list(lint_notebooks.lint(path))


def strip(cells: list[Any]) -> None:
    for cell in cells:
        cell.execution_count, cell.outputs = None, []


def test_the_lessons_as_they_stand_have_nothing_to_mend(tmp_path: Path):
    """And so the findings below come from the changes."""
    assert changed(tmp_path, lambda cells: None) == []


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (strip, "execution count None, not 1"),
        (lambda cells: cells[3].update(execution_count=9), "execution count 9, not 4"),
        (lambda cells: cells[2].update(outputs=[]), "stores no output"),
        (lambda cells: cells[2].metadata.update(tags=["raises-exception"]), "they must agree"),
        (lambda cells: cells[2].metadata.update(tags=["nbval-ignore"]), "unknown tag"),
        (lambda cells: cells[2].update(source="# NBVAL_SKIP\n1"), "NBVAL_ comment"),
        (lambda cells: cells[2].update(source="x = 1\n" * 15), "more than 14 lines"),
        (lambda cells: cells[2].update(source="x" * 80), "80 characters"),
        (lambda cells: cells[-1].update(source="1"), "an exercise lacks its check"),
        (lambda cells: cells[-1].update(source="Check() as x\n" * 16), "more than 15 lines"),
        (lambda cells: cells[2].outputs.append(printed("/home/anna/x")), "somebody's machine"),
        (lambda cells: cells[2].outputs.append(printed("sk-abcdefgh1234")), "like a key"),
    ],
)
def test_each_defect_is_found(change: Callable[[Any], object], finding: str, tmp_path: Path):
    """Stripped, out of order, without its output, mistagged, too long, or telling too much."""
    assert any(finding in line for line in changed(tmp_path, change))


def test_a_lesson_has_55_cells_at_most(tmp_path: Path):
    """One more of prose is too many where there are 55."""
    notebook = nbformat.read(GOOD, as_version=4)
    notebook.cells += [new_markdown_cell("More.") for _ in range(56 - len(notebook.cells))]
    nbformat.write(notebook, tmp_path / "01_long.ipynb")
    assert any("56 cells" in line for line in lint_notebooks.lint(tmp_path / "01_long.ipynb"))


def test_a_notebook_without_prose_is_no_lesson(tmp_path: Path):
    """Too short, no predictions, no exercises, no key points."""
    notebook = new_notebook(cells=[new_markdown_cell("# T"), new_code_cell("x = 1")])
    notebook.cells[1].execution_count = 1
    notebook.metadata.update(lint_notebooks.METADATA)
    path = tmp_path / "01_bare.ipynb"
    nbformat.write(notebook, path)
    found = "\n".join(lint_notebooks.lint(path))
    for words in ("2 cells", "predictions", "exercises", "key points", "words of prose"):
        assert words in found


def test_pictures_are_compared_by_what_they_show():
    """The same bar is the same, though its bytes may differ; another bar is not."""
    assert refresh_notebooks.same([picture(0.5)], [picture(0.5)])
    assert not refresh_notebooks.same([picture(0.5)], [picture(0.9)])


def test_texts_are_compared_after_sanitizing():
    """An address in memory does not matter; a number does."""
    assert refresh_notebooks.same([printed("at 0x7f00aa11bb")], [printed("at 0x7f99cc22dd")])
    assert not refresh_notebooks.same([printed("3 in flight")], [printed("4 in flight")])


def notebook_with(path: Path, *cells: Any) -> Path:
    notebook = new_notebook(cells=list(cells))
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    notebook.metadata.update(lint_notebooks.METADATA)
    nbformat.write(notebook, path)
    return path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    path = os.pathsep.join(filter(None, ["tools", os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def compared(path: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """What nbval says of a notebook, with these options besides its own."""
    return run("-m", "pytest", "-p", "nbval", "--nbval", "--nbval-current-env", *options, path)


def refresh(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run("tools/refresh_notebooks.py", *arguments)


CLOCK = "import time; print(time.time_ns())"


def test_refresh_repeats_itself_to_the_byte(tmp_path: Path):
    """Twice leaves the file alone, and nbval finds nothing changed; `--all` renews the clock.

    Streams in pieces, addresses of objects, wall clock, errors and pictures alike. A wall-clock
    cell that was edited is renewed without `--all`: its stored output belongs to the old source.
    """
    path = notebook_with(
        tmp_path / "x.ipynb",
        new_code_cell("import sys; print('a'); print('b', file=sys.stderr); print('c')"),
        new_code_cell("print('a'); print('b')"),
        new_code_cell("object()"),
        new_code_cell(CLOCK, metadata={"tags": ["nbval-ignore-output"]}),
        new_code_cell("1 / 0", metadata={"tags": ["raises-exception"]}),
        new_code_cell("import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()"),
    )
    refresh(path)
    first = path.read_bytes()
    again = refresh(path)
    assert (again.returncode, path.read_bytes()) == (0, first)
    stored = nbformat.reads(first.decode(), as_version=4).cells
    assert stored[1].outputs[0].text == "a\nb\n"
    assert stored[4].outputs[0].traceback == ["ZeroDivisionError: division by zero"]
    sanitize = ROOT / "tests" / "nbval_sanitize.cfg"
    checked = compared(path, "-p", "nbval_refresh", "--nbval-sanitize-with", sanitize)
    assert checked.returncode == 0, checked.stdout
    clock = notebook_with(tmp_path / "clock.ipynb", stored[3])
    refresh("--all", clock)
    notebook = nbformat.read(clock, as_version=4)
    assert notebook.cells[0].outputs != stored[3].outputs
    notebook.cells[0].source = "print('edited')"
    nbformat.write(notebook, clock)
    refresh(clock)
    assert nbformat.read(clock, as_version=4).cells[0].outputs[0].text == "edited\n"


def test_a_failing_cell_leaves_the_file_as_it_was(tmp_path: Path):
    """Its number, its error and its source are shown, and the exit code is 1."""
    path = notebook_with(tmp_path / "x.ipynb", new_code_cell("x = 1"), new_code_cell("x.y"))
    before = path.read_bytes()
    ran = refresh(path)
    assert (ran.returncode, path.read_bytes()) == (1, before)
    assert "code cell 2: AttributeError" in ran.stdout


def test_what_nbval_lets_pass_in_silence_is_caught(tmp_path: Path):
    """A stripped cell, a wrong picture, an error that no longer comes: nbval is content, we not.

    nbval itself does compare: a stored text that is wrong fails.
    """
    fresh, wrong = dict(picture(0.5).data), picture(0.9)
    fresh["text/plain"] = wrong.data["text/plain"] = "a picture"
    path = notebook_with(
        tmp_path / "01_silent.ipynb",
        new_code_cell("print(2 + 2)"),
        new_code_cell(f"display({fresh}, raw=True)", execution_count=2, outputs=[wrong]),
        new_code_cell("x = 1 / 1", execution_count=3, metadata={"tags": ["raises-exception"]}),
    )
    sanitize = ROOT / "tests" / "nbval_sanitize.cfg"
    wrong_text = new_code_cell("print(2 + 2)", execution_count=1, outputs=[printed("5\n")])
    notebook_with(tmp_path / "02_wrong.ipynb", wrong_text)
    nbval = compared(tmp_path, "--nbval-sanitize-with", sanitize, "-rf").stdout
    failed = re.findall(r"^FAILED (.*?) - ", nbval, re.MULTILINE)
    assert [name.split("/")[-1] for name in failed] == ["02_wrong.ipynb::Cell 0"], nbval
    found = "\n".join(lint_notebooks.lint(path))
    assert "code cell 1: execution count None" in found
    assert f"code cell 3: stored error: False, tagged {lint_notebooks.FAILS}: True" in found
    checked = compared(path, "-p", "nbval_refresh")
    assert checked.returncode == 1
    assert "a refresh changes it" in checked.stdout
    assert "cell 2: display(" in checked.stdout


def as_jupyterlab_saves_it(*outputs: Any, source: str = "print(2 + 2)") -> Any:
    return new_code_cell(source, execution_count=1, outputs=list(outputs))


SAVED = {
    "equal": as_jupyterlab_saves_it(printed("4\n")),
    "a bar": as_jupyterlab_saves_it(new_output("display_data", {"text/plain": ""}), printed("4\n")),
    "another text": as_jupyterlab_saves_it(printed("5\n")),
    "nothing": as_jupyterlab_saves_it(),
    "twice": as_jupyterlab_saves_it(printed("4\n"), printed("4\n")),
    "an error": as_jupyterlab_saves_it(new_output("error", ename="E", evalue="", traceback=[])),
    "another source": as_jupyterlab_saves_it(printed("4\n"), source="print(3 + 1)"),
}
"""What JupyterLab may have saved of a cell that is stored with the output 4."""


def test_a_lesson_that_ran_in_the_browser_is_compared_as_strictly(tmp_path: Path):
    """nbval takes what was saved for what a kernel says; the stored source would print 4."""
    (tmp_path / "executed").mkdir()
    (tmp_path / "stored").mkdir()
    for name, saved in SAVED.items():
        notebook_with(tmp_path / "executed" / f"{name}.ipynb", saved)
        stored = new_code_cell("print(2 + 2)", execution_count=1, outputs=[printed("4\n")])
        notebook_with(tmp_path / "stored" / f"{name}.ipynb", stored)
    options = ("-p", "nbval_refresh", "--executed", tmp_path / "executed", "-rA")
    said = compared(tmp_path / "stored", *options).stdout
    passed = re.findall(r"^PASSED .*?([a-z ]+)\.ipynb", said, re.MULTILINE)
    assert sorted(passed) == ["a bar", "equal"], said
    assert len(re.findall(r"^FAILED ", said, re.MULTILINE)) == len(SAVED) - 2


def test_the_environment_of_these_tests_is_guarded():
    """Kernels of the notebooks' run are, too: they inherit it."""
    assert "network_guard" in os.environ["PYTHONPATH"]
