"""In front of a real model: nothing but questions goes up, and neither key nor account comes back.

The endpoint is the process that a notebook starts; the upstream keeps each request to the byte.
"""

from __future__ import annotations

import contextlib
import gzip
import html
import json
import socket
import urllib.parse
from collections.abc import Iterator

import httpx
import pytest
from recording_upstream import RecordingUpstream

from agentlab.commands.main import main
from agentlab.endpoint.server._forward import Forward, account_from
from agentlab.endpoint.server.process import EndpointProcess
from agentlab.errors import ConfigError
from agentlab.settings import Settings, from_environment

KEY = "sk-CANARY-0123456789-abcdefghij/+="
CHAT = "/v1/chat/completions"
QUESTION = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'


class Lab:
    """An endpoint in front of a recording upstream."""

    def __init__(self, upstream: RecordingUpstream, process: EndpointProcess):
        self.upstream, self.process = upstream, process
        self.host = process.url.removeprefix("http://").removesuffix("/v1")

    def raw(
        self, target: str | bytes, method: str = "POST", *headers: bytes, key: str = ""
    ) -> bytes:
        """The answer, head and body, to a request whose target is sent as it is."""
        target = target.encode("latin-1") if isinstance(target, str) else target
        body = QUESTION if method == "POST" else b""
        lines = [
            b"%b %b HTTP/1.1" % (method.encode(), target),
            b"host: " + self.host.encode(),
            b"authorization: Bearer " + (key or self.process.key).encode(),
            b"connection: close",
            b"content-length: %d" % len(body),
            *headers,
        ]
        host, port = self.host.split(":")
        answer = b""
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(b"\r\n".join([*lines, b"", body]))
            with contextlib.suppress(ConnectionResetError):  # what is not whole is broken off
                while piece := connection.recv(65_536):
                    answer += piece
        return answer

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx.get(f"http://{self.host}{path}", headers=headers, trust_env=False)


@pytest.fixture(scope="module")
def started() -> Iterator[Lab]:
    with RecordingUpstream() as upstream, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        upstream.answers(b"no lab", status=404)
        process = EndpointProcess(Settings(upstream=upstream.url))
        try:
            yield Lab(upstream, process)
        finally:
            process.stop()


@pytest.fixture
def lab(started: Lab) -> Lab:
    started.upstream.answers()
    return started


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def refused_here(answer: bytes, lab: Lab) -> None:
    """A clear refusal of the endpoint's own, and nothing has reached the upstream."""
    assert lab.upstream.seen == []
    assert status(answer) in (400, 404, 405), answer
    if status(answer) != 400:  # that of the server's own parser, in its own words
        error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert error["type"] == "invalid_request_error"
        assert error["code"] in ("unknown_url", "method_not_allowed")


# ---------------------------------------------------------------- what goes up


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files", "/v1/fine_tuning/jobs", "/v1/images/generations", "/v1/audio/speech",
        "/v1/completions", "/v1/assistants", "/v1/threads/runs", "/v1/batches", "/v1/uploads",
        "/v1/vector_stores", "/v1/moderations", "/v1/organization/admin_api_keys", "/v1/evals",
        "/v1/chat/completions/", "/v1/chat/completions/cc_1", "/v1/responses/resp_1",
        "/v1/responses/resp_1/cancel", "/v1/embeddings/x", "/v1/models", "/v1", "/v1/", "/",
        "/chat/completions", "/openai/v1/chat/completions", "/v2/chat/completions",
    ],
)  # fmt: skip
def test_no_other_route_is_asked(path: str, lab: Lab):
    """Files, jobs, keys: whatever costs money or shows something, and is no question."""
    refused_here(lab.raw(path), lab)


