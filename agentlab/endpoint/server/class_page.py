"""What a check tells the page of a class, and nobody else: which exercise, and if it is solved.

The number of an exercise is looked up in its notebook: one written into a check would stay in a
copied cell, and not every program that runs notebooks hands on the ids of cells.
"""

import json
import logging
import os
from pathlib import Path

import httpx

from agentlab.endpoint.middleware.server_timing import PATIENCE_S, clock_of, within
from agentlab.settings import from_environment, key_from, said

TRIED, SOLVED = "/classroom/tried/", "/classroom/solved/"
_TELLING_S = 1.0  # that a check waits, at most


def tell_class(check: str, *, solved: bool) -> None:
    """Tell the class, with `AGENTLAB_TELL_CLASS=1`, how an exercise goes; `check` is its cell.

    It takes a second at most; of a class that does not hear, a line is logged.
    """
    if os.environ.get("AGENTLAB_TELL_CLASS", "0") in ("", "0"):
        return
    if not within(_TELLING_S, lambda: _heard(check, solved)):
        logging.getLogger("agentlab").warning(said("The class's page did not hear of this."))


def _heard(check: str, solved: bool) -> bool:
    """Tell what says of itself that it is a class, and so no real model; False if it refuses."""
    upstream, exercise = from_environment().upstream, _exercise(check)
    clock = clock_of(upstream) if upstream and exercise else None
    if upstream is None or clock is None or not clock.classroom:
        return True
    url = f"{upstream.removesuffix('/v1')}{SOLVED if solved else TRIED}{exercise}"
    name = {b"authorization": f"Bearer {key_from(learner=True) or ''}".encode()}
    # Past any proxy: it stays in the room.
    return httpx.post(url, headers=name, timeout=PATIENCE_S, trust_env=False).is_success


def _exercise(check: str) -> str | None:
    """Return lesson and number, such as `02b.1`, of the check; None if no notebook here has it."""
    for path in sorted(Path.cwd().glob("[0-9][0-9]*_*.ipynb")):
        cells = ["".join(cell["source"]).strip() for cell in json.loads(path.read_bytes())["cells"]]
        checks = [cell for cell in cells if "Check() as" in cell]
        if check.strip() in checks:
            return f"{path.name.partition('_')[0]}.{checks.index(check.strip()) + 1}"
    return None
