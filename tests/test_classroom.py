"""A class on one endpoint, in virtual time: names for keys, shares, separate traces, settings."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
from classroom_process import small_preset
from serving import serving

from agentlab._support.system import read_list
from agentlab.classroom import _door, app
from agentlab.classroom._door import MOST_LEARNERS, Roster
from agentlab.classroom._room import Board
from agentlab.classroom.app import Classroom, in_a_notebook
from agentlab.clock import run_virtual
from agentlab.endpoint.contract.openai_json import RequestError
from agentlab.endpoint.middleware.server_timing import Clock
from agentlab.endpoint.server._forward import Forward
from agentlab.endpoint.server.app import App
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.errors import ConfigError
from agentlab.settings import Settings
from agentlab.trace import Span, Trace

TOKEN = "the-teachers-token"
CHAT = "/v1/chat/completions"
TWO_S = 11
"""The tokens of an answer that takes 2 s at the course's speed."""


def room(listed: list[str] | None = None, **settings: Any) -> Classroom:
    settings = {"time_scale": 1.0, **settings}
    return Classroom(Settings(**settings), token=TOKEN, roster=Roster(listed))


def client(served: Any, key: str = "") -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}".encode()} if key else {}
    transport = InProcessTransport(served)
    return httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1:8000", headers=headers, timeout=None
    )


async def ask(
    served: Any, who: str, text: str = "Name three rivers.", *, agent: str = "agent", **fields: Any
) -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": TWO_S}
    async with client(served, who) as asking:
        return await asking.post(CHAT, json=body | fields, headers={"x-agent": agent})


async def get(served: Any, path: str, key: str = "", **headers: str) -> httpx.Response:
    async with client(served, key) as asking:
        return await asking.get(path, headers=headers)


async def teach(served: Any, changes: Any, key: str = TOKEN) -> httpx.Response:
    async with client(served, key) as asking:
        return await asking.post("/classroom/settings", json=changes)


async def board(served: Any) -> dict[str, Any]:
    return (await get(served, "/classroom/board")).json()


def message(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["message"])


def served_answers(t: list[Span]) -> dict[str, int]:
    names = {span.learner for span in t}
    return {str(n): sum(span.ok for span in t if span.learner == n) for n in names}


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("ada", "ada"),
        (" Ada Lovelace ", "Ada Lovelace"),
        ("김민준", "김민준"),
        ("%EA%B9%80%EB%AF%BC%EC%A4%80", "김민준"),
        ("José", "José"),
        ("Jose\u0301", "José"),
        ("अनिता", "अनिता"),
        ("d'Arc-2_b.", "d'Arc-2_b."),
        ("abcdefghijklmnopqr1", "abcdefghijklmnopqr1"),
        ("Bartholomaeus-Alexander", "Bartholomaeus-Alexander"),
        ("Anna Maria Schmidt group 12", "Anna Maria Schmidt group 12"),
        ("김민준이서연박지호최수아정도윤강하은조", "김민준이서연박지호최수아정도윤강하은조"),
    ],
)
def test_a_name_in_any_language_is_a_key(key: str, name: str):
    """As it is, percent-encoded, composed or not: one name."""
    assert Roster().learner(key) == name


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-1234567890",
        "0123456789abcdef0123456789abcdef",  # of Azure's form
        "gT7kQ2mZx9WvB4nLr8HsY1pD6cJf3aEu",
        "abcdefghijklmnopqrs1",
        "x" * 33,
        "a/b",
        "<b>ada</b>",
        "a\nb",
    ],
)
def test_what_looks_like_a_secret_is_refused_and_not_repeated(key: str):
    """A real key left in the environment must not get onto the projector."""
    with pytest.raises(RequestError, match="a name for a key") as error:
        Roster().learner(key)
    assert key not in str(error.value)


@pytest.mark.parametrize("key", ["", "   ", "--"])
def test_no_name_is_told_how_to_give_one(key: str):
    """It names the variable to set."""
    with pytest.raises(RequestError, match="set OPENAI_API_KEY to your name"):
        Roster().learner(key)


