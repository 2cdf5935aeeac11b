"""The site's diagrams: drawn by JupyterLab's Mermaid, without JupyterLab and without a network."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs" / "extensions"))

import mermaid

DRAWING = "graph LR\n    first[First step] --> second[Second step]"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: a test has nobody to tell."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A site of one page with one diagram, as the book's pages have them."""
    mermaid.write(tmp_path / "mermaid")
    page = f'{mermaid.diagram(DRAWING)}<script src="mermaid/loader.js"></script>'
    (tmp_path / "index.html").write_text(page)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


def test_a_diagram_is_drawn(page: Page, site: str):
    """Its source becomes a picture with both steps in it, and nothing beyond loopback is asked."""
    page.goto(site)
    drawing = page.locator("pre.mermaid svg")
    drawing.wait_for()
    said = drawing.text_content() or ""
    assert ("First step" in said, "Second step" in said) == (True, True)
