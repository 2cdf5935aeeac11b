"""The lessons in front of a real model: one that checks keys, and words each answer anew.

No cell raises that is not meant to. What its outputs say is another matter: figures that the text
names are those of the local model. `make real` runs all lessons, every other run these two.
"""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from awkward import MODEL, Upstream
from lessons import NOTEBOOKS
from nbclient import NotebookClient

LESSONS = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
TWO = ("00", "02b")
CHOSEN = [
    path
    for path in LESSONS
    if os.environ.get("AGENTLAB_REAL_LESSONS") == "all" or path.stem.split("_")[0] in TWO
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what runs notebooks
@pytest.mark.parametrize("path", CHOSEN, ids=lambda path: path.stem)
def test_no_cell_raises(path: Path, monkeypatch: pytest.MonkeyPatch):
    """From the first cell to the last, with a key; the key is in no output."""
    with Upstream() as upstream:
        monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
        monkeypatch.setenv("OPENAI_API_KEY", upstream.key)
        monkeypatch.setenv("OPENAI_MODEL", MODEL)
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            allow_errors=True,
            resources={"metadata": {"path": str(path.parent)}},
            extra_arguments=["--log-level=ERROR"],
        ).execute()
        assert {seen.key for seen in upstream.asked} <= {upstream.key}
    assert upstream.key not in nbformat.writes(notebook)
    assert _raised(notebook) == []


def _raised(notebook: nbformat.NotebookNode) -> list[str]:
    """What went wrong, cell by cell, where the lesson does not mean it to."""
    return [
        f"cell {number}: {output.ename}: {output.evalue}\n{cell.source}"
        for number, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and "raises-exception" not in cell.metadata.get("tags", [])
        for output in cell.outputs
        if output.output_type == "error"
    ]
