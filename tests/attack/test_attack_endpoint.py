"""Requests that no well-meaning client sends: each is refused, and the next client is answered.

Whatever is refused is a 4xx in the shape of OpenAI's errors. Nothing makes a 500 or a traceback.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
ARRIVAL_S = 0.4
"""At the impatient server a request must have come in so many seconds."""

Schema = dict[str, Any]
_SERVE = """
import sys
from agentlab.endpoint.server import serve
serve.MOST_ARRIVAL_S = float(sys.argv.pop(1))
from agentlab.commands.main import main
raise SystemExit(main(["serve", "--port", "0", "--preset", "instant"]))
"""


class Server:
    """`agentlab serve` in a process of its own; `check` is another client, who must be served."""

    def __init__(self, log: Path, arrival_s: float):
        self._log, self._read = log, 0
        with log.open("wb") as complaints:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(arrival_s)],
                env=os.environ | {"AGENTLAB_LOCAL": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=subprocess.PIPE,
                stderr=complaints,
            )
        assert self._process.stdout is not None
        welcome = self._process.stdout.readline().decode()
        self.url = next(w for w in welcome.split() if w.startswith("http")).removesuffix("/v1")
        self.port = urlsplit(self.url).port
        self.client = httpx.Client(base_url=self.url, trust_env=False, timeout=60)
        self._other = httpx.Client(base_url=self.url, trust_env=False, timeout=60)

    def check(self) -> None:
        """Another client is answered, and nothing failed that nobody had foreseen."""
        answer = self._other.post(CHAT, json=question())
        assert answer.status_code == 200
        assert answer.json()["choices"][0]["message"]["content"]
        said = self._log.read_text(errors="replace")[self._read :]
        self._read += len(said)
        assert "Traceback" not in said
        assert "Error" not in said

    def stop(self) -> None:
        self.client.close()
        self._other.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=60)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def raw(self, *pieces: bytes) -> bytes:
        """The answer to what is sent over a connection of its own, which stays open."""
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):  # it need not listen to the end
                for piece in pieces:
                    connection.sendall(piece)
            return answer_from(connection)


def answer_from(connection: socket.socket) -> bytes:
    """The first whole answer that comes."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65_536):
            received = (received + piece).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
            head, end, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            if end and length and len(body) >= int(length[1]):
                break
    return received


def _served(folder: Path, arrival_s: float) -> Iterator[Server]:
    server = Server(folder / "serve.log", arrival_s)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _served(tmp_path_factory.mktemp("endpoint"), 30)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _served(tmp_path_factory.mktemp("impatient"), ARRIVAL_S)


def question(text: str = "hello", **fields: Any) -> Schema:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def form(schema: Any) -> Schema:
    """A chat request whose answer is to keep to `schema`."""
    json_schema = {"name": "x", "schema": schema}
    return question(response_format={"type": "json_schema", "json_schema": json_schema})


def tool(schema: Any) -> Schema:
    """A chat request with a tool that must be called, whose arguments keep to `schema`."""
    function = {"name": "f", "parameters": schema}
    return question(tools=[{"type": "function", "function": function}], tool_choice="required")


def refused(answer: httpx.Response, *, status: int = 400, words: str = "") -> None:
    assert answer.status_code == status, answer.text[:300]
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert words in error["message"]
    assert len(error["message"]) <= 1000


def refused_raw(answer: bytes, status: int) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def never_500(answer: httpx.Response) -> None:
    if answer.status_code != 200:
        refused(answer, status=answer.status_code)
        assert 400 <= answer.status_code < 500


# Schemas


def arrays(schema: Schema, levels: int, **keywords: Any) -> Schema:
    for _ in range(levels):
        schema = {"type": "array", "items": schema, **keywords}
    return schema


