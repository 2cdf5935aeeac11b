"""`agentlab serve --classroom` as a process: thirty learners over HTTP, and the lab of one."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from classroom_process import TOKEN, Class, jain, small_preset
from lessons import NOTEBOOKS, Lesson, run

from agentlab.classroom.app import in_a_notebook
from agentlab.commands.main import main
from agentlab.errors import ModelError
from agentlab.trace import Trace, trace

CHAT = "/v1/chat/completions"
HELLO = "Say hello and tell me in one sentence what you are."
NUMBERS = itertools.count(1)
LEARNERS = {f"learner-{number:02}": 4 + number // 2 for number in range(30)}
"""Thirty names, and how many requests each sends at once: from 4 to 18."""


async def all_ask(url: str) -> list[httpx.Response]:
    """Every learner with a client of their own, all of their requests at once."""

    async def learner(name: str, max_concurrency: int) -> list[httpx.Response]:
        body = {"model": "m", "messages": [{"role": "user", "content": HELLO}], "max_tokens": 11}
        headers = {"authorization": f"Bearer {name}", "x-agent": "writer"}
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=60) as client:
            asking = (
                client.post(url + CHAT, json=body, headers=headers) for _ in range(max_concurrency)
            )
            return list(await asyncio.gather(*asking))

    answers = await asyncio.gather(*(learner(*each) for each in LEARNERS.items()))
    return [answer for of_one in answers for answer in of_one]


async def held_and_let_go(served: Class) -> list[httpx.Response]:
    """All ask in a pause, so that all stand in the queue at one instant."""
    await asyncio.to_thread(served.teach, paused=True)
    asking = asyncio.ensure_future(all_ask(served.url))
    deadline = time.monotonic() + 60
    while (await asyncio.to_thread(served.get, "/classroom/board"))["waiting"] < sum(
        LEARNERS.values()
    ):
        assert time.monotonic() < deadline, "not all requests arrived"
        await asyncio.sleep(0.1)
    await asyncio.to_thread(served.teach, paused=False)
    return await asking


def turns_while_all_wait(spans: list[dict[str, Any]]) -> Counter[str]:
    """Learner -> slots they got, from when all requests were there until one had none left.

    Requests arrive over some time, during which slots are given; how long depends on the machine.
    """
    there_s = max(span["arrived_s"] for span in spans)
    later = sorted((s for s in spans if s["started_s"] > there_s), key=lambda s: s["started_s"])
    left = Counter(span["learner"] for span in later)
    got: Counter[str] = Counter(dict.fromkeys(left, 0))
    for span in later:
        got[span["learner"]] += 1
        left[span["learner"]] -= 1
        if not left[span["learner"]]:
            break
    return got


def test_thirty_learners_on_one_endpoint_get_fair_shares(tmp_path):
    """330 requests on six slots: none lost; while all wait, nobody gets a turn more than others.

    From what the endpoint saw, be the machine fast or slow: Jain's index over those turns would
    be 1 if they came out even; of what was asked for it is .87.
    """
    log = tmp_path / "spans.jsonl"
    preset = small_preset(tmp_path, slots=6)
    with Class("--preset", preset, "--time-scale", "25", "--trace", str(log)) as served:
        answers = asyncio.run(held_and_let_go(served))
        spans = served.get("/lab/spans")["spans"]
        board = served.get("/classroom/board")
        code, complaints = served.interrupt()
    assert {answer.status_code for answer in answers} == {200}
    assert Counter(span["learner"] for span in spans) == LEARNERS
    assert {row["learner"]: row["answered"] for row in board["learners"]} == LEARNERS
    turns = turns_while_all_wait(spans)
    print(f"turns {min(turns.values())} to {max(turns.values())}, index {jain(turns.values()):.4f}")
    assert max(turns.values()) - min(turns.values()) <= 1
    assert round(jain(LEARNERS.values()), 2) == 0.87
    assert (Trace.load(log).requests, Trace.load(log).work_s) == (330, 660.0)
    assert TOKEN not in log.read_text()
    assert (code, complaints) == (0, "")


def test_a_class_listens_on_loopback_unless_told_otherwise():
    """127.0.0.1 by itself; with --host that address, which the warning names for what it is."""
    with Class() as served:
        assert served.url.startswith("http://127.0.0.1:")
        assert "Only this machine can reach it" in served.said
    if not Path("/proc/net/tcp").exists():
        pytest.skip("127.0.0.2 is this machine's without further ado on Linux only")
    with Class("--host", "127.0.0.2") as served:
        assert served.url.startswith("http://127.0.0.2:")
        assert "ANYBODY ON THIS NETWORK" in served.said
        port = int(served.url.rpartition(":")[2])
        table = Path("/proc/net/tcp").read_text().splitlines()
        listening = [line.split()[1] for line in table if " 0A " in line]
        assert [a for a in listening if a.endswith(f":{port:04X}")] == [f"0200007F:{port:04X}"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "--host is for a class; add --classroom"),
        (["--learners", "names.txt"], "--learners is for a class"),
        (["--yes"], "--yes is for a class"),
        (["--classroom", "--token", "abc"], "a token has at least 12"),
        (["--classroom", "--learners", "nowhere.txt"], "class list 'nowhere.txt'"),
        (["--classroom", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["--classroom", "--preset", "none"], "no preset 'none'"),
    ],
)
def test_what_cannot_be_is_a_clear_error(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
):
    """One line, exit code 2, and nothing is served."""
    assert main(["serve", "--port", "0", *arguments]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert words in said.err


@pytest.fixture(scope="module")
def one_class() -> Iterator[Class]:
    """A class of which a minute is six seconds, for learners who come one after the other."""
    with Class("--time-scale", "10") as served:
        yield served


@pytest.fixture
def class_and_lab(
    one_class: Class, fresh_lab: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Class, Any]]:
    """The class, as at its start, and the lab of a learner who is new in it."""
    one_class.teach(learner_requests_per_minute=0, faults=[])
    one_class.clear()
    monkeypatch.setenv("OPENAI_BASE_URL", f"{one_class.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", f"김민준 {next(NUMBERS)}")
    fresh_lab.configure()
    yield one_class, fresh_lab
    fresh_lab.stop()


def test_a_learners_lab_keeps_the_classs_time(class_and_lab: tuple[Class, Any]):
    """In the learner's own trace a greeting takes 4 s, its first token 1 s, to the digit."""
    served, lab = class_and_lab
    with trace() as t:
        answer = asyncio.run(lab.ask(HELLO, agent="writer"))
    assert answer.startswith("Hello!")
    assert lab.model_seconds_a_second() == 10
    assert (t.requests, t.spans[0].agent) == (1, "writer")
    assert (t.work_s, t.makespan_s, t.spans[0].first_token_s) == (4.0, 4.0, 1.0)
    learner = os.environ["OPENAI_API_KEY"]
    (span,) = served.get("/lab/spans", key=quote(learner))["spans"]
    assert (span["learner"], span["agent"]) == (learner, "writer")
    assert round(span["end_s"] - span["started_s"], 9) == 4.0


