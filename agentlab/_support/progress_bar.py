"""How far a long run is: a bar in a notebook or a terminal, gone at the end."""

from __future__ import annotations

import os
import sys
from typing import Any

from tqdm import auto, std


def bar(
    steps: Any = None, *, total: int | None = None, name: str = "", shown: bool = True
) -> std.tqdm[Any]:
    """Return tqdm's bar, around `steps`, or of `total` steps that are counted by `update()`.

    `AGENTLAB_PROGRESS=0` hides every bar, for outputs that are stored or compared.
    """
    hidden = not shown or os.environ.get("AGENTLAB_PROGRESS", "1") == "0"
    how: dict[str, Any] = {"total": total, "desc": name or None, "leave": False}
    notebook = sys.modules.get("tqdm.notebook")  # slow to import; `auto` does so in a notebook
    if hidden or notebook is None or not issubclass(auto.tqdm, notebook.tqdm):
        return auto.tqdm(steps, disable=hidden, **how)
    from IPython.display import display

    made: Any = auto.tqdm(steps, display=False, **how)
    output, close = display(made.container, display_id=True), made.close  # type: ignore[no-untyped-call]

    def end() -> None:
        """Leave an empty output; saved and reopened, another would be an error."""
        close()
        output.update({"text/plain": ""}, raw=True)

    made.close = end
    return made  # type: ignore[no-any-return]