def of(**properties: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": [*properties]}


def doubled(levels: int, keyword: str) -> Schema:
    """Each level refers to the next one twice."""
    definitions: Schema = {f"d{levels}": {"type": "string"}}
    for level in range(levels):
        twice = [{"$ref": f"#/$defs/d{level + 1}"}] * 2
        inner = of(a=twice[0], b=twice[1]) if keyword == "properties" else {keyword: twice}
        definitions[f"d{level}"] = inner
    return of(v={"$ref": "#/$defs/d0"}) | {"$defs": definitions}


def nested(keyword: str, levels: int) -> Schema:
    schema: Schema = {"type": "string"}
    for _ in range(levels):
        inner = {"a": schema} if keyword == "properties" else schema
        schema = {keyword: [inner] if keyword in ("allOf", "anyOf", "oneOf") else inner}
    return of(v=schema)


ENDLESS: dict[str, Schema] = {
    **{
        f"minItems {n:g}": of(a={"type": "array", "items": {"type": "integer"}, "minItems": n})
        for n in (10**5, 10**6, 10**9, 10**12, 1e15, 10**18, 10**30)
    },
    **{
        f"minLength {n:g}": of(a={"type": "string", "minLength": n})
        for n in (10**6, 10**9, 1e12, 10**18, 10**30)
    },
    **{
        f"{levels} levels of {least}": of(a=arrays({"type": "null"}, levels, minItems=least))
        for levels, least in ((2, 200), (3, 30), (5, 10), (10, 4), (20, 2), (35, 2))
    },
    **{
        f"{keyword} doubled {levels} times": doubled(levels, keyword)
        for keyword in ("allOf", "properties")
        for levels in (14, 20, 30)
    },
    **{
        f"{many} long values": of(
            a={"type": "array", "items": {"const": "x" * 10_000}, "minItems": many}
        )
        for many in (21, 500, 9000)
    },
    **{
        f"{many} unique of 2": of(
            a={"type": "array", "items": {"enum": [1, 2]}, "minItems": many, "uniqueItems": True}
        )
        for many in (300, 3000, 10**9)
    },
}


@pytest.mark.parametrize("ask", [form, tool])
@pytest.mark.parametrize("schema", ENDLESS.values(), ids=ENDLESS)
def test_a_short_schema_of_an_endless_value(server: Server, ask: Any, schema: Schema):
    """It must neither stall the endpoint nor take its memory."""
    refused(server.client.post(CHAT, json=ask(schema)), words="cannot fill this schema")
    server.check()


LARGE: dict[str, Schema] = {
    **{f"{n} names": of(**{f"p{i}": {} for i in range(n)}) for n in (6000, 9000)},
    **{f"enum of {n}": of(a={"enum": [*range(n)]}) for n in (10_000, 100_000)},
    **{f"patterns {n}": of(**{f"p{i}": {"pattern": "a"} for i in range(n)}) for n in (210, 5000)},
    **{
        f"by pattern {n}": of() | {"patternProperties": {str(i): {} for i in range(n)}}
        for n in (210, 5000)
    },
    **{f"a name of {n} letters": of(**{"x" * n: {}}) for n in (200_000, 500_000)},
    **{f"{n} parts": of() | {"allOf": [{"minProperties": 0}] * n} for n in (6000, 20_000)},
    **{
        f"{n} levels of {keyword}": nested(keyword, n)
        for keyword in ("items", "properties", "allOf", "anyOf", "not", "if")
        for n in (70, 300)
    },
}


@pytest.mark.parametrize("schema", LARGE.values(), ids=LARGE)
def test_a_long_or_deep_schema(server: Server, schema: Schema):
    """To read it must not take long, nor more of the stack than there is."""
    refused(server.client.post(CHAT, json=form(schema)), words="schema too large to fill")
    server.check()


@pytest.mark.parametrize("levels", [400, 900, 950, 100_000])
@pytest.mark.parametrize("keyword", ["items", "not"])
def test_a_schema_nested_to_the_limits_of_a_reader(server: Server, keyword: str, levels: int):
    """Whichever reader gives up first, it is the client's fault, and told so."""
    schema = f'{{"{keyword}":' * levels + "{}" + "}" * levels
    body = json.dumps(form("HERE")).replace('"HERE"', schema)
    refused(server.client.post(CHAT, content=body))
    server.check()


COUNTS = ["minItems", "maxItems", "minLength", "maxLength", "minProperties", "minContains"]
MALFORMED: list[Schema] = [
    *({keyword: value} for keyword in COUNTS for value in ("x", -1, 2.5, None, [], {})),
    *({keyword: "x"} for keyword in ("minimum", "multipleOf", "required", "properties", "enum")),
    *({keyword: 5} for keyword in ("type", "pattern", "format", "$ref", "items", "not", "$defs")),
    *({keyword: []} for keyword in ("type", "allOf", "anyOf", "oneOf", "prefixItems")),
    {"multipleOf": 0}, {"multipleOf": -1}, {"uniqueItems": 1}, {"type": "text"}, {"type": ["x"]},
    {"properties": {"a": {"minItems": "x"}}}, {"$ref": "#/x", "x": {"minItems": "x"}},
    {"$ref": "#/x", "x": 5}, {"$ref": "#/nowhere"}, {"$ref": "http://127.0.0.1:9/x"},
    {"$ref": "file:///etc/passwd"}, {"$dynamicRef": "#x"}, {"required": [1]}, {"enum": 5},
]  # fmt: skip


@pytest.mark.parametrize("schema", MALFORMED, ids=lambda schema: json.dumps(schema)[:40])
def test_a_keyword_that_holds_nonsense(server: Server, schema: Schema):
    """It is named as what it is, inside an object, too."""
    refused(server.client.post(CHAT, json=form(of(v=schema) | schema)))
    server.check()


IMPOSSIBLE: list[Schema] = [
    {"enum": []}, {"type": "string", "enum": [1]}, {"type": "integer", "minimum": 3, "maximum": 2},
    {"type": "string", "minLength": 3, "maxLength": 2}, {"const": 1, "type": "string"},
    {"type": "number", "minimum": 1e308, "multipleOf": 1e-300}, {"not": {}},
    {"type": "integer", "minimum": 1e308, "exclusiveMaximum": 1e308}, {"allOf": [{"enum": []}]},
    {"type": "number", "exclusiveMinimum": -1e308, "exclusiveMaximum": -1e308},
    {"type": "array", "items": False, "minItems": 2}, {"type": "object", "required": ["a"],
    "maxProperties": 0},
    {"$ref": "#"}, {"anyOf": [{"$ref": "#/properties/v"}]}, {"allOf": [{"$ref": "#/properties/v"}]},
    {"$id": "http://x/y", "not": {}}, {"type": "object", "properties": {"a": {"enum": []}},
    "required": ["a"]},
]  # fmt: skip


@pytest.mark.parametrize("schema", IMPOSSIBLE, ids=lambda schema: json.dumps(schema)[:50])
def test_a_schema_that_nothing_fits(server: Server, schema: Schema):
    """It ends, and says so."""
    refused(server.client.post(CHAT, json=form(of(v=schema))), words="schema")
    server.check()


PATTERNS = [
    "a{100000}", "(a{1000}){1000}", "((a{99}){99}){99}", "(((((a{9}){9}){9}){9}){9}){9}", "(", "[",
    "a{3,2}", "*", "(a+)+$" * 200, "\\p{Letter}", "[" + "\\u0000-\\uffff" * 50 + "]", "(?<=a)b",
    "(" * 600 + ")" * 600, "(?P<x>a)(?P=y)", "\\1", "(.*)(.*)(.*)(.*)(.*)(.*)\\1\\2x{900}",
    "a" * 5000,
    "[^\\s\\S]", "(?!)", "$^a", "(a|b|c|d){9000}",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS, ids=range(len(PATTERNS)))
def test_a_pattern_that_explodes(server: Server, pattern: str):
    """Neither to read it, nor to build by it, nor to match it may take long."""
    never_500(server.client.post(CHAT, json=form(of(v={"type": "string", "pattern": pattern}))))
    server.check()


@pytest.mark.parametrize("many", [2, 30, 128, 129, 1000])
def test_many_tools_share_one_budget(server: Server, many: int):
    """What one may take, all of them may take together."""
    schema = of(a={"type": "array", "items": {"type": "null"}, "minItems": 1500})
    tools = [
        {"type": "function", "function": {"name": f"hello_{i}", "parameters": schema}}
        for i in range(many)
    ]
    answer = server.client.post(CHAT, json=question(tools=tools, tool_choice="required"))
    never_500(answer)
    assert (answer.status_code == 200) == (many == 2)
    server.check()


# Bodies


@pytest.mark.parametrize("path", [CHAT, RESPONSES, EMBEDDINGS])
@pytest.mark.parametrize("size", [2**20 + 1, 2_000_000, 8_000_000])
def test_a_body_that_is_too_long(server: Server, path: str, size: int):
    """413, whether its length is told or not."""
    body = json.dumps(question()).encode().ljust(size)
    refused(server.client.post(path, content=body), status=413, words="1,048,576 bytes")
    pieces = (body[at : at + 65_536] for at in range(0, size, 65_536))
    refused(server.client.post(path, content=pieces), status=413)
    server.check()


@pytest.mark.parametrize("declared", [2**20 + 1, 10**12, 10**18])
def test_a_body_that_is_declared_long(server: Server, declared: int):
    """Nobody waits for it."""
    refused_raw(server.raw(HEAD + b"content-length: %d\r\n\r\n" % declared), 413)
    server.check()


NOT_JSON = [
    b"", b"{", b"null", b"[]", b"5", b'"x"', b"\xff\xfe", b"\x00", b"{}", b"NaN", b"\xef\xbb\xbf{}",
    b'{"model": "\xff"}', b'{"model": "\\ud800"}', b'{"model": 1' + b"0" * 5000 + b"}",
    b'{"model": 1e999}', b'{"model": "m", "messages": 5}', b"[" * 100_000, b'{"a":' * 100_000,
    b"[" * 900 + b"]" * 900, b'{"a":[' * 450 + b"]}" * 450, b"\n" * 100_000, b"/* */ {}",
]  # fmt: skip


@pytest.mark.parametrize("path", [CHAT, RESPONSES, EMBEDDINGS])
@pytest.mark.parametrize("body", NOT_JSON, ids=range(len(NOT_JSON)))
def test_a_body_that_is_no_request(server: Server, path: str, body: bytes):
    """400, however deep or strange."""
    refused(server.client.post(path, content=body))
    server.check()


@pytest.mark.parametrize("levels", [100, 480, 900, 970, 100_000])
@pytest.mark.parametrize("place", ["messages", "functions", "unknown", "input", "type", "output"])
def test_a_field_that_is_deep(server: Server, place: str, levels: int):
    """Where nobody looks, it is let pass; elsewhere it is refused."""
    deep = "[" * levels + "]" * levels
    path, fields = CHAT, {place: "HERE"}
    if place == "input":
        path = RESPONSES
    elif place in ("type", "output"):
        path, fields = RESPONSES, {"input": [{"type": "function_call_output", place: "HERE"}]}
    body = json.dumps(question() | fields).replace('"HERE"', deep)
    never_500(server.client.post(path, content=body))
    server.check()


ODD_FIELDS: list[Schema] = [
    {"seed": 10**30}, {"seed": -(10**30)}, {"seed": 0.5}, {"max_tokens": 0}, {"max_tokens": 10**30},
    {"max_tokens": 2**53}, {"n": 0}, {"n": 129}, {"n": 10**30}, {"temperature": 3},
    {"temperature": -1},
    {"temperature": "hot"}, {"stop": ["a"] * 5}, {"stop": 5}, {"model": ""}, {"model": "x" * 257},
    {"model": 5}, {"model": None}, {"messages": []}, {"messages": question()["messages"] * 2049},
    {"messages": [{"role": "x", "content": ""}]}, {"messages": [{"role": "user"}]},
    {"messages": [{"role": "tool", "tool_call_id": "x" * 9999, "content": ""}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 2049}]},
    {"tools": []}, {"tools": [{}]}, {"tools": "x"}, {"tool_choice": "x" * 9999},
    {"top_logprobs": 10**30},
    {"response_format": {"type": "x" * 9999}}, {"response_format": {"type": "json_schema"}},
    {"stream": "yes"}, {"stream_options": 5}, {"functions": [1]}, {"modalities": ["x"] * 9999},
]  # fmt: skip


