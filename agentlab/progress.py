"""How far a long run is: a bar in a notebook or a terminal, gone at the end."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def bar(
    steps: Iterable[Any] | None = None, *, total: int | None = None, name: str = ""
) -> tqdm[Any]:
    """tqdm's bar, around `steps`, or of `total` steps that are counted by `update()`.

    `AGENTLAB_PROGRESS=0` hides every bar, for where outputs are stored or compared. (tqdm has
    a variable for that, which its bar for notebooks does not heed.)

    Example:
        for seed in bar(range(50)):
            ...
    """
    hidden = os.environ.get("AGENTLAB_PROGRESS", "1") == "0"
    return tqdm(steps, total=total, desc=name or None, leave=False, disable=hidden)