@pytest.mark.parametrize("key", ["teacher", "Teacher", " TEACHER "])
def test_nobody_can_be_called_the_teacher(key: str):
    """Whose requests they would see; neither may a class list say so."""
    with pytest.raises(RequestError, match="who shows the teacher's token; set OPENAI_API_KEY"):
        Roster().learner(key)
    with pytest.raises(ConfigError, match="cannot be a name"):
        Roster(["Ada", key])


def test_names_are_compared_without_case_and_shown_as_first_given():
    """Ada, ADA and ada are one person."""
    one = Roster()
    assert [one.learner(key) for key in ("Ada", "ADA", "ada")] == ["Ada"] * 3


def test_a_class_list_refuses_others():
    """They are told whom to ask."""
    one = Roster(["Ada", "Grace"])
    assert one.learner("grace") == "Grace"
    with pytest.raises(RequestError, match="'gracee' is not on the class list; ask your teacher"):
        one.learner("gracee")


def test_an_open_class_has_so_many_places():
    """Beyond that the longest silent makes room, and is back when it asks again."""
    one, left = Roster(), []
    one.on_leave = left.append
    for number in range(MOST_LEARNERS):
        one.learner(f"n{number}")
    one.learner("n0")
    assert [one.learner("late"), *left] == ["late", "n1"]
    assert one.learner("n1") == "n1" and len(one.names) == MOST_LEARNERS


def test_a_class_list_is_a_file_of_names(tmp_path):
    """Comments and empty lines left out, in any language, with or without a byte order mark."""
    path = tmp_path / "class.txt"
    path.write_text("\ufeff# 2026\nAda\n\n김민준  \n", encoding="utf-8")
    assert read_list(path, "class list") == ["Ada", "김민준"]


@pytest.mark.parametrize(
    ("text", "words"), [("", "there are none"), ("Ada\nada\n", "'ada' is there twice"),
                        ("sk-1\n", "cannot be a name")],
)  # fmt: skip
def test_a_class_list_that_cannot_work_says_why(tmp_path, text: str, words: str):
    """Empty, twice the same, or no name."""
    path = tmp_path / "class.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        Roster(read_list(path, "class list"))


def test_a_class_list_that_is_not_there_is_a_clear_error():
    """The path, and the way out."""
    with pytest.raises(ConfigError, match=r"no-such-file.*give a text file"):
        read_list("no-such-file", "class list")


# ---------------------------------------------------------------- at the door


def test_a_learner_is_known_by_the_key():
    """The span knows who asked; any OpenAI client shows a key."""
    served = room()

    async def main() -> str:
        asking = openai.AsyncOpenAI(
            base_url="http://127.0.0.1:8000/v1", api_key="ada", http_client=client(served)
        )
        answer = await asking.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Name three rivers."}]
        )
        return answer.choices[0].message.content or ""

    assert run_virtual(main()).result
    (span,) = served._endpoint.recorder.since(0)
    assert (span.learner, span.status) == ("ada", 200)


@pytest.mark.parametrize(
    ("key", "words"),
    [("", "Who is asking"), ("sk-proj-secret-secret", "no real key"), ("eve", "class list")],
)
def test_who_is_nobody_is_refused_with_what_to_do(key: str, words: str):
    """401 in OpenAI's shape, and the projector counts a stranger, without a name."""
    served = room(["Ada"])

    async def main() -> tuple[httpx.Response, dict[str, Any]]:
        return await ask(served, key), await board(served)

    answer, numbers = run_virtual(main()).result
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert words in message(answer)
    assert (numbers["strangers"], [row["learner"] for row in numbers["learners"]]) == (1, ["Ada"])
    assert "secret" not in json.dumps(numbers) + answer.text


