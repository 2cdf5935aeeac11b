"""Every exercise can be solved, its check says so, and a wrong answer gets a hint of its own.

Of each lesson only what its exercises need is run: the cells whose names they use, and then stub
and check once for each answer, all in one process. The wrong answers are in `wrong_answers/`.
"""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import yaml
from lesson_process import import_first
from lessons import NOTEBOOKS, Exercise, Lesson, run

from agentlab import exercises, lab
from agentlab.exercises import Check

KEPT = """
from contextlib import nullcontext

_configure, _kept = lab.configure, None


def configure(**changes):
    global _kept
    if changes != _kept:
        _configure(**changes)
        _kept = changes
    return nullcontext()


lab.configure = configure
"""
"""Checks with the same settings find the same endpoint."""

QUICKER = {
    "03_crewai": KEPT,
    "03b_crewai_failures": KEPT
    + """
import crewai.llms.retry

crewai.llms.retry.get_retry_delay_seconds = lambda **_: 0.0  # it waits in real time
""",
    "07_scale_out": KEPT
    + """
two = await opened.enter_async_context(Cluster(workers=2))
Cluster = lambda workers: nullcontext(two)
""",
}
"""What is run before the answers, so that checks in real time wait less; no hint depends on it."""

CHEAPER = {
    "05b_laws": """
from agentlab.bench import measure

measure.run = lambda plan, file: None  # the exercises need its file's name alone
""",
}
"""What is run before the lesson's own cells: no exercise looks at what they would measure."""

FROZEN = """
import gc

from agentlab import exercises

get_ipython().events.register("pre_run_cell", lambda cell: gc.freeze())
"""
"""Each check collects garbage first. What is there by then, such as all that a lesson has imported,
is none, and takes a tenth of a second to look at."""

IMPORTED = """
matplotlib.backends.backend_agg langgraph.graph langgraph.checkpoint.memory langchain_openai
agentlab.plots agentlab.exercises agentlab.explore agentlab.resilience agentlab.engines.langgraph
agentlab.engines.dask agentlab.bench.self_tuning agentlab.bench.fit agentlab.learning
agentlab.content lance_namespace_urllib3_client chromadb
"""
"""What lessons import, and what that imports as late as it is used. The last two are half of
CrewAI; it makes a folder of its own for each process, and a thread."""

import_first(IMPORTED.split())

LESSONS = [Lesson.load(path) for path in sorted(NOTEBOOKS.glob("*.ipynb"))]


def verdict(printed: str) -> str:
    """The check's own line; what the answer prints comes before it."""
    return printed.splitlines()[-1]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)
def test_each_answer_gets_its_own_hint(lesson: Lesson):
    """A stub and a wrong answer: "Not yet" and its own hint; the solution: "Solved."."""
    path = NOTEBOOKS.parent / "tests" / "wrong_answers" / f"{lesson.path.stem}.yaml"
    wrong = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert sorted(wrong) == [exercise.number for exercise in lesson.exercises]
    cells = [CHEAPER.get(lesson.path.stem, "")]
    cells += lesson.needed(one.get("answer", "") for some in wrong.values() for one in some)
    cells += [QUICKER.get(lesson.path.stem, ""), FROZEN]
    places = []
    for exercise in lesson.exercises:
        # A mistake without an answer is the stub's own.
        answers = [one for one in wrong[exercise.number] if "answer" in one]
        places.append(range(len(cells), len(cells) + len(answers) + 2))
        cells.append(tried(exercise, ""))
        for one in answers:
            patience_s = 0.3 if "never end" in one["hint"] else exercises.PATIENCE_S
            cells.append(tried(exercise, one["answer"], patience_s))
        cells.append(tried(exercise, exercise.solution))
    printed = run(lesson.path.parent, cells)
    for exercise, place in zip(lesson.exercises, places, strict=True):
        stub, *others, solved = [verdict(printed[cell]) for cell in place]
        assert solved == "Solved."
        hints = iter(others)
        for one in wrong[exercise.number]:
            hint = next(hints) if "answer" in one else stub
            assert hint.startswith("Not yet: "), one["mistake"]
            assert one["hint"] in hint, one["mistake"]
            assert sum(one["hint"] in other for other in [*others, stub] if other != hint) == 0


def tried(exercise: Exercise, answer: str, patience_s: float = exercises.PATIENCE_S) -> str:
    """Stub, answer and check; an answer without end need not be waited for as long as others."""
    patience = f"exercises.PATIENCE_S = {patience_s}"
    return "\n\n".join([patience, exercise.stub, answer, *exercise.between, exercise.check])


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)
def test_a_lesson_is_stored_with_its_exercises_unsolved(lesson: Lesson):
    """Two exercises at least, each with everything that belongs to one."""
    assert [exercise.number for exercise in lesson.exercises] == list(
        range(1, len(lesson.exercises) + 1)
    )
    assert len(lesson.exercises) >= 2
    assert all(e.stub and e.check and e.solution for e in lesson.exercises)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.strip()


async def two_rivers() -> list[str]:
    return await asyncio.gather(*(lab.ask(f"Describe river {n}.") for n in range(2)))


