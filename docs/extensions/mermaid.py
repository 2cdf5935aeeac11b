"""Mermaid diagrams, drawn in the reader's browser by the Mermaid that JupyterLab brings along.

JupyterLab's build is a heap of chunks `NUMBER.HASH.js`, each of which registers modules, and a
loader that fetches a chunk when a module of it is wanted. Here the chunks that Mermaid can want
are copied beside the pages, and thirty lines stand in for the loader. They read from JupyterLab's
own scripts what is where; if a later JupyterLab is built in another way, the build stops and
says so.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

MIME = "text/vnd.mermaid"
STATIC = Path(sys.prefix) / "share" / "jupyter" / "lab" / "static"
LOADER = Path(__file__).with_name("mermaid_loader.js")


class Mermaid(NamedTuple):
    """Where Mermaid lies in a build of JupyterLab's."""

    files: dict[str, Path]  # the chunks that it can want, by number
    entry: list[str]  # those that it wants at once
    module: str  # the module whose default export is Mermaid
    shared: dict[str, str]  # a shared module's number -> that of the copy in the build


def find(static: Path = STATIC) -> Mermaid:
    """Look Mermaid up in JupyterLab's scripts.

    Raises:
        ExtensionError: If this JupyterLab is built in another way than the one of the lock.
    """
    chunks = {path.name.split(".")[0]: path for path in static.glob("[0-9]*.*.js")}
    scripts = "".join(
        path.read_text(encoding="utf-8")
        for name in ("jlab_core", "main")
        for path in static.glob(f"{name}.*.js")
    )
    load = r"Promise\.all\(\[([^\]]+)\]\)\.then\(\w\.bind\(\w,(\d+)\)\)\)\.default;return p\("
    wanted = re.search(load, scripts)
    if not wanted:
        raise ExtensionError(
            f"no Mermaid found in {static}; is this the JupyterLab of requirements.lock?"
        )
    entry, module = re.findall(r"\.e\((\d+)\)", wanted[1]), wanted[2]
    shared: dict[str, str] = {}
    for number in [number for number in entry if number not in chunks]:
        entry.remove(number)  # it stands for modules that several extensions share
        for name in _numbers(rf'\b{number}:\[((?:"\d+",?)+)\]', scripts):
            share = rf"\b{name}:\{{shareScope:[^{{}}]*?fallback:\(\)=>(.*?)\((\d+)\)\)?,treeShaking"
            if copy := re.search(share, scripts):
                entry += re.findall(r"\.e\((\d+)\)", copy[1])
                shared[name] = copy[2]
    return Mermaid(_reachable(entry, chunks), entry, module, shared)


def _numbers(pattern: str, text: str) -> list[str]:
    found = re.search(pattern, text)
    return re.findall(r"\d+", found[1]) if found else []


def _reachable(entry: list[str], chunks: dict[str, Path]) -> dict[str, Path]:
    """The chunks of `entry`, those that they load, and so on."""
    reached: dict[str, Path] = {}
    waiting = list(entry)
    while waiting:
        number = waiting.pop()
        if number in chunks and number not in reached:
            reached[number] = chunks[number]
            text = chunks[number].read_text(encoding="utf-8")
            waiting += re.findall(r'\b\w\.e\("?(\d+)"?\)', text)
    return dict(sorted(reached.items()))


def diagram(source: str) -> str:
    """The place on a page at which a diagram is drawn; without scripts it shows the source.

    Example:
        >>> diagram("a --> b")
        '<pre class="mermaid">a --&gt; b</pre>'
    """
    return f'<pre class="mermaid">{html.escape(source)}</pre>'


def _of_notebooks(app: Sphinx, name: str, content: list[str]) -> None:
    """Notebooks hold diagrams under a type that myst-nb does not know: make HTML of them."""
    if Path(app.env.doc2path(name)).suffix != ".ipynb" or MIME not in content[0]:
        return
    notebook = nbformat.reads(content[0], as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if source := output.get("data", {}).pop(MIME, None):
                output.data["text/html"] = diagram(source)
    content[0] = nbformat.writes(notebook)


def _of_fences(app: Sphinx, document: nodes.document) -> None:
    """Blocks of code whose language is Mermaid."""
    for block in list(document.findall(nodes.literal_block)):
        if block.get("language") == "mermaid":
            block.replace_self(nodes.raw("", diagram(block.astext()), format="html"))


def _on_pages_that_need_it(
    app: Sphinx, page: str, template: str, context: dict[str, Any], document: Any
) -> None:
    if '<pre class="mermaid">' in context.get("body", ""):
        app.add_js_file("mermaid/loader.js", loading_method="defer")


def write(target: Path) -> None:
    """Copy Mermaid's chunks into a folder, and beside them `loader.js`, which a page includes."""
    target.mkdir(parents=True, exist_ok=True)
    found = find()
    for path in found.files.values():
        shutil.copy(path, target)
    files = {number: path.name for number, path in found.files.items()}
    given = json.dumps([files, found.entry, found.module, found.shared])
    loader = LOADER.read_text(encoding="utf-8").replace("BUILD;", f"{given};")
    (target / "loader.js").write_text(loader, encoding="utf-8")


def _copy(app: Sphinx, problem: Exception | None) -> None:
    if problem is None and app.builder.format == "html":
        write(Path(app.outdir) / "_static" / "mermaid")


def setup(app: Sphinx) -> dict[str, bool]:
    """Diagrams from notebooks and from Markdown, and the scripts that draw them."""
    app.connect("source-read", _of_notebooks)
    app.connect("doctree-read", _of_fences)
    app.connect("html-page-context", _on_pages_that_need_it)
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