def test_the_token_as_a_key_is_the_teacher_and_is_never_shown():
    """Whoever sets it for a key is called the teacher."""
    served = room()

    async def main() -> tuple[dict[str, Any], httpx.Response]:
        await ask(served, TOKEN)
        return await board(served), await get(served, "/lab/spans", TOKEN)

    numbers, spans = run_virtual(main()).result
    assert [row["learner"] for row in numbers["learners"]] == ["teacher"]
    assert TOKEN not in json.dumps(numbers) + spans.text


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8000", True),
        ("localhost:8000", True),
        ("192.168.1.20:8000", True),
        ("[fe80::1]:8000", True),
        (f"{socket.gethostname()}:8000", True),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("[", False),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/classroom", "/classroom/board", "/lab/clock"])
def test_addresses_in_figures_and_own_names_are_let_in(host: str, allowed: bool, path: str):
    """A name of a stranger's may be pointed here (DNS rebinding), figures cannot."""
    answer = run_virtual(get(room(), path, "ada", host=host)).result
    assert answer.status_code == (200 if allowed else 403)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://192.168.1.20:8000", 200),
        ("http://192.168.1.66:8000", 403),
        ("http://192.168.1.20:9999", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ],
)
def test_only_the_endpoints_own_page_may_use_it(origin: str, status: int):
    """The origin is the very address that was asked, to the port."""
    headers = {"host": "192.168.1.20:8000", "origin": origin}
    assert run_virtual(get(room(), "/classroom/board", **headers)).result.status_code == status


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [("http://192.168.1.20:8000", "http://192.168.1.20:8000"), ("http://localhost:3000", None)],
)
def test_only_the_endpoints_own_page_may_read_an_answer(origin: str, allowed: str | None):
    """In a class a page of the reader's own machine is a foreign one, and is told nothing."""
    headers = {"host": "192.168.1.20:8000", "origin": origin, "authorization": "Bearer ada"}
    answer = run_virtual(get(room(), "/v1/models", **headers)).result
    assert answer.status_code == (200 if allowed else 403)
    assert answer.headers.get("access-control-allow-origin") == allowed


def test_a_name_given_as_the_host_is_let_in():
    """--host lab.school: learners may call it so."""
    served = Classroom(Settings(), token=TOKEN, host="lab.school")
    assert run_virtual(get(served, "/classroom", host="Lab.School:8000")).result.status_code == 200


# ---------------------------------------------------------------- separate traces


def test_a_learner_sees_only_their_own_spans():
    """Ada sees Ada's, Bo Bo's, the teacher's token all, and nobody in particular none."""
    served = room()

    async def main() -> list[httpx.Response]:
        await asyncio.gather(*(ask(served, who, agent=f"{who}'s") for who in ("Ada", "Bo", "Ada")))
        return [await get(served, "/lab/spans", key) for key in ("ada", "Bo", TOKEN, "")]

    ada, bo, teacher, nobody = run_virtual(main()).result
    seen = [[span["learner"] for span in each.json()["spans"]] for each in (ada, bo, teacher)]
    assert seen == [["Ada", "Ada"], ["Bo"], ["Ada", "Bo", "Ada"]]
    assert nobody.status_code == 401


def test_a_learner_cannot_ask_for_the_teachers_spans():
    """By the teacher's name they get 401, and no span."""
    served = room()

    async def main() -> httpx.Response:
        await ask(served, TOKEN)
        return await get(served, "/lab/spans", "teacher")

    answer = run_virtual(main()).result
    assert (answer.status_code, "spans" in answer.json()) == (401, False)


def test_a_saved_trace_keeps_the_learner_and_older_ones_load(tmp_path):
    """The file has one field more; a line without it is a span all the same."""
    path = tmp_path / "spans.jsonl"
    Trace([Span(request_id="r", agent="a", arrived_s=0.0, learner="김민준")]).save(path)
    assert Trace.load(path).spans[0].learner == "김민준"
    path.write_text('{"request_id": "r", "agent": "a", "arrived_s": 0.0}\n')
    assert Trace.load(path).spans[0].learner is None


