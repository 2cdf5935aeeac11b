"""What virtual time cannot see: warnings that name the place, and say what to do instead.

A program may wait for something that only real time brings: a rate limiter that polls
`time.monotonic()`, a call that blocks, an answer from a thread. The clock of `agentlab.clock` then
jumps too far, or stands, and the program's figures are wrong. That can only be guessed, so it is a
warning: a thousand equal waits in a row, a line that waits for a quarter of a second while the
processor rests, a call from another thread.
"""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_stack
from types import FrameType
from typing import Any, NamedTuple

POLLS = 1000
"""So many equal waits in a row, and none of another length, look like polling."""

BLOCKED_S = 0.25
"""A line that waits for so long in real time blocks the loop."""

_LIBRARIES = (
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    str(Path(__file__).parent),
)
_ASYNCIO = asyncio.__path__[0]


class BlindSpots:
    """Watches one event loop in virtual time, and warns once of each kind of thing."""

    def __init__(self) -> None:
        self._delays_s: set[float] = set()
        self._before_s: set[float] = set()
        self._polls = 0
        self._turn = 0
        self._blocked_at: Place | None = None
        self._said: set[str] = set()

    def waits(self, delay_s: float) -> None:
        """Note that a task begins to wait for `delay_s`."""
        if delay_s > 0:
            self._delays_s.add(round(delay_s, 9) or delay_s)

    def jumps(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note that the clock moves on, because all tasks wait."""
        alike = len(self._delays_s) == 1 and self._delays_s == self._before_s
        self._polls = self._polls + 1 if alike else 0
        self._before_s, self._delays_s = self._delays_s, set()
        if self._polls == POLLS:
            sleep = asyncio.sleep.__code__
            tasks = [(task, [*_waiting(task)]) for task in asyncio.all_tasks(loop)]
            sleeping = [task for task, frames in tasks if frames and frames[-1].f_code is sleep]
            self._warn(
                f"{POLLS:,} waits of {self._before_s.pop():g} s in a row, and nothing else "
                "happened. If this line polls time.monotonic() or another real clock: those hardly "
                "move in virtual time. Read the event loop's time() instead, and keep a rate limit "
                "with agentlab.resilience.RateLimit",
                place(sleeping[0]) if sleeping else None,
            )

    def thread_answers(self) -> None:
        """Note that another thread calls into the loop."""
        self._warn(
            "a thread answers to a program in virtual time, whose clock did not wait for it; "
            "start the work with asyncio.to_thread(), or run the program in real time"
        )

    def turns(self) -> None:
        """Note that the loop goes round once more."""
        self._turn += 1
        if self._blocked_at is not None:
            blocked_at, self._blocked_at = self._blocked_at, None
            self._warn(
                "this line waited in real time, while virtual time stood still: a call that blocks "
                "takes none. Await its asynchronous form (asyncio.sleep, ainvoke), or run the "
                "program in real time",
                blocked_at,
            )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look for a line that blocks this thread, as long as the block runs."""
        over, watched = threading.Event(), threading.get_ident()
        cpu_clock = getattr(time, "pthread_getcpuclockid", None)  # macOS has none

        def watch() -> None:
            seen: Any = None
            while not over.wait(BLOCKED_S):
                frame = sys._current_frames()[watched]
                turn_and_line = (self._turn, id(frame), frame.f_lasti)
                cpu_s = time.clock_gettime(cpu_clock(watched)) if cpu_clock else 0.0
                if seen and turn_and_line == seen[0] and cpu_s - seen[1] < BLOCKED_S / 10:
                    self._blocked_at = self._blocked_at or _blocking_line(frame)
                seen = (turn_and_line, cpu_s)

        thread = threading.Thread(target=watch, name="virtual watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _warn(self, message: str, at: Place | None = None) -> None:
        if (kind := message[:12]) not in self._said:
            self._said.add(kind)
            if at is None:
                warnings.warn(message, RuntimeWarning, stacklevel=4)
            else:
                warnings.warn_explicit(message, RuntimeWarning, at.file, at.line)


class Place(NamedTuple):
    """A line of somebody's code."""

    file: str
    line: int
    function: str


def where(task: asyncio.Task[Any]) -> str:
    """Name the task and the line at which it waits, such as "writer in ask (lab.py:7)"."""
    at = place(task)
    return task.get_name() + (f" in {at.function} ({at.file}:{at.line})" if at else "")


def place(task: asyncio.Task[Any]) -> Place | None:
    """Find the innermost line at which a task waits, asyncio's own left out."""
    found = None
    for frame in _waiting(task):
        file = frame.f_code.co_filename
        if found is None or not file.startswith(_ASYNCIO):
            found = Place(file, frame.f_lineno, frame.f_code.co_name)
    return found


def _waiting(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """Yield the frames of a task's coroutines, outermost first."""
    inner: Any = task.get_coro()
    while (frame := getattr(inner, "cr_frame", None)) is not None:
        yield frame
        inner = inner.cr_await


def _blocking_line(frame: FrameType) -> Place | None:
    """Find the line that blocks; None within an import, which may wait for a disk."""
    frames = [*walk_stack(frame)][::-1]
    if any("importlib._bootstrap" in each.f_code.co_filename for each, _ in frames):
        return None
    found = None
    for each, line in frames:
        if not each.f_code.co_filename.startswith(_LIBRARIES):
            found = Place(each.f_code.co_filename, line, each.f_code.co_name)
    return found
