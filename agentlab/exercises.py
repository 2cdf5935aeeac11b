"""The checks of the exercises: what the endpoint saw, and a hint instead of a traceback.

A check is a block of claims. The first that does not hold ends the block, and its hint is shown;
so does whatever the learner's code raises, and an answer that never ends. Claims come in the order
in which a learner would want to hear of them: what is missing, what is wrong, how far it is.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import gc
import inspect
import linecache
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, TracebackType
from typing import Any, Self

from agentlab import lab
from agentlab._support.asyncio_tools import running_loop
from agentlab.errors import ConfigError, DeadlockError, reason
from agentlab.trace import Trace, trace

WITHIN_S = 600.0
"""Model seconds that an answer may take; those of the exercises take some tens."""

CALL_PATIENCE_S = 5.0
"""Seconds of the learner's own that a calculation may take."""

RUN_PATIENCE_S = 20.0
"""The same for a run in virtual time, in which a loop may stand still."""

Program = Callable[..., Any] | Awaitable[Any]


class Check:
    """A block of claims about an answer; at its end it prints `Solved.` or `Not yet:` and a hint.

    Example:
        with Check() as check:
            answers, t = check.simulate(my_agents, ["tides", "winds"])
            check(t.requests == 2, f"the endpoint saw {t.requests} requests, not 2.")
            check(t.peak == 2, "one waits for the other; asyncio.gather runs both together.")
    """

    def __enter__(self) -> Self:
        self._own = sys._getframe(1).f_code
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            gc.collect()  # what an earlier answer left unawaited is no fault of this one
        self._warned = warnings.catch_warnings(record=True)
        self._warnings: Any = self._warned.__enter__()
        warnings.simplefilter("default", RuntimeWarning)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> bool:
        self._warned.__exit__(kind, error, where)
        if isinstance(error, KeyboardInterrupt | GeneratorExit) or _from_outside(error):
            return False
        forgotten = _never_awaited(self._warnings)
        if error is None:
            print("Solved.")
        elif isinstance(error, _NotYet):
            also = forgotten if isinstance(error, _Unfulfilled) else ""
            print(f"Not yet: {_short(error, 400)}{also}")
        else:
            print(f"Not yet: {_what_it_raised(error, self._own)}")
        return True

    def __call__(self, claim: object, hint: str) -> None:
        """End the block with `hint` unless the claim holds."""
        if not claim:
            raise _Unfulfilled(hint)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """What `function` returns, if it does so in time."""
        return _settled(_in_time(lambda: function(*args), function, CALL_PATIENCE_S))

    def simulate(
        self,
        program: Program,
        *args: Any,
        catch: type[Exception] | tuple[type[Exception], ...] = (),
        within_s: float = WITHIN_S,
    ) -> tuple[Any, Trace]:
        """What `program` returns in virtual time, and what the endpoint saw of it.

        Args:
            program: A coroutine, or a function of `args` that makes one.
            catch: The kinds of error that are returned instead of the result, as by `lab.simulate`.
            within_s: Model seconds after which it is ended.
        """

        async def main() -> Any:
            # A task that was left behind would be reported with its traceback.
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            return await _awaited(program, args, within_s)

        def work() -> tuple[Any, Trace]:
            with trace() as t, _unending_told(t, within_s):
                return lab.simulate(main(), catch=catch)

        result, t = _in_time(work, program, RUN_PATIENCE_S)
        return _settled(result), t

    async def run(
        self,
        program: Program,
        *args: Any,
        catch: type[Exception] | tuple[type[Exception], ...] = (),
        within_s: float = WITHIN_S,
    ) -> tuple[Any, Trace]:
        """The same in real time, for what cannot be simulated: other processes, and CrewAI."""
        with trace() as t:
            try:
                with _unending_told(t, within_s):
                    result = await _awaited(program, args, within_s / lab.model_seconds_a_second())
            except _NotYet:
                raise
            except catch as error:
                result = error
        return _settled(result), t


