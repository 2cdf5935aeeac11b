"""Who has solved what: a check tells a class, by name, if the learner wants it; and nobody else."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from lessons import NOTEBOOKS, Lesson

from agentlab.classroom._door import Roster
from agentlab.classroom.app import Classroom
from agentlab.clock import run_virtual
from agentlab.endpoint.server import class_page
from agentlab.endpoint.server.app import build_app
from agentlab.endpoint.server.class_page import SOLVED, TRIED, tell_class
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.exercises import Check
from agentlab.settings import Settings

TOKEN = "the-teachers-token"
CHECK = "with Check() as check:\n    check(n == 3, 'count them.')"

# ---------------------------------------------------------------- what the class keeps


def room(listed: list[str] | None = None) -> Classroom:
    return Classroom(Settings(time_scale=1.0), token=TOKEN, roster=Roster(listed))


async def sent(served: Any, method: str, path: str, key: str, **options: Any) -> httpx.Response:
    transport = InProcessTransport(served)
    headers = {b"authorization": f"Bearer {key}".encode()}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        return await client.request(method, path, headers=headers, **options)


async def told(served: Classroom, key: str, *paths: str) -> list[int]:
    return [(await sent(served, "POST", path, key)).status_code for path in paths]


async def read(served: Classroom) -> Any:
    return (await sent(served, "GET", "/classroom/settings", TOKEN)).json()["exercises"]


def after(served: Classroom, *steps: Callable[[Classroom], Any]) -> Any:
    """What the teacher reads after these steps."""

    async def main() -> Any:
        for step in steps:
            await step(served)
        return await read(served)

    return run_virtual(main()).result


def test_the_teacher_reads_who_has_solved_what_after_how_many_tries():
    """By the names of the class; tries after the one that solved it are none."""
    by_ada = [f"{SOLVED}01.1", f"{TRIED}01.2", f"{TRIED}01.2", f"{SOLVED}01.2", f"{TRIED}01.2"]
    seen = after(
        room(), lambda c: told(c, "Ada", *by_ada), lambda c: told(c, "김민준", f"{TRIED}02b.3")
    )
    assert seen == {
        "Ada": {"01.1": [1, True], "01.2": [3, True]},
        "김민준": {"02b.3": [1, False]},
    }


def test_no_learner_reads_what_others_have_solved():
    """A learner's name opens no teacher's route, and the board, which all see, says nothing."""
    served = room()

    async def main() -> tuple[int, str]:
        await told(served, "Ada", f"{SOLVED}01.1")
        refused = await sent(served, "GET", "/classroom/settings", "Bo")
        return refused.status_code, (await sent(served, "GET", "/classroom/board", "Bo")).text

    status, shown = run_virtual(main()).result
    assert status == 401
    assert "01.1" not in shown and "exercises" not in shown


def test_a_name_is_a_learner_of_the_class_in_whatever_case():
    """As with questions: strangers to the list are refused, and ada is Ada."""
    served = room(["Ada"])

    async def main() -> tuple[Any, Any]:
        keys = ("ada", "ADA", "Eve", "", "sk-proj-1234567890", "<b>Ada</b>")
        return [await told(served, key, f"{TRIED}00.1") for key in keys], await read(served)

    statuses, seen = run_virtual(main()).result
    assert statuses == [[200], [200], [401], [401], [401], [401]]
    assert seen == {"Ada": {"00.1": [2, False]}}


@pytest.mark.parametrize(
    "exercise",
    ["", "01", "01.0", "01.10", "1.1", "001.1", "01.1x", "01.1\n", "0١.1", "01b2.1", "<b>.1",
     "../settings", "01.1/..", "my_diary.1", "9" * 5000],
)  # fmt: skip
def test_what_is_no_exercise_is_refused_and_not_kept(exercise: str):
    """Two digits, a letter perhaps, and one digit: no word of anybody's gets onto the page."""
    served = room()

    async def main() -> tuple[int, Any]:
        async def at(scope: Any, receive: Any, send: Any) -> None:
            await served({**scope, "path": f"{SOLVED}{exercise}"}, receive, send)

        answer = await sent(at, "POST", "/", "Ada")
        return answer.status_code, await read(served)

    assert run_virtual(main()).result == (404, {})


