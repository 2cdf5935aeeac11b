"""The checks of the exercises: what the endpoint saw, and a hint instead of a traceback.

A check is a block of claims. The first that does not hold ends the block, and its hint is shown.
An error in the learner's code and an answer that never ends are shown as hints, too. Claims come in
the order in which a learner wants to hear of them: what is missing, what is wrong, how far it is.
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
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from types import CodeType, FrameType
from typing import Any, Self

from agentlab import lab
from agentlab._support.asyncio_tools import running_loop
from agentlab.errors import ConfigError, DeadlockError, reason
from agentlab.trace import Trace, trace

WITHIN_S = 600.0
"""Model seconds that an answer may take; the answers of the exercises take some tens."""

CALL_PATIENCE_S = 5.0
"""Wall-clock seconds that a calculation may take."""

RUN_PATIENCE_S = 20.0
"""Wall-clock seconds that a run in virtual time may take, in which a loop may stand still."""

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

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> bool:
        self._warned.__exit__(None, None, None)
        if isinstance(error, KeyboardInterrupt | GeneratorExit) or _from_outside(error):
            return False
        forgotten = _never_awaited(self._warnings)
        if error is None:
            print("Solved.")
        elif isinstance(error, _NotYet):
            print(f"Not yet: {_short(error, 400)}{forgotten}")
        else:
            print(f"Not yet: {_what_it_raised(error, self._own)}")
        return True

    def __call__(self, claim: object, hint: str) -> None:
        """End the block with `hint` unless the claim holds."""
        if not claim:
            raise _NotYet(hint)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what `function` returns, if it does so in time."""
        return _settled(_in_time(lambda: function(*args), function, CALL_PATIENCE_S))

    def simulate(
        self,
        program: Program,
        *args: Any,
        catch: type[Exception] | tuple[type[Exception], ...] = (),
        within_s: float = WITHIN_S,
    ) -> tuple[Any, Trace]:
        """Run `program` in virtual time; return its result, and what the endpoint saw of it.

        Args:
            program: A coroutine, or a function of `args` that makes one.
            catch: The kinds of error that are returned instead of the result, as by `lab.simulate`.
            within_s: Model seconds after which it is ended.
        """

        async def main(t: Trace) -> Any:
            # A task that was left behind would be reported with its traceback.
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            return await _awaited(program, args, within_s, t)

        def work() -> tuple[Any, Trace]:
            with trace() as t:
                return lab.simulate(main(t), catch=catch)

        result, t = _in_time(work, program, RUN_PATIENCE_S)
        return _settled(result), t

    async def run(
        self,
        program: Program,
        *args: Any,
        catch: type[Exception] | tuple[type[Exception], ...] = (),
        within_s: float = WITHIN_S,
    ) -> tuple[Any, Trace]:
        """Run `program` in real time, for what cannot be simulated: other processes, and CrewAI."""
        with trace() as t:
            try:
                result = await _awaited(program, args, within_s, t)
            except catch as error:
                result = error
        return _settled(result), t


def words_in(function: Callable[..., Any]) -> set[str]:
    """Return the names and the strings in a function's code, inner functions included.

    A trace tells what an answer did. If two mistakes look alike from the endpoint, the words tell
    which of two hints fits.

    Example:
        >>> sorted(words_in(lambda: asyncio.Semaphore(3)))
        ['Semaphore', 'asyncio']
    """
    words: set[str] = set()
    parts: list[Any] = [getattr(function, "__code__", None)]
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            words.add(part)
        elif isinstance(part, tuple):  # names of arguments, and keys of a dictionary
            parts += part
        elif isinstance(part, CodeType):
            parts += (*part.co_names, *part.co_consts)
    return words


class _NotYet(BaseException):
    """The exercise is not solved; the message says why. No `except Exception` stops it."""


def _in_time(work: Callable[[], Any], program: Any, patience_s: float) -> Any:
    """Return what `work` returns; it runs in a thread, which is ended if it takes too long.

    Nothing else ends `while True: pass`, which is what a loop without progress comes to.
    """
    outcome: Future[Any] = Future()

    def keep() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(keep,), name="answer", daemon=True)
    thread.start()
    try:
        thread.join(patience_s)
    finally:
        if late := thread.is_alive():
            frame = sys._current_frames().get(thread.ident or 0)
            where = _where([*traceback.walk_stack(frame)][::-1] if frame else ())
            _end(thread)
    if late:
        raise _NotYet(
            f"{_name(program)} runs for {patience_s:g} s already{where}; does a loop never end?"
        )
    error = outcome.exception()
    if error is None or isinstance(error, KeyboardInterrupt | _NotYet):
        return outcome.result()
    raise _NotYet(_what_it_raised(error))