def test_claims_that_hold_make_an_exercise_solved(capsys):
    """What the endpoint saw can be claimed of, and the answers as well."""
    with Check() as check:
        answers, t = check.simulate(two_rivers)
        check(len(answers) == 2, "two answers")
        check((t.requests, t.peak) == (2, 2), "at once")
    assert said(capsys) == "Solved."


def test_the_first_claim_that_fails_is_the_hint(capsys):
    """Later claims are not even looked at, for they may rest on the first."""
    with Check() as check:
        _, t = check.simulate(two_rivers)
        check(t.requests == 3, "ask three")
        check(t.spans[2].ok, "unreachable")
    assert said(capsys) == "Not yet: ask three"


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda: 1 / 0, "it raised ZeroDivisionError: division by zero."),
        (lambda: lab.ask("tides"), "it returned a coroutine, 'ask', instead of its result."),
        (lambda: [lab.ask("tides")], "it returned a coroutine, 'ask', instead of its result."),
        (5, "it raised TypeError: 'int' object is not callable."),
    ],
)
def test_whatever_a_function_does_is_a_line(capsys, answer, hint):
    """A bug in the answer is told in a line, not in a traceback."""
    with Check() as check:
        check.call(answer)
    assert said(capsys) == f"Not yet: {hint}"


async def waits_for_ever() -> None:
    await asyncio.Event().wait()


async def naps_for_ever() -> None:
    while True:
        await asyncio.sleep(1)


async def forgets() -> None:
    lab.ask("tides")  # no await


async def runs_a_loop() -> None:
    program = two_rivers()
    try:
        asyncio.run(program)
    finally:
        program.close()


async def exits() -> None:
    raise SystemExit(1)


async def leaves_a_failure_behind() -> None:
    failing = [asyncio.create_task(fails()) for _ in range(2)]
    await failing[0]


async def fails() -> None:
    raise ValueError("no figure")


def endless(name: str) -> str:
    return f"`{name}` does not end (0 requests so far); what does it wait for, or repeat?"


async def uses_a_coroutine() -> str:
    return lab.ask("tides").upper()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (
            lambda: 5,
            "the answer gives 5, which cannot be awaited; write an `async def` that returns its "
            "results.",
        ),
        (waits_for_ever, endless("waits_for_ever")),
        (naps_for_ever, endless("naps_for_ever")),
        (exits, "it raised SystemExit: 1."),
        (leaves_a_failure_behind, "it raised ValueError: no figure."),
        (
            uses_a_coroutine,
            "an `await` is missing: 'ask' has no result yet "
            "(AttributeError: 'coroutine' object has no attribute 'upper').",
        ),
    ],
)
def test_whatever_a_coroutine_does_is_a_line(capsys, answer, hint):
    """Hanging, exiting, not being one: each ends the check with a hint, and nothing is logged."""
    with Check() as check:
        check.simulate(answer)
    assert said(capsys) == f"Not yet: {hint}"


def test_a_loop_inside_the_loop_is_explained(capsys):
    """asyncio.run in a coroutine is the mistake of a first hour."""
    with Check() as check:
        check.simulate(runs_a_loop)
    assert "asyncio.run() cannot be called from a running event loop" in said(capsys)


def test_a_forgotten_await_is_named(capsys):
    """The claim that fails says that nothing was asked, and the check says why."""
    with Check() as check:
        _, t = check.simulate(forgets)
        check(t.requests == 1, "no request.")
    hint = "An `await` is missing: 'ask' was called, and nobody waited."
    assert said(capsys) == f"Not yet: no request. {hint}"


def test_an_error_can_be_part_of_the_answer(capsys):
    """As with `lab.simulate`, what is caught comes in place of the result."""
    with Check() as check:
        result, _ = check.simulate(fails, catch=ValueError)
        check(isinstance(result, ValueError), "it fails")
    assert said(capsys) == "Solved."


def stands_still() -> None:
    while True:
        pass


async def spins() -> None:
    while True:
        await asyncio.sleep(0)


def test_a_loop_without_end_is_ended(capsys, monkeypatch):
    """Neither a calculation nor a coroutine keeps the learner, or a thread, for ever."""
    monkeypatch.setattr(exercises, "PATIENCE_S", 0.1)
    with Check() as check:
        check.call(stands_still)
    with Check() as check:
        check.simulate(spins)
    first, second = said(capsys).splitlines()
    assert first == "Not yet: `stands_still` runs for 0.1 s already; does a loop never end?"
    assert second == "Not yet: `spins` runs for 0.1 s already; does a loop never end?"
    deadline_s = time.monotonic() + 60
    while any(thread.name == "answer" for thread in threading.enumerate()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_real_time_has_a_limit_in_model_seconds(capsys, fresh_lab):
    """Ten model seconds are a tenth of one, at a hundred to one."""
    fresh_lab.configure(time_scale=100)

    async def checked() -> None:
        with Check() as check:
            await check.run(naps_for_ever, within_s=10)

    asyncio.run(checked())
    assert said(capsys) == f"Not yet: {endless('naps_for_ever')}"


def test_an_interrupt_is_the_learners_own():
    """Whoever interrupts the kernel wants to see that it was."""
    with pytest.raises(KeyboardInterrupt), Check():
        raise KeyboardInterrupt
