"""`agentlab.testing`: a stranger's test file, run by pytest in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STRANGERS = """
import asyncio
import os
import subprocess
import sys

import openai
import pytest


def ask(prompt):
    answer = openai.OpenAI(max_retries=1).chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": prompt}]
    )
    return answer.choices[0].message.content


def test_a_sync_client(local_openai):
    assert ask("Name three rivers.")
    assert local_openai.requests == 1


def test_each_test_has_a_trace_of_its_own(local_openai):
    assert local_openai.requests == 0
    ask("Name three lakes.")
    assert local_openai.requests == 1


async def fan_out():
    async with openai.AsyncOpenAI() as client:
        ask = client.chat.completions.create
        message = [{"role": "user", "content": "Name a sea."}]
        await asyncio.gather(*(ask(model="m", messages=message) for _ in range(3)))


@pytest.mark.local_openai(preset="course", time_scale=1)
def test_three_at_the_same_time(local_openai):
    asyncio.run(fan_out())
    assert (local_openai.requests, local_openai.peak) == (3, 3)


@pytest.mark.local_openai(faults=[{"kind": "error", "status": 503, "calls": [1]}])
def test_a_retry(local_openai):
    assert ask("Name three rivers.")
    assert [span.status for span in local_openai.spans] == [503, 200]


def test_a_program_that_the_test_starts(local_openai):
    code = "import openai; print(openai.OpenAI().models.list().data[0].id)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout


async def ask_the_lab():
    from agentlab import lab

    assert await lab.ask("Name three rivers.")


@pytest.mark.local_openai(faults=[{"kind": "error", "status": 400, "agent": "x", "calls": [1]}])
def test_both_fixtures(local_openai, explore):
    explore(ask_the_lab, runs=3)
    assert ask("Name three rivers.")


def test_exploring_asks_nobody_else(explore, caplog):
    explore(ask_the_lab, runs=3)
    assert not caplog.records


@pytest.mark.local_openai(preset="no-such")
def test_a_setting_that_cannot_work(local_openai):
    pass


def test_the_environment_is_as_it_was():
    assert os.environ["OPENAI_API_KEY"] == "sk-a-real-one"
"""


def test_a_strangers_suite(tmp_path: Path):
    """Clients of all kinds are answered without a key, traced, and leave the environment alone."""
    (tmp_path / "test_agent.py").write_text(STRANGERS)
    real = {"OPENAI_API_KEY": "sk-a-real-one", "OPENAI_BASE_URL": "http://192.0.2.1/v1"}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_agent.py"],
        cwd=tmp_path,
        env=os.environ | real,
        capture_output=True,
        text=True,
    )
    assert "8 passed, 1 error" in ran.stdout, ran.stdout + ran.stderr
    assert "ConfigError: no preset 'no-such'" in ran.stdout
    assert "sk-a-real-one" not in ran.stdout