def test_a_stream_is_timed_by_the_class_too(class_and_lab: tuple[Class, Any]):
    """LangChain's client, streaming: first token after 1 s, end after 4 s, to the digit."""
    _, lab = class_and_lab

    async def main() -> str:
        pieces = [piece.content async for piece in lab.chat_model(agent="writer").astream(HELLO)]
        return "".join(pieces)

    with trace() as t:
        text = asyncio.run(main())
    assert text.startswith("Hello!")
    assert (t.work_s, t.makespan_s, t.spans[0].first_token_s) == (4.0, 4.0, 1.0)
    assert t.spans[0].status == 200


def test_a_refusal_takes_no_model_time(class_and_lab: tuple[Class, Any]):
    """One request a minute: the second, refused, adds nothing to the work, as at home."""
    served, lab = class_and_lab
    served.teach(learner_requests_per_minute=1)

    async def twice() -> None:
        await lab.ask(HELLO)
        await lab.ask(HELLO)

    with trace() as t, pytest.raises(ModelError):
        asyncio.run(twice())
    assert ([span.status for span in t.spans], t.work_s) == ([200, 429], 4.0)
    assert t.spans[1].started_s is None


def documented(url: str) -> str:
    """The lines that the guide shows for a notebook, with the address of the class that runs."""
    guide = Path(__file__).resolve().parents[1] / "docs" / "classroom.md"
    (block,) = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    shown = "http://192.168.1.20:8000/v1"
    assert [line for line in block.splitlines() if line] == in_a_notebook(shown, "ada")
    return block.replace(shown, url)


