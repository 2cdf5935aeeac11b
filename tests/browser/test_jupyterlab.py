"""Each lesson in JupyterLab, as a learner sees it: opened, cleared, run from top to bottom.

The tests look at a copy. Lessons are run once each; `-n 4` runs four at a time. A picture of the
first lesson, and of one that did not get to its end, stays in `build/screenshots/`; `make browser`
keeps one of each, which takes seconds of the processor.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import driver
import httpx
import nbformat
import pytest
import server as jupyterlab
from driver import Notebook
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import Browser, Page, expect
from server import ROOT, Server

# The longest first, so that nobody waits for one of them at the end.
LONGEST = ("07_", "03b_", "03_", "08b_", "05b_")
LESSONS = sorted(
    (ROOT / "notebooks").glob("*.ipynb"),
    key=lambda path: (not path.name.startswith(LONGEST), path.name),
)
FIRST = min(LESSONS)
EXECUTED = ROOT / "build" / "executed"

pytestmark = pytest.mark.skipif(
    shutil.which("make") is None, reason="there is no make here, which says how JupyterLab starts"
)


@pytest.fixture(scope="module")
def server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab, on a copy of the course. (`browser` comes first: without one all is skipped.)"""
    folder = jupyterlab.copied(tmp_path_factory.mktemp("course"))
    with jupyterlab.serving(folder, own=tmp_path_factory.mktemp("jupyter")) as running:
        yield running