def test_nobodys_answers_depend_on_the_neighbours():
    """Ada's second question gets the answer that it gets at home, whatever Bo has asked."""

    async def main(served: Classroom, others: int) -> list[str]:
        for _ in range(others):
            await ask(served, "Bo", "Describe a river.", max_tokens=60)
        texts = []
        for _ in range(2):
            answer = await ask(served, "Ada", "Describe a river.", max_tokens=60)
            texts.append(answer.json()["choices"][0]["message"]["content"])
        return texts

    alone = run_virtual(main(room(), 0)).result
    assert run_virtual(main(room(), 3)).result == alone
    assert alone[0] != alone[1]


def test_planned_faults_count_by_learner():
    """The writer's second call fails: Ada's and Bo's, each their own second."""
    served = room(faults=[{"kind": "error", "agent": "writer", "calls": [2]}])

    async def main() -> list[int]:
        return [
            (await ask(served, who, agent="writer")).status_code
            for who in ("Ada", "Bo", "Ada", "Bo", "Ada")
        ]

    assert run_virtual(main()).result == [200, 200, 500, 500, 200]


# ---------------------------------------------------------------- fair shares


def test_a_newcomers_first_request_does_not_wait_behind_a_backlog(tmp_path):
    """One slot, 200 of one learner's: the newcomer waits for the one that is served, 1.9 s."""
    served = room(preset=small_preset(tmp_path, slots=1))

    async def main() -> None:
        greedy = [asyncio.ensure_future(ask(served, "greedy")) for _ in range(200)]
        await asyncio.sleep(10.1)
        await ask(served, "new")
        for task in greedy:
            task.cancel()
        await asyncio.gather(*greedy, return_exceptions=True)

    run_virtual(main())
    (span,) = (s for s in served._endpoint.recorder.since(0) if s.learner == "new")
    assert (span.arrived_s, span.queued_s) == (10.1, 1.9)


def test_a_full_queue_has_room_for_a_newcomer(tmp_path):
    """One slot and ten places: the greedy one gets 503 from the seventh on, the newcomer 200."""
    served = room(preset=small_preset(tmp_path, slots=1, queue=10))

    async def main() -> tuple[list[int], int]:
        greedy = [asyncio.ensure_future(ask(served, "greedy")) for _ in range(20)]
        await asyncio.sleep(1)
        new = (await ask(served, "new")).status_code
        return [answer.status_code for answer in await asyncio.gather(*greedy)], new

    greedy, new = run_virtual(main()).result
    assert (greedy.count(200), greedy.count(503), new) == (6, 14, 200)


def test_thirty_learners_with_four_in_flight_wait_for_nothing_in_a_class():
    """Preset class: 120 requests at once, and all start as they arrive."""
    served = room(preset=app.PRESET)
    names = [f"learner-{number:02}" for number in range(30)]

    async def main() -> None:
        await asyncio.gather(*(ask(served, who) for who in names for _ in range(4)))

    run_virtual(main())
    spans = served._endpoint.recorder.since(0)
    assert [(span.queued_s, span.service_s) for span in spans] == [(0.0, 2.0)] * 120


def test_a_class_limit_is_shared_and_a_refusal_says_whose_it_is():
    """60 a minute, thirty learners: two each; the third is refused with when to come back."""
    served = room(requests_per_minute=60)
    names = [f"n{number}" for number in range(30)]

    async def main() -> list[httpx.Response]:
        return await asyncio.gather(*(ask(served, who) for _ in range(3) for who in names))

    answers = run_virtual(main()).result
    assert [answer.status_code for answer in answers] == [200] * 60 + [429] * 30
    assert "your share: Limit 2, Used 2" in message(answers[-1])
    assert answers[-1].headers["retry-after-ms"] == "30000"


# ---------------------------------------------------------------- the teacher's settings


@pytest.mark.parametrize("key", ["", "Ada", "the-teachers-tokem"])
@pytest.mark.parametrize("path", ["/classroom/settings", "/classroom/clear"])
def test_settings_are_the_teachers_alone(key: str, path: str):
    """401 without the token, in reading and in writing; nothing changes."""
    served = room()

    async def main() -> list[int]:
        async with client(served, key) as asking:
            return [
                (await asking.post(path, json={"paused": True})).status_code,
                (await asking.get("/classroom/settings")).status_code,
            ]

    assert run_virtual(main()).result == [401, 401]
    assert not served.room.controls.paused