def test_the_documented_lines_lead_to_the_class_and_stay_there(
    fresh_lab: Any, monkeypatch: pytest.MonkeyPatch
):
    """Run in a notebook, and after a later lab.configure the class still answers, not OpenAI."""
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "AGENTLAB_LOCAL"):
        monkeypatch.setenv(name, "")  # so that what the lines set is undone after the test
    with Class("--time-scale", "10") as served:
        exec(documented(f"{served.url}/v1"), {})
        assert f"{served.url}/v1" in fresh_lab.where()
        fresh_lab.configure(faults=[])
        assert fresh_lab.where() == (
            f"the class's endpoint at {served.url}/v1, the local model, "
            "10 model seconds pass in one second"
        )
        assert asyncio.run(fresh_lab.ask(HELLO)).startswith("Hello!")
        fresh_lab.stop()
        (span,) = served.get("/lab/spans")["spans"]
    assert span["learner"] == "ada"


def test_a_learners_own_time_scale_has_no_effect_in_a_class(class_and_lab: tuple[Class, Any]):
    """The class's wins, as the guide says."""
    _, lab = class_and_lab
    lab.configure(time_scale=3)
    assert lab.model_seconds_a_second() == 10


def test_forbidding_a_paid_model_keeps_the_class(class_and_lab: tuple[Class, Any]):
    """What lessons begin with; the teacher sees what is asked after it."""
    served, lab = class_and_lab
    lab.configure(upstream=None)
    assert lab.where().startswith(f"the class's endpoint at {served.url}/v1, the local model")
    asyncio.run(lab.ask(HELLO))
    assert [row["answered"] for row in served.get("/classroom/board")["learners"]] == [1]


@pytest.mark.parametrize(
    "shape",
    [
        {"preset": "instant"},
        {"time_scale": 40},
        {"seed": 0},
        {"requests_per_minute": 0},
        {"tokens_per_minute": 6000},
        {"capacity": [{"from_s": 0, "slots": 16}]},
        {"faults": [{"kind": "error", "status": 500, "calls": [9]}]},
    ],
    ids=lambda shape: next(iter(shape)),
)
def test_a_model_that_a_lesson_shapes_is_its_own(
    class_and_lab: tuple[Class, Any], shape: dict[str, Any]
):
    """With upstream=None: this machine's model answers, and the class is asked nothing."""
    served, lab = class_and_lab
    with lab.configure(upstream=None, **{"time_scale": 40, **shape}):
        assert lab.where().startswith("the local model, preset")
        asyncio.run(lab.ask(HELLO))
    assert served.get("/classroom/board")["learners"] == []
    assert lab.where().startswith("the class's endpoint")


def test_settings_that_shape_nothing_keep_the_class(class_and_lab: tuple[Class, Any]):
    """No faults, no capacity: as if they were not given."""
    _, lab = class_and_lab
    lab.configure(upstream=None, faults=[], capacity=[], requests_per_minute=None)
    assert lab.where().startswith("the class's endpoint")


def test_a_learners_own_limit_stands_before_the_class(class_and_lab: tuple[Class, Any]):
    """Without upstream=None: the second of two in a minute is refused, and never gets there."""
    served, lab = class_and_lab
    lab.configure(requests_per_minute=1)

    async def twice() -> list[Any]:
        return await asyncio.gather(lab.ask(HELLO), lab.ask(HELLO), return_exceptions=True)

    answers = asyncio.run(twice())
    assert [isinstance(answer, ModelError) for answer in answers] == [False, True]
    (row,) = served.get("/classroom/board")["learners"]
    assert (row["answered"], row["refused"]) == (1, 0)


def test_a_class_may_be_left(class_and_lab: tuple[Class, Any], monkeypatch: pytest.MonkeyPatch):
    """AGENTLAB_LOCAL=1 is this machine's own model."""
    _, lab = class_and_lab
    monkeypatch.setenv("AGENTLAB_LOCAL", "1")
    lab.configure(upstream=None)
    assert lab.where().startswith("the local model, preset course")