@pytest.fixture(scope="module")
def shared(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """One page for all lessons, and what it asked for beyond loopback."""
    with chromium.new_page(browser) as opened:
        yield opened


class Lesson:
    """A lesson that was run in JupyterLab, and stays open.

    Attributes:
        stored: The notebook as it is kept.
        shown: The notebook on its page.
        beyond: What its page asked for beyond loopback.
    """

    def __init__(self, stored: NotebookNode, shown: Notebook, beyond: list[str]):
        self.stored = stored
        self.shown = shown
        self.beyond = beyond

    def expected(self, *mimes: str) -> dict[int, int]:
        """How many outputs of these kinds each cell has stored; cells with none are left out."""
        return count(
            sum(any(mime in kinds(output) for mime in mimes) for output in cell.get("outputs", []))
            for cell in self.stored.cells
        )


def kinds(output: NotebookNode) -> list[str]:
    """What an output is: its type (`error`, `stream`), a stream's name, and its mime types."""
    return [output.output_type, output.get("name", ""), *output.get("data", {})]


def count(amounts: Iterator[int]) -> dict[int, int]:
    return {cell: amount for cell, amount in enumerate(amounts) if amount}


@pytest.fixture(scope="module", params=LESSONS, ids=[path.stem for path in LESSONS])
def lesson(
    request: pytest.FixtureRequest,
    shared: tuple[Page, list[str]],
    server: Server,
    screenshots: Path,
) -> Iterator[Lesson]:
    """A lesson that has run; if it did not get that far, its picture is kept."""
    stored = nbformat.read(server.folder / "notebooks" / request.param.name, as_version=4)
    page, beyond = shared
    beyond.clear()
    shown = Notebook.opened(page, server, request.param.stem, cells=len(stored.cells))
    try:
        wanted = request.param == FIRST or "AGENTLAB_PICTURES" in os.environ
        try:
            shown.run()
        except BaseException:
            wanted = True
            raise
        finally:
            if wanted:
                shown.screenshot(screenshots)
        shown.save()  # for `make test`, which has nbval compare it with what is stored
        EXECUTED.mkdir(parents=True, exist_ok=True)
        shutil.copy(server.folder / "notebooks" / request.param.name, EXECUTED)
        yield Lesson(stored, shown, beyond)
    finally:
        shown.close()
        server.end_kernels()


def test_every_cell_runs(lesson: Lesson):
    """After Run All the code cells are numbered from the first to the last."""
    prompts = [cell.prompt for cell in lesson.shown.cells if cell.prompt]
    code = [cell for cell in lesson.stored.cells if cell.cell_type == "code"]
    assert prompts == [f"[{number}]:" for number in range(1, len(code) + 1)]


def test_no_red_box_but_the_intended(lesson: Lesson):
    """Tracebacks and stderr are shown where the stored notebook has them, and nowhere else."""
    cells = lesson.shown.cells
    alarms = {number: cell.alarms for number, cell in enumerate(cells) if cell.alarms}
    shown = {number: len(texts) for number, texts in alarms.items()}
    assert shown == lesson.expected("error", "stderr"), alarms


def test_pictures_are_shown(lesson: Lesson):
    """Each cell shows as many plots as it has stored, and none is empty or broken."""
    pictures = [cell.pictures for cell in lesson.shown.cells]
    assert count(map(len, pictures)) == lesson.expected("image/png")
    assert all(area > 1000 for areas in pictures for area in areas)


def test_diagrams_are_drawn(lesson: Lesson):
    """Mermaid draws each diagram, in prose and in outputs; no diagram or widget is broken."""
    outputs = Counter(lesson.expected("text/vnd.mermaid"))
    prose = Counter(
        count(
            cell.source.count("```mermaid") if cell.cell_type == "markdown" else 0
            for cell in lesson.stored.cells
        )
    )
    cells = lesson.shown.cells
    assert count(len(cell.diagrams) for cell in cells) == dict(outputs + prose)
    assert all(area > 1000 for cell in cells for area in cell.diagrams)
    assert [cell.broken for cell in cells if cell.broken] == []


def test_progress_bars_fill(lesson: Lesson):
    """A cell that counts with a bar shows it; each bar that was shown got to its end."""
    sources = [cell.source for cell in lesson.stored.cells if cell.cell_type == "code"]
    makers = [source for source in sources if re.search(r"\b(bar|tqdm)\(|progress=True", source)]
    bars = lesson.shown.bars
    assert len({bar.cell for bar in bars}) >= len(makers)
    assert [bar for bar in bars if bar.percent != 100] == []


def test_a_folded_output_tells_nothing(lesson: Lesson):
    """Of an output that is to be predicted not even the first line is to be read."""
    lesson.shown.choose("View", "Collapse All Outputs")
    folded = lesson.shown.page.locator(".jp-OutputPlaceholder")
    expect(folded.first).to_be_visible()
    texts = folded.locator(".jp-PlaceholderText").all()
    assert texts and not any(text.is_visible() for text in texts)
    lesson.shown.choose("View", "Expand All Outputs")


def test_solutions_unfold(lesson: Lesson):
    """What is folded, such as each exercise's solution, is hidden until its line is clicked."""
    folds = lesson.shown.folds()
    assert len(folds) == sum(cell.source.count("<details>") for cell in lesson.stored.cells)
    assert set(folds) == {(False, True)}


def test_nothing_is_asked_beyond_loopback(lesson: Lesson):
    """Neither JupyterLab nor what a cell shows fetches anything from elsewhere."""
    assert lesson.beyond == []


def test_the_course_opens_on_its_first_page(page: Page, server: Server):
    """`make lab` leads to 00_start_here, in sight at once, with nothing in front of it."""
    page.goto(server.address("/"))
    title = page.locator(".jp-Notebook h1").first
    expect(title).to_be_in_viewport(timeout=60_000)
    assert page.url.endswith("/lab/tree/notebooks/00_start_here.ipynb")
    expect(page.locator("#jp-main-statusbar").get_by_text("| Idle")).to_be_visible(timeout=60_000)
    expect(page.locator(".jp-Dialog, .Toastify__toast")).to_have_count(0)


def saved(server: Server, name: str, *cells: Any) -> int:
    """Put a notebook among the copied ones; returns how many cells it has."""
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook = new_notebook(cells=list(cells), metadata={"kernelspec": kernel})
    nbformat.write(notebook, server.folder / "notebooks" / f"{name}.ipynb")
    return len(cells)


def test_what_is_broken_is_seen(browser: Browser, server: Server):
    """The looks that find nothing in a lesson find each defect of a notebook made of them."""
    cells = saved(
        server,
        "broken",
        new_markdown_cell("```mermaid\ngraph TD; A-->B\n```\n\n```mermaid\ngraph A--\n```"),
        new_code_cell(
            "from IPython.display import HTML, display\n"
            "HTML('<img src=\"http://pictures.example/a.png\">')"
        ),
        new_code_cell("from tqdm.auto import tqdm\nfor n in tqdm(range(4)):\n    if n == 2: break"),
        new_code_cell("display({'image/png': 'AAAA'}, raw=True)"),
        new_code_cell(
            "widget = {'model_id': 'none', 'version_major': 2, 'version_minor': 0}\n"
            "display({'application/vnd.jupyter.widget-view+json': widget}, raw=True)"
        ),
        new_code_cell("1 / 0"),
        new_code_cell("'not run any more'"),
    )
    with chromium.new_page(browser) as (page, beyond):
        shown = Notebook.opened(page, server, "broken", cells=cells)
        shown.run()
        expect(page.get_by_text("model not found")).to_be_visible(timeout=60_000)
        diagrams, _, _, picture, widget, error, after = shown.cells
        assert (len(diagrams.diagrams), len(diagrams.broken)) == (1, 1)
        assert set(beyond) == {"http://pictures.example/a.png"}
        assert [(bar.cell, bar.percent) for bar in shown.bars] == [(2, 50)]
        assert picture.pictures == [0]
        assert widget.broken == ["Error displaying widget: model not found"]
        assert "ZeroDivisionError" in error.alarms[0]
        assert (error.prompt, after.prompt) == ("[5]:", "[ ]:")
    server.end_kernels()


def test_a_cell_that_hangs_is_named(
    browser: Browser, server: Server, monkeypatch: pytest.MonkeyPatch
):
    """A lesson that never ends fails within minutes, with its prompts and its kernel's stacks."""
    cells = saved(server, "hangs", new_code_cell("import asyncio\nawait asyncio.Event().wait()"))
    monkeypatch.setattr(driver, "STUCK_S", 2.0)
    with chromium.new_page(browser) as (page, _):
        shown = Notebook.opened(page, server, "hangs", cells=cells)
        with pytest.raises(AssertionError, match=r"hangs hangs: \[\*\]:"):
            shown.run()
    assert "await asyncio.Event().wait()" in server.where_kernels_are()
    server.end_kernels()


def test_a_bar_that_vanishes_was_full(browser: Browser, server: Server):
    """The course's own bar moves to its end; a notebook saved with it opens without a defect."""
    cells = saved(
        server,
        "bars",
        new_code_cell(
            "import time\nfrom agentlab._support.progress_bar import bar\n"
            "for _ in bar(range(3), name='laps'): time.sleep(0.5)"
        ),
    )
    with chromium.new_page(browser) as (page, _):
        shown = Notebook.opened(page, server, "bars", cells=cells)
        shown.run()
        assert [(bar.cell, bar.percent) for bar in shown.bars] == [(0, 100)]
        expect(page.locator(".jp-Notebook .widget-hprogress")).to_have_count(0)
        shown.save()
    server.end_kernels()
    with chromium.new_page(browser) as (page, _):
        shown = Notebook.opened(page, server, "bars", cells=cells)
        assert shown.cells[0].broken == []
        expect(page.locator(".jp-OutputArea-output")).to_have_text([""])
    server.end_kernels()


@pytest.mark.parametrize("flags", ["", "w"])
def test_inside_make_the_server_starts_as_outside(flags: str, monkeypatch: pytest.MonkeyPatch):
    """What `make test` hands down, and the folders it then announces, changes no option."""
    monkeypatch.setenv("MAKELEVEL", "1")
    monkeypatch.setenv("MAKEFLAGS", flags)
    first, *rest = jupyterlab.options()
    assert first in ("--allow-root", "--ServerApp.root_dir=.")
    assert rest[-2:] == ["--port=0", "--no-browser"]


def test_a_killed_run_leaves_no_server_behind(tmp_path: Path):
    """JupyterLab ends when the process that started it is killed and can tidy up nothing."""
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom server import serving\n"
        "with serving(Path.cwd(), own=Path('own')) as running:\n"
        "    print(running.url, flush=True)\n"
        "    time.sleep(600)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]])
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    url = owner.stdout.readline().strip()
    assert httpx.get(f"{url}/api", trust_env=False, timeout=60).status_code == 200
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/api", trust_env=False, timeout=60)
        except httpx.TransportError:
            return
        time.sleep(0.1)
    pytest.fail("JupyterLab still answers")