@pytest.mark.parametrize("fields", ODD_FIELDS, ids=lambda fields: json.dumps(fields)[:40])
def test_a_field_out_of_its_bounds(server: Server, fields: Schema):
    """The field is named in a 400; a number that is merely large may be let pass."""
    never_500(server.client.post(CHAT, json=question() | fields))
    never_500(server.client.post(RESPONSES, json={"model": "m", "input": "x"} | fields))
    server.check()


REACT = "\nAction Input: x Final Answer: y"
ODD_PROMPTS = [
    "9" * 5000 + " words", "999999999 paragraphs", "999999999 words about x",
    "write 10000000 items",
    'keys:\n{"a": ' + "9" * 5000 + "}", 'Answer as JSON:\n' + '{"a":' * 900 + "1" + "}" * 900,
    'Answer as JSON:\n' + '{"a":' * 99_999 + "1" + "}" * 99_999, "\x00\x1b[2J\r\n", "\u202e\ufeff",
    "Tool Name: f\nTool Arguments: 5\n" + REACT, "Tool Name: f\nTool Arguments: {" + REACT,
    'Tool Name: f\nTool Arguments: {"properties": 5}\n' + REACT, "one of [,]" + REACT,
    'Tool Name: f\nTool Arguments: {"type": "array", "minItems": 1000000000}\n' + REACT,
    'Tool Name: f\nTool Arguments: ' + '{"not":' * 900 + "1" + "}" * 900 + REACT,
    "Tool Name: \nTool Arguments: {}\n" + REACT, "Current Task: ", "Current Task: " + "\n" * 9999,
]  # fmt: skip


