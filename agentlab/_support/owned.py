"""Processes that end with the one that started them, however that ends."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable


def end_with_owner(end: Callable[[], object] = lambda: os._exit(0)) -> None:
    """Call `end` when the process that started this one is gone, or has closed its pipe to it.

    Call it once, early in a process that was started with `stdin=subprocess.PIPE`. Nobody writes
    to that pipe, and it ends with the owner, unless a fork of the owner keeps it open; so this
    looks for another parent, too.
    """
    parent = os.getppid()

    def watch() -> None:
        if os.name != "posix":
            sys.stdin.buffer.read()
        while os.name == "posix" and os.getppid() == parent:
            if select.select([0], [], [], 0.5)[0] and not os.read(0, 1):
                break
        end()

    threading.Thread(target=watch, name="owner", daemon=True).start()