def test_settings_are_read_and_changed_one_by_one():
    """What is not named stays."""
    served = room(requests_per_minute=100)

    async def main() -> list[Any]:
        before = (await get(served, "/classroom/settings", TOKEN)).json()
        after = (await teach(served, {"learner_requests_per_minute": 5})).json()
        return [before, after]

    before, after = run_virtual(main()).result
    assert after["settings"] == before["settings"] | {"learner_requests_per_minute": 5}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preset": "instant"}, "preset"),
        ({"requests_per_minute": -1}, "requests_per_minute: should be greater"),
        ({"requests_per_minute": "many"}, r"requests_per_minute"),
        ({"faults": [{"kind": "flood"}]}, "flood"),
        ({"faults": "plan.yaml"}, "faults"),
        ({"faults": [{"kind": "reset", "probability": 0.6}] * 2}, "at most 1"),
        ({"time_scale": 50}, "time_scale"),
        ({"paused": True, "colour": "blue"}, "colour"),
        ([1], "expected"),
    ],
)
def test_settings_that_cannot_be_change_nothing(changes: Any, words: str):
    """400 that says which and why."""
    served = room()

    async def main() -> httpx.Response:
        return await teach(served, changes)

    answer = run_virtual(main()).result
    assert answer.status_code == 400
    assert re.search(words, message(answer))
    assert served.room.controls == room().room.controls


def test_a_limit_for_each_holds_from_then_on_and_is_lifted_again():
    """One a minute: the second is refused; lifted, the third is answered."""
    served = room()

    async def main() -> list[int]:
        await teach(served, {"learner_requests_per_minute": 1})
        statuses = [(await ask(served, "Ada")).status_code for _ in range(2)]
        await teach(served, {"learner_requests_per_minute": 0})
        return [*statuses, (await ask(served, "Ada")).status_code]

    assert run_virtual(main()).result == [200, 429, 200]


def test_a_pause_does_not_fill_the_buckets_again():
    """Used up before a pause, used up after it."""
    served = room(requests_per_minute=1)

    async def main() -> list[int]:
        first = await ask(served, "Ada", max_tokens=1)
        await teach(served, {"paused": True})
        await teach(served, {"paused": False})
        return [first.status_code, (await ask(served, "Ada")).status_code]

    assert run_virtual(main()).result == [200, 429]


def test_errors_on_purpose_begin_and_end_with_the_teachers_word():
    """All requests reset, then none."""
    served = room()

    async def main() -> list[Any]:
        await teach(served, {"faults": [{"kind": "error", "status": 503, "probability": 1}]})
        broken = (await ask(served, "Ada")).status_code
        await teach(served, {"faults": []})
        return [broken, (await ask(served, "Ada")).status_code]

    assert run_virtual(main()).result == [503, 200]


def test_a_pause_holds_new_requests_and_lets_others_end():
    """Asked at 1 s in a pause from .5 s to 60 s: answered at 62 s; the one before it at 2 s."""
    served = room()

    async def main() -> dict[str, Any]:
        before = asyncio.ensure_future(ask(served, "Ada"))
        await asyncio.sleep(0.5)
        await teach(served, {"paused": True})
        await asyncio.sleep(0.5)
        held = asyncio.ensure_future(ask(served, "Bo"))
        await asyncio.sleep(59)
        seen = await board(served)
        await teach(served, {"paused": False})
        await asyncio.gather(before, held)
        return seen

    seen = run_virtual(main()).result
    ada, bo = served._endpoint.recorder.since(0)
    assert (ada.end_s, bo.arrived_s, bo.end_s) == (2.0, 60.0, 62.0)
    assert (seen["paused"], seen["in_flight"], seen["waiting"]) == (True, 1, 1)


