"""Look for the race: run a program of agents under many schedules, and shrink the one that fails.

Virtual time alone runs one course of a program. Here the events of each instant (timers, answers,
results of threads, a task's own `sleep(0)`) come in orders that a real clock allows, drawn from a
seed. It shows nothing of threads that run at the same time, other processes, or a real network.
"""

import asyncio
import inspect
import linecache
import warnings
from asyncio import Handle
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from random import Random
from textwrap import shorten
from typing import Any, NamedTuple, TypeVar

from agentlab import lab
from agentlab._support.asyncio_tools import frames
from agentlab._support.blind_spots import LIBRARIES, SAYS
from agentlab._support.fields import checked
from agentlab._support.schedule import PowerCut, Schedule
from agentlab.errors import ConfigError, RaceError, reason
from agentlab.trace import Trace

T = TypeVar("T")
Program = Callable[[], Coroutine[Any, Any, object]] | Callable[["Run"], object]
Faults = Sequence[Mapping[str, Any]]

_MOST_TRIES = 500  # to shrink a schedule
_MOST_OVERTAKERS = 3


class Explored(NamedTuple):
    """How many schedules were run without a failure, and the most events that one of them had."""

    runs: int
    events: int


class Run:
    """One schedule of a program, and the virtual time in which the program's parts run."""

    def __init__(self, schedule: Schedule, cut: int | None = None) -> None:
        self._schedule, self._cut = schedule, cut
        self.turns = 0  # of what may be killed
        self.killed_at: int | None = None

    def __call__(self, program: Coroutine[Any, Any, T]) -> tuple[T, Trace]:
        """Run a coroutine to its end, as `lab.simulate` does."""
        result, t = lab.simulate(program, schedule=self._schedule)
        return result, t

    def until_killed(self, program: Coroutine[Any, Any, object]) -> bool:
        """Run it until the power is cut, at a turn drawn from the seed; False if it ended before.

        As after kill -9, no task goes on and no `finally` runs. Files keep what was written.
        """
        began = self._schedule.turn
        self._schedule.cut = self._cut and began + self._cut

        async def mortal() -> None:
            try:
                await program
            finally:  # which a dead program does not reach
                self._schedule.cut = None
                self.turns = self._schedule.turn - began

        try:
            self(mortal())
        except PowerCut:
            self.killed_at = self._cut
        return self.killed_at is not None


def explore(
    program: Program, *, runs: int = 1000, seed: int | None = None, faults: Faults | None = None
) -> Explored:
    """Run a program in asyncio's own order, and then under the schedules of seeds 0, 1, 2, ...

    `program` makes a coroutine, as an async function does. Or it takes a `Run` and starts its
    coroutines by it, for what must hold across several, such as a crash. An ordinary
    `assert` says what must hold. With `faults` the endpoint fails by each seed's own chance (see
    `lab.configure`).

    With a `seed`, only that schedule is run, and the program's own error comes out: for a debugger.

    Raises:
        RaceError: If a schedule fails. It names the seed, and which task must come after which.
        ConfigError: If the program is not the same program on each run, or is none of the two.

    Example:
        >>> async def two_tasks():
        ...     order = []
        ...     async def task(name):
        ...         await asyncio.sleep(1)
        ...         order.append(name)
        ...     await asyncio.gather(task("a"), task("b"))
        ...     assert order == ["a", "b"]
        >>> explore(two_tasks)  # doctest: +ELLIPSIS +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        agentlab.errors.RaceError: seed 1 fails: ...
    """
    trial = _Trial(program, faults)
    checked("runs", runs, least=1, whole=True)
    if not __debug__:
        warnings.warn(SAYS["optimized"], RuntimeWarning, stacklevel=2)
    if error := trial.run(Schedule(), None):
        if isinstance(error, ConfigError):  # nothing is wrong with an order
            raise error
        raise RaceError(f"fails in asyncio's own order: {_told(error)}", late={}) from error
    seeds = range(runs) if seed is None else [seed]
    for number in seeds:
        schedule = Schedule(number)
        if error := trial.run(schedule, number):
            raise error if number == seed else trial.found(schedule.late, number)
    return Explored(len(seeds) + 1, trial.events)


