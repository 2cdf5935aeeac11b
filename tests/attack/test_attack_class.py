"""Learners who try to break a class: its names, its places, the teacher's token, the teacher's key.

Most of it happens in virtual time, with clients at addresses of their own; what needs a network
happens in front of a class in a process of its own, whose upstream keeps each request.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from classroom_process import TOKEN, Class
from recording_upstream import RecordingUpstream

from agentlab.classroom import app
from agentlab.classroom._door import MOST_LEARNERS, Roster
from agentlab.classroom.app import Classroom
from agentlab.clock import run_virtual
from agentlab.endpoint.contract.openai_json import RequestError
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.errors import ConfigError
from agentlab.settings import Settings

CHAT = "/v1/chat/completions"
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
ATTACKER, ELSEWHERE = "10.0.0.66", "10.0.0.7"


def room(listed: list[str] | None = None) -> Classroom:
    return Classroom(Settings(preset="instant"), token=TOKEN, roster=Roster(listed))


async def ask(
    served: Classroom,
    key: str,
    path: str = CHAT,
    *,
    method: str = "POST",
    address: str = ELSEWHERE,
    **options: Any,
) -> httpx.Response:
    """The answer to a client at `address`."""

    async def at(scope: Any, receive: Any, send: Any) -> None:
        await served({**scope, "client": (address, 5000)}, receive, send)

    transport = InProcessTransport(at)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        if method == "POST":
            options = {"json": QUESTION} | options
        headers = {"authorization": b"Bearer " + key.encode()} | options.pop("headers", {})
        return await client.request(method, path, headers=headers, **options)


def answers(served: Classroom, *asked: Callable[[Classroom], Any]) -> Any:
    async def main() -> Any:
        return [await each(served) for each in asked]

    return run_virtual(main()).result


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "key",
    ["teacher", "TEACHER", " teacher ", "ｔｅａｃｈｅｒ", "𝓽𝓮𝓪𝓬𝓱𝓮𝓻", "ⓣⓔⓐⓒⓗⓔⓡ", "teacher.",
     "Teacher 1", "the teacher", "%74eacher"],
)  # fmt: skip
def test_nobody_is_called_the_teacher(key: str):
    """On the projector a name is all that people see: refused, in a class list, too."""
    with pytest.raises(RequestError):
        Roster().learner(key)
    with pytest.raises(ConfigError, match="cannot be a name"):
        Roster(["Ada", key])


@pytest.mark.parametrize(
    "key",
    ["Ada\u200b", "A\u200dda", "\u202eadA", "Ada\u2060", "Ada\ufeff", "A\u00adda", "Ada\u2800",
     "Ada\x00", "Ada\x1b[31m", "A\u2028da", "Ada\ud83d\ude00", "Ada\ufff9"],
    ids=ascii,
)  # fmt: skip
def test_no_name_has_what_cannot_be_seen(key: str):
    """Two names that look the same would be two learners; and nothing paints over the page."""
    with pytest.raises(RequestError):
        Roster().learner(key.encode("utf-8", "replace").decode())


@pytest.mark.parametrize(
    "key", ["Ａｄａ", "ADA", "ａｄａ", " ada ", "𝐀𝐝𝐚", "Ⓐⓓⓐ", "A%64a", "%41da", "ᴬda"]
)
def test_another_spelling_is_the_same_person(key: str):
    """Full-width, bold, circled, percent-encoded: one learner, shown as at first."""
    roster = Roster()
    assert [roster.learner("Ada"), roster.learner(key), roster.names] == ["Ada", "Ada", ["Ada"]]


@pytest.mark.parametrize(
    "key",
    ["Áda", "김민준", "민준 Kim", "Ada我", "山田 たろう", "佐々木", "ヨーコ",
     "Nguyễn", "अनिता", "อรุณ", "محمد", "Иван",
     "Ελένη", "Իսահակ", "O'Brien", "ʻOkina", "Ada 2", "دارا ۲", "Şükrü", "Ọlá"],
)  # fmt: skip
def test_a_name_of_one_alphabet_is_let_in(key: str):
    """The other side: names as people have them, beside an Ada who has no accent."""
    roster = Roster()
    roster.learner("Ada")
    assert roster.learner(key) == key
    assert roster.names == sorted(["Ada", key], key=str.casefold)


@pytest.mark.parametrize(
    "key",
    ["sk-proj-CANARY", "sk-CANARYCANARY", "0123456789abcdefCANARY123", "CANARY" * 6, "CANARY/x",
     "CANARY\x07", "<b>CANARY</b>", "%3CCANARY%3E", "CANARY" + "%41" * 500, "x" * 100_000],
    ids=lambda key: ascii(key)[:24],
)  # fmt: skip
def test_what_may_be_a_real_key_is_repeated_nowhere(key: str):
    """In no answer, on no board, in no list of names."""
    served = room()
    headers = {"authorization": b"Bearer " + key.encode()}
    answer, board = answers(
        served,
        lambda c: ask(c, "", headers=headers),
        lambda c: ask(c, "", "/classroom/board", method="GET"),
    )
    assert answer.status_code == 401
    assert "CANARY" not in answer.text + board.text
    assert len(answer.text) < 500
    assert board.json()["learners"] == []


# ---------------------------------------------------------------- places


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/models"), ("GET", "/lab/spans"), ("GET", "/lab/mark"), ("HEAD", "/v1/models"),
     ("GET", "/v1/models/x"), ("DELETE", "/v1/models"), ("PUT", CHAT)],
)  # fmt: skip
def test_who_asks_nothing_takes_no_place(method: str, path: str):
    """Any number of names in requests that are no question: none is on the projector."""
    served = room()

    async def main() -> tuple[list[str], int]:
        for number in range(MOST_LEARNERS + 30):
            await ask(served, f"bot {number}", path, method=method, address=ATTACKER)
        answer = await ask(served, "Ada")
        board = await ask(served, "", "/classroom/board", method="GET")
        return [row["learner"] for row in board.json()["learners"]], answer.status_code

    assert run_virtual(main()).result == (["Ada"], 200)


@pytest.mark.parametrize("address", [ATTACKER, ELSEWHERE, "::ffff:10.0.0.66", "2001:db8::9"])
@pytest.mark.parametrize("names", [39, 41, 150, 400])
def test_a_flood_of_names_locks_nobody_out(names: int, address: str):
    """From one address: who was there asks on, newcomers get in, from there, too."""
    served = room()

    async def main() -> list[Any]:
        first = await ask(served, "Ada")
        for number in range(names):
            await ask(served, f"bot {number}", address=ATTACKER)
        late = await ask(served, "Bo", address=address)
        again = await ask(served, "Ada")
        board = await ask(served, "", "/classroom/board", method="GET")
        learners = [row["learner"] for row in board.json()["learners"]]
        return [first.status_code, late.status_code, again.status_code, learners]

    first, late, again, learners = run_virtual(main()).result
    assert (first, late, again) == (200, 200, 200)
    assert {"Ada", "Bo"} <= set(learners)
    assert len(learners) <= MOST_LEARNERS


@pytest.mark.parametrize("learners", [1, 30, 40])
def test_a_class_behind_one_address_gets_in(learners: int):
    """A router, or a school's proxy: all of them, and all stay."""
    served = room()

    async def main() -> tuple[set[int], int]:
        got = {
            (await ask(served, f"learner {number}", address=ATTACKER)).status_code
            for number in range(learners)
        }
        board = await ask(served, "", "/classroom/board", method="GET")
        return got, len(board.json()["learners"])

    assert run_virtual(main()).result == ({200}, learners)


