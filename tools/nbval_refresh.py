r"""What `make test` adds to nbval: lessons that have run already, and pictures.

    PYTHONPATH=tools python -m pytest -p nbval -p nbval_refresh --nbval \
        --executed build/executed notebooks

With `--executed DIR`, a notebook that DIR holds is not executed again: nbval compares what is
saved there, as JupyterLab wrote it after a run in the browser. Any other notebook is executed.

After the last cell of a notebook: would `make refresh` change the file? nbval compares texts; a
refresh also compares pictures, the kinds of all outputs and execution counts.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import refresh_notebooks
from nbformat import NotebookNode
from nbval.plugin import IPyNbCell, IPyNbFile

SHOWN = pytest.StashKey[dict[int, list[NotebookNode]]]()
MERMAID = "text/vnd.mermaid"
WIDGET = "application/vnd.jupyter.widget-view+json"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--executed", metavar="DIR", help="compare what was executed and saved here")


class Executed(IPyNbFile):  # type: ignore[misc]  # nbval has no types
    """A notebook whose cells ran before: nbval asks it for messages as it asks a kernel."""

    def setup(self) -> None:
        saved = nbformat.read(executed(self.config, self.path), as_version=4)
        self.cells = iter([cell for cell in saved.cells if cell.cell_type == "code"])
        self.kernel = self
        self.setup_sanitize_files()

    def teardown(self) -> None:
        """Nothing runs here."""

    def is_alive(self) -> bool:
        return True

    def execute_cell_input(self, source: str, allow_stdin: bool) -> str:
        cell = next(self.cells)
        assert cell.source == source, f"it was executed with another source:\n{cell.source}"
        self.messages = itertools.chain(map(message, filter(lasting, cell.outputs)), [IDLE])
        return "executed"

    def await_reply(self, *_: Any, **__: Any) -> None:
        """Every reply has come."""

    await_idle = await_reply

    def get_message(self, stream: str, timeout: float | None = None) -> dict[str, Any]:
        return next(self.messages)


def executed(config: pytest.Config, path: Path) -> Path | None:
    """The notebook of this name that has run, if there is one; a Korean twin has the same name."""
    folder = config.getoption("--executed")
    saved = Path(folder, refresh_notebooks.shown_name(path)) if folder else None
    return saved if saved is not None and saved.is_file() else None


def lasting(output: NotebookNode) -> bool:
    """False for a progress bar, which AGENTLAB_PROGRESS=0 hides where outputs are stored."""
    return WIDGET not in output.get("data", {}) and any(output.get("data", {"": True}).values())


def message(output: NotebookNode) -> dict[str, Any]:
    content = {"metadata": {}, **output}
    if MERMAID in output.get("data", {}):  # JupyterLab saves the picture that it drew as well
        content["data"] = {k: v for k, v in output.data.items() if k != "image/svg+xml"}
    return {"msg_type": output.output_type, "parent_header": PARENT, "content": content}


PARENT = {"msg_id": "executed"}
IDLE = {"msg_type": "status", "parent_header": PARENT, "content": {"execution_state": "idle"}}


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Take the place of nbval's collector where the notebook has run."""
    collectors = yield
    if executed(parent.config, file_path) is None:
        return collectors
    others = [found for found in collectors if not isinstance(found, IPyNbFile)]
    return [*others, Executed.from_parent(parent, path=file_path)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Keep what each cell shows; judge the whole once every cell has passed."""
    yield
    if not isinstance(item, IPyNbCell):
        return
    shown = item.parent.stash.setdefault(SHOWN, {})
    shown[item.cell_num] = item.test_outputs
    stored = copy.deepcopy(item.parent.nb)
    ran = copy.deepcopy(stored)
    code = [cell for cell in ran.cells if cell.cell_type == "code"]
    if len(shown) < len(code):
        return
    for number, cell in enumerate(code):
        cell.update(outputs=shown[number], execution_count=number + 1)
    if changed := refresh_notebooks.changes(item.path, refresh_notebooks.as_kept(ran, stored)):
        pytest.fail(changed, pytrace=False)
