"""A notebook in JupyterLab: opened, cleared and run by its menus, and what is then to be seen."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from PIL import Image
from playwright.sync_api import Page, TimeoutError
from server import Server

OPEN_TIMEOUT_S = 120.0
RUN_TIMEOUT_S = 1200.0
STUCK_S = 300.0  # a cell that takes longer hangs; on a busy machine one takes a minute
POLLING_MS = 250.0  # by default at each frame, which keeps the browser busy
SCREENSHOT_PIECE_PX = 3000
LOW_PX = 120


class Cell(msgspec.Struct, frozen=True):
    """What a cell shows.

    Attributes:
        prompt: `[3]:` of a code cell that ran third, `[ ]:` of one that did not; "" of prose.
        alarms: The text of each red box: a traceback, or what was written to stderr.
        pictures: The area of each picture in its outputs, in pixels; 0 of one that is broken.
        diagrams: The same for Mermaid's.
        broken: What is there in place of a diagram or a widget that could not be shown.
    """

    prompt: str
    alarms: list[str]
    pictures: list[float]
    diagrams: list[float]
    broken: list[str]


class Bar(msgspec.Struct, frozen=True):
    """A progress bar that was shown, if only for a moment: in which cell (from 0), how far."""

    cell: int
    percent: float


class Notebook:
    """A notebook on a page of its own."""

    def __init__(self, page: Page, name: str):
        self.page = page
        self.name = name

    @classmethod
    def opened(cls, page: Page, server: Server, name: str, *, cells: int) -> Notebook:
        """Open `notebooks/NAME.ipynb`; wait for its cells and for its kernel.

        A new page opens it by its address; one that shows JupyterLab, as its next notebook.
        """
        path = f"notebooks/{name}.ipynb"
        if page.url == "about:blank":
            page.add_init_script(path=Path(__file__).with_name("driver.js"))
            # A workspace of its own, or the notebooks of earlier tests would open again beside it.
            page.goto(server.address(f"/lab/workspaces/{name}/tree/{path}"))
        else:
            page.evaluate("path => agentlab.open(path)", path)
        notebook = cls(page, name)
        notebook._wait(f"agentlab.count() === {cells}", OPEN_TIMEOUT_S)
        notebook._wait_until_idle(OPEN_TIMEOUT_S)
        return notebook

    def choose(self, menu: str, item: str) -> None:
        """Click an item of a menu."""
        self.page.get_by_role("menuitem", name=menu, exact=True).click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text(item, exact=True).click()

    def run(self) -> None:
        """Clear all outputs, so that none is a former run's; run all cells; wait for the end.

        Checks of exercises are folded, and a folded cell shows no number: they are unfolded first.

        Raises:
            AssertionError: If for minutes no cell ends.
        """
        self.choose("View", "Expand All Code")
        self.choose("Edit", "Clear Outputs of All Cells")
        self._wait("agentlab.cleared()", OPEN_TIMEOUT_S)
        self.choose("Run", "Run All Cells")
        with self._low():
            self._wait(f"agentlab.settled() || agentlab.stuck({STUCK_S * 1000})", RUN_TIMEOUT_S)
        if not self.page.evaluate("agentlab.settled()"):
            prompts = " ".join(cell.prompt for cell in self.cells if cell.prompt)
            raise AssertionError(f"{self.name} hangs: {prompts}")
        self._wait_until_idle(OPEN_TIMEOUT_S)
        self._wait("agentlab.drawn()", OPEN_TIMEOUT_S)

    def save(self) -> None:
        """Write the notebook to its file, and wait until that is done."""
        with self.page.expect_request(
            lambda asked: asked.method == "PUT" and "/api/contents/" in asked.url
        ) as saving:
            self.choose("File", "Save Notebook")
        answer = saving.value.response()
        assert answer is not None and answer.ok

    def close(self) -> None:
        """Close the notebook; its page goes on showing JupyterLab."""
        self.page.evaluate("agentlab.close()")

    @property
    def cells(self) -> list[Cell]:
        """What each cell shows, from the first to the last."""
        return msgspec.convert(self.page.evaluate("agentlab.cells()"), list[Cell])

    @property
    def bars(self) -> list[Bar]:
        """Each progress bar that was shown since the notebook was opened."""
        return msgspec.convert(self.page.evaluate("agentlab.bars()"), list[Bar])

    def folds(self) -> list[tuple[bool, bool]]:
        """Click each folded part's line: can its inside be seen before, and after?"""
        return msgspec.convert(self.page.evaluate("agentlab.folds()"), list[tuple[bool, bool]])

    def screenshot(self, folder: Path) -> Path:
        """A picture of the whole notebook, from its title to its last line, as NAME.png."""
        before = self.page.viewport_size
        assert before is not None
        self.page.mouse.move(0, 0)  # what the mouse is over looks different
        # A browser does not draw 20,000 lines at once, so pieces of some thousand are joined.
        self.page.set_viewport_size({"width": before["width"], "height": SCREENSHOT_PIECE_PX})
        scroller = self.page.locator(".jp-WindowedPanel-outer")
        height = scroller.evaluate(
            "(e) => [...e.querySelectorAll('.jp-Cell')].at(-1).getBoundingClientRect().bottom"
            " - e.getBoundingClientRect().top + e.scrollTop"
        )
        pieces = {}
        for top in range(0, round(height), scroller.evaluate("(e) => e.clientHeight")):
            at = scroller.evaluate("(e, top) => { e.scrollTop = top; return e.scrollTop; }", top)
            pieces[round(at)] = Image.open(io.BytesIO(scroller.screenshot()))
        whole = Image.new("RGB", (max(piece.width for piece in pieces.values()), round(height)))
        for top, piece in pieces.items():
            whole.paste(piece, (0, top))
        path = folder / f"{self.name}.png"
        whole.save(path)
        self.page.set_viewport_size(before)
        return path

    @contextmanager
    def _low(self) -> Iterator[None]:
        """Make the window so low that the browser has little to paint while nobody looks."""
        size = self.page.viewport_size
        assert size is not None
        self.page.set_viewport_size({"width": size["width"], "height": LOW_PX})
        try:
            yield
        finally:
            self.page.set_viewport_size(size)

    def _wait(self, condition: str, timeout_s: float) -> None:
        try:
            self.page.wait_for_function(condition, timeout=timeout_s * 1000, polling=POLLING_MS)
        except TimeoutError as error:
            error.add_note(f"{self.name} shows: {self.page.inner_text('body')[:2000]}")
            raise

    def _wait_until_idle(self, timeout_s: float) -> None:
        """Wait until the status bar says that the kernel is idle."""
        status = self.page.locator("#jp-main-statusbar").get_by_text("| Idle")
        status.wait_for(timeout=timeout_s * 1000)
