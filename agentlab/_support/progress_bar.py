"""How far a long run is: a bar in a notebook or a terminal, gone at the end."""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Any

from tqdm import auto, std


def bar(
    steps: Any = None, *, total: int | None = None, name: str = "", shown: bool = True
) -> std.tqdm[Any]:
    """Return tqdm's bar, around `steps`, or of `total` steps that are counted by `update()`.

    `AGENTLAB_PROGRESS=0` hides every bar, for outputs that are stored or compared.
    """
    hidden = not shown or os.environ.get("AGENTLAB_PROGRESS", "1") == "0"
    notebook = sys.modules.get("tqdm.notebook")  # slow to import; `auto` does so in a notebook
    if notebook and issubclass(auto.tqdm, notebook.tqdm) and not hidden:
        return _in_notebook()(steps, total=total, desc=name or None, leave=False, display=False)
    return auto.tqdm(steps, total=total, desc=name or None, leave=False, disable=hidden)


@cache
def _in_notebook() -> type[std.tqdm[Any]]:
    from tqdm import notebook

    class InNotebook(notebook.tqdm):  # type: ignore[type-arg]  # it takes none when it runs
        """A bar that ends as an empty output; saved and reopened, another would be an error."""

        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            from IPython.display import display

            self._output = display(self.container, display_id=True)  # type: ignore[no-untyped-call]

        def close(self) -> None:
            super().close()
            self._output.update({"text/plain": ""}, raw=True)

    return InNotebook