def words_in(function: Callable[..., Any]) -> set[str]:
    """The names and the strings in a function's code, those of functions inside it included.

    A trace tells what an answer did. Where two mistakes look alike from the endpoint, this tells
    which of two hints fits.

    Example:
        >>> sorted(words_in(lambda: asyncio.Semaphore(3)))
        ['Semaphore', 'asyncio']
    """
    code = getattr(function, "__code__", None)
    return set(_words(code)) if code else set()


def _words(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, tuple):  # names of arguments, and keys of a dictionary
        for inner in part:
            yield from _words(inner)
    elif isinstance(part, CodeType):
        yield from part.co_names
        yield from _words(part.co_consts[1:] if part.co_consts[:1] == (None,) else part.co_consts)


class _NotYet(Exception):
    """The exercise is not solved; the message says why."""


class _Unfulfilled(_NotYet):
    """A claim does not hold; the message is its hint."""


class _Unending(_NotYet):
    """The answer did not end in time; the message says so."""


@contextmanager
def _unending_told(t: Trace, within_s: float) -> Iterator[None]:
    """Whether what did not end waited, or went on asking, is in its trace."""
    try:
        yield
    except _Unending as error:
        asking_s = t.spans[-1].arrived_s - t.spans[0].arrived_s if t.spans else 0.0
        if asking_s > within_s / 2:
            raise _NotYet(
                f"{error}: it asks again and again, {t.requests} requests so far, the last by "
                f"{_short(t.spans[-1].agent)}; what ends the loop?"
            ) from None
        raise _NotYet(f"{error}; what does it wait for?") from None


def _in_time(work: Callable[[], Any], program: Any, patience_s: float) -> Any:
    """What `work` returns; it is done in a thread of its own, which is ended if it takes too long.

    Nothing else ends `while True: pass`, which is what a loop without progress comes to.
    """
    outcome: list[Any] = []

    def keep() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(keep,), name="answer", daemon=True)
    thread.start()
    try:
        thread.join(patience_s)
    finally:
        late = thread.is_alive()
        if late:
            where = _where(_running_in(thread))
            _end(thread)
    if late:
        raise _NotYet(
            f"{_name(program)} runs for {patience_s:g} s already{where}; does a loop never end?"
        )
    result, error = outcome[0]
    if isinstance(error, KeyboardInterrupt | _NotYet):
        raise error
    if error is not None:
        raise _NotYet(_what_it_raised(error))
    return result


def _running_in(thread: threading.Thread) -> list[tuple[FrameType, int]]:
    """What the thread is running, from the outermost frame to the innermost."""
    frame = sys._current_frames().get(thread.ident or 0)
    return list(traceback.walk_stack(frame))[::-1] if frame else []


def _end(thread: threading.Thread) -> None:
    """Raise SystemExit in the thread, at its next step; again where a bare `except` takes it."""
    ident = ctypes.c_ulong(thread.ident or 0)
    for _ in range(20):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit))
        thread.join(0.05)
        if not thread.is_alive():
            break


async def _awaited(program: Program, args: tuple[Any, ...], within_s: float) -> Any:
    """The result of `program`, if there is one after `within_s` of the running loop's seconds."""
    if not callable(program) and not inspect.isawaitable(program):
        raise _NotYet(
            f"the answer is {_short(program)}, which cannot be awaited; is it an `async def`?"
        )
    try:
        async with asyncio.timeout(within_s) as limit:
            waiting = program(*args) if callable(program) else program
            if inspect.isasyncgen(waiting):
                raise _NotYet(f"{_name(program)} has a `yield` in it; return its results instead.")
            if not inspect.isawaitable(waiting):
                raise _NotYet(
                    f"{_name(program)} returned {_short(waiting)}, which cannot be awaited; "
                    "is it an `async def`?"
                )
            return await waiting
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        if isinstance(error, KeyboardInterrupt) or _from_outside(error):
            raise
        raise _NotYet(f"{_name(program)} was cancelled from inside.") from None
    except TimeoutError as error:
        if not limit.expired():
            raise
        where = _line(error.__cause__)  # the cancellation, where it met the answer
        raise _Unending(f"{_name(program)} does not end{where}") from None
    except SystemExit:
        raise _NotYet(f"{_name(program)} calls exit; return instead.") from None


