"""Odd answers to the checks of the exercises: each gets a true hint, none hangs or raises."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.graph import START, StateGraph

from agentlab import exercises, lab
from agentlab.errors import ConfigError, EndpointError, ModelError
from agentlab.exercises import Check

LONG = 1_000
"""Letters: no hint is as long, whatever is shown in it."""


@pytest.fixture(autouse=True)
def unconfigured(fresh_lab: Any) -> None:
    """Each input meets the course's model."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop without end is ended after a fifth of a second."""
    monkeypatch.setattr(exercises, "PATIENCE_S", 0.2)


@pytest.fixture
def hint(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """The check's last line, which is a hint, in one line, with one full stop."""

    def read() -> str:
        line = capsys.readouterr().out.strip().splitlines()[-1]
        assert line.startswith("Not yet: ")
        assert "it hangs" not in line
        assert len(line) < LONG
        assert not line.endswith("..")
        return line.removeprefix("Not yet: ")

    return read


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


class Unsure:
    def __bool__(self) -> bool:
        raise ValueError("ambiguous")

    __eq__ = __lt__ = __ge__ = lambda self, other: self  # type: ignore[assignment]
    __hash__ = object.__hash__


def endless() -> Any:
    while True:
        yield 1


VALUES = {
    "none": None,
    "number": 5,
    "below zero": -1,
    "nan": float("nan"),
    "huge": 10**5000,
    "text": "workflow()",
    "long text": "tides " * 100_000,
    "bytes": b"\xff\x00",
    "list": [1, 2, 3],
    "long list": [*range(100_000)],
    "nested": functools.reduce(lambda inner, _: [inner], range(500), []),
    "set": {1, 2},
    "generator": endless(),
    "class": dict,
    "error": ValueError("no figure"),
    "kind of error": ValueError,
    "unshowable": Unshowable(),
    "unsure": Unsure(),
    "lambda": lambda: 5,
    "partial": functools.partial(max, 1, 2),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_a_program_that_is_no_coroutine(hint, value):
    """Whatever it is: the hint says that it cannot be awaited, or what calling it raised."""
    with Check() as check:
        check.simulate(value)
    said = hint()
    assert "cannot be awaited" in said or "it raised" in said


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_a_coroutine_that_returns_something_odd(hint, value):
    """A check works on it, and says what it could not do; or its own claim fails."""

    async def answer() -> Any:
        return value

    with Check() as check:
        result, t = check.simulate(answer)
        check(result["notes"] == ["tides"], f"{result['notes']}")
        check(t.requests, "nothing was asked.")
    said = hint()
    assert said.startswith(("the check cannot use your answer: ", "dict['notes']"))


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_a_value_in_a_hint(hint, value):
    """Shown whole where it is short, and cut in its middle where it is long."""
    with Check() as check:
        check(False, f"the answer is {value!r}, and not seven.")
    said = hint()
    assert said.startswith("the answer is") or "cannot use your answer" in said
    assert said.endswith(("and not seven.", "no words.", "integer string conversion.")) or (
        "ValueError" in said
    )


def raising(error: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Loud(BaseException):
    """Not even an Exception."""


MODEL = ModelError("the model answered 400: no.", status=400, code=None, request_id=None)
ERRORS = {
    "without words": ValueError(),
    "with a full stop": ValueError("no figure."),
    "with three": ValueError("wait..."),
    "of many lines": ValueError("one\ntwo\n\nthree"),
    "long": ValueError("x" * 100_000),
    "unshowable": Wordless(),
    "a key": KeyError("tides"),
    "a key of None": KeyError(None),
    "out of memory": MemoryError(),
    "recursion": RecursionError("maximum recursion depth exceeded"),
    "end of a generator": StopAsyncIteration(),
    "exit": SystemExit(3),
    "exit in words": SystemExit("bye"),
    "cancelled": asyncio.CancelledError(),
    "no Exception": Loud("loud"),
    "a time-out": TimeoutError(),
    "a group": ExceptionGroup("some", [ValueError("first"), KeyError("second")]),
    "a group in a group": ExceptionGroup("some", [ExceptionGroup("more", [ValueError("deep")])]),
    "the lab's": MODEL,
    "a claim": AssertionError(),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
def test_a_function_that_raises(hint, error):
    """Its kind is named, or what it comes to."""
    with Check() as check:
        check.call(raising(error))
    said = hint()
    named = {type(error).__name__, "ValueError", "no words"}
    assert said.startswith("it raised ")
    assert any(name in said for name in named)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
def test_a_coroutine_that_raises(hint, error):
    """The same in virtual time, where an error passes an event loop."""

    async def answer() -> Any:
        await asyncio.sleep(1)
        raise error

    with Check() as check:
        check.simulate(answer)
    assert hint().startswith("it raised ")


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
def test_an_error_in_the_checks_own_line(hint, error):
    """Where the answer is called by the check, in its cell; a cell that is cancelled ends."""
    if isinstance(error, asyncio.CancelledError):
        with pytest.raises(asyncio.CancelledError), Check():
            raise error
        return
    with Check():
        raise error
    assert hint()


def wrapped(error: Exception, depth: int, by: str) -> Exception:
    for _ in range(depth):
        outer: Exception = RuntimeError("Connection error.")
        if by == "group":
            outer = ExceptionGroup("some", [error])
        setattr(outer, "__context__" if by == "context" else "__cause__", error)
        error = outer
    return error


@pytest.mark.parametrize("depth", [1, 2, 5, 50])
@pytest.mark.parametrize("by", ["cause", "context", "group"])
@pytest.mark.parametrize("inner", [ConfigError("use ainvoke"), EndpointError("it broke off")])
def test_a_reason_that_is_hidden(hint, inner, by, depth):
    """However deep it stands, the hint shows it."""
    with Check() as check:
        check.call(raising(wrapped(inner, depth, by)))
    assert str(inner) in hint()


async def blocks_inside() -> Any:
    return lab.chat_model().invoke("Tides?")


async def streams_inside() -> Any:
    return [*lab.chat_model().stream("Tides?")]


async def blocks_in_a_thread() -> Any:
    return await asyncio.to_thread(lab.chat_model().invoke, "Tides?")


async def blocks_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(blocks_inside())


async def blocks_in_tasks() -> Any:
    return await asyncio.gather(*(blocks_inside() for _ in range(5)))


async def blocks_in_a_node() -> Any:
    async def node(state: dict[str, Any]) -> None:
        await blocks_inside()

    graph = StateGraph(dict).add_node("node", node).add_edge(START, "node").compile()
    return await graph.ainvoke({})


@pytest.mark.parametrize(
    "answer",
    [
        blocks_inside,
        streams_inside,
        blocks_in_a_thread,
        blocks_in_a_group,
        blocks_in_tasks,
        blocks_in_a_node,
    ],
)
def test_a_call_that_blocks(hint, answer):
    """The hint names the call that does not; "Connection error." is not the last word."""
    with Check() as check:
        check.simulate(answer)
    assert "use ainvoke or astream" in hint()


async def forgets() -> None:
    lab.ask("tides")


async def forgets_in_a_list() -> list[Any]:
    return [lab.ask("tides")]


async def forgets_in_a_tuple() -> tuple[Any, ...]:
    return lab.ask("tides"), 1


async def forgets_in_a_dictionary() -> dict[str, Any]:
    return {"tides": lab.ask("tides")}


async def forgets_itself() -> Any:
    return forgets_itself()


async def forgets_a_task() -> Any:
    return asyncio.ensure_future(lab.ask("tides"))


async def forgets_tasks() -> Any:
    return [asyncio.ensure_future(lab.ask("tides")) for _ in range(3)]


async def uses_what_is_not_there() -> Any:
    return lab.ask("tides").upper()  # type: ignore[attr-defined]


async def yields() -> Any:
    yield await lab.ask("tides")


@pytest.mark.parametrize(
    "answer",
    [
        forgets,
        forgets_in_a_list,
        forgets_in_a_tuple,
        forgets_in_a_dictionary,
        forgets_itself,
        forgets_a_task,
        forgets_tasks,
        uses_what_is_not_there,
        yields,
    ],
)
def test_what_nobody_awaited(hint, answer):
    """The hint says that something was made and not waited for."""
    with Check() as check:
        _, t = check.simulate(answer)
        check(t.requests, "nothing was asked.")
    words = ("`await` is missing", "a coroutine", "a task instead", "cannot be awaited")
    said = hint()
    assert any(word in said for word in words)


def spins() -> None:
    while True:
        pass


def spins_and_catches() -> None:
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0)


def sleeps() -> None:
    while True:
        time.sleep(0.01)


def counts() -> int:
    return sum(endless())


@pytest.mark.parametrize("answer", [spins, spins_and_catches, sleeps, counts])
def test_a_function_without_an_end(hint, impatient, answer):
    """It is ended, and no thread of it is left."""
    with Check() as check:
        check.call(answer)
    assert "runs for 0.2 s already" in hint()
    assert not any(thread.name == "answer" for thread in threading.enumerate())


async def yields_for_ever() -> None:
    while True:
        await asyncio.sleep(0)


async def stands_still() -> None:
    spins()


async def asks_and_spins() -> None:
    await lab.ask("tides")
    spins()


@pytest.mark.parametrize("answer", [yields_for_ever, stands_still, asks_and_spins])
def test_a_coroutine_that_makes_no_progress(hint, impatient, answer):
    """The clock stands, and so no time-out in virtual time ends it."""
    with Check() as check:
        check.simulate(answer)
    assert "runs for 0.2 s already" in hint()
    assert not any(thread.name == "answer" for thread in threading.enumerate())


async def waits_for_an_event() -> None:
    await asyncio.Event().wait()


async def waits_for_a_lock() -> None:
    lock = asyncio.Lock()
    async with lock, lock:
        pass


async def waits_for_a_queue() -> None:
    await asyncio.Queue[int]().get()


async def waits_for_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    await asyncio.wait([task])


async def sleeps_for_a_year() -> None:
    await asyncio.sleep(365 * 86_400)


async def naps_for_ever() -> None:
    while True:
        await asyncio.sleep(1)


@pytest.mark.parametrize(
    "answer",
    [
        waits_for_an_event,
        waits_for_a_lock,
        waits_for_a_queue,
        waits_for_itself,
        sleeps_for_a_year,
        naps_for_ever,
    ],
)
def test_a_wait_without_an_end(hint, answer):
    """The answer is said to wait."""
    with Check() as check:
        check.simulate(answer)
    said = hint()
    assert f"`{answer.__name__}` does not end" in said
    assert "what does it wait for, or repeat?" in said


@pytest.mark.parametrize("agents", [1, 2, 5])
def test_a_loop_of_requests(hint, agents):
    """The hint says how often the answer has asked by then."""

    async def again_and_again() -> None:
        while True:
            calls = [lab.ask("Tides?", agent=f"agent {n}", max_tokens=300) for n in range(agents)]
            await asyncio.gather(*calls)

    with Check() as check:
        check.simulate(again_and_again)
    assert re.search(r"does not end \([1-9]\d* requests so far", hint())