# ---------------------------------------------------------------- the teacher's token

SAME_LENGTH = "guess-{:0" + str(len(TOKEN) - 6) + "d}"


@pytest.mark.parametrize(
    "shown",
    [f"bearer {TOKEN}", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), TOKEN.replace("t", "%74"), "*", "",
     "null", f"{TOKEN} {TOKEN}", TOKEN[::-1], f"{TOKEN}\t{TOKEN}"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/classroom/settings", "/classroom/clear", "/classroom/remove"])
def test_nothing_but_the_token_is_the_token(path: str, shown: str):
    """Near it is not there; and no answer tells what it is."""
    served = room()
    (answer,) = answers(
        served,
        lambda c: ask(c, "", path, headers={"authorization": f"Bearer {shown}".encode()}),
    )
    assert answer.status_code == 401
    assert TOKEN not in answer.text


@pytest.mark.parametrize(
    "token",
    ["a", "1234567", "CANARY1", "CANARY 12", " CANARY1 ",
     "CANARYé123", "CANARY\n12", "CANARY\x0012", "CANARY\u200b12"],
    ids=ascii,
)  # fmt: skip
def test_a_weak_token_is_refused(token: str):
    """Short, of few letters, or such that no header carries it; it is not repeated."""
    with pytest.raises(ConfigError, match="a token has at least") as error:
        app.serve_class(Settings(), port=0, token=token)
    assert "CANARY" not in str(error.value)


# ---------------------------------------------------------------- who has solved what


@pytest.mark.parametrize(
    "exercise",
    ["<img src=x onerror=alert(1)>.1", "mallory", "%30%31.1x", "01.1/", "...",
     "०१.1", "01.1%0a", "01.99999999999999999999", "A" * 4000],
)  # fmt: skip
def test_no_word_of_a_learners_gets_onto_the_teachers_page(exercise: str):
    """What is told is a number of the course's, or nothing."""
    served = room()
    told, read = answers(
        served,
        lambda c: ask(c, "Mallory", f"/classroom/solved/{exercise}"),
        lambda c: ask(c, TOKEN, "/classroom/settings", method="GET"),
    )
    assert (told.status_code, read.json()["exercises"]) == (404, {})


@pytest.mark.parametrize("key", ["Mallory", "", "teacher", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper()])
def test_no_learner_reads_who_has_solved_what(key: str):
    """It is the teacher's, and so is every form of the token but itself worth nothing."""
    told, read, seen = answers(
        room(),
        lambda c: ask(c, "Ada", "/classroom/solved/01.1"),
        lambda c: ask(c, key, "/classroom/settings", method="GET"),
        lambda c: ask(c, key, "/classroom/board", method="GET"),
    )
    assert (told.status_code, read.status_code) == (200, 401)
    assert "01.1" not in read.text + seen.text


# ---------------------------------------------------------------- who is removed


@pytest.mark.parametrize("listed", [None, ["Ada", "Mallory"]], ids=["open", "listed"])
@pytest.mark.parametrize("again", ["Mallory", "MALLORY", "Ｍallory", "%4Dallory", " mallory "])
def test_who_is_removed_stays_out(again: str, listed: list[str] | None):
    """In any spelling, until the teacher counts anew; nobody else is touched."""
    served = room(listed)
    removal = {"json": {"name": "Mallory"}}
    before, ada, told, after, other, board, cleared, back = answers(
        served,
        lambda c: ask(c, "Mallory"),
        lambda c: ask(c, "Ada"),
        lambda c: ask(c, TOKEN, "/classroom/remove", **removal),
        lambda c: ask(c, again),
        lambda c: ask(c, "Ada"),
        lambda c: ask(c, "", "/classroom/board", method="GET"),
        lambda c: ask(c, TOKEN, "/classroom/clear"),
        lambda c: ask(c, "Mallory"),
    )
    assert [a.status_code for a in (before, ada, told, after, other, cleared, back)] == [
        200, 200, 200, 401, 200, 200, 200,
    ]  # fmt: skip
    assert "Mallory is removed, and refused until" in told.json()["message"]
    assert "Your teacher has removed this name" in after.json()["error"]["message"]
    assert [row["learner"] for row in board.json()["learners"]] == ["Ada"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{}", 404), (b"[]", 400), (b'"Ada"', 400), (b'{"name": 1}', 400),
        (b'{"name": null}', 400), (b'{"name": "Ada", "x": 1}', 400), (b"[" * 100_000, 400),
        (b'{"name": "\xff"}', 400), (b'{"name": ""}', 404), (b'{"name": "nobody"}', 404),
        (b'{"name": "teacher"}', 404), (b'{"name": "<b>"}', 404), (b'{"name": "\\u0000"}', 404),
        (b'{"name": "' + b"x" * 100_000 + b'"}', 404),
    ],
    ids=lambda value: ascii(value)[2:26] if isinstance(value, bytes) else None,
)  # fmt: skip
def test_a_removal_that_cannot_be_changes_nothing(body: bytes, status: int):
    """A clear 4xx, short, and Ada asks on."""
    served = room()
    _, answer, after = answers(
        served,
        lambda c: ask(c, "Ada"),
        lambda c: ask(c, TOKEN, "/classroom/remove", json=None, content=body),
        lambda c: ask(c, "Ada"),
    )
    assert (answer.status_code, after.status_code) == (status, 200)
    assert len(answer.text) < 500


