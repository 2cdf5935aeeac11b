"""The checks of the exercises: what the endpoint saw, and a hint in place of a traceback.

A check is a block of claims. The first that does not hold ends the block, and its hint is shown;
so does whatever the learner's code raises, and an answer that never ends. Claims come in the order
in which a learner would want to hear of them: what is missing, what is wrong, how far it is.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import inspect
import linecache
import re
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable
from types import CodeType, TracebackType
from typing import Any, NoReturn, Self

from agentlab import lab
from agentlab.errors import DeadlockError
from agentlab.trace import Trace, trace

WITHIN_S = 600.0
"""Model seconds that an answer may take; those of the exercises take some tens."""

PATIENCE_S = 20.0
"""Seconds of the learner's own that code may take which does not look at the clock at all."""


class Check:
    """A block of claims about an answer; at its end it prints `Solved.` or `Not yet:` and a hint.

    Example:
        with Check() as check:
            answers, t = check.simulate(my_agents, ["tides", "winds"])
            check(t.requests == 2, f"the endpoint saw {t.requests} requests, not 2.")
            check(t.peak == 2, "one waits for the other; asyncio.gather runs both at once.")
    """

    def __enter__(self) -> Self:
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
        elif isinstance(error, _Raised):
            print(f"Not yet: {error}")
        elif isinstance(error, _NotYet):
            print(f"Not yet: {error}{forgotten}")
        else:
            print(f"Not yet: the check cannot use this answer ({_said(error)}).{forgotten}")
        return True

    def __call__(self, claim: object, hint: str) -> None:
        """End the block with `hint` unless the claim holds."""
        if not claim:
            raise _NotYet(hint)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """What `function` returns, if it does so in time."""
        return _settled(_in_time(lambda: _called(function, *args), function))

    def simulate(
        self, program: Callable[..., Any], *args: Any, within_s: float = WITHIN_S
    ) -> tuple[Any, Trace]:
        """What `program` returns in virtual time, and what the endpoint saw of it.

        Args:
            program: A function whose result can be awaited, such as one of `async def`.
            within_s: Model seconds after which it is ended.
        """

        async def main() -> Any:
            # A task that was left behind would be reported with its traceback.
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            return await _awaited(program, args, within_s)

        result, t = _in_time(lambda: lab.simulate(main()), program)
        return _settled(result), t

    async def run(
        self, program: Callable[..., Any], *args: Any, within_s: float = WITHIN_S
    ) -> tuple[Any, Trace]:
        """The same in real time, for what cannot be simulated: other processes, and CrewAI."""
        with trace() as t:
            result = await _awaited(program, args, within_s / lab.model_seconds_a_second())
        return _settled(result), t


def names_in(function: Callable[..., Any]) -> set[str]:
    """The names that a function's code uses, those of functions inside it included.

    A trace tells what an answer did. Where two mistakes look alike from the endpoint, this tells
    which of the two hints fits.

    Example:
        >>> sorted(names_in(lambda limit: asyncio.Semaphore(limit)))
        ['Semaphore', 'asyncio']
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    return set(_names(code)) if code else set()


def _names(code: CodeType) -> Iterable[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


class _NotYet(Exception):
    """A claim does not hold; the message is its hint."""


class _Raised(_NotYet):
    """The learner's code raised something, which says enough."""


def _in_time(work: Callable[[], Any], function: Any) -> Any:
    """Do `work` in a thread of its own, which is ended if it takes too long."""
    outcome: list[Any] = []

    def keep() -> None:
        try:
            outcome.extend((work(), None))
        except BaseException as error:
            outcome.extend((None, error))

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(keep,), name="answer", daemon=True)
    thread.start()
    try:
        thread.join(PATIENCE_S)
    finally:
        late = thread.is_alive()
        if late:
            _end(thread)
    if late:
        name = _name(function)
        raise _NotYet(f"{name} has not ended after {PATIENCE_S:g} s; does a loop never end?")
    result, error = outcome
    if error is not None:
        _explain(error)
    return result


def _end(thread: threading.Thread) -> None:
    """Raise SystemExit in the thread, at its next step; nothing gentler ends `while True: pass`."""
    ident = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit))
    thread.join(1)


async def _awaited(program: Callable[..., Any], args: tuple[Any, ...], within_s: float) -> Any:
    """The result of `program`, awaited on the running loop for `within_s` of its seconds."""
    running = asyncio.current_task()
    try:
        async with asyncio.timeout(within_s) as limit:
            waiting = program(*args)
            if not inspect.isawaitable(waiting):
                raise _NotYet(
                    f"{_name(program)} returned {_short(waiting)}, which cannot be awaited; "
                    "is it an `async def`?"
                )
            return await waiting
    except BaseException as error:
        if limit.expired():
            raise _NotYet(
                f"{_name(program)} had not ended when its time was up; what does it wait for?"
            ) from None
        if isinstance(error, asyncio.CancelledError) and running and running.cancelling():
            raise
        _explain(error)


def _called(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def _settled(result: Any) -> Any:
    """The result, unless a coroutine is in it that nobody has awaited."""
    parts = result.values() if isinstance(result, dict) else result
    forgotten = [
        part
        for part in (parts if isinstance(parts, list | tuple) else [parts])
        if inspect.iscoroutine(part)
    ]
    for coroutine in forgotten:
        coroutine.close()
    if forgotten:
        raise _NotYet(
            f"it returned a coroutine, {forgotten[0].__name__!r}, in place of its result."
        )
    return result


def _explain(error: BaseException) -> NoReturn:
    """Raise a hint in place of what the learner's code raised."""
    if isinstance(error, _NotYet | KeyboardInterrupt):
        raise error
    if isinstance(error, DeadlockError):
        raise _Raised(f"it waits for what never comes: {'; '.join(error.waiting)}.") from None
    if "asyncio.run() cannot be called" in str(error):
        raise _Raised("an event loop runs already; `await` in place of asyncio.run.") from None
    lines = [
        linecache.getline(frame.f_code.co_filename, line).strip()
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") == "__main__"
    ]
    at = f", in the line `{lines[-1]}`" if lines and lines[-1] else ""
    raise _Raised(f"it raised {_said(error)}{at}.") from None


def _never_awaited(seen: list[warnings.WarningMessage]) -> str:
    """Which coroutine nobody awaited, if there is one; other warnings are passed on."""
    names = []
    for warning in seen:
        if found := re.match(r"coroutine '([^']+)' was never awaited", str(warning.message)):
            names.append(found[1])
        else:
            message, category = warning.message, warning.category
            warnings.warn_explicit(message, category, warning.filename, warning.lineno)
    return (
        f" An `await` is missing: {names[0]!r} was called, and nobody waited for it."
        if names
        else ""
    )


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {_short(error)}" if str(error) else type(error).__name__


def _short(value: object) -> str:
    text = str(value) if isinstance(value, BaseException) else repr(value)
    line = " ".join(text.split())
    return line if len(line) <= 120 else f"{line[:117]}..."


def _name(function: Any) -> str:
    name = getattr(function, "__name__", "<lambda>")
    return "the answer" if name == "<lambda>" else f"`{name}`"