@pytest.mark.parametrize(
    "path",
    [
        "/v1//chat/completions", "//v1/chat/completions", "/v1/chat//completions",
        "/v1/./chat/completions", "/v1/chat/../chat/completions", "/v1/../admin",
        "/v1/chat/completions/..", "/v1/chat/completions/../../files", "/v1/../../v1/files",
        "/v1/%2e%2e/admin", "/v1/%2E%2E/admin", "/v1/.%2e/admin", "/v1/%2e/chat/completions",
        "/v1/chat%2fcompletions", "/v1/chat%2Fcompletions", "/v1%2fchat/completions",
        "/v1/%63hat/completions", "/v1/chat/completion%73", "/%76%31/chat/completions",
        "/V1/chat/completions", "/v1/Chat/Completions", "/v1/CHAT/COMPLETIONS",
        "/v1/chat/completions%0d%0aX:y", "/v1/chat/completions%0a", "/v1/chat/completions%00",
        "/v1/chat/completions%20", "/v1/chat/completions;x=1", "/v1/chat/completions#x",
        "/v1/chat\\completions", "/v1\\..\\admin", "/v1/..%5cadmin", "/v1/chat/completions%3fx=1",
        "/v1/%252e%252e/admin", "/v1/chat/completions%e3%80%82", "/lab/../v1/files",
    ],
)  # fmt: skip
def test_no_other_spelling_of_a_route_is_asked(path: str, lab: Lab):
    """Dot segments, escapes, double slashes, letters of another case: judged by the bytes."""
    refused_here(lab.raw(path), lab)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files", "/v1/files/file-1/content", "/v1/responses/resp_1", "/v1/batches",
        "/v1/models/gpt-4o-mini",
        "/v1/models/", "/v1/models/a/b", "/v1/models/a/", "/v1/models/..", "/v1/models/../files",
        "/v1/models/..%2ffiles", "/v1/models/%2e%2e", "/v1/models/a%2fb", "/v1/models/a%0d%0aX:y",
        "/v1/modelsx", "/v1/models;x", "/v1/models/" + "a" * 300, "/v1/organization/costs",
        "/v1/chat/completions", "/v1/models/a\\b", "/v1/dashboard/billing/usage",
    ],
)  # fmt: skip
def test_nothing_but_the_list_of_models_is_read(path: str, lab: Lab):
    """No file, no earlier answer, no bill."""
    refused_here(lab.raw(path, "GET"), lab)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *[(m, CHAT) for m in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")],
        *[(m, "/v1/models") for m in ("POST", "DELETE", "PROPFIND", "PURGE")],
        ("DELETE", "/v1/models/ft:gpt-4o:org::1"),
        ("CONNECT", "api.openai.com:443"),
        ("post", CHAT),
    ],
)
def test_no_other_method_is_passed_on(method: str, path: str, lab: Lab):
    """Deleting a model needs no more than its name."""
    answer = lab.raw(path, method)
    assert lab.upstream.seen == []
    assert status(answer) in (400, 404, 405), answer