@pytest.mark.parametrize("key", ["", "Ada", "teacher", "Mallory", "sk-x"])
def test_no_learner_removes_another(key: str):
    """It takes the token."""
    served = room()
    _, answer, after = answers(
        served,
        lambda c: ask(c, "Ada"),
        lambda c: ask(c, key, "/classroom/remove", json={"name": "Ada"}),
        lambda c: ask(c, "Ada"),
    )
    assert (answer.status_code, after.status_code) == (401, 200)


# ---------------------------------------------------------------- settings, pages, addresses


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"1", b"null", b'"x"', b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000,
        b'{"token": "mine"}', b'{"paused": "yes"}', b'{"requests_per_minute": -1}',
        b'{"requests_per_minute": 1e999}', b'{"requests_per_minute": 1.5}',
        b'{"requests_per_minute": NaN}', b'{"preset": "/etc/passwd"}', b'{"preset": "../x"}',
        b'{"preset": null}', b'{"faults": "/etc/passwd"}', b'{"faults": [{"kind": "x"}]}',
        b'{"faults": [{"kind": "error", "probability": 2}]}', b'{"time_scale": 1}',
    ],
    ids=lambda body: ascii(body)[2:40],
)  # fmt: skip
def test_settings_that_cannot_be_change_nothing(body: bytes):
    """A clear 400, no file is read because somebody names it, and the class goes on."""
    served = room()
    before = served.room.controls
    answer, after = answers(
        served,
        lambda c: ask(c, TOKEN, "/classroom/settings", json=None, content=body),
        lambda c: ask(c, "Ada"),
    )
    assert (answer.status_code, after.status_code) == (400, 200)
    assert served.room.controls == before
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/classroom/../app.py", "/classroom/%2e%2e/app.py", "/classroom/..%2fapp.py",
        "/classroom/page/index.html", "/classroom//board.js", "/classroom/board.js/",
        "/classroom/board.js%00", "/classroom/..%5capp.py", "/classroom/index.html",
        "/classroom/.%2e/.%2e/settings.py", "/classroom;/settings", "/Classroom/board",
        "/classroomx", "/classroom/etc/passwd", "/classroom/%2fetc%2fpasswd",
    ],
)  # fmt: skip
def test_no_path_leads_to_a_file(path: str, in_front: Class):
    """Sent as it is: 404, or for what is the endpoint's, a refusal of who shows no name."""
    answer = raw(in_front, f"GET {path} HTTP/1.1")
    assert answer.split(b" ")[1] in (b"401", b"404")
    assert b"import " not in answer and b"root:" not in answer


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil@127.0.0.1@x",
        "[::1", "127.0.0.1:8000, evil.example", "0x7f.1", "127.1", "2130706433", "evil.example:80",
        "127.0.0.1\\@evil.example", "xn--e1afmkfd.example", "localhost.", "127.0.0.1#.evil.example",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/classroom/board", "/v1/models", "/lab/clock"])
