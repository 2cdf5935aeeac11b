"""Killed at any moment, `agentlab write` goes on, and pays twice at most for what was in flight."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import web

from agentlab.commands.main import main

KILLS = int(os.environ.get("AGENTLAB_KILLS", 8))  # `make soak` kills fifty times
AT_ONCE = 4
TOPICS = [f"Tides in harbour {number}" for number in range(1, 41)]


def answer_to(prompt: str) -> str:
    return f"Answer {blake2b(prompt.encode(), digest_size=8).hexdigest()}"


class CountingModel:
    """A model of our own, outside of the lab: it answers by the prompt alone, and counts.

    Whoever asks after its first `most` requests waits until there may be more.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.most = math.inf
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> CountingModel:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def requests(self) -> int:
        return self.asked.total()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _answer(self, request: web.Request) -> web.Response:
        prompt = (await request.json())["messages"][-1]["content"]
        text = answer_to(prompt)
        self.asked[text] += 1
        number = self.requests
        await asyncio.sleep(0.02)
        while number > self.most:
            await asyncio.sleep(0.02)
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        return web.json_response(
            {"id": "x", "object": "chat.completion", "choices": choices, "usage": usage}
        )


@pytest.fixture
def model() -> Iterator[CountingModel]:
    with CountingModel() as model:
        yield model


def started(model: CountingModel, topics: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    environment = os.environ | {
        "OPENAI_BASE_URL": model.url,
        "AGENTLAB_CONTENT_MAX_CONCURRENT_AGENTS": str(AT_ONCE),
        "AGENTLAB_PROGRESS": "0",
    }
    environment.pop("AGENTLAB_LOCAL", None)
    arguments = ["write", str(topics), "--out", str(out), "--resume", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "agentlab", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def recorded(out: Path) -> set[str]:
    if not (out / "journal.sqlite").exists():
        return set()
    with closing(sqlite3.connect(out / "journal.sqlite")) as database:
        try:
            rows = database.execute("SELECT answer FROM agentlab_steps WHERE answer IS NOT NULL")
            return {answer for (answer,) in rows}
        except sqlite3.OperationalError:  # killed before there was a table
            return set()


def published(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("[!.]*.*m*")}


def test_killed_again_and_again_it_pays_for_what_was_in_flight(model, tmp_path):
    """kill -9 at random points of a batch of 40: what is recorded is never asked again, each
    kill costs at most the four in flight, and the files are those of an undisturbed run."""
    topics = tmp_path / "topics.txt"
    topics.write_text("\n".join(TOPICS), encoding="utf-8")
    draw = Random(8)
    kept: dict[str, int] = {}  # recorded before the latest kill -> how often asked by then
    for _ in range(KILLS):
        until = model.requests + draw.randint(1, 250 // KILLS)  # spread over the batch
        with started(model, topics, tmp_path / "killed") as life:
            model.most = until + 1  # or it could be done before a slow machine kills it
            while model.requests < until and life.poll() is None:
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.03))
            life.kill()
        assert life.returncode == -signal.SIGKILL
        assert {text: model.asked[text] for text in kept} == kept
        kept |= {text: model.asked[text] for text in recorded(tmp_path / "killed")}
    model.most = math.inf
    with started(model, topics, tmp_path / "killed") as life:
        out, _ = life.communicate(timeout=120)
    assert life.returncode == 0, out
    assert "40 done" in out
    assert {text: model.asked[text] for text in kept} == kept
    assert len(model.asked) == 40 * 4
    again = model.requests - 40 * 4
    print(f"{KILLS} kills: {again} requests sent again, {again / KILLS:.2f} a kill")
    assert 0 < again <= KILLS * AT_ONCE
    with started(model, topics, tmp_path / "whole") as life:
        life.communicate(timeout=120)
    assert published(tmp_path / "killed") == published(tmp_path / "whole")
    assert len(published(tmp_path / "whole")) == 80


def test_ctrl_c_waits_and_says_what_is_left(model, tmp_path):
    """SIGINT in mid-batch: exit code 130, what was sent is recorded, --resume does the rest."""
    topics = tmp_path / "topics.txt"
    topics.write_text("\n".join(TOPICS[:10]), encoding="utf-8")
    model.most = 20
    with started(model, topics, tmp_path / "out") as life:
        while model.requests < 6:
            time.sleep(0.001)
        life.send_signal(signal.SIGINT)
        assert life.stderr is not None
        while b"Ctrl-C again" not in (line := os.read(life.stderr.fileno(), 4096)) and line:
            pass
        model.most = math.inf
        out, err = life.communicate(timeout=120)
    assert life.returncode == 130
    assert "left" in out and "--resume" in err
    assert len(recorded(tmp_path / "out")) == model.requests < 40
    with started(model, topics, tmp_path / "out") as life:
        out, _ = life.communicate(timeout=120)
    assert (life.returncode, model.requests) == (0, 40)
    assert out.startswith("10 done")


def test_a_second_ctrl_c_cancels_and_says_how_to_go_on(model, tmp_path):
    """Exit code 130, the way to go on, and no traceback."""
    topics = tmp_path / "topics.txt"
    topics.write_text("\n".join(TOPICS[:10]), encoding="utf-8")
    with started(model, topics, tmp_path / "out") as life:
        while model.requests < 6:
            time.sleep(0.001)
        life.send_signal(signal.SIGINT)
        assert life.stderr is not None
        while b"Ctrl-C again" not in (line := os.read(life.stderr.fileno(), 4096)) and line:
            pass
        life.send_signal(signal.SIGINT)
        _, err = life.communicate(timeout=120)
    assert life.returncode == 130
    assert "--resume" in str(err) and "Traceback" not in str(err)


def test_what_is_there_is_not_gone_on_with_unasked(fresh_lab, tmp_path, capsys):
    """Without --resume a folder with a journal is refused; so are topics that are none."""
    topics = tmp_path / "topics.txt"
    topics.write_text("# nothing yet\n\n", encoding="utf-8")
    arguments = ["write", str(topics), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "there are none" in capsys.readouterr().err
    topics.write_text("Tides\n  Tides\n# a comment\n", encoding="utf-8")
    with_time = pytest.MonkeyPatch()
    with_time.setenv("AGENTLAB_PRESET", "instant")
    with_time.setenv("AGENTLAB_CONTENT_TIMEOUT_SECONDS", "600")
    try:
        assert main(arguments) == 0
        assert capsys.readouterr().out.startswith("1 done")
        assert main(arguments) == 2
        assert "--resume" in capsys.readouterr().err
        assert main([*arguments, "--resume"]) == 0
        assert main([*arguments, "--resume", "--settings", str(tmp_path / "none.yaml")]) == 2
        assert "none.yaml" in capsys.readouterr().err
    finally:
        with_time.undo()