@pytest.mark.parametrize(
    "query",
    [
        "api-version=1",
        "admin=1", "api-version=1&admin=1", "api-version=1%0d%0aX:y", "api-version=../..",
        "api-version=", "api-version=" + "1" * 99, "limit=1", "?", "x", "api-version=1;x=2",
        "API-VERSION=1", "key=1", "%61pi-version=1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [CHAT])
def test_no_query_is_passed_on(path: str, query: str, lab: Lab):
    """A query may choose what a path does not."""
    refused_here(lab.raw(f"{path}?{query}"), lab)


@pytest.mark.parametrize(
    "target",
    [
        "http://api.openai.com/v1/files", "http://evil.example/v1/chat/completions",
        "https://api.openai.com/v1/chat/completions", "http://127.0.0.1/v1/chat/completions",
        "http://127.0.0.1:1/lab/../v1/files", "http://user:pw@127.0.0.1/v1/chat/completions",
        "//evil.example/v1/chat/completions",
    ],
)  # fmt: skip
def test_an_absolute_form_is_no_way_out(target: str, lab: Lab):
    """The endpoint is no proxy."""
    refused_here(lab.raw(target), lab)


SENT = "UP-CANARY-77"


@pytest.mark.parametrize(
    "name",
    [
        "cookie", "x-api-key", "api-key", "openai-organization", "openai-project",
        "x-forwarded-for",
        "forwarded", "x-real-ip", "proxy-authorization", "referer", "x-agent", "x-original-url",
        "x-http-method-override", "x-rewrite-url", "idempotency-key", "traceparent", "x-lab-times",
        "te", "x-goog-api-key", "x-auth-token", "x-amz-security-token", "x-stainless-\xe9",
        "x-forwarded-host", "if-none-match", "range",
    ],
)  # fmt: skip
def test_a_header_of_the_clients_stays_here(name: str, lab: Lab):
    """No other key, cookie, organization or agent's name is shown to the upstream."""
    lab.raw(CHAT, "POST", f"{name}: {SENT}".encode("latin-1"))
    assert SENT.encode() not in b"".join(lab.upstream.seen)


@pytest.mark.parametrize(
    "value",
    [b"a\x01b", b"\x7f", b"a\x0bb", b"a\x00b", b"\x1b[31m", b"a\rX-Evil: 1"],
)
def test_an_odd_value_stays_here(value: bytes, lab: Lab):
    """Control characters in headers that are passed on otherwise."""
    answer = lab.raw(CHAT, "POST", b"openai-beta: " + value)
    assert not any(b"openai-beta" in request.lower() for request in lab.upstream.seen)
    assert not any(b"evil" in request.lower() for request in lab.upstream.seen)
    assert status(answer) in (200, 400)


@pytest.mark.parametrize("name", ["authorization", "Authorization", "AUTHORIZATION"])
def test_the_upstream_gets_one_key_its_own(name: str, lab: Lab):
    """A second one of the client's does not stand beside it."""
    lab.raw(CHAT, "POST", f"{name}: Bearer {lab.process.key}".encode())
    (request,) = lab.upstream.seen
    assert request.lower().count(b"authorization:") == 1
    assert KEY.encode() in request and lab.process.key.encode() not in request


@pytest.mark.parametrize(
    ("method", "target"),
    [("POST", CHAT), ("POST", "/v1/responses"), ("POST", "/v1/embeddings"), ("GET", "/v1/models"),
    ],
)  # fmt: skip
def test_what_a_question_needs_is_passed_on(method: str, target: str, lab: Lab):
    """The other side of the list: these reach the upstream, to the byte."""
    assert status(lab.raw(target, method)) == 200
    (request,) = lab.upstream.seen
    assert request.startswith(f"{method} {target} HTTP/1.1\r\n".encode())


# ---------------------------------------------------------------- what comes back


@pytest.mark.parametrize(
    "name",
    [
        "set-cookie", "openai-organization", "openai-project", "authorization", "x-api-key",
        "www-authenticate", "proxy-authenticate", "location", "x-debug-authorization", "via",
        "x-served-by", "cf-ray", "alt-svc", "refresh", "link", "access-control-allow-origin",
        "x-lab-left-out", "x-lab-times", "content-location", "x-amz-request-token",
    ],
)  # fmt: skip
def test_a_header_of_the_upstreams_stays_there(name: str, lab: Lab):
    """No cookie, no account, no way to another address reaches a client."""
    lab.upstream.answers(headers=[(name, "DOWN-CANARY-88")])
    answer = lab.raw(CHAT)
    assert status(answer) == 200
    assert b"DOWN-CANARY-88" not in answer


@pytest.mark.parametrize("cookie", ["sid=1", "sid=1; Path=/", "sid=1; Secure; HttpOnly"])
def test_no_cookie_is_kept_for_the_next(cookie: str, lab: Lab):
    """One client's cookie would be every client's."""
    lab.upstream.answers(headers=[("set-cookie", cookie)])
    lab.raw(CHAT)
    lab.raw(CHAT)
    assert len(lab.upstream.seen) == 2
    assert b"cookie" not in b"".join(lab.upstream.seen).lower()


@pytest.mark.parametrize(
    "name",
    ["retry-after", "retry-after-ms", "x-should-retry", "x-ratelimit-remaining-requests",
     "x-ratelimit-reset-tokens", "x-request-id", "openai-processing-ms"],
)  # fmt: skip
def test_what_a_client_needs_comes_back(name: str, lab: Lab):
    """The other side of the list."""
    lab.upstream.answers(b"{}", status=429, headers=[(name, "7")])
    assert f"\r\n{name}: 7\r\n".encode() in lab.raw(CHAT).lower()


def escaped(form: str) -> bytes:
    hard = "".join(f"{form}{ord(each):04x}" for each in KEY)
    return hard.encode()


FORMS: dict[str, bytes] = {
    "plain": KEY.encode(),
    "bearer": f"Bearer {KEY}".encode(),
    "json": json.dumps(KEY).encode(),
    "json_slash": KEY.replace("/", "\\/").encode(),
    "json_all": escaped("\\u"),
    "json_upper": escaped("\\u").upper().replace(b"\\U", b"\\u"),
    "json_first": b"\\u0073" + KEY[1:].encode(),
    "json_in_json": escaped("\\\\u"),
    "percent": urllib.parse.quote(KEY, safe="").encode(),
    "percent_lower": urllib.parse.quote(KEY, safe="").lower().replace("canary", "CANARY").encode(),
    "percent_all": "".join(f"%{ord(each):02x}" for each in KEY).encode(),
    "percent_twice": "".join(f"%25{ord(each):02X}" for each in KEY).encode(),
    "html": html.escape(KEY).encode(),
    "html_decimal": "".join(f"&#{ord(each)};" for each in KEY).encode(),
    "html_hex": "".join(f"&#x{ord(each):X};" for each in KEY).encode(),
    "python_bytes": "".join(f"\\x{ord(each):02x}" for each in KEY).encode(),
    "mixed": b"\\u0073%6b-" + KEY[3:].encode(),
    "twice": (KEY + KEY).encode(),
}


def shows_no_key(text: bytes) -> None:
    """Neither in any of the forms, nor in a part of one that is as good as the whole."""
    for name, form in FORMS.items():
        middle = form[len(form) // 4 : -(len(form) // 4)]
        assert middle not in text, name
    assert b"CANARY-0123456789" not in text


@pytest.mark.parametrize("code", [200, 401, 500])
@pytest.mark.parametrize("form", FORMS)
def test_a_whole_answer_repeats_no_key(form: str, code: int, lab: Lab):
    """An error, or a good answer, that says the key aloud in some spelling."""
    lab.upstream.answers(b'{"error": "before ' + FORMS[form] + b' after"}', status=code)
    answer = lab.raw(CHAT)
    assert status(answer) == code
    assert b"before " in answer and b" after" in answer
    shows_no_key(answer)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b""])
@pytest.mark.parametrize("cut", [1, 3, 9, 17, 31, 33])
@pytest.mark.parametrize("form", ["plain", "json_all", "percent_all"])
def test_a_stream_repeats_no_key_cut_in_two(form: str, cut: int, end: bytes, lab: Lab):
    """The pieces fall wherever the upstream likes; the rest of the stream comes whole."""
    text = FORMS[form]
    at = cut * len(text) // 34
    pieces = [b'data: {"a": "before ' + text[:at], text[at:] + b' after"}' + end]
    lab.upstream.answers([*pieces, b"data: [DONE]" + end], kind="text/event-stream")
    answer = lab.raw(CHAT)
    assert b"before ... after" in answer.replace(b"Bearer ", b"")
    assert b"before " in answer and b" after" in answer and b"[DONE]" in answer
    shows_no_key(answer)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("form", ["plain", "json_in_json", "mixed"])
def test_a_dripping_stream_repeats_no_key(form: str, size: int, lab: Lab):
    """Byte by byte, without a line's end."""
    text = b"before " + FORMS[form] + b" after"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    lab.upstream.answers(pieces, kind="text/event-stream")
    answer = lab.raw(CHAT)
    assert b"before " in answer and b" after" in answer
    shows_no_key(answer)


@pytest.mark.parametrize("name", ["x-request-id", "content-type", "retry-after", "openai-model"])
@pytest.mark.parametrize("form", ["plain", "percent_all"])
def test_a_header_repeats_no_key(form: str, name: str, lab: Lab):
    """One of those that come back."""
    text = FORMS[form].decode()
    kind = f"text/plain; x={text}" if name == "content-type" else "application/json"
    headers = [] if name == "content-type" else [(name, text)]
    lab.upstream.answers(headers=headers, kind=kind)
    answer = lab.raw(CHAT)
    assert status(answer) == 200
    shows_no_key(answer)


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "identity", "x-unknown"])
def test_what_is_encoded_repeats_no_key(coding: str, lab: Lab):
    """Although nobody asked for it: it is read before it is passed on, or not passed on."""
    body = b'{"error": "before %b after"}' % KEY.encode()
    packed = gzip.compress(body) if coding == "gzip" else body
    lab.upstream.answers(packed, headers=[("content-encoding", coding)])
    answer = lab.raw(CHAT)
    shows_no_key(answer)
    assert status(answer) in (0, 502) or b"before ... after" in answer


