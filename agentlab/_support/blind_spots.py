"""What virtual time cannot see, each warned of: code that polls, blocks, or answers in a thread."""

import sys
import sysconfig
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import FrameSummary, StackSummary, extract_stack
from typing import Any

import msgspec

SAYS: dict[str, str] = msgspec.yaml.decode(Path(__file__).with_suffix(".yaml").read_bytes())
POLLS = 1000  # so many equal waits in a row, and none of another length, look like polling
BLOCKED_S = 0.25  # so long a wait at one line in real time, while the processor rests, blocks
_PACKAGE = str(Path(__file__).parents[1])
LIBRARIES = (*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), _PACKAGE)


class BlindSpots:
    """Watches one event loop in virtual time, and warns once of each kind."""

    def __init__(self) -> None:
        self._delays_s: set[float] = set()
        self._before_s: set[float] = set()
        self._polls = 0
        self._told: set[str] = set()

    def waits(self, delay_s: float) -> None:
        """Note that a task begins to wait for `delay_s`."""
        if delay_s > 0:
            self._delays_s.add(delay_s)
        if self._polls >= POLLS and self._before_s == {delay_s}:
            self.warn("polls", polls=POLLS, delay_s=delay_s)

    def jumps(self) -> None:
        """Note that the clock moves on, because all tasks wait."""
        alike = len(self._delays_s) == 1 and self._delays_s == self._before_s
        self._polls = self._polls + 1 if alike else 0
        self._before_s, self._delays_s = self._delays_s, set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look for a line that blocks this thread, as long as the block runs; warn at its end."""
        over, watched = threading.Event(), threading.get_ident()
        state = Path(f"/proc/self/task/{threading.get_native_id()}/stat")  # Linux has one
        cpu_clock = getattr(time, "pthread_getcpuclockid", None)  # macOS has none
        blocking: list[StackSummary] = []

        def watch() -> None:
            before: Any = None
            while not over.wait(BLOCKED_S):
                frame = sys._current_frames()[watched]
                line = (id(frame), frame.f_lasti)
                cpu_s = time.clock_gettime(cpu_clock(watched)) if cpu_clock else 0.0
                # On a busy machine it may also wait for a processor, or for the disk.
                sleeps = not state.exists() or b") S" in state.read_bytes()
                if before and line == before[0] and sleeps and cpu_s - before[1] < BLOCKED_S / 10:
                    blocking.append(extract_stack(frame))
                before = (line, cpu_s)

        thread = threading.Thread(target=watch, name="virtual watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            if blocking:
                self.warn("blocks", blocking[0])

    def warn(self, kind: str, stack: StackSummary | None = None, **facts: float) -> None:
        """Warn at the innermost own line of a stack, by default of the one that is running."""
        if kind not in self._told:
            self._told.add(kind)
            lines = stack or extract_stack()
            own = [line for line in lines if not line.filename.startswith(LIBRARIES)]
            at = own[-1] if own else FrameSummary("unknown", 0, "")
            message = SAYS[kind].format(**facts)
            warnings.warn_explicit(message, RuntimeWarning, at.filename, at.lineno or 0)