def _from_outside(error: BaseException | None) -> bool:
    """Whether it is a wish that this task end; else the answer has raised it."""
    if not isinstance(error, asyncio.CancelledError) or running_loop() is None:
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _settled(result: Any) -> Any:
    """The result, unless a coroutine or a task is in it that nobody has awaited."""
    parts = list(result.values()) if isinstance(result, dict) else result
    parts = parts if isinstance(parts, list | tuple) else [parts]
    forgotten = [part for part in parts if inspect.iscoroutine(part)]
    for coroutine in forgotten:
        coroutine.close()
    if forgotten:
        raise _NotYet(f"it returned a coroutine, {forgotten[0].__name__!r}, instead of its result.")
    if any(map(asyncio.isfuture, parts)):
        raise _NotYet("it returned a task instead of its result; `await` the task first.")
    return result


def _what_it_raised(error: BaseException, own: CodeType | None = None) -> str:
    """A line for what the learner's code raised, with the line of that code where it came from.

    Args:
        own: The code of the check, whose lines are not the learner's.
    """
    told = reason(error)
    if isinstance(told, DeadlockError):
        return f"it waits for what never comes: {'; '.join(told.waiting)}."
    if "asyncio.run() cannot be called" in _short(error):
        return "an event loop runs already; use `await` instead of asyncio.run."
    raised = told if isinstance(told, ConfigError) else _first(error)
    where = _line(_first(error), own) or _line(_first(error.__context__ or error), own)
    said = _said(raised)
    used = getattr(raised, "obj", None)
    if inspect.iscoroutine(used):
        used.close()
        return f"an `await` is missing: {used.__name__!r} has no result yet ({said}){where}."
    if told not in (error, raised):
        said = f"{said}; behind it is {_said(told)}"
    if own and not where:
        return _ended(f"the check cannot use your answer: {said}")
    return _ended(f"it raised {said}{where}")


def _first(error: BaseException) -> BaseException:
    """Of a group, the first error in it that is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _said(error: BaseException) -> str:
    """The kind of error, and its words without their full stop."""
    return ": ".join(filter(None, (type(error).__name__, _short(error, 200).rstrip("."))))


def _line(error: BaseException | None, own: CodeType | None = None) -> str:
    return _where(traceback.walk_tb(error.__traceback__) if error else (), own)


def _where(frames: Iterable[tuple[FrameType, int]], own: CodeType | None = None) -> str:
    """The innermost line of the learner's own, for the end of a sentence."""
    lines = [
        linecache.getline(frame.f_code.co_filename, line).strip()
        for frame, line in frames
        if frame.f_globals.get("__name__") == "__main__" and frame.f_code is not own
    ]
    return f", in the line `{lines[-1]}`" if lines else ""


def _never_awaited(seen: list[warnings.WarningMessage]) -> str:
    """Which coroutine nobody awaited, if there is one; other warnings are passed on."""
    names = []
    for warning in seen:
        if found := re.match(r"coroutine '([^']+)' was never awaited", str(warning.message)):
            names.append(found[1])
        else:
            message, category = warning.message, warning.category
            warnings.warn_explicit(message, category, warning.filename, warning.lineno)
    return f" An `await` is missing: {names[0]!r} was called, and nobody waited." if names else ""


def _short(value: object, most: int = 120) -> str:
    """In one line, and without its middle if that is long: what matters may stand at the end."""
    try:
        text = str(value) if isinstance(value, BaseException) else repr(value)
    except Exception as error:
        text = f"a {type(value).__name__} that cannot be shown ({type(error).__name__})"
    line = " ".join(text.split())
    half = most // 2 - 3
    return line if len(line) <= most else f"{line[:half]} ... {line[-half:]}"


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith(("?", "!")) else f"{sentence.rstrip('.')}."


def _name(program: Any) -> str:
    name = getattr(program, "__name__", "<lambda>")
    return "the answer" if name == "<lambda>" else f"`{name}`"
