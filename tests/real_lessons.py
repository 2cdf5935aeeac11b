"""Run lessons in front of a model that is not the local one, and tell which cells raise.

    python tests/real_lessons.py [--mode NAME] [--delay SECONDS] NOTEBOOK ...

The model is `awkward.Upstream`, by default in its kind mode: a real model's behaviour, without its
price. Nothing is stored. An error is expected where a cell has the tag `raises-exception`, and only
there. The exit code is 1 if any cell breaks that.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":  # run as a script, this folder is the path; the module lies beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nbformat
from awkward import KEY, MODEL, MODES, Upstream
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
CELL_TIMEOUT_S = 300
EXPECTED = "raises-exception"


class Surprise(NamedTuple):
    """A code cell that raised unasked, or did not where it should; cells count from 1."""

    cell: int
    error: str
    source: str


def run(notebook: Path, upstream: Upstream) -> list[Surprise]:
    """Execute a notebook whose lab asks `upstream`; returns what did not go as its tags say."""
    node = nbformat.read(notebook, as_version=4)
    client = NotebookClient(
        node,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        allow_errors=True,
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(notebook.parent)}},
    )
    environ = os.environ | {
        "OPENAI_BASE_URL": upstream.url,
        "OPENAI_API_KEY": upstream.key,
        "OPENAI_MODEL": MODEL,
        "AGENTLAB_PROGRESS": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    client.execute(env=environ)
    assert KEY not in nbformat.writes(node), "the key is in an output"
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    return [found for n, cell in enumerate(code, 1) if (found := _surprise(n, cell)) is not None]


def _surprise(number: int, cell: NotebookNode) -> Surprise | None:
    errors = [output for output in cell.outputs if output.output_type == "error"]
    expected = EXPECTED in cell.metadata.get("tags", [])
    if expected == bool(errors):
        return None
    said = f"{errors[0].ename}: {errors[0].evalue}" if errors else "raised nothing"
    return Surprise(number, said, cell.source)


def main() -> int:
    """Run what is named, and print a line for each surprise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--mode", choices=MODES, default="kind", metavar="NAME")
    parser.add_argument("--delay", type=float, default=0.02, help="seconds an answer takes")
    options = parser.parse_args()
    surprises = 0
    with Upstream(options.mode, delay_s=options.delay) as upstream:
        for path in options.notebooks:
            upstream.use(options.mode)
            found = run(path, upstream)
            surprises += len(found)
            print(
                f"{path.name}: {len(found)} surprises, {len(upstream.asked)} requests", flush=True
            )
            for surprise in found:
                error = " ".join(surprise.error.split())
                print(f"  code cell {surprise.cell}: {error[:400]}")
                print("    | " + "\n    | ".join(surprise.source.splitlines()), flush=True)
    return int(surprises > 0)


if __name__ == "__main__":
    raise SystemExit(main())
