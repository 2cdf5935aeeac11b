"""The engines whose steps are agents of a framework's: OpenAI's Agents SDK, and pydantic-ai.

test_engines, test_agents and test_border hold them to the bytes, the times, the tools and the
errors of the others; here is what is theirs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentlab import engines, lab
from agentlab.bench import measure, results
from agentlab.bench.experiment import Experiment, Workload
from agentlab.clock import run_virtual
from agentlab.errors import ConfigError, ModelError, StepError
from agentlab.resilience import Guard, Retry
from agentlab.settings import DATA
from agentlab.trace import AGENT, trace
from agentlab.workflow import Step, Workflow

AGENTS = ["openai-agents", "pydantic-ai"]
ROOT = Path(__file__).resolve().parents[1]

FAN = Workflow([Step(f"s{n}", f"Name river {n}.", max_tokens=11) for n in range(4)])  # 2 s each
ONE = Workflow([Step("one", "Name a river.")])

each = pytest.mark.parametrize("engine", AGENTS)


@pytest.mark.parametrize("temperature", [None, 0.0, 1.5])
@pytest.mark.parametrize("max_tokens", [None, 9])
@pytest.mark.parametrize("system", [None, "You are terse.\nVery."])
@each
def test_an_agent_asks_what_the_step_asks(engine, system, max_tokens, temperature):
    """After its way through the framework a question is the one of every other engine."""
    seen = {}

    def noting(name):
        async def ask(prompt, **rest):
            seen[name] = rest | {"prompt": prompt}
            return "ok"

        return ask

    prompt = '한강 {{braces}} \u2028 "quotes"\n\n  and an end  '
    given = {"system": system, "max_tokens": max_tokens, "temperature": temperature}
    w = Workflow([Step("설명", prompt, **given)])
    for name in ("asyncio", engine):
        asyncio.run(engines.run(w, engine=name, ask=noting(name)))
    assert seen[engine] == seen["asyncio"]


@pytest.mark.parametrize("text", ["\n 답 {x}\u2028 \x85 \n", "{}", "```json\n[1]\n```", "  "])
@each
def test_an_answer_comes_as_it_is(engine, text):
    """No framework strips it, parses it, or asks again."""
    asked = []

    async def ask(prompt, **rest):
        asked.append(prompt)
        return text

    assert asyncio.run(engines.run(ONE, engine=engine, ask=ask)) == {"one": text}
    assert len(asked) == 1


@each
def test_what_a_framework_refuses_is_a_failed_step(engine):
    """An answer that cannot be text is asked for once, and the step is named."""
    asked = []

    async def ask(prompt, **rest):
        asked.append(prompt)
        return {"no": "text"}

    with pytest.raises(StepError, match="step 'one' of workflow"):
        asyncio.run(engines.run(ONE, engine=engine, ask=ask))
    assert len(asked) == 1


@each
def test_the_models_reason_is_told(fresh_lab, engine):
    """The error is the lab's own, and nothing is repeated behind the user's back."""
    fresh_lab.configure(faults=[{"kind": "error", "status": 503, "probability": 1}])
    with trace() as t, pytest.raises(StepError, match="ModelError: the model answered 503") as e:
        run_virtual(engines.run(ONE, engine=engine))
    assert isinstance(e.value.__cause__, ModelError)
    assert t.requests == 1


@each
def test_a_guard_guards_it(fresh_lab, engine):
    """Its limit is the peak, and its retries are the only ones."""
    fresh_lab.configure(faults=[{"kind": "error", "status": 503, "calls": [2]}])
    guard = Guard(max_concurrency=2, retry=Retry(attempts=3, first_s=1, most_s=1))
    answers, t = lab.simulate(engines.run(FAN, engine=engine, ask=guard.ask))
    assert (t.requests, t.peak) == (5, 2)
    assert {span.agent for span in t.spans} == set(FAN.needs)
    fresh_lab.configure()
    assert answers == run_virtual(engines.run(FAN)).result


async def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def tides(city: str) -> dict[str, str]:
    """The tides in a city."""
    return {"high_water": "14:10"}


TOOLS = {"weather": weather, "tides": tides, "search_history": lambda query: [query]}


@each
def test_steps_with_tools_answer_as_on_the_other_engines(fresh_lab, engine):
    """On the real clock: to the byte, with as many requests, and the trace has the same tools."""
    w, inputs = Workflow.load("trip"), {"city": "Busan"}
    expected, other = fresh_lab.simulate(engines.run(w, inputs, tools=TOOLS))
    fresh_lab.configure(preset="instant")
    with trace() as t:
        assert asyncio.run(engines.run(w, inputs, engine=engine, tools=TOOLS)) == expected
    assert t.requests == other.requests == 5
    used = [sorted((s.agent, s.name) for s in a.tools if s.operation != AGENT) for a in (t, other)]
    assert used[0] == used[1]
    assert [name for _, name in used[0]] == ["tides", "weather", "search_history"]


@each
def test_a_guard_around_tools_counts_requests(fresh_lab, engine):
    """Each turn is a call of the guard's, and a refused one is sent again; no tool runs twice."""
    fresh_lab.configure(faults=[{"kind": "error", "status": 503, "calls": [2]}])
    guard = Guard(max_concurrency=1, retry=Retry(attempts=3, first_s=1, most_s=1))
    w, inputs = Workflow.load("trip"), {"city": "Busan"}
    asking = engines.run(w, inputs, engine=engine, tools=TOOLS, ask=guard.around(lab.reply))
    _, t = lab.simulate(asking)
    assert (t.requests, t.peak) == (6, 1)
    assert len([s for s in t.tools if s.operation != AGENT]) == 3


