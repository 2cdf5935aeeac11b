"""The cells of lessons 04 and 04b that ask whatever answers, run by three learners of a class.

`make class` runs both lessons whole.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from types import ModuleType
from typing import Any

import pytest
from classroom_process import Class
from lessons import NOTEBOOKS, Lesson

pytestmark = pytest.mark.filterwarnings("ignore")  # CrewAI's and its libraries' own
LEARNERS = ("Ada", "Bo", "김민준")
ASKS = "with lab.configure(upstream=None), trace()"
OVERLOADED = [{"kind": "error", "status": 503, "probability": 0.2}]


async def run(cells: list[str]) -> dict[str, Any]:
    """Run cells as a notebook does, with `await` outside of functions; returns their names."""
    names: dict[str, Any] = {}
    for cell in cells:
        code = compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        waiting = eval(code, names)
        if inspect.isawaitable(waiting):
            await waiting
    return names


@pytest.mark.parametrize("name", ["04_optimization", "04b_reliability"])
def test_a_lesson_reaches_the_class_and_the_teacher_sees_its_refusals(
    name: str,
    fresh_lab: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """With a limit and errors on purpose: "lost by the guard: 0" for all, each 429 on the board."""
    cells = Lesson.load(NOTEBOOKS / f"{name}.ipynb").up_to(ASKS)
    with Class("--time-scale", "40") as served:
        served.teach(learner_requests_per_minute=6, faults=OVERLOADED)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{served.url}/v1")
        for learner in LEARNERS:
            monkeypatch.setenv("OPENAI_API_KEY", learner)
            names = asyncio.run(run(cells))
            assert capsys.readouterr().out.endswith("lost by the guard: 0\n")
            seen = [span.status for span in names["t"].spans]
            (row,) = [
                row
                for row in served.get("/classroom/board")["learners"]
                if row["learner"] == learner
            ]
            assert row["answered"] == seen.count(200) >= 10
            assert row["refused"] == seen.count(429) > 0
            assert row["errors"] == seen.count(503) > 0
        fresh_lab.stop()
