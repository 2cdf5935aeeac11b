"""The doctor's question to a real model, asked of small servers that misbehave in one way each."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from classroom_process import Class

from agentlab import lab
from agentlab.endpoint.server.process import EndpointProcess
from agentlab.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import doctor
from doctor import FAIL, OK, WARN

KEY = "sk-Zq7vPm2Lr9Xt4Wy8"
QUESTION = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "temperature": 0,
    "max_completion_tokens": 1,
}

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


class Asked(list[tuple[str, dict[str, Any]]]):
    """The path and the body of each question that a server was sent, and its address."""

    url = ""


@contextmanager
def serving(answer: Callable[[str, dict[str, Any]], Answer]) -> Iterator[Asked]:
    """A server that answers each path and body as told; anything but text and bytes as JSON."""
    asked = Asked()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, body))
            self._send(*answer(self.path, body))

        def do_GET(self) -> None:  # whether it is another lab
            self._send(404, "404 page not found")

        def _send(self, status: int, said: Any, headers: dict[str, str] | None = None) -> None:
            content = said if isinstance(said, str) else json.dumps(said)
            self.send_response(status)
            for name, value in {"content-length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *said: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    asked.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_MODEL", "m")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def check(monkeypatch):
    """Asks a server as the doctor does; no finding shows a part of the key, or lacks a cure."""

    def checked(url: str) -> doctor.Finding:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setattr(doctor, "CHECKS", {"real model": doctor.check_real_model})
        (finding,) = doctor.examine()
        shown = str(finding)
        assert not any(KEY[n : n + 4] in shown for n in range(len(KEY) - 3)), shown
        assert "\n" not in shown
        assert finding.verdict == OK or finding.cure or "; " in finding.found
        return finding

    return checked


@pytest.fixture(scope="module")
def kept() -> Iterator[tuple[str, list[Answer]]]:
    """A server that gives the latest of these answers, and one endpoint of the lab before it."""
    answers: list[Answer] = []
    with serving(lambda *_: answers[-1]) as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
            patch.setenv("OPENAI_API_KEY", KEY)
            patch.setenv("OPENAI_MODEL", "m")
            lab.configure()
            lab.base_url()
        yield f"{server.url}/v1", answers
    lab.configure()


def said(content: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": finish}]}


def error(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


MASKED = f"Incorrect API key provided: {KEY[:5]}******{KEY[-4:]}. It ends with '{KEY[-4:]}'."
LONG = "words that lead nowhere, " * 30
GEMINI_MINUTE = (
    "You exceeded your current quota, please check your plan and billing details. "
    "Please retry in 28.19s."
)
NO_TEMPERATURE = error(
    "Unsupported value: 'temperature' does not support 0 with this model.",
    param="temperature",
    code="unsupported_value",
)
EXTRA = {
    "detail": [
        {
            "type": "extra_forbidden",
            "loc": ["body", "max_completion_tokens"],
            "msg": "Extra inputs are not permitted",
            "input": 1,
        }
    ]
}


@pytest.mark.parametrize(
    ("answer", "verdict", "found", "cure"),
    [
        ((200, said("Hi")), OK, "m at http", ""),
        ((200, said("H", "length")), OK, "answers", ""),
        ((200, said(None, "length", reasoning_content="Well")), OK, "answers", ""),
        ((200, said([{"type": "text", "text": "H"}], "length")), OK, "answers", ""),
        ((400, error("Could not finish the message because max_tokens or model output limit was "
                     "reached. Please try again with higher max_tokens.")), OK, "answers", ""),
        ((200, said("", "content_filter")), OK, "answers", ""),
        ((401, error(MASKED, code="invalid_api_key")), FAIL, "not accepted", "set OPENAI_API_KEY"),
        ((401, "Unauthorized"), FAIL, "not accepted", "set OPENAI_API_KEY"),
        ((403, error(f"No access for {KEY}.")), FAIL, "No access for [key]", "project access"),
        ((403, "<html>Blocked by Example Corp</html>"), FAIL, "Example Corp", "firewall"),
        ((429, error("Out.", code="insufficient_quota")), FAIL, "no credit", "add credit"),
        ((429, error("Your account balance is too low")), FAIL, "no credit", "add credit"),
        ((402, {"detail": "Payment required"}), FAIL, "no credit", "add credit"),
        ((429, error("Slow down.", type="requests")), WARN, "Slow down.", "wait a minute"),
        ((429, [error(GEMINI_MINUTE, code=429, status="RESOURCE_EXHAUSTED")]), WARN, "28.19s",
         "wait a minute"),
        ((429, error("Daily limit reached; upgrade your plan.")), FAIL, "nothing for today",
         "AGENTLAB_LOCAL=1"),
        ((404, {"error": "model 'm' not found"}), FAIL, "404: model 'm'", "check OPENAI_MODEL"),
        ((404, "404 page not found"), FAIL, "404 page not found", "OPENAI_BASE_URL"),
        ((405, {"detail": "Method Not Allowed"}), FAIL, "answered 405", "OPENAI_BASE_URL"),
        ((200, "<html>Welcome</html>"), FAIL, "no chat completion", "OPENAI_BASE_URL"),
        ((302, "", {"location": "https://login.example.org/?next=x"}), FAIL, "answered 302",
         "OPENAI_BASE_URL"),
        ((500, error("Oops")), FAIL, "answered 500: Oops", "try again"),
        ((503, "<html>busy</html>"), FAIL, "answered 503", "try again"),
        ((422, {"detail": [{"loc": ["body", "service"], "msg": LONG}]}), FAIL, "body.service", ""),
        ((400, error(f"Bad\x1b[31m\nkey ...{KEY[-4:]}")), FAIL, "key [key]", ""),
    ],
)  # fmt: skip
def test_what_the_endpoint_says_decides(monkeypatch, kept, check, answer, verdict, found, cure):
    """Each shape of answer in use has a verdict, a finding and a cure of its own."""
    url, answers = kept
    answers.append(answer)
    monkeypatch.setattr(lab, "configure", lambda **_: nullcontext())  # the endpoint stays
    finding = check(url)
    assert finding.verdict == verdict
    assert found in finding.found
    assert cure in finding.cure


def test_a_real_model_is_asked_as_lessons_ask(check):
    """One request, with their parameters, for one token: no more than it takes to know."""
    with serving(lambda path, body: (200, said("Hi"))) as server:
        check(f"{server.url}/v1/")
    assert server == [("/v1/chat/completions", QUESTION)]


@pytest.mark.parametrize(
    ("refusals", "asked", "names"),
    [
        ({"temperature": NO_TEMPERATURE}, {"max_completion_tokens": 1}, "temperature"),
        ({"max_completion_tokens": EXTRA}, {"temperature": 0, "max_tokens": 1},
         "max_completion_tokens"),
        ({"max_completion_tokens": EXTRA, "temperature": NO_TEMPERATURE}, {"max_tokens": 1},
         "max_completion_tokens,temperature"),
        ({"max_completion_tokens": EXTRA, "max_tokens": error("Unknown parameter: max_tokens")},
         {"temperature": 0}, "max_completion_tokens,max_tokens"),
    ],
)  # fmt: skip
def test_what_a_model_refuses_is_left_out(check, refusals, asked, names, caplog):
    """And the question asked again without it, as the lab does, which says so."""

    def answer(path: str, body: dict[str, Any]) -> Answer:
        return next(((422, no) for name, no in refusals.items() if name in body), (200, said("H")))

    with serving(answer) as server:
        finding = check(f"{server.url}/v1")
    plain = {"model": "m", "messages": QUESTION["messages"]}
    assert server[-1] == ("/v1/chat/completions", plain | asked)
    assert len(server) == 1 + len(refusals)
    assert finding.verdict == OK
    assert f"does not take it: {names.replace(',', ', ')}" in caplog.text


def test_what_follows_a_refusal_counts(check):
    """A model that refuses a parameter may have no credit besides."""

    def answer(path: str, body: dict[str, Any]) -> Answer:
        return (400, NO_TEMPERATURE) if "temperature" in body else (402, error("Pay first"))

    with serving(answer) as server:
        assert "no credit" in check(f"{server.url}/v1").found


def test_the_key_goes_to_no_other_host(check):
    """A redirect to another one is not followed."""
    with serving(lambda path, body: (200, said("Hi"))) as other:
        there = other.url.replace("127.0.0.1", "localhost")
        moved = {"location": f"{there}/v1/chat/completions"}
        with serving(lambda path, body: (307, "", moved)) as server:
            assert check(f"{server.url}/v1").verdict == FAIL
    assert other == []


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("김민준", "outside of ASCII"),
        ("sk-ab cd", "a blank"),
        (f"{KEY[:8]}\n{KEY[8:]}", "line break"),
        (f'"{KEY}"', "quotes"),
        ("\u2022" * 8, "middle hidden"),
    ],
)
def test_a_key_that_can_be_none_is_not_sent(monkeypatch, check, key, words):
    """The finding says what is wrong with its form."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with serving(lambda path, body: (200, said("Hi"))) as server:
        finding = check(f"{server.url}/v1")
    assert finding.verdict == FAIL
    assert words in finding.found
    assert "OPENAI_API_KEY" in finding.found
    assert server == []