def _end(thread: threading.Thread) -> None:
    """Raise SystemExit in the thread, at its next step; again where a bare `except` takes it."""
    ident = ctypes.c_ulong(thread.ident or 0)
    for _ in range(20):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit))
        thread.join(0.05)
        if not thread.is_alive():
            break


async def _awaited(program: Program, args: tuple[Any, ...], within_s: float, t: Trace) -> Any:
    """Return the result of `program`, if there is one after `within_s` model seconds."""
    if not callable(program) and not inspect.isawaitable(program):
        raise _NotYet(
            f"the answer is {_short(program)}, which cannot be awaited; is it an `async def`?"
        )
    try:
        async with asyncio.timeout(within_s / lab.model_seconds_a_second()) as limit:
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
        spans = t.spans
        if spans and spans[-1].arrived_s > within_s / 2:
            raise _NotYet(
                f"{_name(program)} does not end{where}: it asks again and again, {len(spans)} "
                f"requests so far, the last by {_short(spans[-1].agent)}; what ends the loop?"
            ) from None
        raise _NotYet(f"{_name(program)} does not end{where}; what does it wait for?") from None
    except SystemExit:
        raise _NotYet(f"{_name(program)} calls exit; return instead.") from None


def _from_outside(error: BaseException | None) -> bool:
    """Return whether somebody wants this task to end; else the answer itself has raised `error`."""
    if not isinstance(error, asyncio.CancelledError) or running_loop() is None:
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _settled(result: Any) -> Any:
    """Return the result, unless a coroutine or a task is in it that nobody has awaited."""
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
    """Say in a line what the learner's code raised, and where; `own` is the code of the check."""
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
    sentence = f"it raised {said}{where}"
    if own and not where:
        sentence = f"the check cannot use your answer: {said}"
    return sentence if sentence.endswith(("?", "!")) else f"{sentence.rstrip('.')}."


def _first(error: BaseException) -> BaseException:
    """Return the first error in a group that is no group itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _said(error: BaseException) -> str:
    """Return the kind of error, and its words without their full stop."""
    return ": ".join(filter(None, (type(error).__name__, _short(error, 200).rstrip("."))))


def _line(error: BaseException | None, own: CodeType | None = None) -> str:
    return _where(traceback.walk_tb(error.__traceback__) if error else (), own)


def _where(frames: Iterable[tuple[FrameType, int]], own: CodeType | None = None) -> str:
    """Return the innermost line of the learner's own, for the end of a sentence."""
    lines = [
        linecache.getline(frame.f_code.co_filename, line).strip()
        for frame, line in frames
        if frame.f_globals.get("__name__") == "__main__" and frame.f_code is not own
    ]
    return f", in the line `{lines[-1]}`" if lines else ""


def _never_awaited(seen: list[warnings.WarningMessage]) -> str:
    """Say which coroutine nobody awaited, if there is one; pass other warnings on."""
    names = []
    for warning in seen:
        if found := re.match(r"coroutine '([^']+)' was never awaited", str(warning.message)):
            names.append(found[1])
        else:
            message, category = warning.message, warning.category
            warnings.warn_explicit(message, category, warning.filename, warning.lineno)
    return f" An `await` is missing: {names[0]!r} was called, and nobody waited." if names else ""


def _short(value: object, most: int = 120) -> str:
    """Show a value in one line, without its middle if that is long: its end may matter."""
    try:
        text = str(value) if isinstance(value, BaseException) else repr(value)
    except Exception as error:
        text = f"a {type(value).__name__} that cannot be shown ({type(error).__name__})"
    line = " ".join(text.split())
    half = most // 2 - 3
    return line if len(line) <= most else f"{line[:half]} ... {line[-half:]}"


def _name(program: Any) -> str:
    name = getattr(program, "__name__", "<lambda>")
    return "the answer" if name == "<lambda>" else f"`{name}`"
