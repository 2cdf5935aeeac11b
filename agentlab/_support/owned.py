"""Processes that end with the one that started them, however that ends.

An owner that is killed cannot tidy up. So the process that it started reads its standard input, a
pipe to which nobody writes: when that ends, the owner is gone. A fork of the owner keeps the pipe
open after that, so where there are forks the process looks at its parent, too.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable

_LOOK_EVERY_S = 0.5


def end_with_owner(end: Callable[[], object] = lambda: os._exit(0)) -> None:
    """Call `end` when the process that started this one is gone, or has closed its pipe to it.

    Call it once, early in a process that was started with `stdin=subprocess.PIPE`. By default the
    process ends immediately, because nobody is left to wait for an answer.
    """
    parent = os.getppid()

    def watch() -> None:
        if os.name != "posix":
            sys.stdin.buffer.read()
        while os.name == "posix" and os.getppid() == parent:
            if select.select([0], [], [], _LOOK_EVERY_S)[0] and not os.read(0, 1):
                break
        end()

    threading.Thread(target=watch, name="owner", daemon=True).start()
