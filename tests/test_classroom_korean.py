"""The class's page in Korean: what the class reads is, what the browser runs stays as it is."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from agentlab.classroom import app
from agentlab.classroom.app import Classroom
from agentlab.clock import run_virtual
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.errors import ConfigError
from agentlab.settings import DATA, Settings

TOKEN = "the-teachers-token"
PAGE = Path(app.__file__).with_name("page")
FILES = {
    "/classroom": "index.html",
    "/classroom/style.css": "style.css",
    "/classroom/board.js": "board.js",
    "/classroom/icon.svg": "icon.svg",
}
TEXTS = yaml.safe_load((DATA / "ko" / "texts.yaml").read_text(encoding="utf-8"))["classroom"]
SHOWN = re.compile(r"(?<=shown\()(?:\"[^\"\n]*\"|`[^`\n]*`)(?=\))")


@pytest.fixture
def in_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLAB_LANGUAGE", "ko")


def answer(path: str, body: Any = None, token: str = TOKEN) -> httpx.Response:
    """What a new class says to its teacher: to a GET, or to a POST of `body`."""

    async def main() -> httpx.Response:
        transport = InProcessTransport(Classroom(Settings(time_scale=1.0), token=TOKEN))
        headers = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8000", headers=headers
        ) as asking:
            method = "GET" if body is None else "POST"
            return await asking.request(method, path, json=body)

    return run_virtual(main()).result


class Reader(HTMLParser):
    """Keeps what a page says, to the eye and to a screen reader."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, list[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [name for name, _ in attrs]))
        read = ("aria-label", "placeholder", "title", "alt")
        self.texts += [value for name, value in attrs if name in read and value]

    def handle_data(self, data: str) -> None:
        if re.search(r"[^\W\d_]", data):
            self.texts.append(data.strip())


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


@pytest.mark.parametrize("path", FILES)
def test_the_english_page_is_the_file(path: str):
    """To the byte."""
    assert answer(path).content == (PAGE / FILES[path]).read_bytes()


def test_all_that_the_page_says_is_korean(in_korean: None):
    """Texts, labels and placeholders; its elements and their attributes are the English ones."""
    english = read((PAGE / "index.html").read_text(encoding="utf-8"))
    korean = read(answer("/classroom").text)
    assert korean.tags == english.tags
    assert len(korean.texts) == len(english.texts) > 40
    assert [text for text in korean.texts if not re.search("[가-힣]", text)] == []
    assert '<html lang="ko">' in answer("/classroom").text


def test_all_that_the_program_says_is_korean(in_korean: None):
    """What it puts in stays, and so does everything around."""
    english = (PAGE / "board.js").read_text(encoding="utf-8")
    korean = answer("/classroom/board.js").text
    said = SHOWN.findall(korean)
    assert len(said) == len(SHOWN.findall(english)) == english.count("shown(") > 25
    assert SHOWN.sub("", korean) == SHOWN.sub("", english)
    for one, other in zip(SHOWN.findall(english), said, strict=True):
        assert re.search("[가-힣]", other), one
        assert (one[0], one[-1]) == (other[0], other[-1]) and "\\" not in other
        assert sorted(re.findall(r"\$\{.*?\}", other)) == sorted(re.findall(r"\$\{.*?\}", one))


def test_no_sentence_of_the_program_is_left_unmarked():
    """Literals of two words or more that are not `shown` are no sentences."""
    source = re.sub(
        r"^\s*(/\*\*|//).*", "", SHOWN.sub("", (PAGE / "board.js").read_text()), flags=re.M
    )
    literals = re.findall(r"\"([^\"\n]*)\"|`([^`\n]*)`", source)
    spoken = {text for pair in literals for text in pair if re.search("[a-z] [a-z]", text)}
    assert spoken == {"use strict", "part answering", "part waiting", "classroom token"}


def test_the_catalogue_has_no_text_that_nothing_says():
    """Each text of its room is on the page, in its program, or what the class answers."""
    page = read((PAGE / "index.html").read_text(encoding="utf-8")).texts
    program = SHOWN.findall((PAGE / "board.js").read_text(encoding="utf-8"))
    known = {*page, *(re.sub(r"\$\{.*?\}", "{}", text[1:-1]) for text in program)}
    assert sorted(TEXTS.keys() - known) == [
        "Nobody of this name is here.",
        "This is the teacher's: it takes the token that `agentlab serve` printed.",
        "en",
        "{} is removed, and refused until you reset the counts.",
    ]


@pytest.mark.parametrize(
    ("path", "body", "token", "code", "said"),
    [
        ("settings", None, "not-the-token", "invalid_token", "강사용입니다."),
        ("remove", {"name": "Mallory"}, TOKEN, "no_such_learner", "이런 이름을 가진 사람은"),
    ],
)
def test_what_is_refused_on_the_page_is_said_in_korean(
    in_korean: None, path: str, body: Any, token: str, code: str, said: str
):
    """The message alone: programs read the code."""
    refused = answer(f"/classroom/{path}", body, token).json()["error"]
    assert refused["code"] == code
    assert refused["message"].startswith(said)


def test_a_removal_is_said_in_korean(in_korean: None):
    """With the name as it was given."""

    async def main() -> httpx.Response:
        served = Classroom(Settings(time_scale=1.0), token=TOKEN)
        transport = InProcessTransport(served)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8000"
        ) as asking:
            body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
            hers = {"authorization": "Bearer Mallory"}
            await asking.post("/v1/chat/completions", json=body, headers=hers)
            teachers = {"authorization": f"Bearer {TOKEN}"}
            return await asking.post(
                "/classroom/remove", json={"name": "mallory"}, headers=teachers
            )

    removed = run_virtual(main()).result.json()
    assert removed["removed"] == "Mallory"
    assert removed["message"].startswith("Mallory을(를) 내보냈습니다.")


def test_a_language_that_there_is_not_stops_the_class_before_it_begins(
    monkeypatch: pytest.MonkeyPatch,
):
    """Not a page that nobody can open."""
    monkeypatch.setenv("AGENTLAB_LANGUAGE", "fr")
    with pytest.raises(ConfigError, match="set it to en or ko"):
        Classroom(Settings(), token=TOKEN)
