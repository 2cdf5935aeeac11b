"""What the site needs besides its pages: a front door, numbers of lessons, links to folders."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

_START = "docs/index.html"


def _no_folders(app: Sphinx, document: nodes.document) -> None:
    """A link to a folder of the checkout keeps its words only: a site has nothing to show there."""
    here = Path(app.env.doc2path(app.env.docname)).parent
    for link in list(document.findall(pending_xref)):
        if link.get("reftype") == "myst" and (here / link["reftarget"]).is_dir():
            link.replace_self(link.children)


def _numbers(app: Sphinx, document: nodes.document) -> None:
    """A lesson's number stands before its title, so that the list of lessons has it."""
    folder, _, name = app.env.docname.rpartition("/")
    if folder in ("notebooks", "notebooks/ko"):
        title = next(document.findall(nodes.title))
        title.insert(0, nodes.Text(f"{name.partition('_')[0]} "))


def _front_door(app: Sphinx, problem: Exception | None) -> None:
    """The site's folder opens at its first page, from a disk as well as from a server."""
    if problem is None and app.builder.format == "html":
        page = f'<!doctype html>\n<meta http-equiv="refresh" content="0; url={_START}">\n'
        page += f'<title>Agent Lab</title>\n<a href="{_START}">Agent Lab</a>\n'
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the above."""
    app.connect("doctree-read", _no_folders)
    app.connect("doctree-read", _numbers, priority=400)  # before Sphinx collects the titles
    app.connect("build-finished", _front_door)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