def test_white_space_around_the_key_does_not_matter(monkeypatch, check):
    """A line break at the end of a copied key is no part of it."""
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\r\n")
    with serving(lambda path, body: (200, said("Hi"))) as server:
        assert check(f"{server.url}/v1").verdict == OK


# The way there


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_nobody_there_is_no_connection(check):
    """An address where nothing listens."""
    finding = check(f"http://127.0.0.1:{closed_port()}/v1")
    assert "No whole answer came" in finding.found
    assert "check OPENAI_BASE_URL" in finding.cure


def test_a_server_without_tls_is_no_connection(check):
    """An address that begins with https, and a server that does not."""
    with serving(lambda path, body: (200, said("Hi"))) as server:
        finding = check(f"{server.url.replace('http:', 'https:')}/v1")
    assert "No whole answer came" in finding.found


def test_a_proxy_that_is_gone_may_be_to_blame(monkeypatch, check):
    """And not the model behind it; its password is not shown."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:hidden@127.0.0.1:{closed_port()}")
    finding = check("https://model.invalid/v1")
    assert "proxy (HTTPS_PROXY)" in finding.cure
    assert "hidden" not in str(finding)


def test_a_proxy_that_is_no_address_is_a_finding(monkeypatch):
    """Its password is not shown."""
    monkeypatch.setenv("HTTPS_PROXY", "ftp://me:hidden@127.0.0.1:1")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://model.invalid/v1")
    monkeypatch.setattr(doctor, "CHECKS", {"real model": doctor.check_real_model})
    (finding,) = doctor.examine()
    assert finding.verdict == FAIL
    assert "HTTPS_PROXY" in str(finding)
    assert "hidden" not in str(finding)


# Against the lab's own endpoint, and a class


@pytest.mark.parametrize(
    ("fault", "verdict", "cure"),
    [
        ({"kind": "error", "status": 401}, FAIL, "set OPENAI_API_KEY"),
        ({"kind": "quota"}, FAIL, "add credit"),
        ({"kind": "error", "status": 429}, WARN, "wait"),
        ({"kind": "error", "status": 404}, FAIL, "check OPENAI_MODEL"),
        ({"kind": "reset"}, FAIL, "check OPENAI_BASE_URL, network"),
        ({"kind": "html"}, FAIL, "OPENAI_BASE_URL"),
    ],
    ids=lambda value: str(value.get("status", value["kind"])) if isinstance(value, dict) else "",
)
def test_the_labs_faults_are_told_apart(check, fault, verdict, cure):
    """Key, credit, rate, model and way, each with its own cure."""
    process = EndpointProcess(Settings(faults=[fault | {"probability": 1.0}]))
    try:
        finding = check(process.url)
    finally:
        process.stop()
    assert finding.verdict == verdict
    assert cure in finding.cure


def test_a_class_is_asked_like_a_real_model(monkeypatch):
    """With a name for a key, in any language."""
    monkeypatch.delenv("OPENAI_API_KEY")
    with Class("--time-scale", "25") as served:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{served.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "김민준")
        finding = doctor.check_real_model()
        (span,) = served.get("/lab/spans")["spans"]
    assert finding.verdict == OK
    assert (span["learner"], span["completion_tokens"]) == ("김민준", 1)


def test_no_key_and_no_address_mean_the_local_model(monkeypatch):
    """Nobody is asked."""
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert doctor.check_real_model().found == "none is set; the local one answers"
