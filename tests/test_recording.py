"""Answers recorded and given again: the same bytes, at the same times, without the model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.endpoint.middleware.recording import Recording, Replay
from agentlab.endpoint.server.app import App, local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.errors import ConfigError
from agentlab.settings import Settings
from agentlab.trace import Trace, trace

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "설명: Describe tides."}]}
Timed = list[tuple[float, bytes]]


async def asked(app: App, **fields: Any) -> tuple[int, Timed]:
    """The status, and each piece of the answer with its time."""
    transport = InProcessTransport(app)
    clock = asyncio.get_running_loop().time
    start = clock()
    async with (
        httpx.AsyncClient(transport=transport, timeout=None) as client,
        client.stream(
            "POST", "http://127.0.0.1/v1/chat/completions", json={**QUESTION, **fields}
        ) as answer,
    ):
        pieces = [(round(clock() - start, 6), piece) async for piece in answer.aiter_raw()]
        return answer.status_code, [(at_s, piece) for at_s, piece in pieces if piece]


def in_virtual_time(main: Callable[[], Awaitable[Any]]) -> Any:
    return run_virtual(main()).result  # type: ignore[arg-type]


def recorded(path: Path) -> tuple[Any, Any]:
    """A stream and a whole answer, recorded in one run."""

    async def main() -> Any:
        app = local_app(Settings(record=str(path)), time_scale=1.0)
        return await asked(app, stream=True), await asked(app)

    return in_virtual_time(main)


def test_a_replay_gives_the_same_bytes_at_the_same_times(tmp_path: Path):
    """Streams and whole answers, Korean included; the trace has the same tokens."""
    path = tmp_path / "answers.jsonl"
    stream, whole = recorded(path)
    assert len(stream[1]) > 10

    async def main() -> Any:
        app = App(Replay(str(path)))
        return await asked(app, stream=True), await asked(app), app.recorder.since(0)

    again, whole_again, spans = in_virtual_time(main)
    assert again == stream
    assert whole_again == whole
    assert spans[1].completion_tokens == json.loads(whole[1][0][1])["usage"]["completion_tokens"]
    assert spans[0].first_token_s == 1.0


@pytest.mark.parametrize(("kind", "first_token_s"), [("text/event-stream", 2.0), ("", None)])
def test_a_replays_first_token_is_its_first_word(
    tmp_path: Path, kind: str, first_token_s: float | None
):
    """A comment is none; and of a plain answer it is not known."""
    path = tmp_path / "answers.jsonl"
    recorded(path)
    words = 'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n'
    pieces = [(1.0, ": wait\n\n"), (2.0, words), (3.0, "data: [DONE]\n\n")]
    line = json.loads(path.read_text().splitlines()[0])
    line |= {"content_type": kind, "pieces": pieces if kind else [(3.0, "{}")]}
    path.write_text(json.dumps(line) + "\n")

    async def main() -> Any:
        app = App(Replay(str(path)))
        await asked(app, stream=True)
        return app.recorder.since(0)[0]

    span = in_virtual_time(main)
    assert (span.first_token_s, span.end_s) == (first_token_s, 3.0)


def test_what_was_not_recorded_is_said_to_be_missing(tmp_path: Path):
    """404, naming the recording."""
    path = tmp_path / "answers.jsonl"
    recorded(path)

    async def main() -> Any:
        return await asked(App(Replay(str(path))), messages=[{"role": "user", "content": "New"}])

    status, ((_, body),) = in_virtual_time(main)
    assert status == 404
    assert b"answers.jsonl" in body


def test_no_key_is_recorded(tmp_path: Path):
    """The file holds the answers, not what the client showed."""
    path = tmp_path / "answers.jsonl"

    async def main() -> None:
        app = local_app(Settings(record=str(path)), time_scale=1.0)
        async with httpx.AsyncClient(transport=InProcessTransport(app)) as client:
            headers = {"authorization": "Bearer secret-key"}
            url = "http://127.0.0.1/v1/chat/completions"
            await client.post(url, json=QUESTION, headers=headers, timeout=None)

    in_virtual_time(main)
    assert path.read_text().count("\n") == 1
    assert "secret" not in path.read_text()


@pytest.mark.parametrize("text", ['{"key": 1}\n', "not json\n"])
def test_a_broken_recording_is_refused(tmp_path: Path, text: str):
    """The error names the file and the line."""
    path = tmp_path / "answers.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"answers.jsonl.*line 1"):
        Replay(str(path))


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path):
    """Before anything is asked."""
    with pytest.raises(ConfigError, match="cannot record"):
        Recording(App(Replay(str(_empty(tmp_path)))).model, str(tmp_path / "no" / "file"))


def _empty(folder: Path) -> Path:
    path = folder / "empty.jsonl"
    path.touch()
    return path


def test_the_lab_records_and_replays(fresh_lab: Any, tmp_path: Path):
    """Over HTTP, inside `with`; the settings of before come back."""
    path = str(tmp_path / "answers.jsonl")
    with lab.configure(record=path, time_scale=20):
        first = asyncio.run(lab.ask("Describe tides."))
    before = repr(lab.configure(seed=1))
    with lab.configure(replay=path, seed=99):
        assert "recording" in lab.where()
        assert run_virtual(lab.ask("Describe tides.")).result == first
        assert asyncio.run(lab.ask("Describe tides.")) == first
    assert lab.where() == before


def test_a_trace_comes_back_from_disk(fresh_lab: Any, tmp_path: Path):
    """Saved and loaded: the same spans; a broken file is refused."""
    with trace() as t:
        run_virtual(asyncio.wait_for(lab.ask("Describe tides.", agent="작가"), 1000))
    path = tmp_path / "run.jsonl"
    t.save(path)
    assert Trace.load(path).spans == t.spans
    assert [name.name for name in tmp_path.iterdir()] == ["run.jsonl"]
    path.write_text("{}")
    with pytest.raises(ConfigError, match=r"run.jsonl"):
        Trace.load(path)
