"""Virtual time for asyncio: the same program, on a clock that jumps over the waiting.

When nothing is ready to run, an ordinary loop sleeps until its next timer. This one sets its
clock to that timer instead. So a program that only waits, for other tasks or for a model inside
the same loop, runs in milliseconds, and ends at exactly the time at which it would have ended.

Sockets, threads and other processes live in real time, which this clock does not know. Waiting for
a socket is an error. A call that blocks, a limiter that polls `time.monotonic()` or a thread that
answers can only be guessed, so each is a warning that names the line, and what to do instead.
"""

import asyncio
import contextvars
import ctypes
import heapq
import itertools
import math
import selectors
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from agentlab._support.asyncio_tools import frames, running_loop
from agentlab._support.blind_spots import SAYS, BlindSpots
from agentlab._support.schedule import PowerCut, Schedule
from agentlab.errors import ConfigError, DeadlockError, reason

T = TypeVar("T")

HORIZON_S = 1e12  # the end of virtual time; later times would be coarser than 0.1 ms
_TIMERS_FOR_NOW = 100  # more that are set for the present wait for less than floats can tell
_STANDS_TURNS = 250_000  # a clock that stands for so many turns: a task polls without waiting
_ASYNCIO = asyncio.__path__[0]


class VirtualRun(NamedTuple, Generic[T]):
    """What a program returned in virtual time, and how long it took there, to the nanosecond."""

    result: T
    elapsed_s: float


def run_virtual(
    main: Coroutine[Any, Any, T], *, schedule: int | Schedule | None = None
) -> VirtualRun[T]:
    """Run a coroutine to its end on a simulated clock that starts at 0.

    It works in a script and inside a running event loop, such as a notebook's. Tasks that are left
    over when `main` ends are cancelled, as by `asyncio.run`. A `schedule`, or a seed to draw one,
    makes events of an instant late; see `agentlab.explore`.

    Raises:
        PowerCut: If the schedule cuts the power.
        ConfigError: If `main` is no coroutine, or waits for a real socket or pipe; where a client
            hides that behind an error of its own, a note says so.
        DeadlockError: If nothing can ever happen again, or nothing before `HORIZON_S`, or if a
            task polls without ever waiting. It names the tasks that wait.

    Example:
        >>> async def nap() -> str:
        ...     await asyncio.sleep(3600)
        ...     return "rested"
        >>> run_virtual(nap())
        VirtualRun(result='rested', elapsed_s=3600.0)
    """
    if not asyncio.iscoroutine(main):
        raise ConfigError(f"virtual time runs a coroutine, such as main(); got {main!r}")
    run = _run if running_loop() is None else _run_in_thread
    if not isinstance(schedule, Schedule | None):
        schedule = Schedule(schedule)
    loop = VirtualTimeLoop() if schedule is None else ScheduledLoop(schedule)
    try:
        return run(loop, main)
    except Exception as error:
        if (told := reason(error)) is not error:
            error.add_note(f"The reason: {told}")
        raise


