"""The checks of the exercises: what the endpoint saw, and a hint instead of a traceback."""

import asyncio
import gc
import inspect
import linecache
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from ctypes import c_ulong, py_object, pythonapi
from time import process_time
from types import CodeType
from typing import Any, Self

from agentlab import lab
from agentlab.endpoint.server.class_page import tell_class
from agentlab.errors import reason
from agentlab.settings import said
from agentlab.trace import Trace, trace

WITHIN_S = 600.0  # model seconds that an answer may take; the right ones take some tens
PATIENCE_S = 10.0  # seconds of the processor that it may take; of waiting a fifth counts

Program = Callable[..., Any] | Awaitable[Any]
Caught = type[Exception] | tuple[type[Exception], ...]


class Check:
    """A block of claims about an answer; it ends by printing `Solved.` or `Not yet:` and a hint.

    The first claim that does not hold gives the hint. So does an error, or an answer without end.
    """

    def __enter__(self) -> Self:
        self._own = sys._getframe(1).f_code
        self._caught = warnings.catch_warnings(record=True)
        self._warned = self._caught.__enter__()
        warnings.simplefilter("default", RuntimeWarning)
        gc.collect()
        self._warned.clear()  # what an earlier answer left unawaited is no fault of this one
        return self

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> bool:
        self._caught.__exit__(None, None, None)
        forgotten = ""
        for one in self._warned:
            if found := re.match(r"coroutine '([^']+)' was never awaited", str(one.message)):
                forgotten = f" An `await` is missing: {found[1]!r} was called, and nobody waited."
            else:
                warnings.showwarning(one.message, one.category, one.filename, one.lineno)
        if isinstance(error, KeyboardInterrupt | GeneratorExit | asyncio.CancelledError):
            return False
        if isinstance(error, _NotYet):
            hint = _short(error, 400) + forgotten
        elif error:
            hint = _what_it_raised(error, self._own)
        print(said(f"Not yet: {said(hint)}" if error else "Solved."))
        tell_class("".join(linecache.getlines(self._own.co_filename)), solved=error is None)
        return True

    def __call__(self, claim: object, hint: str) -> None:
        """End the block with `hint` unless the claim holds."""
        if not claim:
            raise _NotYet(said(hint))

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what `function` returns, if it does so in time."""
        return _settled(_in_time(lambda: function(*args), function))

    def simulate(
        self, program: Program, *args: Any, catch: Caught = (), within_s: float = WITHIN_S
    ) -> tuple[Any, Trace]:
        """Run `program` in virtual time; return its result, and what the endpoint saw of it.

        Errors to `catch` are returned as its result. After `within_s` model seconds it is ended.
        """

        async def main(t: Trace) -> Any:
            # A task that was left behind would be reported with its traceback.
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            return await _awaited(program, args, within_s, t)

        def work() -> tuple[Any, Trace]:
            with trace() as t:
                return lab.simulate(main(t), catch=catch)

        result, t = _in_time(work, program)
        return _settled(result), t

    async def run(
        self, program: Program, *args: Any, catch: Caught = (), within_s: float = WITHIN_S
    ) -> tuple[Any, Trace]:
        """Run `program` in real time, for what cannot be simulated: other processes, and CrewAI."""
        with trace() as t:
            try:
                result = await _awaited(program, args, within_s, t)
            except catch as error:
                result = error
        return _settled(result), t


class _NotYet(BaseException):
    """The exercise is not solved; the message says why. No `except Exception` stops it."""


def _in_time(work: Callable[[], Any], program: Any) -> Any:
    """Return what `work` returns, run in a thread: nothing else could end `while True: pass`."""
    outcome: Future[Any] = Future()

    def keep() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=copy_context().run, args=(keep,), name="answer", daemon=True)
    thread.start()
    spent_s = 0.0
    try:
        while thread.is_alive() and spent_s < PATIENCE_S:
            busy_s = process_time()
            thread.join(0.1)
            spent_s += max(process_time() - busy_s, 0.02)
    finally:
        late, ident = thread.is_alive(), c_ulong(thread.ident or 0)
        for _ in range(20):  # again where a bare `except` takes it
            if thread.is_alive():
                pythonapi.PyThreadState_SetAsyncExc(ident, py_object(SystemExit))
                thread.join(0.05)
    if late:
        raise _NotYet(f"{_name(program)} runs for {PATIENCE_S:g} s already; does a loop never end?")
    error = outcome.exception()
    if error is None or isinstance(error, KeyboardInterrupt | _NotYet):
        return outcome.result()
    raise _NotYet(_what_it_raised(error))


async def _awaited(program: Program, args: tuple[Any, ...], within_s: float, t: Trace) -> Any:
    """Return the result of `program`, if there is one after `within_s` model seconds."""
    try:
        async with asyncio.timeout(within_s / lab.model_seconds_a_second()) as limit:
            waiting = program(*args) if callable(program) else program
            if not inspect.isawaitable(waiting):
                gives = f"{_name(program)} gives {_short(waiting)}, which cannot be awaited"
                raise _NotYet(f"{gives}; write an `async def` that returns its results.")
            return await waiting
    except TimeoutError as error:
        if not limit.expired():
            raise
        where = _line(error.__cause__)  # the cancellation, where it met the answer
        ends = f"does not end{where} ({t.requests} requests so far)"
        raise _NotYet(f"{_name(program)} {ends}; what does it wait for, or repeat?") from None


def _settled(result: Any) -> Any:
    """Return the result, unless a coroutine or a task is in it that nobody has awaited."""
    parts = [*result.values()] if isinstance(result, dict) else result
    for part in parts if isinstance(parts, list | tuple) else [parts]:
        if inspect.iscoroutine(part):
            part.close()
            raise _NotYet(f"it returned a coroutine, {part.__name__!r}, instead of its result.")
        if asyncio.isfuture(part):
            raise _NotYet("it returned a task instead of its result; `await` the task first.")
    return result


def _what_it_raised(error: BaseException, own: CodeType | None = None) -> str:
    """Say in a line what the learner's code raised, and where; `own` is the code of the check."""
    raised = _first(reason(error))
    where = _line(_first(error), own) or _line(_first(error.__context__ or error), own)
    what = ": ".join(filter(None, (type(raised).__name__, _short(raised, 200).rstrip("."))))
    used = getattr(raised, "obj", None)
    if inspect.iscoroutine(used):
        used.close()
        return f"an `await` is missing: {used.__name__!r} has no result yet ({what}){where}."
    sentence = f"it raised {what}{where}"
    if own and not where:
        sentence = f"the check cannot use your answer: {what}"
    return sentence if sentence.endswith(("?", "!")) else f"{sentence.rstrip('.')}."


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _line(error: BaseException | None, own: CodeType | None = None) -> str:
    """Return the innermost line of the learner's own, for the end of a sentence."""
    frames = traceback.walk_tb(error.__traceback__) if error else ()
    lines = [
        linecache.getline(frame.f_code.co_filename, line).strip()
        for frame, line in frames
        if frame.f_globals.get("__name__") == "__main__" and frame.f_code is not own
    ]
    return f", in the line `{lines[-1]}`" if lines else ""


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