def test_of_one_learner_a_hundred_exercises_are_kept():
    """Whatever a script makes up, memory is bounded, and others have room."""
    many = [f"{TRIED}{n // 9:02}.{n % 9 + 1}" for n in range(150)]
    seen = after(
        room(), lambda c: told(c, "Mallory", *many), lambda c: told(c, "Ada", f"{SOLVED}20.1")
    )
    assert (len(seen["Mallory"]), seen["Ada"]) == (100, {"20.1": [1, True]})


def test_who_is_removed_is_forgotten_and_a_reset_forgets_nobody():
    """A reset comes before each exercise; what was solved before is still to be read."""
    served = room()

    async def clear(c: Classroom) -> None:
        await sent(c, "POST", "/classroom/clear", TOKEN)

    async def remove(c: Classroom) -> None:
        await sent(c, "POST", "/classroom/remove", TOKEN, json={"name": "Bo"})

    both = [lambda c, who=who: told(c, who, f"{SOLVED}01.1") for who in ("Ada", "Bo")]
    assert after(served, *both, remove, clear) == {"Ada": {"01.1": [1, True]}}


def test_a_pause_keeps_no_check_waiting():
    """It holds questions at the door, and this is none."""
    served = room()

    async def pause(c: Classroom) -> None:
        await sent(c, "POST", "/classroom/settings", TOKEN, json={"paused": True})

    assert after(served, pause, lambda c: told(c, "Ada", f"{SOLVED}01.1")) == {
        "Ada": {"01.1": [1, True]}
    }


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_a_post_tells(method: str):
    """So no link that somebody follows does."""
    answer = run_virtual(sent(room(), method, f"{SOLVED}01.1", "Ada")).result
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_a_page_from_elsewhere_tells_nothing():
    """As with all of the class's routes."""

    async def main() -> int:
        transport = InProcessTransport(room())
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            headers = {"authorization": "Bearer Ada", "origin": "https://evil.example"}
            return (await client.post(f"{SOLVED}01.1", headers=headers)).status_code

    assert run_virtual(main()).result == 403


def test_an_endpoint_of_ones_own_is_no_class():
    """It says so where it says its clock, and has no such route."""
    app = build_app(Settings(preset="instant"))

    async def main() -> tuple[bool, int]:
        clock = (await sent(app, "GET", "/lab/clock", "")).json()
        answer = await sent(app, "POST", f"{SOLVED}01.1", "")
        return clock["classroom"], answer.status_code

    assert run_virtual(main()).result == (False, 404)


# ---------------------------------------------------------------- what a check tells