@each
def test_an_experiment_measures_it(fresh_lab, engine, tmp_path):
    """In virtual time it is on the bound, and its work is equal to that of the others."""
    asked = Experiment(
        about="x", workloads=[Workload(random=3)], engines=["sequential", engine], warmups=0
    )
    some = measure.run(asked, tmp_path / "agents.json")
    assert results.unequal(some.measurements) == []
    mine = [m for m in some.measurements if m.case.engine == engine]
    assert len(mine) == 3
    assert all(m.elapsed_s == m.bound_s for m in mine)


@each
def test_an_endpoint_with_faults_changes_nothing(fresh_lab, engine, tmp_path):
    """Ten random workflows on an endpoint that spoils three requests in ten: the same answers."""
    changed: dict[str, Any] = {"settings": {"faults": str(DATA / "faults" / "every-kind.yaml")}}
    asked = Experiment(
        about="x", workloads=[Workload(random=10)], engines=["sequential", engine],
        strategies=["timeout"], warmups=0, **changed,
    )  # fmt: skip
    some = measure.run(asked, tmp_path / "faults.json")
    assert results.unequal(some.measurements) == []
    assert all(m.error is None for m in some.measurements)
    assert sum(m.requests for m in some.measurements) > sum(m.steps for m in some.measurements)


@each
def test_no_framework_knows_the_key(fresh_lab, engine, caplog):
    """Nothing that anybody logs, at any level, holds what opens the endpoint."""
    fresh_lab.configure(preset="instant")
    with caplog.at_level(logging.DEBUG):
        asyncio.run(engines.run(FAN, engine=engine))
    assert lab.api_key() not in caplog.text


SPOKEN = """
import asyncio
from agentlab import engines
from agentlab.workflow import Step, Workflow

async def ask(prompt, **rest):
    return "ok"

workflow = Workflow([Step("one", "Name a river.")])
print(asyncio.run(engines.run(workflow, engine={engine!r}, ask=ask)))
"""


def guarded(code: str, log: Path) -> str:
    """Run `code` as somebody who has a key of OpenAI's; return what the network guard refused."""
    log.touch()
    where = os.pathsep.join([str(ROOT / "tests" / "network_guard"), str(ROOT)])
    surely = {"OPENAI_API_KEY": "sk-test", "AGENTLAB_LOCAL": "1", "PYTHONPATH": where}
    environment = os.environ | surely | {"AGENTLAB_GUARD_LOG": str(log)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert ran.stdout == "{'one': 'ok'}\n", ran.stderr
    return log.read_text()


@each
def test_nothing_is_reported_to_its_makers(engine, tmp_path):
    """Not even at the end of the program, when what was collected would be sent."""
    assert guarded(SPOKEN.format(engine=engine), tmp_path / "log") == ""


def test_the_guard_would_see_a_report(tmp_path):
    """By default the Agents SDK sends to OpenAI what was asked and answered."""
    traced = "from agentlab.engines import openai_agents as e; e._UNTRACED.tracing_disabled = False"
    code = traced + SPOKEN.format(engine="openai-agents")
    assert "api.openai.com" in guarded(code, tmp_path / "log")


@each
def test_a_missing_framework_is_named(engine, monkeypatch):
    """The error says what to install."""
    package = {"openai-agents": "agents", "pydantic-ai": "pydantic_ai"}[engine]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"agentlab.engines.{engine.replace('-', '_')}", raising=False)
    with pytest.raises(ConfigError, match=rf"pip install '\.\[{engine}\]'"):
        asyncio.run(engines.run(ONE, engine=engine))
