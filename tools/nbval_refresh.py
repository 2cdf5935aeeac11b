"""After nbval's last cell of a notebook: would `make refresh` change the file, now that it has run?

    PYTHONPATH=tools python -m pytest -p nbval_refresh --nbval notebooks

nbval compares texts; a refresh also compares pictures, the kinds of all outputs and execution
counts. Both look at one and the same run, since running all lessons takes minutes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import refresh_notebooks
from nbformat import NotebookNode
from nbval.plugin import IPyNbCell

SHOWN = pytest.StashKey[dict[int, list[NotebookNode]]]()


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
