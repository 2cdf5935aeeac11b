"""CrewAI, silent, and leaving nothing behind."""

from __future__ import annotations

import _warnings
import asyncio
import gc
import logging
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentlab import lab, settings
from agentlab.clock import run_virtual
from agentlab.errors import ConfigError
from agentlab.resilience import Guard, Retry
from agentlab.trace import trace

CREW = """
from agentlab import lab
from agentlab.lab import crews
from crewai import Agent, Crew, Task

lab.configure(preset="instant")
writer = Agent(role="Writer", goal="Write", backstory="Calm.", llm=lab.crew_llm(agent="writer"))
task = Task(description="Describe tides.", expected_output="Two sentences", agent=writer)
print(Crew(agents=[writer], tasks=[task]).kickoff().raw)
"""


def run(code, folder):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CREWAI")}
    environment |= {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] += os.pathsep + str(settings.DATA.parent)
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_a_crew_is_silent_and_leaves_nothing(tmp_path):
    """A crew's run writes nothing but its answer: not on the screen, not to home, cwd or /tmp.

    That it connects to nothing but loopback is the network guard's test, which runs in it, too.
    """
    done = run(CREW, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert [str(path) for path in tmp_path.rglob("*")] == []


def test_warns_if_it_comes_too_late(tmp_path):
    """Imported after crewai, it says so, before anything else."""
    late = "import sys, types; sys.modules['crewai'] = types.ModuleType('crewai')"
    strict = "import warnings; warnings.simplefilter('error', UserWarning)"
    done = run(f"{late}\n{strict}\nfrom agentlab.lab import crews", tmp_path)
    assert "UserWarning: crewai was imported before" in done.stderr
    assert "import agentlab.lab.crews first" in done.stderr


def test_importing_the_lab_does_not_import_it():
    """The lab and its rooms import in a moment: no framework comes with them."""
    rooms = "lab, plots, clock, trace, workflow, engines"
    code = f"import sys; from agentlab import {rooms}; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for framework in ["crewai", "langgraph", "langchain_core", "openai"]:
        assert f"'{framework}'" not in done.stdout


def test_crew_llm_takes_no_virtual_time(fresh_lab):
    """Inside run_virtual it says that CrewAI's client cannot be there."""

    async def inside():
        return fresh_lab.crew_llm()

    with pytest.raises(ConfigError, match="takes no virtual time"):
        run_virtual(inside())


@pytest.mark.filterwarnings("ignore")  # CrewAI's and its libraries' own
def test_crew_llm_is_connected(fresh_lab):
    """It asks the endpoint under its agent's name, once, with a time-out in model seconds."""
    from agentlab.trace import trace

    fresh_lab.configure(time_scale=20, faults=[{"kind": "stall", "agent": "slow", "calls": [1]}])
    with trace() as t:
        assert fresh_lab.crew_llm(agent="quick").call("Describe tides.")
        with pytest.raises(Exception, match=r"(?i)timed? ?out|connect"):
            fresh_lab.crew_llm(agent="slow", timeout=60.0).call("Describe tides.")
        while t.spans[-1].end_s is None:  # the endpoint hears of it a moment later
            time.sleep(0.01)
    assert [(span.agent, span.status) for span in t.spans] == [("quick", 200), ("slow", 499)]


@pytest.mark.filterwarnings("ignore")  # CrewAI's own imports
def test_a_crews_client_is_closed_with_its_llm(fresh_lab):
    """Before the collector can come to a socket of its: that would be a ResourceWarning."""
    llm = fresh_lab.crew_llm(agent="writer")
    connections = llm._client._client
    del llm
    gc.collect()
    assert connections.is_closed


def one_task(llm):
    from crewai import Agent, Crew, Task

    writer = Agent(role="Writer", goal="Write", backstory="Calm.", llm=llm, max_retry_limit=0)
    task = Task(description="Describe tides.", expected_output="One line", agent=writer)
    return Crew(agents=[writer], tasks=[task])


@pytest.fixture
def guarded():
    from agentlab.lab import crews  # slow, and not silent about its libraries

    return crews.guarded


CREWAI = pytest.mark.filterwarnings("ignore")  # CrewAI's and its libraries' own

FAILING = {"faults": [{"kind": "error", "status": 500, "calls": [1, 2]}], "time_scale": 20}


@CREWAI
def test_a_crew_through_a_guard_survives_errors(fresh_lab, guarded):
    """Two errors, one owner of retries: three requests, and the guard has counted them."""

    async def main():
        guard = Guard(retry=Retry(attempts=5))
        crew = one_task(guarded(lab.crew_llm(agent="writer"), guard.run))
        return (await crew.akickoff()).raw, guard.monitor.health()

    with lab.configure(**FAILING), trace() as t:
        text, health = asyncio.run(main())
        assert [span.status for span in t.spans] == [500, 500, 200]
    assert text
    assert (health["calls"], health["failed_attempts"]) == (1, 2)


@CREWAI
def test_its_acall_goes_through_the_guard(fresh_lab, guarded):
    """An LLM that is called without a crew, too."""

    async def main():
        llm = guarded(lab.crew_llm(), Guard(retry=Retry(attempts=5)).run)
        return await llm.acall("Name three rivers.")

    with lab.configure(**FAILING), trace() as t:
        assert asyncio.run(main())
        assert t.requests == 3


def kickoff(llm, crews, how):
    if how == "flow":
        step = crews.start()(lambda self: "nothing")
        return type("Flow", (crews.Flow,), {"step": step})().kickoff_async()
    return getattr(one_task(llm), how)()


def test_warnings_take_what_python_gives_them():
    """CrewAI puts a function in their place whose arguments are those of Python 3.11."""
    from agentlab.lab import crews

    assert crews.LLM and warnings.warn is _warnings.warn


@CREWAI
@pytest.mark.parametrize("how", ["akickoff", "kickoff_async", "flow"])
def test_ones_own_crew_or_flow_takes_no_virtual_time(fresh_lab, how):
    """It would wait for a thread, for ever; an LLM from before virtual time does not hide that."""
    from agentlab.lab import crews

    llm = lab.crew_llm()

    async def inside():
        return await kickoff(llm, crews, how)

    with pytest.raises(ConfigError, match=r"keep real time; await it outside of lab.simulate"):
        run_virtual(inside())


@CREWAI
def test_a_guarded_crew_that_blocks_its_loop_is_refused(fresh_lab, guarded):
    """kickoff inside the loop would wait for ever; nothing is sent."""

    async def main():
        llm = guarded(lab.crew_llm(), Guard().run)
        llm.call("Name three rivers.")

    with trace() as t, pytest.raises(ConfigError, match="await akickoff"):
        asyncio.run(main())
    assert t.requests == 0


@CREWAI
def test_a_guards_loop_that_has_ended_is_refused(fresh_lab, guarded):
    """Nobody would make the call any more."""

    async def made():
        return guarded(lab.crew_llm(), Guard().run)

    with pytest.raises(ConfigError, match="stands still; await akickoff"):
        asyncio.run(made()).call("Name three rivers.")


@CREWAI
def test_more_crews_than_threads_wait_for_a_guard(fresh_lab, guarded):
    """Each holds one of asyncio's threads meanwhile; the guard's calls need none."""

    async def main():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        guard = Guard(deadline_s=600)
        crews = [one_task(guarded(lab.crew_llm(agent=f"writer {n}"), guard.run)) for n in range(3)]
        return await asyncio.gather(*(crew.kickoff_async() for crew in crews))

    with lab.configure(time_scale=20), trace() as t:
        assert all(result.raw for result in asyncio.run(main()))
        assert t.requests == 3


@CREWAI
def test_a_guard_needs_a_loop(guarded):
    """Outside of one there is nowhere to hand the calls to."""
    with pytest.raises(ConfigError, match="running event loop"):
        guarded(None, Guard().run)


@CREWAI
def test_only_crewais_own_lines_are_silent(guarded, tmp_path):
    """Who works in a folder named after it hears their own logging; CrewAI's is left out."""
    import crewai

    def passes(path):
        record = logging.LogRecord("root", logging.WARNING, str(path), 1, "a word", None, None)
        return bool(logging.getLogger().filter(record))

    assert passes(tmp_path / "my-crewai-course" / "lesson.py")
    assert not passes(Path(crewai.__file__).parent / "llm.py")