@pytest.mark.parametrize("prompt", ODD_PROMPTS, ids=range(len(ODD_PROMPTS)))
def test_a_prompt_that_asks_for_nonsense(server: Server, prompt: str):
    """A prompt is only read: what cannot be obeyed is answered somehow, or refused."""
    never_500(server.client.post(CHAT, json=question(prompt)))
    server.check()


LONG = ["a", " ", "\n", ".", "{", "#", "9", "for:\n", "- a\n", "# a\n", '"k": ', "1 ", "A b ", "가",
        "가나 ", "Topic:", "one of [", "Tool Name: ", "Action Input:", "about ", "\t", "key ", "_",
        "Current Task: ", "\n\nThis is the context you're working with:\n"]  # fmt: skip


@pytest.mark.parametrize("unit", LONG, ids=[repr(unit) for unit in LONG])
def test_a_prompt_of_one_thing_again_and_again(server: Server, unit: str):
    """No pattern may try again from each of its places: the square of 900,000 is an hour."""
    hints = " sentences words paragraphs bullets items keys json 문장 항목 문단 자"
    body = json.dumps(question(unit * (300_000 // len(unit)) + hints), ensure_ascii=False)
    never_500(server.client.post(CHAT, content=body.encode()))
    server.check()


EMBEDDED: list[Any] = [
    "", [], [""], [[]], [[[1]]], [1, "a"], [1.5], [None], {}, 5, ["x"] * 2049, [[1] * 8193],
    [10**30],
    "a b " * 200_000, [[5] * 8000] * 60, [{"x": 1}],
]  # fmt: skip


@pytest.mark.parametrize("value", EMBEDDED, ids=range(len(EMBEDDED)))
def test_embeddings_of_nonsense_or_of_too_much(server: Server, value: Any):
    """Refused, or embedded; the sum of all tokens has a bound."""
    never_500(server.client.post(EMBEDDINGS, json={"model": "m", "input": value}))
    server.check()


@pytest.mark.parametrize("text", [" ", "_", "x", "a "], ids=["blank", "line", "letter", "words"])
def test_a_long_text_is_embedded(server: Server, text: str):
    """A vector is made of all its parts, a slice at a time; of 8,192 tokens at most."""
    texts = [text * 8000] * (200_000 // 8000 // len(text))
    answer = server.client.post(EMBEDDINGS, json={"model": "m", "input": texts, "dimensions": 2})
    assert len(answer.json()["data"][0]["embedding"]) == 2
    server.check()


# HTTP

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
GARBAGE = [
    b"\x00" * 100, b"hello\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-x\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET / HTTP/1.1\r\n: empty\r\n\r\n",
    b"BREW / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nx: \x00\r\n\r\n", HEAD + b"content-length: -1\r\n\r\n",
    HEAD + b"content-length: x\r\n\r\n",
    HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
    HEAD + b"content-length: 9" * 30 + b"\r\n\r\n",
    HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{}",
    HEAD + b"transfer-encoding: chunked\r\n\r\nxyz\r\n",
    HEAD + b"transfer-encoding: chunked\r\n\r\n-1\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET http:// HTTP/1.1\r\nhost: localhost\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("sent", GARBAGE, ids=range(len(GARBAGE)))
def test_what_is_not_http(impatient: Server, sent: bytes):
    """400 in the shape of all errors, and the connection is closed; or 408, if more could come."""
    answer = impatient.raw(sent)
    status = int(answer.split(b" ", 2)[1])
    assert 400 <= status < 500
    refused_raw(answer, status)
    impatient.check()


FLOODS = {
    **{f"one of {n} bytes": b"x: " + b"a" * n + b"\r\n\r\n" for n in (70_000, 10**6, 5 * 10**6)},
    **{f"{n} of them": b"".join(b"x-%d: a\r\n" % i for i in range(n)) + b"\r\n" for n in (9000,
    10**5)},
    **{f"no end of {n}": b"x: " + b"a" * n for n in (70_000, 10**6)},
    **{f"a name of {n}": b"a" * n + b": x\r\n\r\n" for n in (66_000, 10**6)},
    **{f"folded {n}": b"x: a\r\n" + b" a\r\n" * n + b"\r\n" for n in (30_000, 100_000)},
    "a trailer": b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nx: " + b"a" * 10**6,
    "an extension": b"transfer-encoding: chunked\r\n\r\n1;x=" + b"a" * 10**6,
    "tiny chunks": b"transfer-encoding: chunked\r\n\r\n" + b"1;" + b"x" * 20 + b"\r\n{\r\n" * 9000,
}  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_headers(server: Server, flood: bytes):
    """431, or 400 where it is no HTTP either; nothing is put together again and again."""
    answer = server.raw(HEAD, *(flood[at : at + 8192] for at in range(0, len(flood), 8192)))
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 431)
    refused_raw(answer, status)
    server.check()


@pytest.mark.parametrize(
    "headers",
    [b"x: " + b"a" * 200_000 + b"\r\n", b"".join(b"x-%d: a\r\n" % n for n in range(9000))],
)
def test_a_head_that_comes_in_one_piece_has_the_same_bound(server: Server, headers: bytes):
    """431, however few reads it takes; a body of that size passes."""
    refused_raw(
        server.raw(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n" + headers + b"\r\n"), 431
    )
    assert server.client.post(CHAT, json=question("a" * 200_000)).status_code == 200
    server.check()


@pytest.mark.parametrize("letters", [70_000, 10**6])
@pytest.mark.parametrize("where", ["path", "query"])
def test_a_long_address(server: Server, where: str, letters: int):
    """It is part of the head."""
    target = b"/v1/" + b"?" * (where == "query") + b"a" * letters
    answer = server.raw(b"GET " + target + b" HTTP/1.1\r\nhost: localhost\r\n\r\n")
    refused_raw(answer, 400 if letters < 10**6 else 431)
    server.check()


HALVES = {
    "a word": b"POST",
    "a line": HEAD,
    "a header": HEAD + b"content-length: 1",
    "no body": HEAD + b"content-length: 100\r\n\r\n",
    "half a body": HEAD + b'content-length: 100\r\n\r\n{"model":',
    "almost all": HEAD + b"content-length: 50000\r\n\r\n" + b" " * 49_999,
    "a chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{",
    "no last chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "no end": HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
    "expectant": HEAD + b"content-length: 100\r\nexpect: 100-continue\r\n\r\n",
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_a_request_that_is_never_finished(impatient: Server, half: bytes):
    """408 after a while, and the connection is closed."""
    refused_raw(impatient.raw(half), 408)
    impatient.check()


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_a_request_that_is_broken_off(server: Server, half: bytes):
    """Nobody is left to be answered; nothing is left behind."""
    with server.connect() as connection:
        connection.sendall(half)
    server.check()


@pytest.mark.parametrize("many", [10, 300, 1000])
@pytest.mark.parametrize("sent", [b"", b"GET /v1/mod"], ids=["silent", "half"])
def test_connections_that_only_stay(server: Server, sent: bytes, many: int):
    """Whoever asks in between is answered."""
    with contextlib.ExitStack() as stack:
        for _ in range(many):
            stack.enter_context(server.connect()).sendall(sent)
        server.check()
    server.check()


@pytest.mark.parametrize("many", [3, 20])
def test_long_bodies_at_the_same_time(server: Server, many: int):
    """All are answered, and another client in between."""
    body = json.dumps(question("a b " * 100_000)).encode()
    head = HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(many)]
        for connection in connections:
            connection.sendall(head + body)
        server.check()
        for connection in connections:
            assert answer_from(connection).startswith(b"HTTP/1.1 200 ")


PATHS = [
    "/", "//", "/v1", "/v1/", "/v1/../v1/models/x/..", "/v1/%2e%2e/x", "/v1/%00", "/lab", "/lab/",
    "/lab/%0d%0a", "/v1/chat/completions/", "/V1/models", "/%ff", "/v1/chat%2fcompletions%00",
    "/v1/" + "a" * 5000, "/v1/files", "/lab/spans/x", "/" + "%F0%9F%90%8C" * 500,
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_a_path_that_is_not_there(server: Server, path: str, method: str):
    """404 or 405, whatever it is made of."""
    answer = server.raw(
        f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n".encode()
        + b"content-length: 0\r\n\r\n"
    )
    status = int(answer.split(b" ", 2)[1])
    assert status in (404, 405)
    refused_raw(answer, status)
    server.check()


# Headers that are read

NAMES = {
    "long": "x" * 10_000,
    "very long": "x" * 60_000,
    "newlines": quote("a\nb\r\nc"),
    "a terminal's": quote("\x1b[2J\x1b]0;x\x07"),
    "right to left": quote("\u202eevil"),
    "half a letter": "%F0%9F%90",
    "a surrogate": "%ED%A0%80",
    "bytes": "%FF%FE" * 300,
    "NUL": "%00" * 300,
    "snails": quote("🐌" * 300),
    "percent": "%" * 300,
    "mark-up": quote("<script>alert(1)</script>"),
    "C1": quote("\x85\x9b"),
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_an_agent_s_name(server: Server, name: str):
    """It is kept short, and without what could move a terminal's cursor."""
    mark = server.client.get("/lab/mark").json()["mark"]
    answer = server.client.post(CHAT, json=question(), headers={"x-agent": name})
    assert answer.status_code == 200
    (span,) = server.client.get(f"/lab/spans?since={mark}").json()["spans"]
    assert 1 <= len(span["agent"]) <= 200
    assert span["agent"].isprintable()
    server.check()


NO_NUMBERS = [
    "²", "٣", "-1", "+1", "1.0", "1e3", "0x1", "1 1", "1_000", "NaN", "inf", "9" * 16, "9" * 5000,
    "一", "x",
]  # fmt: skip


@pytest.mark.parametrize("number", NO_NUMBERS, ids=range(len(NO_NUMBERS)))
def test_an_attempt_that_is_no_number(server: Server, number: str):
    """It counts as the first."""
    mark = server.client.get("/lab/mark").json()["mark"]
    headers = {b"x-stainless-retry-count": number.encode()}
    assert server.client.post(CHAT, json=question(), headers=headers).status_code == 200
    (span,) = server.client.get(f"/lab/spans?since={mark}").json()["spans"]
    assert span["attempt"] == 1
    server.check()


@pytest.mark.parametrize("number", NO_NUMBERS, ids=range(len(NO_NUMBERS)))
def test_a_mark_that_is_no_number(server: Server, number: str):
    """400 names it."""
    answer = server.client.get("/lab/spans", params={"since": number})
    refused(answer, words="whole number")
    server.check()


QUERIES = [b"since=\xff", b"since=%ff", b"&" * 9999, b"since=" * 999, b"=", b"since=%00", b"%"]


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_a_query_that_is_none(server: Server, query: bytes):
    """Its bytes are no reason to fail."""
    answer = server.raw(
        b"GET /lab/spans?" + query + b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )
    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))
    server.check()


@pytest.mark.parametrize("seed", range(20))
def test_bytes_at_random(impatient: Server, seed: int):
    """In any place of a request; it is answered, refused or waited for, and the next one served."""
    draw = random.Random(seed)
    body = json.dumps(question()).encode()
    sent = bytearray(HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    for _ in range(1 + seed // 4):
        sent[draw.randrange(len(sent))] = draw.choice([0, 10, 13, 255, *string.printable.encode()])
    answer = impatient.raw(bytes(sent))
    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 4"))
    impatient.check()