def test_who_hangs_up_in_a_pause_is_gone():
    """499, and nobody is left in flight."""
    served = room()

    async def main() -> dict[str, Any]:
        await teach(served, {"paused": True})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await ask(served, "Ada")
        return await board(served)

    seen = run_virtual(main()).result
    assert (seen["in_flight"], seen["waiting"], seen["gone"]) == (0, 0, 1)


def test_counting_anew_keeps_what_is_in_flight():
    """Counts are zero, the open request is still there, and is counted when it ends."""
    served = room()

    async def main() -> list[dict[str, Any]]:
        await ask(served, "Bo")
        running = asyncio.ensure_future(ask(served, "Ada"))
        await asyncio.sleep(1)
        async with client(served, TOKEN) as asking:
            cleared = (await asking.post("/classroom/clear")).json()
        await running
        return [cleared, await board(served)]

    cleared, after = run_virtual(main()).result
    assert (cleared["answered"], cleared["in_flight"]) == (0, 1)
    assert [(row["learner"], row["agents"]) for row in cleared["learners"]] == [
        ("Ada", [["agent", 1, 0]])
    ]
    assert (after["answered"], after["in_flight"]) == (1, 0)
    assert [row["learner"] for row in after["learners"]] == ["Ada"]


# ---------------------------------------------------------------- the numbers on the projector


def test_the_board_shows_who_has_what_in_flight(tmp_path):
    """One slot: by learner and agent, what is answered and what waits."""
    served = room(preset=small_preset(tmp_path, slots=1))

    async def main() -> dict[str, Any]:
        asking = [
            asyncio.ensure_future(ask(served, who, agent=agent))
            for who, agent in [("Ada", "writer"), ("Ada", "writer"), ("Bo", "editor")]
        ]
        await asyncio.sleep(1.8)
        seen = await board(served)
        await asyncio.gather(*asking)
        return seen

    seen = run_virtual(main()).result
    rows = {row["learner"]: row["agents"] for row in seen["learners"]}
    assert rows == {"Ada": [["writer", 1, 1]], "Bo": [["editor", 0, 1]]}
    assert (seen["in_flight"], seen["waiting"]) == (3, 2)


def test_outcomes_are_counted_by_kind():
    """Answered, refused, other errors and gone, each where it belongs."""
    one = Board()
    for status, fault in [(200, None), (429, None), (503, None), (0, "reset"), (499, None),
                          (200, "cut"), (200, "stall")]:  # fmt: skip
        span = Span(request_id="r", agent="a", learner="Ada", arrived_s=0.0, end_s=1.0)
        span.status, span.fault = status, fault
        one.begin(span)
        one.end(span)
    seen = one.numbers(2.0, [])
    outcomes = [seen[what] for what in ("answered", "refused", "errors", "gone", "in_flight")]
    assert outcomes == [2, 1, 3, 1, 0]


def test_throughput_is_of_the_last_minute():
    """Thirty answers in the minute before: 30 a minute; a minute later none."""
    one = Board()
    for number in range(30):
        span = Span(
            request_id=str(number), agent="a", learner="Ada", arrived_s=0.0, status=200,
            end_s=100.0 + number, completion_tokens=20,
        )  # fmt: skip
        one.begin(span)
        one.end(span)
    seen, later = one.numbers(130.0, []), one.numbers(190.0, [])
    assert seen["answers_per_minute"] == 30.0
    assert (later["answers_per_minute"], later["answered"]) == (0.0, 30)


def test_the_board_says_no_word_of_what_is_asked():
    """Neither the prompt nor the answer is in the numbers."""
    served = room()

    async def main() -> str:
        await ask(served, "Ada", "A secret about rivers.")
        return json.dumps(await board(served))

    text = run_virtual(main()).result
    assert "secret" not in text and "river" not in text.lower()