def test_virtual_time_stays_on_the_laptop(class_and_lab: tuple[Class, Any]):
    """Behind a class that refuses everybody, a simulation is what it is alone, to the digit."""
    served, lab = class_and_lab
    served.teach(faults=[{"kind": "error", "status": 503, "probability": 1.0}])
    lab.configure(upstream=None)
    answer, t = lab.simulate(lab.ask(HELLO, agent="writer"))
    assert answer.startswith("Hello!")
    assert (t.requests, t.makespan_s, t.spans[0].first_token_s) == (1, 4.0, 1.0)
    assert served.get("/classroom/board")["learners"] == []


def test_time_outs_are_the_classs_seconds_too(class_and_lab: tuple[Class, Any]):
    """A client that waits 2 s gives up on an answer of 4 s, though that is .4 s by the watch."""
    _, lab = class_and_lab
    with pytest.raises(TimeoutError, match="within 2 model seconds"):
        asyncio.run(lab.ask(HELLO, timeout_s=2.0))


def test_a_refusal_says_when_to_come_back_in_model_seconds(class_and_lab: tuple[Class, Any]):
    """One request a minute: the second is to wait for most of one, counted as the class counts."""
    served, lab = class_and_lab
    served.teach(learner_requests_per_minute=1)

    async def twice() -> None:
        await lab.ask(HELLO)
        await lab.ask(HELLO)

    with pytest.raises(ModelError, match="your share: Limit 1") as refused:
        asyncio.run(twice())
    assert refused.value.status == 429
    assert refused.value.retry_after_s is not None and 5 < refused.value.retry_after_s <= 60


@pytest.mark.parametrize("folder", [NOTEBOOKS, NOTEBOOKS / "ko"], ids=["en", "ko"])
def test_a_notebooks_check_tells_the_class(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A process runs the cells of lesson 00: two wrong answers, the right one, and it once more."""
    lesson = Lesson.load(NOTEBOOKS / "00_start_here.ipynb")
    first, before = lesson.exercises[0], lesson.needed()
    wrong = [first.stub, *first.between, first.check]
    right = [first.solution, *first.between, first.check]
    with Class() as served:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{served.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "김민준")
        monkeypatch.setenv("AGENTLAB_TELL_CLASS", "1")
        printed = run(folder, [*before, *wrong, *wrong, *right, *right])[len(before) :]
        told = served.get("/classroom/settings")["exercises"]
    solved = "풀었습니다." if folder.name == "ko" else "Solved."
    assert [solved in text for text in printed if text] == [False, False, True, True]
    assert told == {"김민준": {"00.1": [3, True]}}


def test_who_is_not_on_the_list_is_told_so_in_the_notebook(
    tmp_path, fresh_lab: Any, monkeypatch: pytest.MonkeyPatch
):
    """The learner's own lab passes the class's words on."""
    names = tmp_path / "class.txt"
    names.write_text("Ada\n")
    with Class("--learners", str(names)) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{served.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "adda")
        fresh_lab.configure()
        with pytest.raises(ModelError, match="401: 'adda' is not on the class list"):
            asyncio.run(fresh_lab.ask(HELLO))
        fresh_lab.stop()


def test_a_real_model_is_not_served_to_a_class_by_accident(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """With a key in the teacher's shell: the free way is told first, and nothing is served."""
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-the-teachers")
    assert main(["serve", "--classroom", "--port", "0"]) == 2
    said = capsys.readouterr()
    assert "set AGENTLAB_LOCAL=1 for the local model, which is free" in said.err
    assert (said.out, "a-key-of" in said.err) == ("", False)


def test_no_process_is_left(tmp_path):
    """After Ctrl-C in the middle of requests nothing of the class is there, nor its port."""
    with Class("--time-scale", "1") as served:
        body = {"model": "m", "messages": [{"role": "user", "content": HELLO}]}
        with pytest.raises(httpx.TimeoutException):
            headers = {"authorization": "Bearer ada"}
            httpx.post(served.url + CHAT, json=body, headers=headers, timeout=0.5, trust_env=False)
        code, _ = served.interrupt()
        assert code == 0
        with pytest.raises(ProcessLookupError):
            os.kill(served.process.pid, 0)
        with pytest.raises(httpx.ConnectError):
            httpx.get(served.url, trust_env=False)


def test_the_numbers_are_plain_json():
    """For those who have another page in mind: curl /classroom/board."""
    with Class() as served:
        board = served.get("/classroom/board", key="")
    assert (board["in_flight"], board["learners"], board["preset"]) == (0, [], "class")
    assert board["urls"] == [f"{served.url}/v1"]
    json.dumps(board)
