"""Virtual time for asyncio: the same program, on a clock that jumps over the waiting.

When nothing is ready to run, an ordinary loop sleeps until its next timer. This one sets its
clock to that timer instead. So a program that only waits, for other tasks or for a model inside
the same loop, runs in milliseconds, and ends at exactly the time at which it would have ended.

Sockets, threads and processes of their own live in real time and take none here. What is handed
to `run_in_executor` or `asyncio.to_thread` runs at once, inside the loop, while the clock stands.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, TypeVarTuple

from agentlab.errors import ConfigError, DeadlockError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_RESOLUTION_S = 5e-10  # times are whole nanoseconds, so half of one tells any two apart


@dataclass(frozen=True)
class VirtualRun(Generic[T]):
    """What a program returned in virtual time, and how long it took there, in seconds."""

    result: T
    elapsed_s: float


def run_virtual(main: Coroutine[Any, Any, T]) -> VirtualRun[T]:
    """Run a coroutine to its end on a simulated clock that starts at 0.

    It works in a script and inside a running event loop, such as a notebook's, alike. Tasks that
    are left over when `main` ends are cancelled, as by `asyncio.run`.

    Raises:
        ConfigError: If `main` is no coroutine.
        DeadlockError: If nothing is left that could ever happen, naming the tasks that wait.

    Example:
        >>> async def nap() -> str:
        ...     await asyncio.sleep(3600)
        ...     return "rested"
        >>> run_virtual(nap())
        VirtualRun(result='rested', elapsed_s=3600.0)
    """
    if not asyncio.iscoroutine(main):
        raise ConfigError(f"virtual time runs a coroutine, such as main(); got {main!r}")
    loop = VirtualTimeLoop()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(loop, main)
    return _run_in_thread(loop, main)


def is_virtual(loop: asyncio.AbstractEventLoop | None = None) -> bool:
    """True if `loop`, or else the running loop, keeps virtual time; False where none runs."""
    if loop is None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
    return isinstance(loop, VirtualTimeLoop)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands while anything runs, and jumps when everything waits.

    Timers of the same instant run in the order in which they were set, so that a program has
    one and the same course on every run.

    Attributes:
        belongings: What others keep for this loop alone, each under a key of its own.
    """

    # asyncio's own, on which this loop builds; they have been there since Python 3.4.
    _scheduled: list[asyncio.TimerHandle]
    _check_closed: Callable[[], None]

    def __init__(self) -> None:
        self._now_s = 0.0
        self._order = itertools.count()
        self.belongings: dict[object, Any] = {}
        super().__init__(_JumpingSelector(self))
        self._clock_resolution = _RESOLUTION_S

    def time(self) -> float:
        """Seconds since the loop was made, in whole nanoseconds."""
        return self._now_s

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """As in any loop, but rounded to a nanosecond: 0.1 and 0.2 after it make 0.3."""
        self._check_closed()
        timer = _Timer(round(when, 9), callback, args, self, context)
        timer.order = next(self._order)
        timer._scheduled = True
        heapq.heappush(self._scheduled, timer)
        return timer

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run `func` here and now; it takes no virtual time."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def close(self) -> None:
        """As of any loop; its belongings end with it."""
        super().close()
        self.belongings.clear()

    def jump(self) -> None:
        """Set the clock to the next timer.

        Raises:
            DeadlockError: If there is none.
        """
        if not self._scheduled:
            waiting = [_where(task) for task in asyncio.all_tasks(self)]
            raise DeadlockError(
                "nothing is ready and no timer is set, so nothing can ever happen; "
                f"waiting: {'; '.join(sorted(waiting)) or 'no task'}",
                waiting=sorted(waiting),
            )
        self._now_s = max(self._now_s, self._scheduled[0].when())


class _Timer(asyncio.TimerHandle):
    """A timer that knows its place among those of the same instant; a heap alone keeps none."""

    __slots__ = ("order",)
    order: int
    _when: float
    _scheduled: bool

    def __lt__(self, other: Any) -> bool:
        return (self._when, self.order) < (other._when, other.order)


class _JumpingSelector(selectors.DefaultSelector):
    """Polls as the real one does; where that would wait, it lets the loop's clock jump."""

    def __init__(self, loop: VirtualTimeLoop):
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events and (timeout is None or timeout > 0):
            self._loop.jump()
        return events


async def _timed(main: Coroutine[Any, Any, T]) -> VirtualRun[T]:
    result = await main
    return VirtualRun(result, asyncio.get_running_loop().time())


def _run(loop: VirtualTimeLoop, main: Coroutine[Any, Any, T]) -> VirtualRun[T]:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(_timed(main))


def _run_in_thread(loop: VirtualTimeLoop, main: Coroutine[Any, Any, T]) -> VirtualRun[T]:
    """In a thread of its own, because a thread can run only one loop."""
    outcome: Future[VirtualRun[T]] = Future()

    def work() -> None:
        try:
            outcome.set_result(_run(loop, main))
        except BaseException as error:
            outcome.set_exception(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="virtual time")
    try:
        thread.start()  # an interrupt may come as early as this
        return outcome.result()
    except KeyboardInterrupt:
        loop.call_soon_threadsafe(_cancel_everything, loop)
        raise
    finally:
        if thread.is_alive():
            thread.join()


def _cancel_everything(loop: VirtualTimeLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


def _where(task: asyncio.Task[Any]) -> str:
    """The task's name and the innermost of its own lines, such as "writer in ask (lab.py:7)"."""
    inner: Any = task.get_coro()
    while hasattr(awaited := getattr(inner, "cr_await", None), "cr_frame"):
        inner = awaited
    frame = getattr(inner, "cr_frame", None)
    if frame is None:
        return task.get_name()
    code = frame.f_code
    return f"{task.get_name()} in {code.co_name} ({code.co_filename}:{frame.f_lineno})"
