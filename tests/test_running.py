"""Which model answers: settings that are chosen, kept and refused, and the endpoint they get."""

from __future__ import annotations

import asyncio
import os
import signal
from types import ModuleType

import pytest

from agentlab.errors import ConfigError
from agentlab.lab import connection
from agentlab.trace import trace

HELLO = "Say hello and tell me in one sentence what you are."


def ask(lab: ModuleType, **options: object) -> str:
    return asyncio.run(lab.ask(HELLO, max_tokens=2, **options))


def kill_the_endpoint() -> None:
    crashed = connection.endpoint()
    os.kill(crashed.pid, signal.SIGKILL)
    crashed._process.wait()


@pytest.mark.parametrize(
    "wrong",
    [
        {"preset": "none"},
        {"time_scale": -1},
        {"faults": "/nowhere/faults.yaml"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_configuration_changes_nothing(fresh_lab: ModuleType, wrong: dict[str, object]):
    """The error comes before anything is stopped, and names the value."""
    before, at = fresh_lab.base_url(), fresh_lab.where()
    with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))):
        fresh_lab.configure(**wrong)
    assert (fresh_lab.base_url(), fresh_lab.where()) == (before, at)


def test_an_endpoint_that_died_is_started_anew(fresh_lab: ModuleType):
    """The next question after a crash works."""
    ask(fresh_lab)
    kill_the_endpoint()
    assert ask(fresh_lab)


def test_a_traced_question_after_a_crash_is_answered_and_seen(fresh_lab: ModuleType):
    """The trace asks the endpoint that is there, not the one that was."""
    ask(fresh_lab)
    kill_the_endpoint()
    with trace() as t:
        ask(fresh_lab, agent="after")
    assert [span.agent for span in t.spans] == ["after"]


def test_a_change_of_model_inside_a_trace_is_traced(fresh_lab: ModuleType):
    """The question to the other model is seen, and later traces work, as an endpoint ends twice."""
    ask(fresh_lab, agent="before")
    with trace() as t, fresh_lab.configure(seed=3):
        ask(fresh_lab, agent="other model")
    with trace() as later:
        ask(fresh_lab, agent="later")
    assert [span.agent for span in t.spans] == ["other model"]
    assert [span.agent for span in later.spans] == ["later"]


def test_a_trace_outlives_its_endpoint(fresh_lab: ModuleType):
    """What was asked before stop() is in the trace, which is read after it."""
    with trace() as t:
        ask(fresh_lab, agent="before")
        fresh_lab.stop()
        assert [span.agent for span in t.spans] == ["before"]
    assert [span.status for span in t.spans] == [200]


def test_the_blocks_own_error_comes_out_after_a_change_of_model(fresh_lab: ModuleType):
    """No error of the trace's own stands before it."""
    ask(fresh_lab)
    with pytest.raises(LookupError, match="mine"), trace(), fresh_lab.configure(seed=3):
        raise LookupError("mine")


def test_the_lab_speaks_of_the_endpoint_that_runs(
    fresh_lab: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """The environment changes after its start: nothing else is said until it is started anew."""
    monkeypatch.setattr(
        connection._here, "chosen", None
    )  # as in a kernel that has configured nothing
    monkeypatch.setenv("AGENTLAB_TIME_SCALE", "50")
    url = fresh_lab.base_url()
    monkeypatch.setenv("AGENTLAB_TIME_SCALE", "20")
    monkeypatch.setenv("AGENTLAB_PRESET", "instant")
    assert fresh_lab.base_url() == url
    assert fresh_lab.model_seconds_a_second() == 50
    assert fresh_lab.where().startswith("the local model, preset course; 50 model seconds")
    fresh_lab.stop()
    assert fresh_lab.where().startswith("the local model, preset instant; 20 model seconds")


def test_configure_starts_from_the_environment_of_now(
    fresh_lab: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """As whoever joins a class does: set the environment, then configure, with nothing given."""
    url = fresh_lab.base_url()
    monkeypatch.setenv("AGENTLAB_TIME_SCALE", "20")
    fresh_lab.configure()
    assert fresh_lab.model_seconds_a_second() == 20
    assert fresh_lab.base_url() != url


def test_leaving_a_configuration_restores_the_one_before(fresh_lab: ModuleType):
    """With blocks nest."""
    with fresh_lab.configure(time_scale=20):
        with fresh_lab.configure(time_scale=30):
            assert fresh_lab.model_seconds_a_second() == 30
        assert fresh_lab.model_seconds_a_second() == 20
    assert fresh_lab.model_seconds_a_second() == 10
