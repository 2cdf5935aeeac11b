"""The checks of the exercises: what the endpoint saw, and a hint in place of a traceback.

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
import threading
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterator
from types import CodeType, TracebackType
from typing import Any, Self

from agentlab import lab
from agentlab.errors import DeadlockError
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
            check(t.peak == 2, "one waits for the other; asyncio.gather runs both at once.")
    """

    def __enter__(self) -> Self:
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
        if error is not None and not isinstance(error, Exception):
            return False  # an interrupt is the learner's own
        forgotten = _never_awaited(self._warnings)
        if error is None:
            print("Solved.")
        elif isinstance(error, _Unfulfilled):
            print(f"Not yet: {error}{forgotten}")
        else:
            print(f"Not yet: {error if isinstance(error, _NotYet) else _what_it_raised(error)}")
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
        catch: type[Exception] | tuple[()] = (),
        within_s: float = WITHIN_S,
    ) -> tuple[Any, Trace]:
        """What `program` returns in virtual time, and what the endpoint saw of it.

        Args:
            program: A coroutine, or a function of `args` that makes one.
            catch: A kind of error that is returned in place of the result, as `lab.simulate` does.
            within_s: Model seconds after which it is ended.
        """

        async def main() -> Any:
            # A task that was left behind would be reported with its traceback.
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            return await _awaited(program, args, within_s)

        def work() -> tuple[Any, Trace]:
            return lab.simulate(main(), catch=catch)

        result, t = _in_time(work, program, RUN_PATIENCE_S)
        return _settled(result), t

    async def run(
        self,
        program: Program,
        *args: Any,
        catch: type[Exception] | tuple[()] = (),
        within_s: float = WITHIN_S,
    ) -> tuple[Any, Trace]:
        """The same in real time, for what cannot be simulated: other processes, and CrewAI."""
        with trace() as t:
            try:
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
            _end(thread)
    if late:
        raise _NotYet(f"{_name(program)} runs for {patience_s:g} s already; does a loop never end?")
    result, error = outcome[0]
    if isinstance(error, KeyboardInterrupt | _NotYet):
        raise error
    if error is not None:
        raise _NotYet(_what_it_raised(error))
    return result


def _end(thread: threading.Thread) -> None:
    """Raise SystemExit in the thread, at its next step."""
    ident = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit))
    thread.join(1)


async def _awaited(program: Program, args: tuple[Any, ...], within_s: float) -> Any:
    """The result of `program`, if there is one after `within_s` of the running loop's seconds."""
    running = asyncio.current_task()
    try:
        async with asyncio.timeout(within_s) as limit:
            waiting = program(*args) if callable(program) else program
            if not inspect.isawaitable(waiting):
                raise _NotYet(
                    f"{_name(program)} returned {_short(waiting)}, which cannot be awaited; "
                    "is it an `async def`?"
                )
            return await waiting
    except (KeyboardInterrupt, asyncio.CancelledError):
        if running and running.cancelling():
            raise
        raise _NotYet(f"{_name(program)} was cancelled from inside.") from None
    except TimeoutError:
        if not limit.expired():
            raise
        raise _NotYet(f"{_name(program)} does not end; what does it wait for?") from None
    except SystemExit:
        raise _NotYet(f"{_name(program)} calls exit; return in place of it.") from None


def _settled(result: Any) -> Any:
    """The result, unless a coroutine is in it that nobody has awaited."""
    parts = list(result.values()) if isinstance(result, dict) else result
    parts = parts if isinstance(parts, list | tuple) else [parts]
    forgotten = [part for part in parts if inspect.iscoroutine(part)]
    for coroutine in forgotten:
        coroutine.close()
    if forgotten:
        raise _NotYet(
            f"it returned a coroutine, {forgotten[0].__name__!r}, in place of its result."
        )
    return result


def _what_it_raised(error: BaseException) -> str:
    """A line for what the learner's code raised, with the line of that code where it came from."""
    if isinstance(error, DeadlockError):
        return f"it waits for what never comes: {'; '.join(error.waiting)}."
    if "asyncio.run() cannot be called" in str(error):
        return "an event loop runs already; `await` in place of asyncio.run."
    kind = type(error).__name__
    said = f"{kind}: {_short(error)}" if str(error) else kind
    lines = [
        linecache.getline(frame.f_code.co_filename, line).strip()
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") == "__main__"
    ]
    where = f", in the line `{lines[-1]}`" if lines else ""
    used = getattr(error, "obj", None)
    if inspect.iscoroutine(used):
        used.close()
        return f"an `await` is missing: {used.__name__!r} has no result yet ({said}){where}."
    return f"it raised {said}{where}."


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


def _short(value: object) -> str:
    text = str(value) if isinstance(value, BaseException) else repr(value)
    line = " ".join(text.split())
    return line if len(line) <= 120 else f"{line[:117]}..."


def _name(program: Any) -> str:
    name = getattr(program, "__name__", "<lambda>")
    return "the answer" if name == "<lambda>" else f"`{name}`"
