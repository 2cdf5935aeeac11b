"""Odd answers handed to the checks of the exercises: each gets a true hint, none hangs or raises.

And the limits that LangGraph's `max_concurrency` can set to the dataflow, on graphs of every shape.
"""

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
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from agentlab import exercises, lab
from agentlab.engines.langgraph import dataflow
from agentlab.errors import ConfigError, EndpointError, ModelError
from agentlab.exercises import Check
from agentlab.workflow import Step, Workflow

LONG = 1_000
"""Letters: no hint is as long, whatever is shown in it."""


@pytest.fixture(autouse=True)
def unconfigured(fresh_lab: Any) -> None:
    """Each input meets the course's model."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop without end is ended after a fifth of a second."""
    monkeypatch.setattr(exercises, "CALL_PATIENCE_S", 0.2)
    monkeypatch.setattr(exercises, "RUN_PATIENCE_S", 0.2)


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
    assert "what does it wait for?" in said


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


def chains(many: int, length: int) -> Workflow:
    """So many chains side by side, and a join."""
    steps = [
        Step(f"s{c}_{n}", "Tides? " + (f"{{s{c}_{n - 1}}}" if n else ""), max_tokens=11)
        for c in range(many)
        for n in range(length)
    ]
    last = " ".join(f"{{s{c}_{length - 1}}}" for c in range(many))
    return Workflow([*steps, Step("join", f"Join {last}", max_tokens=11)])


def layers(many: int, width: int) -> Workflow:
    """Each step needs all of the layer before it."""
    steps = []
    for layer in range(many):
        needs = " ".join(f"{{s{layer - 1}_{n}}}" for n in range(width)) if layer else ""
        steps += [Step(f"s{layer}_{n}", f"Tides? {needs}", max_tokens=11) for n in range(width)]
    return Workflow(steps)


def backwards(workflow: Workflow) -> Workflow:
    """The same, written from its end."""
    return Workflow(reversed(workflow.steps))


GRAPHS = {
    "one": Workflow([Step("only", "Tides?", max_tokens=11)]),
    "chain": chains(1, 6),
    "fan": chains(8, 1),
    "two chains": chains(2, 3),
    "five chains": chains(5, 4),
    "layers": layers(3, 4),
    "wide layers": layers(2, 12),
    "backwards": backwards(chains(3, 3)),
}


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 1000])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_limit_on_a_graph(fresh_lab, name, limit):
    """It ends, keeps the limit, and wastes no slot: all steps take 2 s, Graham's bound holds."""
    w = GRAPHS[name]
    _, t = lab.simulate(dataflow(w).ainvoke({}, {"max_concurrency": limit}))
    plan = w.plan(t.seconds)
    assert t.requests == len(w.steps)
    assert t.peak <= limit
    assert plan.bound_s(limit) <= t.makespan_s
    assert t.makespan_s <= plan.work_s / limit + (1 - 1 / limit) * plan.span_s + 1e-6


@pytest.mark.parametrize("fails", ["first", "last", "middle"])
@pytest.mark.parametrize("limit", [1, 2, 4])
@pytest.mark.parametrize("name", ["chain", "fan", "two chains", "layers", "backwards"])
def test_a_failure_under_a_limit(fresh_lab, name, limit, fails):
    """It ends with that error, and resumed without a limit asks for nothing again."""
    w = GRAPHS[name]
    at = {"first": 0, "last": -1, "middle": len(w.steps) // 2}[fails]
    broken = w.steps[at].name
    answered: list[str] = []

    async def ask(prompt: str, *, agent: str, **options: Any) -> str:
        if agent == broken and at is not None:
            raise ValueError(f"no {agent}")
        answered.append(agent)
        await asyncio.sleep(1)
        return agent

    async def twice() -> dict[str, str]:
        nonlocal at
        thread: Any = {"configurable": {"thread_id": "1"}}
        app = dataflow(w, ask=ask, checkpointer=InMemorySaver())
        with pytest.raises(ValueError, match=f"no {broken}"):
            await app.ainvoke({}, thread | {"max_concurrency": limit})
        at = None
        return await app.ainvoke(None, thread)

    results, _ = lab.simulate(twice())
    assert results == {step.name: step.name for step in w.steps}
    assert answered.count(broken) == 1
    # Asked twice is at most what was in flight at the failure.
    assert len(answered) - len(w.steps) <= limit - 1


NO_LIMITS = [-1, -(10**9), 1.5, "4", "", float("nan"), float("inf"), [4], {"at_most": 4}, b"4"]


@pytest.mark.parametrize("limit", NO_LIMITS, ids=repr)
def test_a_limit_that_is_none(fresh_lab, limit):
    """Refused in words before anything is asked, or, where it says nothing, no limit at all."""
    program = dataflow(GRAPHS["two chains"]).ainvoke({}, {"max_concurrency": limit})
    error, t = lab.simulate(program, catch=ConfigError)
    if limit:
        assert f"max_concurrency={limit!r}" in str(error)
        assert t.requests == 0
    else:
        assert (t.requests, t.peak) == (7, 2)