def test_no_other_name_leads_here(path: str, host: str):
    """A page that was loaded by a name of its own (DNS rebinding) is refused."""
    (answer,) = answers(room(), lambda c: ask(c, "Ada", path, method="GET", headers={"host": host}))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign")


@pytest.mark.parametrize(
    "origin",
    [
        "null", "http://evil.example", "https://127.0.0.1:8001", "http://127.0.0.1", "file://",
        "http://127.0.0.1:8000.evil.example", "http://127.0.0.1:8000@evil.example",
        "127.0.0.1:8000", "http://localhost:8000", "http://127.0.0.1:8000/", "chrome-extension://x",
        "http://",
    ],
)  # fmt: skip
def test_no_other_page_uses_the_class(origin: str):
    """Not even one that knows the token: it cannot read what it would be told."""
    (answer,) = answers(
        room(),
        lambda c: ask(c, TOKEN, "/classroom/settings", method="GET", headers={"origin": origin}),
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign")


# ---------------------------------------------------------------- in front of a real model

OWNERS_KEY = "sk-CANARY-owners-0123456789"


@pytest.fixture(scope="module")
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def in_front(
    upstream: RecordingUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Class]:
    """A class of Ada, Bo and Mallory, whose model is paid for.

    When it ends, neither its trace nor what it complained about has the owner's key, or the token.
    """
    folder = tmp_path_factory.mktemp("class")
    names = folder / "class.txt"
    kept = folder / "spans.jsonl"
    names.write_text("Ada\nBo\nMallory\n")
    upstream.answers(b"no lab", status=404)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", upstream.url)
        patch.setenv("OPENAI_API_KEY", OWNERS_KEY)
        with Class("--learners", str(names), "--yes", "--trace", str(kept)) as running:
            yield running
            _, complaints = running.interrupt()
    written = kept.read_text()
    assert "CANARY" not in running.said + complaints + written
    assert TOKEN not in complaints + written


def raw(served: Class, line: str, key: str = "", *headers: str, body: bytes = b"") -> bytes:
    """The answer, head and body, to a request whose first line is sent as it is."""
    host = served.url.removeprefix("http://")
    lines = [line, f"host: {host}", "connection: close", f"content-length: {len(body)}", *headers]
    if key:
        lines.append(f"authorization: Bearer {key}")
    answer = b""
    name, port = host.split(":")
    with socket.create_connection((name, int(port)), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        while piece := connection.recv(65_536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    "line",
    [
        "POST /v1/files", "POST /v1/fine_tuning/jobs", "DELETE /v1/models/ft:x", "GET /v1/files",
        "POST /v1/../admin", "POST /v1/%2e%2e/admin", "POST /v1/chat%2fcompletions",
        "GET /v1/models/..%2f..%2fadmin", "POST /v1//chat/completions", "PUT /v1/chat/completions",
        "GET /v1/organization/costs?start_time=0", "POST /v1/responses/r/cancel",
        "POST http://api.openai.com/v1/files", "POST /v1/chat/completions?x=1",
        "GET /v1/models/%0d%0aX:y", "POST /lab/../v1/files", "PATCH /v1/models",
    ],
)  # fmt: skip
def test_a_learner_reaches_nothing_but_the_model(
    line: str, in_front: Class, upstream: RecordingUpstream
):
    """With a name of the list, and the teacher's money behind it."""
    upstream.answers()
    answer = raw(in_front, f"{line} HTTP/1.1", "Mallory", body=b"{}")
    assert answer.split(b" ")[1] in (b"400", b"404", b"405")
    assert upstream.seen == []


@pytest.mark.parametrize(
    "key", ["", "Eve", "teacher", "sk-x", "Аda", OWNERS_KEY, TOKEN[:-1], "Ada,Bo", "*", "Ada%00"]
)
def test_who_is_not_of_the_list_spends_nothing(
    key: str, in_front: Class, upstream: RecordingUpstream
):
    """401, and the upstream hears nothing; the owner's key is no name, and is not repeated."""
    upstream.answers()
    shown = f"authorization: Bearer {key}".encode().decode("latin-1")
    headers = (shown,) if key else ()
    answer = raw(in_front, f"POST {CHAT} HTTP/1.1", "", *headers, body=b"{}")
    assert answer.split(b" ")[1] == b"401"
    assert upstream.seen == [] and b"CANARY" not in answer


@pytest.mark.parametrize("path", ["/lab/spans", "/lab/mark", "/classroom/board", "/lab/x", "/"])
@pytest.mark.parametrize("key", ["", "Ada"])
def test_nothing_that_a_class_shows_has_the_key(
    path: str, key: str, in_front: Class, upstream: RecordingUpstream
):
    """After an upstream that repeats it."""
    upstream.answers(b'{"error": "no: ' + OWNERS_KEY.encode() + b'"}', status=401)
    answer = raw(in_front, f"POST {CHAT} HTTP/1.1", "Ada", body=json.dumps(QUESTION).encode())
    shown = raw(in_front, f"GET {path} HTTP/1.1", key)
    assert b"no: ..." in answer
    assert b"CANARY" not in answer + shown


def test_three_who_try_to_break_a_class_and_one_who_learns(
    in_front: Class, upstream: RecordingUpstream
):
    """One floods, one poses as others, one goes for the key: Ada's thirty questions are answered.

    What the three get holds no key, and nothing but questions reaches the upstream.
    """
    upstream.answers()
    over, heard = threading.Event(), []

    def hostile(one: Callable[[int], bytes]) -> threading.Thread:
        def work() -> None:
            number = 0
            while not over.is_set():
                heard.append(one(number))
                number += 1

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    question = json.dumps(QUESTION).encode()
    chat = f"POST {CHAT} HTTP/1.1"

    def flood(n: int) -> bytes:
        return raw(in_front, chat, "Mallory" if n % 2 else f"bot {n}", body=question)

    def pose(n: int) -> bytes:
        keys = ["teacher", "A\u0064\u0430", TOKEN[:-1] + "x", "%41da%00", SAME_LENGTH.format(n)]
        shown = "authorization: Bearer " + keys[n % 5].encode().decode("latin-1")
        path = ["/lab/spans", "/classroom/settings", "/lab/mark"][n % 3]
        return raw(in_front, f"GET {path} HTTP/1.1", "", shown)

    def go_for_the_key(n: int) -> bytes:
        lines = ["POST /v1/files", "GET /v1/../admin", "GET /lab/spans", "DELETE /v1/models/x"]
        return raw(in_front, f"{lines[n % 4]} HTTP/1.1", "Bo", "x-api-key: x", body=b"{}")

    threads = [hostile(one) for one in (flood, pose, go_for_the_key)]
    try:
        ada = [raw(in_front, chat, "Ada", body=question) for _ in range(30)]
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert [answer.split(b" ")[1] for answer in ada] == [b"200"] * 30
    assert len(heard) >= 3
    assert b"CANARY" not in b"".join(heard)
    assert TOKEN.encode() not in b"".join(heard)
    assert {request.split(b"\r\n")[0] for request in upstream.seen} == {chat.encode()}