@pytest.mark.parametrize(
    "said",
    [
        [], [b"nonsense " + KEY.encode()], [b"HTTP/1.1 200 " + KEY.encode() + b"\r\n\r\n{}"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n" + KEY.encode()[:4]],
        [b"HTTP/1.1 99999 X\r\n\r\n"], [b"HTTP/1.1 200 OK\r\nx: " + KEY.encode() * 900],
        [b"HTTP/1.1 302 X\r\nlocation: http://127.0.0.1:1/" + KEY.encode() + b"\r\n\r\n"],
    ],
    ids=["silent", "nonsense", "reason", "cut", "status", "huge_header", "redirect"],
)  # fmt: skip
def test_a_broken_answer_repeats_no_key(said: list[bytes], lab: Lab):
    """Neither does the endpoint's own 502."""
    lab.upstream.pieces = said
    answer = lab.raw(CHAT)
    shows_no_key(answer)
    assert lab.process.alive


@pytest.mark.parametrize("code", [100, 101, 103, 204, 205, 304, 308, 401, 599, 600, 999])
def test_an_odd_status_ends_nothing(code: int, lab: Lab):
    """One that no answer has is a 502; the next question is answered."""
    lab.upstream.answers(b"" if code in (204, 304) else b"{}", status=code)
    assert status(lab.raw(CHAT)) == (code if 200 <= code <= 599 else 502)
    lab.upstream.answers()
    assert status(lab.raw(CHAT)) == 200


def test_no_trace_has_the_key(lab: Lab):
    """After all of the above, and an echo of each form."""
    for form in FORMS.values():
        lab.upstream.answers(b'{"a": "' + form + b'"}', status=401)
        lab.raw(CHAT)
    shows_no_key(lab.get("/lab/spans", lab.process.key).content)


# ---------------------------------------------------------------- the lab's own routes


@pytest.mark.parametrize("key", [None, "wrong", KEY, "lab-", "teacher"])
@pytest.mark.parametrize("path", ["/lab/spans", "/lab/spans?since=0", "/lab/mark", "/lab/x"])
def test_the_record_takes_the_labs_key(path: str, key: str | None, lab: Lab):
    """Agents' names, times and tokens are the owner's, on a machine that others use, too."""
    answer = lab.get(path, key)
    assert answer.status_code == 401
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("path", ["/lab", "/lab/", "/lab/files", "/lab/../lab/x", "/%6cab/x"])
def test_no_route_of_the_labs_leads_up(path: str, lab: Lab):
    """With the key neither."""
    for method in ("GET", "POST"):
        assert status(lab.raw(path, method)) == 404
    assert lab.upstream.seen == []


@pytest.mark.parametrize(
    "since",
    [
        "x", "-1", "+1", "1.0", "1e3", "%20", "%C2%B2", "%EF%BC%91", "%D9%A1", "0x1", "1_0", "nan",
        "1" + "0" * 30, "9" * 5000, "999999", "%00", "%FF", "true", "[]", "1;2",
    ],
)  # fmt: skip
def test_a_mark_that_is_none_is_refused(since: str, lab: Lab):
    """Superscripts, digits of other scripts, thousands of them, the future: 400, and why."""
    answer = lab.get(f"/lab/spans?since={since}", lab.process.key)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "since"
    assert "whole number" in answer.json()["error"]["message"]
    assert len(answer.text) < 400


# ---------------------------------------------------------------- addresses

PASSWORD = "PW-CANARY-99"


@pytest.mark.parametrize(
    "address",
    [
        f"http://user:{PASSWORD}@127.0.0.1:1/v1", f"https://{PASSWORD}@host.example/v1",
        f"http://user:{PASSWORD}@[::1]:9/v1", f"HTTP://u:{PASSWORD}@host.example",
        f"http://u:p%40{PASSWORD}@127.0.0.1:1/v1", f"http://u:{PASSWORD}@127.0.0.1:99999/v1",
        f"user:{PASSWORD}@127.0.0.1:1/v1", f"http://a@{PASSWORD}@127.0.0.1/v1",
        f"http://u:{PASSWORD}@/v1", f"ftp://u:{PASSWORD}@host.example/v1",
    ],
)  # fmt: skip
def test_an_addresss_password_is_shown_nowhere(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Refused in the environment, in a setting, and by the command line, and not repeated."""
    with pytest.raises(ConfigError) as given:
        from_environment({}, upstream=address)
    with pytest.raises(ConfigError) as built:
        Forward(address, key=KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    assert main(["serve", "--port", "0"]) == 2
    said = capsys.readouterr()
    assert PASSWORD not in f"{given.value}{built.value}{said.out}{said.err}"


@pytest.mark.parametrize(
    "proxy",
    [f"socks5://u:{PASSWORD}@127.0.0.1:1", f"http://u:{PASSWORD}@127.0.0.1:99999",
     f"u:{PASSWORD}@[::1", f"http://u:{PASSWORD}@host:x"],
)  # fmt: skip
def test_a_proxys_password_is_shown_nowhere(proxy: str, monkeypatch: pytest.MonkeyPatch):
    """A proxy that cannot be used is refused at the start."""
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ConfigError) as error:
        Forward("http://model.example/v1", key=KEY)
    assert PASSWORD not in str(error.value)


@pytest.mark.parametrize("variable", ["OPENAI_ORG_ID", "OPENAI_PROJECT_ID"])
@pytest.mark.parametrize("value", ["org-1\r\nX: y", "a b", "\x01", "x" * 300, "é"])
def test_an_account_that_can_be_none_is_refused(variable: str, value: str):
    """Its header is sent with each request."""
    with pytest.raises(ConfigError, match=variable):
        account_from({variable: value})