class Upstream:
    """A server that answers `/lab/clock` with `clock` if it has one, and keeps what it is asked."""

    def __init__(self, clock: dict[str, Any] | None, *, status: int = 200):
        asked: list[tuple[str, str, str | None, bytes]] = []
        self.asked = asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                key = self.headers.get("authorization")
                asked.append((self.command, self.path, key, self.rfile.read(length)))
                known = self.path == "/lab/clock" and clock is not None
                self.send_response(200 if known else status if self.command == "POST" else 404)
                body = json.dumps(clock if known else {}).encode()
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@contextmanager
def upstream(clock: dict[str, Any] | None, **options: Any) -> Iterator[Upstream]:
    one = Upstream(clock, **options)
    thread = threading.Thread(target=one.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield one
    finally:
        one.server.shutdown()
        thread.join()
        one.server.server_close()


CLASS = {"time_scale": 10.0, "paid": False, "classroom": True}


@pytest.fixture
def lesson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a lesson whose second check is `CHECK`, and the learner's name."""
    sources = ["# Exercises", "with Check() as check: ...", [*CHECK.splitlines(keepends=True)]]
    cells = [{"cell_type": "code", "source": source, "outputs": []} for source in sources]
    (tmp_path / "02b_lakes.ipynb").write_text(json.dumps({"cells": cells}))
    monkeypatch.chdir(tmp_path)
    for name in ("AGENTLAB_LOCAL", "AGENTLAB_TELL_CLASS", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "ada")
    # However slow this machine is.
    monkeypatch.setattr(class_page, "_TELLING_S", 60.0)
    return tmp_path


def connect(monkeypatch: pytest.MonkeyPatch, url: str, tell: str | None = "1") -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    if tell is not None:
        monkeypatch.setenv("AGENTLAB_TELL_CLASS", tell)


@pytest.mark.parametrize("tell", [None, "", "0"])
def test_nothing_is_told_unless_the_learner_asks_for_it(lesson, monkeypatch, tell):
    """No request at all leaves, not even the one that asks whether it is a class."""
    with upstream(CLASS) as one:
        connect(monkeypatch, one.url, tell)
        tell_class(CHECK, solved=True)
    assert one.asked == []


@pytest.mark.parametrize(("solved", "path"), [(True, SOLVED), (False, TRIED)])
def test_a_class_is_told_lesson_exercise_and_verdict(lesson, monkeypatch, solved, path):
    """Under the learner's name, and nothing else: the request has no body."""
    with upstream(CLASS) as one:
        connect(monkeypatch, one.url)
        tell_class(f"{CHECK}\n", solved=solved)
    assert one.asked == [
        ("GET", "/lab/clock", None, b""),
        ("POST", f"{path}02b.2", "Bearer ada", b""),
    ]


@pytest.mark.parametrize(
    "clock", [None, {"time_scale": 10.0}, {"time_scale": 10.0, "paid": True}, {"classroom": True}]
)
def test_what_is_no_class_is_told_nothing(lesson, monkeypatch, caplog, clock):
    """A real provider, and another lab: each is asked for its clock, without a key, and no more."""
    with upstream(clock) as one:
        connect(monkeypatch, one.url)
        tell_class(CHECK, solved=True)
    assert one.asked == [("GET", "/lab/clock", None, b"")]
    assert caplog.messages == []


def test_openai_is_not_even_asked(lesson, monkeypatch):
    """A key alone leads there; the guard of the network would fail this test."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-1234567890")
    monkeypatch.setenv("AGENTLAB_TELL_CLASS", "1")
    monkeypatch.setattr(httpx, "get", None)
    monkeypatch.setattr(httpx, "post", None)
    assert class_page._heard(CHECK, True)


def test_with_a_model_of_ones_own_nothing_is_told(lesson, monkeypatch):
    """`AGENTLAB_LOCAL=1` leaves the class."""
    monkeypatch.setenv("AGENTLAB_LOCAL", "1")
    with upstream(CLASS) as one:
        connect(monkeypatch, one.url)
        tell_class(CHECK, solved=True)
    assert one.asked == []


def test_a_check_that_is_in_no_notebook_here_is_not_told(lesson, monkeypatch):
    """Such as one that the learner wrote in a script, or the class would get an exercise's name."""
    (lesson / "notes.ipynb").write_text(json.dumps({"cells": [{"source": "Check() as mine"}]}))
    with upstream(CLASS) as one:
        connect(monkeypatch, one.url)
        tell_class("with Check() as mine: ...", solved=True)
        tell_class("", solved=True)
    assert one.asked == []


def test_a_name_in_any_language_is_sent_as_it_is(lesson, monkeypatch):
    """UTF-8, as the learner's own endpoint sends it."""
    monkeypatch.setenv("OPENAI_API_KEY", "김민준")
    with upstream(CLASS) as one:
        connect(monkeypatch, one.url)
        tell_class(CHECK, solved=True)
    key = one.asked[1][2] or ""
    assert key.encode("latin-1").decode() == "Bearer 김민준"


def test_no_proxy_learns_what_a_learner_has_solved(lesson, monkeypatch):
    """It goes to the class directly, or not at all."""
    with upstream(CLASS) as one, upstream(None) as proxy:
        connect(monkeypatch, one.url)
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setattr(class_page, "clock_of", lambda _: class_page_clock())
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        tell_class(CHECK, solved=True)
    assert proxy.asked == []
    assert [path for _, path, *_ in one.asked] == [f"{SOLVED}02b.2"]


def class_page_clock() -> Any:
    from agentlab.endpoint.middleware.server_timing import Clock

    return Clock(10.0, paid=False, classroom=True)


HEARD_NOTHING = ["The class's page did not hear of this."]


def checked(answer: int) -> None:
    """A check as a lesson has it, in whose place `CHECK` is looked up."""
    with Check() as check:
        check(answer == 3, "count them.")


@pytest.fixture
def as_in_the_lesson(lesson, monkeypatch) -> None:
    monkeypatch.setattr("linecache.getlines", lambda _: CHECK.splitlines(keepends=True))


@pytest.mark.usefixtures("as_in_the_lesson")
def test_a_check_tells_what_it_prints(monkeypatch, capsys, caplog):
    """Solved and not yet; the learner sees the same as without a class."""
    with upstream(CLASS) as one:
        connect(monkeypatch, one.url)
        checked(2)
        checked(3)
    posts = [path for method, path, *_ in one.asked if method == "POST"]
    assert posts == [f"{TRIED}02b.2", f"{SOLVED}02b.2"]
    assert capsys.readouterr().out == "Not yet: count them.\nSolved.\n"
    assert caplog.messages == []


@pytest.mark.usefixtures("as_in_the_lesson")
@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_class_that_refuses_is_one_line(monkeypatch, capsys, caplog, status):
    """The verdict stands; the log says that nobody heard it."""
    with upstream(CLASS, status=status) as one, caplog.at_level(logging.WARNING, "agentlab"):
        connect(monkeypatch, one.url)
        checked(3)
    assert capsys.readouterr().out == "Solved.\n"
    assert caplog.messages == HEARD_NOTHING


@pytest.mark.usefixtures("as_in_the_lesson")
def test_a_class_that_is_away_is_one_line(monkeypatch, capsys, caplog):
    """Nothing listens there any more."""
    with upstream(CLASS) as one:
        url = one.url
    connect(monkeypatch, url)
    checked(3)
    assert capsys.readouterr().out == "Solved.\n"
    assert caplog.messages == HEARD_NOTHING


@pytest.mark.usefixtures("as_in_the_lesson")
def test_a_class_that_never_answers_keeps_no_check_waiting(monkeypatch, capsys, caplog):
    """It accepts the connection and says nothing, until this test lets it."""
    let_go = threading.Event()
    monkeypatch.setattr(class_page, "_TELLING_S", 0.05)
    monkeypatch.setattr(class_page, "clock_of", lambda _: let_go.wait(60))
    connect(monkeypatch, "http://127.0.0.1:9/v1")
    checked(2)
    let_go.set()
    assert capsys.readouterr().out == "Not yet: count them.\n"
    assert caplog.messages == HEARD_NOTHING


@pytest.mark.usefixtures("as_in_the_lesson")
def test_a_check_in_an_event_loop_tells_all_the_same(monkeypatch, capsys):
    """As in a notebook, where one runs."""

    async def main() -> None:
        checked(3)

    with upstream(CLASS) as one:
        connect(monkeypatch, one.url)
        asyncio.run(main())
    assert [path for method, path, *_ in one.asked if method == "POST"] == [f"{SOLVED}02b.2"]
    assert capsys.readouterr().out == "Solved.\n"


def test_a_wrong_setting_is_no_failure_of_the_check(lesson, monkeypatch, caplog):
    """Whoever asks the model hears what is wrong with it; this is the check's own affair."""
    connect(monkeypatch, "no address")
    tell_class(CHECK, solved=True)
    assert caplog.messages == HEARD_NOTHING


@pytest.mark.parametrize("folder", [NOTEBOOKS, NOTEBOOKS / "ko"], ids=["en", "ko"])
def test_each_check_of_the_course_knows_its_lesson_and_its_number(folder, monkeypatch):
    """From the notebooks in the folder where the kernel runs; no two checks are the same."""
    monkeypatch.chdir(folder)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for exercise in Lesson.load(path).exercises:
            expected = f"{path.stem.partition('_')[0]}.{exercise.number}"
            assert class_page._exercise(exercise.check) == expected