def test_the_numbers_of_a_full_class_are_small():
    """Thirty learners with eight agents each: a few KB an update."""
    served = room()

    async def main() -> int:
        asking = [
            asyncio.ensure_future(ask(served, f"learner-{who}", agent=f"agent-{agent}"))
            for who in range(30)
            for agent in range(8)
        ]
        await asyncio.sleep(1)
        size = len((await get(served, "/classroom/board")).content)
        await asyncio.gather(*asking)
        return size

    assert run_virtual(main()).result < 8_000


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/classroom", "text/html"), ("/classroom/style.css", "text/css"),
     ("/classroom/board.js", "text/javascript"), ("/classroom/icon.svg", "image/svg")],
)  # fmt: skip
def test_the_page_comes_with_a_strict_policy_and_nothing_from_elsewhere(path: str, kind: str):
    """Scripts, styles and data from here only; no address of anything else in it."""
    answer = run_virtual(get(room(), path)).result
    assert (answer.status_code, answer.headers["content-type"].startswith(kind)) == (200, True)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.text.replace("http://www.w3.org/2000/svg", "").find("//w") == -1
    assert " style=" not in answer.text and "onclick" not in answer.text


def test_an_unknown_page_names_those_there_are():
    """404 in the endpoint's own words."""
    served = room()

    async def main() -> httpx.Response:
        return await get(served, "/classroom/nothing")

    unknown = run_virtual(main()).result
    assert unknown.status_code == 404 and "/classroom/board" in message(unknown)


# ---------------------------------------------------------------- a learner's own lab before it


def test_a_lab_tells_the_class_who_asks_and_with_which_agent():
    """The name as the key, in any language, and the agents' names."""
    served = room()

    async def main() -> int:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        async with serving(served) as url:
            lab = App(Forward(url, key="김민준", clock=Clock(10.0)))
            async with client(lab) as asking:
                answer = await asking.post(CHAT, json=body, headers={"x-agent": "writer"})
        return answer.status_code

    assert asyncio.run(main()) == 200
    (span,) = served._endpoint.recorder.since(0)
    assert (span.learner, span.agent) == ("김민준", "writer")


def test_a_class_says_how_fast_its_time_runs_and_that_it_is_free():
    """/lab/clock, without a key: it is no secret."""
    assert run_virtual(get(room(time_scale=25.0), "/lab/clock")).result.json() == {
        "time_scale": 25.0,
        "paid": False,
        "classroom": True,
    }


def test_a_class_before_a_real_model_says_that_it_is_paid_for():
    """Nobody at the upstream's address says that it is free, so it is not."""
    served = room(upstream="http://127.0.0.1:1/v1")
    said = run_virtual(get(served, "/lab/clock")).result.json()
    assert said == {"time_scale": 1.0, "paid": True, "classroom": True}


# ---------------------------------------------------------------- starting it


def test_the_welcome_says_how_to_join_and_warns_of_the_network():
    """Loopback: how to let the class in; all addresses: that anybody can reach it."""
    served, said = room(), {}
    for host, address in [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "10.0.0.7")]:
        served.urls[:] = [f"http://{address}:8000/v1"]
        said[host] = app.welcome(served, host=host, token="abcd-efgh", who="any", model="m")
    assert "--host 0.0.0.0 lets the class in" in said["127.0.0.1"]
    for host, address in [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "10.0.0.7")]:
        for line in in_a_notebook(f"http://{address}:8000/v1"):
            assert f"\n    {line}\n" in said[host]
    assert "OPENAI_BASE_URL=http://127.0.0.1:8000/v1" in said["127.0.0.1"]
    assert "ANYBODY ON THIS NETWORK can reach it" in said["0.0.0.0"]
    assert "OPENAI_BASE_URL=http://10.0.0.7:8000/v1" in said["0.0.0.0"]
    assert "Projector   http://127.0.0.1:8000/classroom" in said["0.0.0.0"]


def test_the_likeliest_address_comes_first(monkeypatch: pytest.MonkeyPatch):
    """That of the default route, then the others by number; link-local and loopback are left out.

    By text 10.8.0.2 (a VPN's) and 172.17.0.1 (a bridge's) would come before it.
    """
    found = ["172.17.0.1", "10.8.0.2", "10.10.0.2", "192.168.1.20", "169.254.7.7", "127.0.0.1"]
    others = ["10.8.0.2", "10.10.0.2", "172.17.0.1"]
    each = [SimpleNamespace(address=address, family=socket.AF_INET) for address in found]
    monkeypatch.setattr("psutil.net_if_addrs", lambda: {"eth0": each})
    monkeypatch.setattr(_door, "_outward_address", lambda: "192.168.1.20")
    assert _door.own_addresses() == ["192.168.1.20", *others]
    monkeypatch.setattr(_door, "_outward_address", lambda: None)
    assert _door.own_addresses() == [*others, "192.168.1.20"]


