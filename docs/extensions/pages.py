"""What the site needs besides its pages."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

_START = "docs/index.html"


def _front_door(app: Sphinx, problem: Exception | None) -> None:
    """The site's folder opens at its first page, from a disk as well as from a server."""
    if problem is None and app.builder.format == "html":
        page = f'<!doctype html>\n<meta http-equiv="refresh" content="0; url={_START}">\n'
        page += f'<title>Agent Lab</title>\n<a href="{_START}">Agent Lab</a>\n'
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the above."""
    app.connect("build-finished", _front_door)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
