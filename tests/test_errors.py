"""What the lab said is found under whatever others made of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentlab import engines, lab
from agentlab.clock import is_virtual
from agentlab.errors import (
    ConfigError,
    EndpointError,
    StepError,
    reason,
)
from agentlab.workflow import Step, Workflow

CONFIG = ConfigError("use ainvoke")
ENDPOINT = EndpointError("it broke off")


def under(inner: BaseException, *, by: str = "cause", wrappings: int = 1) -> Exception:
    """`inner`, wrapped so often as a client or a framework would."""
    for depth in range(wrappings):
        outer = RuntimeError(f"wrapped {depth}")
        if by == "group":
            inner = ExceptionGroup(f"wrapped {depth}", [ValueError("a sibling"), inner])  # type: ignore[list-item]
        elif by == "cause":
            outer.__cause__ = inner
            inner = outer
        else:
            outer.__context__ = inner
            inner = outer
    assert isinstance(inner, Exception)
    return inner


@pytest.mark.parametrize("wrappings", [0, 1, 2, 20])
@pytest.mark.parametrize("by", ["cause", "context", "group"])
@pytest.mark.parametrize("inner", [CONFIG, ENDPOINT], ids=["config", "endpoint"])
def test_it_is_found_at_any_depth(inner, by, wrappings):
    """Explicit causes, errors met while another was handled, and groups."""
    assert reason(under(inner, by=by, wrappings=wrappings)) is inner


def test_a_config_error_comes_first():
    """However deep it stands: it names the way out."""
    outer = under(ENDPOINT)
    assert isinstance(outer.__cause__, EndpointError)
    group = ExceptionGroup("two", [outer, under(CONFIG, wrappings=5)])
    assert reason(group) is CONFIG


def test_an_error_of_somebody_else_is_its_own_reason():
    """So is one whose context was cut off on purpose."""
    plain = under(ValueError("no figure"), wrappings=3)
    assert reason(plain) is plain
    cut = RuntimeError("said instead")
    cut.__context__ = CONFIG
    cut.__suppress_context__ = True
    assert reason(cut) is cut


def test_a_circle_of_causes_ends():
    """An error may stand among its own causes."""
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert reason(one) is one


def blocks() -> Any:
    return lab.chat_model().invoke("Name a river.")


async def in_a_coroutine() -> Any:
    return blocks()


async def as_a_stream() -> Any:
    return list(lab.chat_model().stream("Name a river."))


async def in_a_thread() -> Any:
    return await asyncio.to_thread(blocks)


async def in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(in_a_coroutine())


@pytest.mark.parametrize("program", [in_a_coroutine, as_a_stream, in_a_thread, in_a_group])
def test_a_blocking_call_in_virtual_time_says_so(fresh_lab, program):
    """The client says "Connection error.", and a note the reason."""
    with pytest.raises(Exception, match=r"The reason: .*use ainvoke or astream"):
        lab.simulate(program())
    told, _ = lab.simulate(program(), catch=Exception)
    assert isinstance(reason(told), ConfigError)


@pytest.mark.parametrize(
    "engine", ["sequential", "asyncio", "langgraph", "openai-agents", "pydantic-ai"]
)
def test_a_step_error_names_the_reason(fresh_lab, engine):
    """Which step failed, and what the lab said about it."""

    async def ask(prompt: str, **options: Any) -> Any:
        assert is_virtual()
        return blocks()

    with pytest.raises(StepError, match=r"'notes'.*ConfigError: .*use ainvoke"):
        lab.simulate(engines.run(Workflow([Step("notes", "Note.")]), engine=engine, ask=ask))
