"""Execute the notebooks and store their outputs, so that doing it twice changes nothing.

    python tools/refresh_notebooks.py [FILE ...]
    python tools/refresh_notebooks.py --all      renew what depends on the wall clock, too

An output that is equal after sanitizing (with the expressions that nbval uses), or a picture with
the same pixels, keeps its stored bytes. So do the outputs of a cell whose subject is wall-clock
time, as long as its source and the kinds of its outputs stay the same.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import copy
import difflib
import hashlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from configparser import RawConfigParser
from pathlib import Path

import nbformat
import numpy as np
from lint_notebooks import METADATA, NOTEBOOKS, WALL_CLOCK, lessons, shown_name
from matplotlib.image import imread
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from agentlab._support.system import write_whole

SANITIZERS = NOTEBOOKS.parent / "tests" / "nbval_sanitize.cfg"
CELL_TIMEOUT_S = 300
os.environ.pop("AGENTLAB_LANGUAGE", None)  # a lesson's folder says which language it is in
os.environ["AGENTLAB_PROGRESS"] = "0"  # a bar shows how far a run is, which is nothing to store
KERNELS_AT_ONCE = 2


class CellFailed(Exception):
    """A cell failed that is not meant to; the message shows which, and how."""


async def refreshed(path: Path, *, everything: bool = False) -> str:
    """The notebook's file as a fresh run leaves it.

    Raises:
        CellFailed: If a cell fails that is not meant to.
    """
    stored = nbformat.read(path, as_version=4)
    notebook = copy.deepcopy(stored)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],  # else each kernel says that it listens on TCP
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        await client.async_execute()
    except CellExecutionError as error:
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        number = sum(cell.execution_count is not None for cell in cells)
        source = cells[number - 1].source
        raise CellFailed(f"code cell {number}: {error.ename}: {error.evalue}\n{source}") from None
    return as_kept(notebook, stored, everything=everything)


def as_kept(notebook: NotebookNode, stored: NotebookNode, *, everything: bool = False) -> str:
    """The file for a notebook that has just run: what tells nothing new keeps its stored bytes."""
    for cell, before in zip(notebook.cells, stored.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs = list(_plain(cell.outputs))
            _keep_what_holds(cell, before.get("outputs", []), everything)
    notebook.metadata = nbformat.from_dict(METADATA)
    return nbformat.writes(notebook) + "\n"


def _plain(outputs: Sequence[NotebookNode]) -> Iterator[NotebookNode]:
    """The outputs without what a run cannot repeat: widgets, chunks of streams, tracebacks."""
    last: NotebookNode | None = None
    for output in outputs:
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
            continue
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
            continue
        if output.output_type == "error":
            output.traceback = [f"{output.ename}: {output.evalue}"]
        if "metadata" in output:
            output.metadata = {}
        last = output
        yield output


def _keep_what_holds(cell: NotebookNode, stored: list[NotebookNode], everything: bool) -> None:
    tags = cell.metadata.get("tags", [])
    shown = cell.metadata.get("shown")
    kept = {"tags": tags, "jupyter": cell.metadata.get("jupyter")}  # the latter: what is folded
    cell.metadata = nbformat.from_dict({key: value for key, value in kept.items() if value})
    if WALL_CLOCK in tags:
        cell.metadata.shown = hashlib.sha256(cell.source.encode()).hexdigest()[:12]
        keep = not everything and shown == cell.metadata.shown
        keep = keep and [_kind(o) for o in stored] == [_kind(o) for o in cell.outputs]
    else:
        keep = same(stored, cell.outputs)
    if keep:
        count = cell.execution_count
        cell.outputs = stored
        for output in stored:
            if output.output_type == "execute_result":
                output.execution_count = count


def _kind(output: NotebookNode) -> tuple[str, ...]:
    return (output.output_type, output.get("name", ""), *sorted(output.get("data", {})))


def same(one: Sequence[NotebookNode], other: Sequence[NotebookNode]) -> bool:
    """True if two lists of outputs tell a reader the same."""
    return len(one) == len(other) and all(map(_same_output, one, other))


def _same_output(one: NotebookNode, other: NotebookNode) -> bool:
    if _kind(one) != _kind(other):
        return False
    data = one.get("data", {})
    pictures = [kind for kind in data if kind in ("image/png", "image/jpeg")]
    if not all(_same_picture(data[kind], other.data[kind]) for kind in pictures):
        return False
    return sanitized(_texts(one)) == sanitized(_texts(other))


def _texts(output: NotebookNode) -> str:
    data = {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/p")}
    return str([output.get(key) for key in ("text", "ename", "evalue")] + sorted(data.items()))


def _same_picture(one: str, other: str) -> bool:
    """Equal up to what another font renderer or processor may round differently."""
    first, second = (imread(io.BytesIO(base64.b64decode(data))) for data in (one, other))
    if first.shape != second.shape:
        return False
    return float(np.mean(np.abs(first - second) > 0.1)) < 0.001


def sanitized(text: str) -> str:
    """Text without what a run draws again each time, by the expressions that nbval uses."""
    config = RawConfigParser()
    config.read(SANITIZERS, encoding="utf-8")
    for section in config.sections():
        text = re.sub(config[section]["regex"], config[section]["replace"], text)
    return text


def changes(path: Path, fresh: str) -> str:
    """What a reader would find changed in the notebook, cell by cell; empty if nothing."""
    if path.read_text(encoding="utf-8") == fresh:
        return ""
    before = nbformat.read(path, as_version=4).cells
    after = nbformat.reads(fresh, as_version=4).cells
    lines = [f"{shown_name(path)}: a refresh changes it"]
    for number, (old, new) in enumerate(zip(before, after, strict=True), 1):
        if old != new:
            lines.append(f"  cell {number}: {old.source.strip().splitlines()[0][:70]}")
            lines += _diff(_readable(old), _readable(new))
    return "\n".join(lines)


def _diff(old: str, new: str) -> list[str]:
    diff = difflib.unified_diff(old.splitlines(), new.splitlines(), "stored", "fresh", "", "", 1)
    return [f"    {line.rstrip()[:120]}" for line in list(diff)[:12]]


def _readable(cell: NotebookNode) -> str:
    shown = [f"execution count {cell.get('execution_count')}, metadata {dict(cell.metadata)}"]
    for output in cell.get("outputs", []):
        data = dict(output.get("data", {}))
        pictures = [f"[a picture of {len(data.pop(k))} bytes]" for k in list(data) if "image/" in k]
        shown += [str(output.get("text", "")), str(output.get("evalue", "")), str(data), *pictures]
    return "\n".join(shown)


async def main(options: argparse.Namespace) -> int:
    paths = [Path(name).resolve() for name in options.files] or lessons()
    kernels = asyncio.Semaphore(KERNELS_AT_ONCE)

    async def one(path: Path) -> str | CellFailed:
        async with kernels:
            try:
                return await refreshed(path, everything=options.all)
            except CellFailed as error:
                return error

    fresh = await asyncio.gather(*map(one, paths))
    wrong = [_settle(path, text) for path, text in zip(paths, fresh, strict=True)]
    return int(any(wrong) or not paths)


def _settle(path: Path, fresh: str | CellFailed) -> bool:
    """Write one notebook, if that changes it, and say so; True if it could not be executed."""
    if isinstance(fresh, CellFailed):
        print(f"{shown_name(path)}, {fresh}\nThe file is left as it was.")
        return True
    changed = changes(path, fresh)
    print(changed or f"{shown_name(path)}: nothing changed")
    if changed:
        write_whole(path, fresh.encode())
    return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", help="notebooks; all by default")
    parser.add_argument("--all", action="store_true", help="renew wall-clock outputs, too")
    sys.exit(asyncio.run(main(parser.parse_args())))
