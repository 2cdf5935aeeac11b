"""Lessons 04 and 04b, run by learners of a class from top to bottom: `make class`.

It takes a minute and a half. `test_class_lessons.py` runs the cells that reach the class.
"""

from __future__ import annotations

import asyncio
import copy
import os
import sys
from pathlib import Path

import nbformat
from classroom_process import Class
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from refresh_notebooks import as_kept  # noqa: E402  tools/ is no package

RELIABILITY = ROOT / "notebooks" / "04b_reliability.ipynb"
OPTIMIZATION = ROOT / "notebooks" / "04_optimization.ipynb"
ALONE = "the local model, preset course; 10 model seconds pass in one second"
"""What `lab.where()` says in the lessons as they are stored."""


def test_three_learners_do_lesson_04b_in_a_class_and_one_lesson_04():
    """All at the same time; no cell raises, all outputs hold, and the teacher sees the 429s of all.

    The teacher has set a limit for each, and errors on purpose. Outputs hold as a refresh compares
    them: all texts and pictures, but those of cells whose subject is wall-clock time. Only
    `lab.where()` names the class.
    """
    runs = {"Ada": RELIABILITY, "Bo": RELIABILITY, "Cleo": RELIABILITY, "Dan": OPTIMIZATION}
    faults = [{"kind": "error", "status": 503, "agent": "agent", "probability": 0.2}]
    with Class("--time-scale", "50") as served:
        served.teach(learner_requests_per_minute=8, faults=faults)
        differences = asyncio.run(all_run(runs, served))
        board = served.get("/classroom/board")
        spans = served.get("/lab/spans")["spans"]
    assert differences == []
    assert [row["learner"] for row in board["learners"]] == list(runs)
    for row in board["learners"]:
        own = [span["status"] for span in spans if span["learner"] == row["learner"]]
        assert row["refused"] == own.count(429) > 0
        assert row["errors"] == own.count(503) > 0


async def all_run(runs: dict[str, Path], served: Class) -> list[str]:
    """What differs from the stored outputs, of all learners."""
    found = await asyncio.gather(*(run(path, served, name) for name, path in runs.items()))
    return [difference for differences in found for difference in differences]


async def run(path: Path, served: Class, name: str) -> list[str]:
    where = (
        f"the class's endpoint at {served.url}/v1, the local model, "
        "50 model seconds pass in one second"
    )
    text = path.read_text(encoding="utf-8").replace(ALONE, where)
    stored = nbformat.reads(text, as_version=4)
    notebook = copy.deepcopy(stored)
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    joined = {"OPENAI_BASE_URL": f"{served.url}/v1", "OPENAI_API_KEY": name}
    await client.async_execute(env=os.environ | joined)
    as_kept(notebook, stored)  # what is equal as a refresh compares it has its stored bytes again
    return [
        f"{path.stem}, {name}, cell {number}: {cell.outputs}"
        for number, (cell, before) in enumerate(zip(notebook.cells, stored.cells, strict=True))
        if cell.cell_type == "code" and cell.outputs != before.outputs
    ]
