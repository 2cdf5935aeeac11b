"""Make the README's pictures anew: JupyterLab as a learner sees it, and a timeline.

    python tools/screenshots.py

It opens lesson 01 in a JupyterLab of its own, in a browser that shows nothing, and writes
docs/images/jupyterlab.png and docs/images/timelines.png. No cell is run; the outputs are those
stored in the notebook.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import browser
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from agentlab import lab, plots

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
LESSON = "notebooks/01_sequential.ipynb"
SHOWN = "3. All at once: asyncio.gather"  # scrolled to: this heading
WINDOW = {"width": 1280, "height": 860}
QUESTIONS = {  # those of the lesson, which take 10, 15 and 12 s
    "research": "Research: what is parallel processing for AI agents?",
    "analysis": "Analyse: where does a workflow of agents lose time?",
    "writing": "Write: a short note that makes the case for parallel agents.",
}


@contextmanager
def jupyterlab() -> Iterator[str]:
    """A JupyterLab on a free port, with settings and workspaces of its own; yields the address."""
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as scratch:
        own = {f"JUPYTERLAB_{name}_DIR": scratch for name in ("SETTINGS", "WORKSPACES")}
        lab = (
            "from agentlab.endpoint.server.process import end_with_owner; end_with_owner(); "
            "import jupyterlab.labapp"
        )
        command = [sys.executable, "-c", f"{lab} as lab; lab.main()", "--no-browser", "--port=0"]
        command += [f"--ServerApp.root_dir={ROOT}", "--config=tools/jupyterlab/config.py"]
        pipe = subprocess.PIPE
        server = subprocess.Popen(
            [*command, *as_root],
            cwd=ROOT,
            env=os.environ | own,
            stdin=pipe,
            stderr=pipe,
            text=True,
        )
        assert server.stderr is not None
        try:
            for line in server.stderr:
                if address := re.search(r"http://127\.0\.0\.1:\d+/lab\?token=\w+", line):
                    yield address[0].replace("/lab?", f"/lab/tree/{LESSON}?")
                    break
        finally:
            server.terminate()
            server.stderr.close()
            server.wait(timeout=30)


def shown(page: Page, address: str) -> bytes:
    """The window, with the words of `SHOWN` near its top."""
    page.goto(address)
    words = page.get_by_role("heading", name=SHOWN)
    page.get_by_text("| Idle").wait_for()
    words.wait_for(state="attached")
    # The output below a prediction is folded until its cell has run.
    page.get_by_role("menuitem", name="View", exact=True).click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Expand All Outputs", exact=True).click()
    for _ in range(3):  # cells get their height as they come into sight, and move what is below
        words.evaluate("words => words.scrollIntoView({block: 'start'})")
        page.wait_for_timeout(1000)
    return page.screenshot()


def save(picture: bytes, name: str) -> None:
    """Write a picture in few colours, which a page of text needs no more of."""
    with Image.open(io.BytesIO(picture)) as image:
        few = image.convert("RGB").quantize(colors=128, dither=Image.Dither.NONE)
        few.save(IMAGES / name, optimize=True)
    print(f"{name}: {(IMAGES / name).stat().st_size / 1000:.0f} KB")


def timelines() -> bytes:
    """Three agents one after the other, and all at once."""

    def asked() -> list[Coroutine[None, None, str]]:
        return [lab.ask(question, agent=name) for name, question in QUESTIONS.items()]

    async def in_a_row() -> list[str]:
        return [await answer for answer in asked()]

    async def max_concurrency() -> list[str]:
        return await asyncio.gather(*asked())

    (_, row), (_, once) = lab.simulate(in_a_row()), lab.simulate(max_concurrency())
    figure = plots.timelines(
        {
            f"One after the other: {row.makespan_s:g} s": row,
            f"All at once: {once.makespan_s:g} s": once,
        }
    )
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def main() -> int:
    path = browser.find(os.environ)
    if path is None:
        print(browser.GET_ONE, file=sys.stderr)
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    save(timelines(), "timelines.png")
    with jupyterlab() as address, sync_playwright() as playwright:
        sandbox = not (hasattr(os, "geteuid") and os.geteuid() == 0)
        started = playwright.chromium.launch(executable_path=path, chromium_sandbox=sandbox)
        page = started.new_page(viewport=WINDOW, locale="en-GB")
        save(shown(page, address), "jupyterlab.png")
        started.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
