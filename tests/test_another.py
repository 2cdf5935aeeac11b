"""What stands at OPENAI_BASE_URL: a lab that is free, one that is not, or something else."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType

import httpx
import pytest

from agentlab.endpoint.middleware import server_timing
from agentlab.endpoint.middleware.server_timing import Clock, clock_of
from agentlab.endpoint.server.process import EndpointProcess
from agentlab.errors import EndpointError
from agentlab.settings import OPENAI_URL, Settings

HTTP = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
LOCAL = "the local model, preset course; 10 model seconds pass in one second"


@contextmanager
def answering(pieces: list[str], *, again: str = "") -> Iterator[str]:
    """The address of a server that sends these pieces to everybody, and `again` for ever."""
    ended = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not ended.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    for piece in pieces:
                        connection.sendall(piece.encode())
                    while again and not ended.wait(0.02):
                        connection.sendall(again.encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            ended.set()
            thread.join()


@contextmanager
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@pytest.mark.parametrize(
    ("said", "clock"),
    [
        ('{"time_scale": 25, "paid": false}', Clock(25.0, paid=False)),
        ('{"time_scale": 25, "paid": true}', Clock(25.0, paid=True)),
        ('{"time_scale": 25}', Clock(25.0, paid=True)),
        ('{"time_scale": 25, "paid": "false"}', None),
        ('{"time_scale": 25, "paid": null}', None),
        ('{"time_scale": 0, "paid": false}', None),
        ('{"time_scale": 1e999, "paid": false}', None),
        ('{"paid": false}', None),
        ("[]", None),
        ("<html>Not here.</html>", None),
        ("", None),
    ],
)
def test_a_clock_is_read_strictly(said: str, clock: Clock | None):
    """Free is what says so, and nothing else."""
    with answering([HTTP, said]) as url:
        assert clock_of(url) == clock


def test_openai_is_not_asked(monkeypatch: pytest.MonkeyPatch):
    """It is known to be no lab's; nothing is sent."""
    monkeypatch.setattr(httpx, "get", lambda *a, **k: pytest.fail("asked"))
    assert clock_of(OPENAI_URL) is clock_of(f"{OPENAI_URL}/") is None


@pytest.mark.parametrize(
    "server",
    [
        silent(),
        answering([HTTP], again="x"),
        answering(["HTTP/1.1 200 OK\r\n"], again="x-waiting: yes\r\n"),
        answering([]),
    ],
    ids=["silent", "dripping body", "dripping headers", "broken off"],
)
def test_what_does_not_answer_holds_nobody(
    server: Iterator[str],
    fresh_lab: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """A clear message, and this machine's model; where() says that the address does not answer."""
    monkeypatch.setattr(server_timing, "PATIENCE_S", 0.3)
    with server as url, caplog.at_level(logging.WARNING):
        with pytest.raises(EndpointError, match="does not answer"):
            clock_of(url)
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        fresh_lab.configure(upstream=None)
        assert fresh_lab.where() == LOCAL
        assert f"{url} does not answer within 0.3 s; it may be a paid model" in caplog.text
        fresh_lab.configure()
        assert fresh_lab.where().endswith("through the lab's endpoint; it does not answer now")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://[::1/v1"])
def test_an_address_that_leads_nowhere_is_no_lab(url: str):
    """Refused, or malformed: one kind of error."""
    with pytest.raises(EndpointError, match="does not answer"):
        clock_of(url)


def test_a_name_that_is_looked_up_for_ever_holds_nobody(monkeypatch: pytest.MonkeyPatch):
    """No time-out of the HTTP client bounds that."""
    ended = threading.Event()
    monkeypatch.setattr(server_timing, "PATIENCE_S", 0.1)
    monkeypatch.setattr(httpx, "get", lambda *a, **k: ended.wait())
    with pytest.raises(EndpointError, match="does not answer"):
        clock_of("http://class.example/v1")
    ended.set()


@pytest.mark.parametrize(
    "said", ['{"time_scale": 1, "paid": true}', '{"time_scale": 1}', "no", '{"error": "no route"}']
)
def test_what_does_not_say_that_it_is_free_is_given_up(
    said: str, fresh_lab: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """A class before a real model, an older lab, a real model: this machine answers."""
    with answering([HTTP, said]) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        fresh_lab.configure(upstream=None)
        assert fresh_lab.where() == LOCAL
        fresh_lab.configure()
        assert url in fresh_lab.where()
        assert "the local model" not in fresh_lab.where()


def test_a_wrong_address_in_the_environment_does_not_stop_the_local_model(
    fresh_lab: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """upstream=None wins over an OPENAI_BASE_URL that is no address."""
    monkeypatch.setenv("OPENAI_BASE_URL", "nonsense")
    fresh_lab.configure(upstream=None)
    assert fresh_lab.where() == LOCAL
    monkeypatch.delenv("OPENAI_BASE_URL")


def test_an_address_given_by_hand_is_kept(fresh_lab: ModuleType, monkeypatch: pytest.MonkeyPatch):
    """upstream=URL asks that URL, whatever the environment names."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    with answering([HTTP, '{"time_scale": 25, "paid": false}']) as url:
        fresh_lab.configure(upstream=url)
        assert fresh_lab.where() == (
            f"the class's endpoint at {url}, the local model, 25 model seconds pass in one second"
        )


def test_labs_in_a_row_pass_on_that_they_are_free():
    """A lab before a lab before the local model: free, at its time scale."""
    last = EndpointProcess(Settings(time_scale=30))
    middle = EndpointProcess(Settings(upstream=last.url))
    try:
        assert clock_of(middle.url) == Clock(30.0, paid=False)
    finally:
        middle.stop()
        last.stop()


def test_a_lab_before_a_real_model_is_paid_for():
    """The upstream cannot be asked, so nobody says that it is free."""
    process = EndpointProcess(Settings(upstream="http://127.0.0.1:1/v1"))
    try:
        assert clock_of(process.url) == Clock(1.0, paid=True)
    finally:
        process.stop()
