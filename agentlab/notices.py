"""Lines for whoever watches a run: what it did, or met, that nobody asked for.

They go to the logger "agentlab", which without further ado writes them to the standard error.
"""

from __future__ import annotations

import logging

log = logging.getLogger("agentlab")

_said: set[tuple[str, str]] = set()


def say_once(about: str, line: str) -> None:
    """Log a line, unless the same was said of the same thing before.

    Args:
        about: What it is about, such as the address of an endpoint.
    """
    if (about, line) not in _said:
        _said.add((about, line))
        log.warning("%s", line)