class _Trial:
    """A program, and how it is run under one schedule."""

    def __init__(self, program: Program, faults: Faults | None) -> None:
        if not callable(program):
            raise ConfigError(f"explore a function, such as main and not main(); got {program!r}")
        self._program: Any = program
        given = inspect.signature(program).parameters.values()
        self._takes_run = any(each.default is each.empty for each in given)
        self._faults = faults
        self.events = self._turns = 0

    def run(self, schedule: Schedule, seed: int | None) -> Exception | None:
        """Run the program once; return what it raised."""
        # The first run, without a seed, shows how many turns there are to kill it at.
        cut = None if seed is None else Random(f"kill {seed}").randint(1, self._turns or 1)
        self._last = run = Run(schedule, cut)
        chance = {} if self._faults is None else {"faults": self._faults, "seed": seed or 0}
        try:
            with lab.configure(**chance) if chance else nullcontext():
                if not self._takes_run:
                    run(self._program())
                elif asyncio.iscoroutine(left := self._program(run)):
                    left.close()
                    raise ConfigError(SAYS["async"].format(program=self._program))
        except Exception as error:
            return error
        self.events = max(self.events, schedule.events)
        self._turns = max(self._turns, run.turns)
        return None

    def found(self, late: dict[int, int], seed: int) -> RaceError:
        """Return the failure of a schedule, shrunk and told."""
        kind = type(self.run(Schedule(late=late), seed))
        if kind is type(None):
            raise ConfigError(SAYS["differs"].format(seed=seed))
        few = _shrunk(late, lambda fewer: type(self.run(Schedule(late=fewer), seed)) is kind)
        telling = _Telling(late=few)
        error = self.run(telling, seed)
        assert error is not None  # or `few` would not be the schedule that fails
        lines = [f"seed {seed} fails: {_told(error)}"]
        if self._last.killed_at is not None:
            lines.append(f"  killed at turn {self._last.killed_at}")
        lines.append(f"  {len(few)} of {telling.events} events late; the others in asyncio's order")
        for who, before in telling.told.values():
            those = ", ".join(list(before)[:_MOST_OVERTAKERS]) or "nothing of the program"
            lines.append(f"  {who or 'an event'} comes after {those}")
        message = "\n".join([*lines, f"  explore(..., seed={seed}) runs it again"])
        raised = RaceError(message, seed=seed, late=few)
        raised.__cause__ = error
        return raised


def _told(error: Exception) -> str:
    said = reason(error)
    return f"{type(said).__name__}: {said}".partition("\n")[0].rstrip(": ")


def _shrunk(late: dict[int, int], fails: Callable[[dict[int, int]], bool]) -> dict[int, int]:
    """Return the fewest late events with which the program still fails, if one turn late will do.

    Delta debugging: A. Zeller and R. Hildebrandt, IEEE TSE 28 (2002).
    """
    tries, part = 0, len(late)
    while part and tries < _MOST_TRIES:
        for start in range(0, len(late), part):
            leave_out = list(late)[start : start + part]
            fewer = {event: turns for event, turns in late.items() if event not in leave_out}
            tries += 1
            if fails(fewer):
                late = fewer
                break
        else:
            part //= 2
    just_late = dict.fromkeys(late, 1)
    return just_late if fails(just_late) else late


class _Telling(Schedule):
    """A schedule that notes who was late, and who went before: event -> both."""

    def __init__(self, *, late: Mapping[int, int]) -> None:
        super().__init__(late=late)
        self.told: dict[int, tuple[str, dict[str, None]]] = {}

    def delays(self, handle: Handle) -> bool:
        number, late = self.events, super().delays(handle)
        if late:
            self.told[number] = (_who(handle), {})
        return late

    def next_turn(self, ready: Any) -> list[Handle]:
        for _, number, _ in self.held:
            late, before = self.told[number]
            before |= {who: None for handle in ready if (who := _who(handle)) not in ("", late)}
        return super().next_turn(ready)


def _who(handle: Any) -> str:
    """Return the task that an event wakes, with the line of the program where it waits."""
    loop: Any = asyncio.get_running_loop()
    task = getattr(handle._callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        waited = [task, *(handle._args or ())]
        tasks: list[Any] = list(asyncio.all_tasks(loop))
        task = next((t for t in tasks if any(t._fut_waiter is one for one in waited)), None)
    while task is not None and not (line := _own_line(task)):
        task = loop.parents.get(task)  # an endpoint's task, say: who asked it?
    if task is None:
        return ""
    name = task.get_name()
    if name.startswith("Task-"):  # asyncio's, which counts on from run to run
        name = _function(task)
        alike = [t for t in loop.parents if _function(t) == name]
        name += f" {alike.index(task) + 1}" if len(alike) > 1 else ""
    return f"{name} ({line})"


def _function(task: asyncio.Task[Any]) -> str:
    return str(getattr(task.get_coro(), "__name__", "task"))


def _own_line(task: asyncio.Task[Any]) -> str:
    """Return the innermost line of a task that is no library's, and what stands there."""
    own = ""
    for frame in frames(task):
        path, line = frame.f_code.co_filename, frame.f_lineno
        if not path.startswith(LIBRARIES):
            file = "line " if "ipykernel" in path else f"{path.rpartition('/')[2]}:"
            own = f"{file}{line}, {shorten(linecache.getline(path, line), 40, placeholder='...')}"
    return own