def is_virtual() -> bool:
    """Return whether the loop that runs here keeps virtual time."""
    return isinstance(running_loop(), VirtualTimeLoop)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands while anything runs, and jumps when everything waits.

    Timers of the same nanosecond belong to the same instant. They run in the order in which they
    were set, so that a program takes the same course on every run; the clock then shows the latest
    of them, so that none runs before its time.
    """

    # asyncio's own, on which this loop builds
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _check_closed: Callable[[], None]
    _thread_id: int | None

    def __init__(self) -> None:
        self._now_s = 0.0
        self._order = itertools.count()
        self._timers_for_now = 0
        self.belongings: dict[object, Any] = {}  # what others keep for this loop alone
        self.blind_spots = BlindSpots()
        super().__init__(_JumpingSelector(self))
        self._clock_resolution = math.ulp(0.0)  # what is due is due, to the last bit

    def time(self) -> float:
        """Return the seconds since the loop was made."""
        return self._now_s

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        self.blind_spots.waits(delay)
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Set a timer; one at infinity never runs, and counts as none.

        When timers are set for the present again and again, they get a nanosecond, as if it ticked.
        """
        self._check_closed()
        if math.isnan(when):
            raise ConfigError(f"a timer needs a time; got {when!r}")
        if when <= self._now_s:
            self._timers_for_now += 1
            if self._timers_for_now > _TIMERS_FOR_NOW:
                when = max(self._now_s + 1e-9, math.nextafter(self._now_s, math.inf))
        timer = _Timer(when, callback, args, self, context)
        if when < math.inf:
            timer.place = (round(when, 9), next(self._order))
            timer._scheduled = True
            heapq.heappush(self._scheduled, timer)
        return timer

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        if self._thread_id not in (None, threading.get_ident()):
            self.blind_spots.warn("thread")  # which answers
        return super().call_soon_threadsafe(callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run `func` here and now; it takes no virtual time."""
        done = self.create_future()
        try:
            settle: Callable[[], object] = partial(done.set_result, func(*args))
        except Exception as error:
            settle = partial(done.set_exception, error)
        self.arrive(lambda waits: waits.done() or settle(), done)
        return done

    def arrive(self, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback`, which brings something from outside of the program."""
        callback(*args)

    def arrange(self) -> bool:
        """Begin a turn of the loop; return whether anything is ready."""
        return bool(self._ready)

    def close(self) -> None:
        super().close()
        self.belongings.clear()

    def jump(self) -> None:
        """Set the clock to the next timer; without one, raise a DeadlockError."""
        timers: Any = self._scheduled
        if not timers:
            raise self.stuck("nothing is ready and no timer is set, so nothing can ever happen")
        # The timers at the top of the heap that share the first one's nanosecond.
        when, instant, looking = timers[0].when(), timers[0].place[0], [0]
        while looking:
            at = looking.pop()
            if at < len(timers) and timers[at].place[0] == instant:
                when = max(when, timers[at].when())
                looking += (2 * at + 1, 2 * at + 2)
        if when > HORIZON_S:
            ends = f"virtual time ends at {HORIZON_S:g} s"
            raise self.stuck(f"nothing happens before {when:g} s, and {ends}")
        self.blind_spots.jumps()
        self._now_s = max(self._now_s, round(when, 9), when)
        self._timers_for_now = 0
        self._clock_resolution = math.ulp(self._now_s)

    def stuck(self, why: str) -> DeadlockError:
        """Return an error that names the tasks that wait."""
        waiting = sorted(_where(task) for task in asyncio.all_tasks(self))
        return DeadlockError(f"{why}; waiting: {'; '.join(waiting) or 'no task'}", waiting=waiting)


def _refuse(*_: Any, **__: Any) -> Any:
    raise ConfigError(SAYS["socket"])


for _name in """create_connection create_server create_unix_connection create_unix_server
    create_datagram_endpoint connect_accepted_socket connect_read_pipe connect_write_pipe
    subprocess_exec subprocess_shell""".split():
    setattr(VirtualTimeLoop, _name, _refuse)


class ScheduledLoop(VirtualTimeLoop):
    """Virtual time in which a schedule may make the events of an instant late.

    On a real clock they are microseconds apart, in any order.

    `parents` has the task that made each task; None for the first.
    """

    _asyncgens: Any  # asyncio's own

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.parents: dict[asyncio.Task[Any], asyncio.Task[Any] | None] = {}
        super().__init__()

    def create_task(self, *args: Any, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(*args, **options)
        self.parents[task] = asyncio.current_task(self)
        return task

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        handle = super().call_soon(callback, *args, context=context)
        # A task that schedules itself yields: sleep(0) stands for an event that takes no time.
        task = asyncio.current_task(self)
        if task and getattr(callback, "__self__", None) is task and self._schedule.delays(handle):
            self._ready.pop()
        return handle

    def arrive(self, callback: Callable[..., object], *args: Any) -> None:
        if not self._schedule.delays(asyncio.Handle(callback, args, self)):
            callback(*args)

    def arrange(self) -> bool:
        timers: Any = self._scheduled
        while timers and timers[0].when() <= self._now_s:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            if not timer.cancelled() and not self._schedule.delays(timer):
                self._ready.append(timer)
        self._ready.extend(self._schedule.next_turn(self._ready))
        return bool(self._ready)

    def die(self) -> None:
        """Leave every task where it is; none of them goes on, or cleans up."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            asyncio.tasks._unregister_task(task)
            _dead.append(task)
        self._schedule.cut = None
        for waiting in (self._ready, self._scheduled, self._schedule.held, self._asyncgens):
            waiting.clear()


_dead: list[asyncio.Task[Any]] = []  # a task that is thrown away would run its `finally`
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_dead))  # so even Python's end throws none away


class _Timer(asyncio.TimerHandle):
    """A timer that keeps its place among those of the same instant, as a heap alone does not."""

    __slots__ = ("place",)
    place: tuple[float, int]
    _scheduled: bool

    def __lt__(self, other: Any) -> bool:
        return bool(self.place < other.place)


class _JumpingSelector(selectors.DefaultSelector):
    """Polls as the real one does; where that would wait, it lets the loop's clock jump."""

    def __init__(self, loop: VirtualTimeLoop):
        super().__init__()
        self._loop = loop
        self._turns, self._moved_s = 0, 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        if self.get_map():  # the first one is the loop's own, by which other threads wake it
            _refuse()
        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> Any:
        loop = self._loop
        events, ready = super().select(0), loop.arrange()
        if not events and not ready and (timeout is None or timeout > 0):
            loop.jump()
            loop.arrange()
        self._turns += 1
        if loop.time() >= self._moved_s + 1e-6:
            self._turns, self._moved_s = 0, loop.time()
        elif self._turns > _STANDS_TURNS:
            self._turns = 0
            stands = f"the clock has stood at {loop.time():g} s for {_STANDS_TURNS:,} turns"
            raise loop.stuck(f"{stands}; somebody polls: await an event, or asyncio.sleep(0.1)")
        return events


def _run(loop: Any, main: Coroutine[Any, Any, T]) -> VirtualRun[T]:
    with asyncio.Runner(loop_factory=lambda: loop) as runner, loop.blind_spots.watched():
        try:
            return VirtualRun(runner.run(main), round(loop.time(), 9))  # 0.1 + 0.2 make 0.3
        except PowerCut:
            loop.die()
            raise


def _run_in_thread(loop: VirtualTimeLoop, main: Coroutine[Any, Any, T]) -> VirtualRun[T]:
    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(int).result()  # an interrupt can keep the pool from noting a new thread
            running = thread.submit(contextvars.copy_context().run, _run, loop, main)
            while wait([running], timeout=0.1).not_done:
                pass  # a wait without end misses a signal that comes just as it begins
            return running.result()
        except KeyboardInterrupt:
            with suppress(RuntimeError):  # it is closed, if the program itself raised it
                asyncio.SelectorEventLoop.call_soon_threadsafe(loop, loop.stop)
            raise


def _where(task: asyncio.Task[Any]) -> str:
    """Name the task and the line at which it waits, such as "writer in ask (lab.py:7)"."""
    at = ""
    for frame in frames(task):
        code = frame.f_code
        if not at or not code.co_filename.startswith(_ASYNCIO):
            at = f" in {code.co_name} ({code.co_filename}:{frame.f_lineno})"
    return task.get_name() + at