def test_the_default_route_is_found_without_sending(monkeypatch: pytest.MonkeyPatch):
    """A datagram socket is connected, which sends nothing; without a route there is no address."""
    calls: list[Any] = []

    class Probe:
        def __init__(self, *kind: int):
            calls.append(kind)

        def __enter__(self) -> Probe:
            return self

        def __exit__(self, *problem: object) -> None:
            return

        def connect(self, address: tuple[str, int]) -> None:
            calls.append(address)
            if len(calls) > 2:
                raise OSError(101, "Network is unreachable")

        def getsockname(self) -> tuple[str, int]:
            return "192.168.1.20", 54321

    monkeypatch.setattr(_door.socket, "socket", Probe)
    assert [_door._outward_address(), _door._outward_address()] == ["192.168.1.20", None]
    assert calls == [(socket.AF_INET, socket.SOCK_DGRAM), ("192.0.2.1", 9)] * 2


def test_the_page_tells_the_first_address():
    """What is projected is the first of the addresses; the others are beside it."""
    served = room()
    served.urls[:] = ["http://192.168.1.20:8000/v1", "http://10.8.0.2:8000/v1"]

    seen = run_virtual(board(served)).result
    assert seen["join"] == in_a_notebook("http://192.168.1.20:8000/v1")
    assert seen["urls"] == served.urls


def test_a_short_token_is_refused_and_not_repeated():
    """The error tells its length only."""
    with pytest.raises(ConfigError, match="got one of 4") as error:
        app.serve_class(Settings(), port=0, token="1234")
    assert "1234" not in str(error.value)


@pytest.mark.parametrize("given", [{}, {"learners": "class.txt"}, {"yes": True}])
def test_a_real_model_wants_a_class_list_and_a_yes(given: dict[str, Any]):
    """The money is the teacher's; the free way is named first."""
    asked = "would ask gpt-4o-mini at http://127.0.0.1:9/v1, with your key and your money; "
    ways = r"set AGENTLAB_LOCAL=1 for the local model, which is free, or .*--learners FILE.* --yes"
    with pytest.raises(ConfigError, match=asked + ways):
        app.serve_class(Settings(upstream="http://127.0.0.1:9/v1"), port=0, **given)


def test_with_a_list_and_a_yes_a_real_model_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Then it begins to serve."""
    names = tmp_path / "class.txt"
    names.write_text("Ada\n")
    served: list[Any] = []
    monkeypatch.setattr(app, "serve", lambda one, *_, **__: served.append(one))
    settings = Settings(upstream="http://127.0.0.1:9/v1")
    app.serve_class(settings, port=0, learners=str(names), yes=True)
    assert [type(one) for one in served] == [Classroom]


def test_a_class_has_a_preset_of_its_own_where_none_is_chosen(monkeypatch: pytest.MonkeyPatch):
    """128 slots to share; an option, or the environment, chooses another."""
    monkeypatch.delenv("AGENTLAB_PRESET", raising=False)
    assert app.class_settings(seed=1).preset == "class"
    assert app.class_settings(preset="nim-8b").preset == "nim-8b"
    monkeypatch.setenv("AGENTLAB_PRESET", "course")
    assert app.class_settings().preset == "course"


def test_controls_begin_as_the_settings_say():
    """Limits and faults are those of the command line."""
    faults = [{"kind": "reset", "probability": 0.1}]
    served = room(preset="nim-8b", requests_per_minute=7, faults=faults)
    controls = served.room.controls
    assert controls.requests_per_minute == 7
    assert controls.faults[0].kind == "reset"
