"""Measure how long a stranger waits for the first timeline of lesson 00, from the command on.

    python tools/first_timeline.py [lab] [colab] [--cold]

`lab` is a fresh clone in which `make lab` runs, and a browser that steps through lesson 00.
`colab` is an environment that has what Colab has: the lesson's own cell installs the course there.
With `--cold` nothing comes from the caches of pip and uv, and uv is fetched as well.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))
LESSON = "00_start_here"
SERVES = re.compile(r"http://127\.0\.0\.1:\d+/lab/tree/\S+\?token=\w+")


class Watch:
    """Says after which seconds something is there."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def __call__(self, what: str) -> None:
        print(f"{time.perf_counter() - self._began:7.1f} s  {what}", flush=True)


def environment(caches: Path | None) -> dict[str, str]:
    """The variables of a shell outside any environment; with `caches`, of one that has no uv."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean |= {"LANG": "C.UTF-8"}
    if caches:
        folders = clean["PATH"].split(os.pathsep)
        clean["PATH"] = os.pathsep.join(f for f in folders if not shutil.which("uv", path=f))
        clean |= {"UV_CACHE_DIR": str(caches / "uv"), "PIP_CACHE_DIR": str(caches / "pip")}
    return clean


def make_lab(folder: Path, variables: dict[str, str]) -> None:
    """From `make lab` in a fresh clone to the picture, in a browser."""
    import chromium
    from driver import Notebook

    clone = folder / "course"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    cells = nbformat.read(clone / "notebooks" / f"{LESSON}.ipynb", as_version=4).cells
    watch = Watch()
    lab = subprocess.Popen(
        ["make", "lab", "LAB_ARGS=--port=0 --no-browser", "LANGUAGE=en"],
        cwd=clone,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        address = _served(lab, watch)
        with (
            chromium.started(chromium.path_or_skip()) as browser,
            chromium.new_page(browser) as (page, _),
        ):
            page.add_init_script(path=ROOT / "tests" / "browser" / "driver.js")
            page.goto(address)
            page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=120_000)
            watch("the lesson is open, and its kernel runs")
            Notebook(page, LESSON).choose("Edit", "Clear Outputs of All Cells")
            page.locator(".jp-Notebook .jp-Cell").first.click()
            for _ in range(_to_the_picture(cells)):
                page.keyboard.press("Shift+Enter")
            shown = "agentlab.cells().some((cell) => cell.pictures.some((area) => area > 0))"
            page.wait_for_function(shown, timeout=120_000, polling=100)
            watch("the first timeline")
    finally:
        os.killpg(lab.pid, signal.SIGTERM)
        lab.wait()


def _served(lab: subprocess.Popen[str], watch: Watch) -> str:
    assert lab.stdout is not None
    for line in lab.stdout:
        if line.startswith("Ready:"):
            watch("the environment is there")
        if found := SERVES.search(line):
            watch("JupyterLab serves")
            return found[0]
    sys.exit("`make lab` ended before it served")


def _to_the_picture(cells: list[nbformat.NotebookNode]) -> int:
    """How many cells there are up to the first that draws."""
    return 1 + next(n for n, cell in enumerate(cells) if "plots.timeline" in cell.source)


def colab(folder: Path, variables: dict[str, str]) -> None:
    """From the cell that installs to the picture; kernel and matplotlib are Colab's own."""
    program = str(folder / "colab" / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "colab")], check=True)
    install = [program, "-m", "pip", "install", "-q", "ipykernel", "matplotlib"]
    subprocess.run(install, check=True, env=variables)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    kernel = folder / "kernels" / "colab" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    started = [program, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": started, "display_name": "", "language": "python"}))
    os.environ.pop("PYTHONPATH", None)
    os.environ |= variables | {
        "COLAB_RELEASE_TAG": "here",
        "JUPYTER_PATH": str(folder),
        "PIP_FIND_LINKS": str(folder / "dist"),
    }
    notebook = nbformat.read(ROOT / "notebooks" / f"{LESSON}.ipynb", as_version=4)
    notebook.cells = notebook.cells[: _to_the_picture(notebook.cells)]
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, kernel_name="colab", timeout=600, resources=where)
    watch = Watch()
    with client.setup_kernel():
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
            if cell.id == "colab":
                watch("the course is installed")
    assert any("image/png" in output.get("data", {}) for output in notebook.cells[-1].outputs)
    watch("the first timeline")


WAYS = {"lab": make_lab, "colab": colab}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ways", nargs="*", metavar="WAY", help="lab, colab; both if none is named")
    parser.add_argument("--cold", action="store_true", help="with empty caches")
    chosen = parser.parse_args()
    for name in chosen.ways or WAYS:
        if name not in WAYS:
            parser.error(f"there is no way {name!r}; choose of {', '.join(WAYS)}")
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            caches = folder / "caches" if chosen.cold else None
            print(f"{name}, {'nothing cached' if caches else 'packages cached'}:")
            WAYS[name](folder, environment(caches))


if __name__ == "__main__":
    main()
