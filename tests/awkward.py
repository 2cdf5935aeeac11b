"""An awkward upstream: a small OpenAI-compatible server that misbehaves in one named way at a time.

What the course promises of "a real model" is tested against this one. In its kind mode it is what
a real model is: it checks the key, words each answer anew, keeps limits, streams, calls tools and
fills schemas. Each other mode does what some provider, server or gateway does in the field; its
docstring says who. In front of a notebook, or by hand:

    python tests/awkward.py --mode length --port 0
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from email.utils import formatdate
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from aiohttp import web

if __name__ == "__main__":  # run as a script, this folder is the path; the module lies beside it
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agentlab.endpoint.answers.answer import hear, take
from agentlab.endpoint.answers.replies import Replies
from agentlab.endpoint.contract.json_schema import admits
from agentlab.endpoint.contract.openai_json import RequestError, decode
from agentlab.endpoint.contract.request import ChatRequest
from agentlab.endpoint.contract.tokens import count_tokens, split
from agentlab.endpoint.dialects.embeddings import embed
from agentlab.settings import DATA

KEY = "sk-awkward-0123456789-secret"
"""The key that opens it; no output, trace, file or error of the lab's may ever hold it."""
MODEL = "awkward-1"
REASONING = "The user asks something. Let me think about what they may want to hear."
LONGEST_STALL_S = 30.0

Json = dict[str, Any]
Behave = Callable[["Call"], Awaitable[web.StreamResponse]]

OPENERS = (
    "Put briefly", "Seen in this way", "To begin with", "In other words", "As it happens",
    "Roughly speaking", "In plain terms", "On reflection", "As far as one can tell",
)  # fmt: skip


class Seen(NamedTuple):
    """A request as it came in; `body` is None where it was no JSON object."""

    path: str
    headers: Mapping[str, str]
    body: Json | None
    mode: str

    @property
    def key(self) -> str | None:
        """What it showed as its key."""
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        return key if scheme == "Bearer" else None


class Upstream:
    """The server, on loopback, in a thread with an event loop of its own.

    Args:
        mode: How it behaves at first; `use` changes that while it runs.
        delay_s: How long every answer takes.

    Example:
        with Upstream("length") as upstream:
            monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
            monkeypatch.setenv("OPENAI_API_KEY", upstream.key)
            ...
            upstream.use("rate_tokens", times=2)  # twice, and then kind
            assert len(upstream.asked) == 3
    """

    def __init__(self, mode: str = "kind", *, delay_s: float = 0.002, key: str = KEY):
        self.key, self.delay_s = key, delay_s
        self.url = ""
        self.seen: list[Seen] = []
        self.peak = 0
        self.numbers = itertools.count(1)
        self.use(mode)
        self._ready, self._failed = threading.Event(), None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None

    def use(self, mode: str, *, times: int | None = None, after: int = 0) -> None:
        """From now on misbehave like this; what was seen is forgotten.

        Args:
            times: For so many chat requests; None for ever. Then it is kind.
            after: It is kind to so many chat requests first.

        Raises:
            KeyError: If there is no such mode.
        """
        MODES[mode]
        self.mode = mode
        self._awkward = range(after, after + (2**31 if times is None else times))
        self._chats = 0
        self.seen.clear()
        self.peak = 0
        self.answering: set[object] = set()  # its own, so that nothing of an earlier mode counts

    @property
    def asked(self) -> list[Seen]:
        """The chat requests since the last `use`, whatever their path."""
        return [seen for seen in list(self.seen) if seen.path.endswith("/chat/completions")]

    def __enter__(self) -> Upstream:
        self._thread = threading.Thread(target=self._run, name="awkward", daemon=True)
        self._thread.start()
        self._ready.wait(30)
        assert self.url, "the awkward upstream did not start"
        return self

    def __exit__(self, *problem: object) -> None:
        if self._loop is not None and self._end is not None:
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)

    def _run(self) -> None:
        asyncio.run(self.serve(0))

    async def serve(self, port: int) -> None:
        """Serve until the end is told, or the task is cancelled; sets `url`."""
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, backlog=4096)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        try:
            await self._end.wait()
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            body = json.loads(await request.read())
        except ValueError:
            body = None
        body = body if isinstance(body, dict) else None
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = Seen(request.path, headers, body, self._mode_now(request.path))
        self.seen.append(seen)
        answering, one = self.answering, object()
        answering.add(one)
        self.peak = max(self.peak, len(answering))
        try:
            return await self._answer(request, seen)
        except RequestError as error:
            return web.json_response(error.body, status=error.status)
        finally:
            answering.discard(one)

    def _mode_now(self, path: str) -> str:
        if not path.endswith("/chat/completions"):
            return self.mode
        self._chats += 1
        return self.mode if self._chats - 1 in self._awkward else "kind"

    async def _answer(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        base = BASES.get(seen.mode, "/v1")
        route = request.path.removeprefix(base)
        if not request.path.startswith(base + "/"):
            if seen.mode in BASES:
                return web.Response(status=404, text="404 page not found")
            return refused(404, f"Invalid URL ({request.method} {request.path})")
        if seen.key != self.key and seen.mode not in UNCHECKED:
            return refused(
                401,
                f"Incorrect API key provided: {masked(seen.key)}. You can find your API key at "
                "https://platform.openai.com/account/api-keys.",
                code="invalid_api_key",
            )
        match request.method, route:
            case "GET", "/models":
                models = [{"id": MODEL, "object": "model", "created": 0, "owned_by": "awkward"}]
                return web.json_response({"object": "list", "data": models})
            case "POST", "/embeddings":
                return await self._embeddings(seen.body or {})
            case "POST", "/chat/completions":
                return await MODES[seen.mode](Call(self, request, seen))
        return refused(404, f"Invalid URL ({request.method} {request.path})")

    async def _embeddings(self, body: Json) -> web.Response:
        given = body.get("input", "")
        texts = [str(text) for text in (given if isinstance(given, list) else [given])]
        data = [
            {"object": "embedding", "index": i, "embedding": await embed(text, 256)}
            for i, text in enumerate(texts)
        ]
        tokens = sum(map(count_tokens, texts))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return web.json_response({"object": "list", "data": data, "model": MODEL, "usage": usage})


class Call:
    """One chat request: what is asked, and the ways to answer it."""

    def __init__(self, upstream: Upstream, request: web.Request, seen: Seen):
        self.upstream, self.request = upstream, request
        self.body: Json = seen.body or {}
        self.key = seen.key or ""
        self.id = f"chatcmpl-{secrets.token_hex(8)}"
        self.headers: dict[str, str] = {}

    @property
    def limit(self) -> int | None:
        """The most tokens that the caller wants."""
        return self.body.get("max_completion_tokens") or self.body.get("max_tokens")

    @property
    def streams(self) -> bool:
        return self.body.get("stream") is True

    def think(self, *, limit: int | None = None, longer: int = 1) -> Answer:
        """What a good model answers, in words that it has never used before.

        Raises:
            RequestError: 400, where the request is none that OpenAI would take.
        """
        asked: ChatRequest = decode(json.dumps(self.body).encode(), ChatRequest)
        chance = random.Random(secrets.randbits(64))
        turn = take(hear(asked, _replies()), _replies(), lambda: chance)
        if turn.calls:
            return Answer(None, "tool_calls", calls=turn.calls)
        text = anew(turn.text, next(self.upstream.numbers), asked)
        for stop in [asked.stop] if isinstance(asked.stop, str) else asked.stop or []:
            text = text.partition(stop)[0]
        pieces = split(text * longer)
        if limit is not None and len(pieces) > limit:
            return Answer("".join(pieces[:limit]), "length")
        return Answer("".join(pieces), "stop")

    async def kind(self, **changes: Any) -> web.StreamResponse:
        """Answer well, apart from `changes` of the answer's fields."""
        answer = self.think(limit=self.limit)
        return await self.send(answer._replace(**changes))

    async def send(self, answer: Answer, **quirks: Any) -> web.StreamResponse:
        """The answer, whole or as a stream, as it was asked for; `quirks` as `stream` takes."""
        await asyncio.sleep(self.upstream.delay_s)
        if self.streams:
            return await self.stream(answer, **quirks)
        headers = {"x-request-id": self.id, **self.headers}
        return web.json_response(self.whole(answer), headers=headers)

    def whole(self, answer: Answer) -> Json:
        message: Json = {"role": "assistant", "content": answer.content, **answer.extra}
        if answer.calls:
            message["tool_calls"] = called(answer.calls)
        choice = {"index": 0, "message": message, "finish_reason": answer.finish}
        body = self._body("chat.completion") | {"choices": [choice]}
        return body | ({"usage": self.usage(answer)} if answer.counted else {})

    def usage(self, answer: Answer) -> Json:
        prompt = count_tokens(json.dumps(self.body.get("messages", "")))
        said = "".join([answer.text, *map(str, answer.extra.values()), *map(str, answer.calls)])
        words = count_tokens(said)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": words,
            "total_tokens": prompt + words,
        }

    async def stream(
        self,
        answer: Answer,
        *,
        before: tuple[bytes, ...] = (),
        cut_after: int | None = None,
        stall_after: int | None = None,
        end: str = "\n\n",
        done: bool = True,
    ) -> web.StreamResponse:
        """Server-sent events.

        Args:
            before: Bytes that come before the first event, each after the usual delay.
            cut_after: After so many pieces the connection is thrown away.
            stall_after: After so many pieces nothing comes for a long time.
            end: What ends an event.
            done: Whether it says [DONE].
        """
        response = await self.begin("text/event-stream")
        for piece in before:
            await response.write(piece)
            await asyncio.sleep(self.upstream.delay_s)
        for index, event in enumerate(self._events(answer)):
            if index == cut_after:
                return await self.cut(response)
            if index == stall_after:
                await self.stall()
            await response.write(f"data: {json.dumps(event, ensure_ascii=False)}{end}".encode())
        if done:
            await response.write(f"data: [DONE]{end}".encode())
        await response.write_eof()
        return response

    def _events(self, answer: Answer) -> Iterator[Json]:
        chunk = self._body("chat.completion.chunk")

        def event(delta: Json, finish: str | None = None) -> Json:
            return chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

        yield event({"role": "assistant", "content": ""})
        for name, text in answer.extra.items():
            yield from (event({name: piece}) for piece in split(text or ""))
        for index, call in enumerate(called(answer.calls)):
            yield event({"tool_calls": [{"index": index, **call}]})
        yield from (event({"content": piece}) for piece in split(answer.text))
        yield event({}, answer.finish)
        if answer.counted and (self.body.get("stream_options") or {}).get("include_usage"):
            yield chunk | {"choices": [], "usage": self.usage(answer)}

    def _body(self, kind: str) -> Json:
        model = self.body.get("model", MODEL)
        return {"id": self.id, "object": kind, "created": int(time.time()), "model": model}

    async def say(self, body: Json) -> web.StreamResponse:
        """A body as it is, with status 200; in a stream, as its one event."""
        if not self.streams:
            return web.json_response(body, headers={"x-request-id": self.id})
        response = await self.begin("text/event-stream")
        await response.write(f"data: {json.dumps(body)}\n\ndata: [DONE]\n\n".encode())
        await response.write_eof()
        return response

    async def begin(self, content_type: str) -> web.StreamResponse:
        """The headers of an answer whose body is sent bit by bit."""
        headers = {"content-type": content_type, "x-request-id": self.id, **self.headers}
        response = web.StreamResponse(headers=headers)
        await response.prepare(self.request)
        return response

    async def cut(self, response: web.StreamResponse) -> web.StreamResponse:
        """Throw the connection away."""
        await asyncio.sleep(self.upstream.delay_s)
        if self.request.transport is not None:
            self.request.transport.abort()
        return response

    async def stall(self) -> None:
        """Say nothing, for long, but not for ever."""
        await asyncio.sleep(LONGEST_STALL_S)


class Answer(NamedTuple):
    """What is answered.

    Attributes:
        content: A text, None, or a list of parts.
        calls: The tools that are called, as (name, arguments).
        extra: More fields of the message, texts all, which a stream sends before the content.
        counted: Whether the tokens are told.
    """

    content: Any
    finish: str | None
    calls: Sequence[tuple[str, str]] = ()
    extra: Mapping[str, str | None] = MappingProxyType({})
    counted: bool = True

    @property
    def text(self) -> str:
        """The content as a stream says it, which knows no parts."""
        if isinstance(self.content, list):
            return "".join(part.get("text", "") for part in self.content)
        return self.content or ""


def called(calls: Sequence[tuple[str, str]]) -> list[Json]:
    """Calls of tools as the wire has them."""
    return [
        {
            "id": f"call_{secrets.token_hex(8)}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for name, arguments in calls
    ]


def anew(text: str, number: int, asked: ChatRequest) -> str:
    """The same in words that were not used before: what is prose changes, what is form stays."""
    opener = f"{random.choice(OPENERS)}, no. {number}: "
    form = asked.response_format.json_schema if asked.response_format else None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, dict | list):
        other = _reworded(value, opener)
        fits = form is None or admits(form.schema, other)
        return json.dumps(other if fits else value, ensure_ascii=False)
    for marker in ("Final Answer: ", "Thought: "):
        if marker in text:
            return text.replace(marker, marker + opener, 1)
    return opener + text


def _reworded(value: Any, opener: str) -> Any:
    if isinstance(value, dict):
        return {name: _reworded(inner, opener) for name, inner in value.items()}
    if isinstance(value, list):
        return [_reworded(inner, opener) for inner in value]
    return opener + value if isinstance(value, str) and value.count(" ") > 3 else value


@cache
def _replies() -> Replies:
    return Replies(DATA / "replies")


def masked(key: str | None) -> str:
    """As OpenAI shows a key that is wrong."""
    return f"{key[:6]}***{key[-3:]}" if key and len(key) > 12 else "''"


def error_body(
    message: str, kind: str | None, param: str | None, code: str | int | None
) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refused(
    status: int,
    message: str,
    *,
    kind: str | None = "invalid_request_error",
    param: str | None = None,
    code: str | int | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """An error as an answer."""
    headers = {"x-request-id": f"req_{secrets.token_hex(8)}", **(headers or {})}
    body = error_body(message, kind, param, code)
    return web.json_response(body, status=status, headers=headers)


MODES: dict[str, Behave] = {}
"""Name -> how it behaves; the docstring of each says who in the field does that."""
UNCHECKED = {"bad_key"}
BASES = {"no_v1": "/openai/v1"}
"""Modes whose base path is another one."""


def mode(behave: Behave) -> Behave:
    """Put a way to behave into the list, under its own name."""
    MODES[behave.__name__] = behave
    return behave


# --- It answers well ---


@mode
async def kind(call: Call) -> web.StreamResponse:
    """What every good endpoint does: each answer in other words, limits kept, tools called."""
    return await call.kind()


@mode
async def nousage(call: Call) -> web.StreamResponse:
    """Token counts left out, as some gateways, llama.cpp's older servers and proxies do."""
    return await call.kind(counted=False)


@mode
async def null_usage(call: Call) -> web.StreamResponse:
    """`"usage": null` in every whole answer, as LiteLLM's proxy sends for some backends."""
    answer = call.think(limit=call.limit)
    if call.streams:
        return await call.send(answer._replace(counted=False))
    return web.json_response(call.whole(answer) | {"usage": None})


@mode
async def no_finish(call: Call) -> web.StreamResponse:
    """finish_reason null in a whole answer, as text-generation servers of hobbyists do."""
    return await call.kind(finish=None)


@mode
async def parts(call: Call) -> web.StreamResponse:
    """Content as a list of parts, the thinking one first: Mistral's magistral models."""
    answer = call.think(limit=call.limit)
    if answer.calls:
        return await call.send(answer)
    half = len(answer.text) // 2
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": REASONING}]}
    texts = [{"type": "text", "text": text} for text in (answer.text[:half], answer.text[half:])]
    return await call.send(answer._replace(content=[thinking, *texts]))


@mode
async def reasoning_first(call: Call) -> web.StreamResponse:
    """Reasoning in a field of its own before the content: DeepSeek, vLLM, llama.cpp."""
    return await call.kind(extra={"reasoning_content": REASONING})


@mode
async def tiny_budget(call: Call) -> web.StreamResponse:
    """Spends any limit below 64 tokens on reasoning: o-series and GPT-5 models, and R1."""
    if call.limit is not None and call.limit < 64:
        return await reasoning_only(call)
    return await call.kind()


# --- It answers 200, and there is no whole answer ---


@mode
async def length(call: Call) -> web.StreamResponse:
    """Cut off at a limit of the server's own: Ollama's num_predict, vLLM's and TGI's defaults."""
    return await call.send(call.think(limit=min(call.limit or 5, 5))._replace(finish="length"))


@mode
async def filtered(call: Call) -> web.StreamResponse:
    """Ended by the content filter after some words: Azure OpenAI."""
    return await call.send(call.think(limit=4)._replace(finish="content_filter"))


@mode
async def filtered_whole(call: Call) -> web.StreamResponse:
    """Withheld by the content filter, content null: Gemini's OpenAI route, Azure OpenAI."""
    return await call.send(Answer(None, "content_filter"))


@mode
async def empty(call: Call) -> web.StreamResponse:
    """Empty text and finish_reason stop: many small models, after a chat template that misfits."""
    return await call.send(Answer("", "stop"))


@mode
async def blank(call: Call) -> web.StreamResponse:
    """White space alone: Claude behind gateways, small Qwen models after /no_think."""
    return await call.send(Answer("\n\n ", "stop"))


@mode
async def null_content(call: Call) -> web.StreamResponse:
    """Content null and finish_reason stop, without a reason: LiteLLM, OpenRouter's free models."""
    return await call.send(Answer(None, "stop"))


@mode
async def reasoning_only(call: Call) -> web.StreamResponse:
    """The whole budget went into reasoning, content null: DeepSeek R1, Qwen3, gpt-oss."""
    return await call.send(Answer(None, "length", extra={"reasoning_content": REASONING}))


@mode
async def reasoning_hidden(call: Call) -> web.StreamResponse:
    """The whole budget went into reasoning that is not shown, text empty: OpenAI's o-series."""
    return await call.send(Answer("", "length"))


@mode
async def refusal(call: Call) -> web.StreamResponse:
    """A refusal in the field that structured outputs have for it: OpenAI."""
    return await call.send(Answer(None, "stop", extra={"refusal": "I'm sorry, I can't help."}))


@mode
async def error_in_200(call: Call) -> web.StreamResponse:
    """An error with status 200, its real status as the code: OpenRouter."""
    body = {"error": {"message": "Provider returned error: model overloaded", "code": 502}}
    return await call.say(body)


@mode
async def quota_in_200(call: Call) -> web.StreamResponse:
    """A used-up account with status 200: OpenRouter's 402, Chinese gateways (one-api)."""
    return await call.say({"error": {"message": "Insufficient credits", "code": 402}})


@mode
async def no_choices(call: Call) -> web.StreamResponse:
    """An empty list of choices: Gemini's OpenAI route for a prompt that it blocks."""
    return await call.say(call.whole(Answer("", "stop")) | {"choices": []})


@mode
async def not_utf8(call: Call) -> web.StreamResponse:
    """Bytes that are no UTF-8 inside the JSON: servers that cut a character in two."""
    text = json.dumps(call.whole(Answer("caf@", "stop"))).encode().replace(b"@", b"\xe9\xff")
    return web.Response(body=text, content_type="application/json")


@mode
async def html_200(call: Call) -> web.StreamResponse:
    """A sign-in page with status 200: captive portals and company proxies."""
    return web.Response(text="<html><title>Sign in</title></html>", content_type="text/html")


@mode
async def empty_body(call: Call) -> web.StreamResponse:
    """No byte after the headers: gateways whose backend died."""
    return web.Response(body=b"", content_type="application/json")


# --- It refuses or ignores a parameter ---


@mode
async def notemp(call: Call) -> web.StreamResponse:
    """Takes no temperature but 1: OpenAI's o-series and GPT-5, in OpenAI's words."""
    if call.body.get("temperature") not in (None, 1):
        return refused(
            400,
            f"Unsupported value: 'temperature' does not support {call.body['temperature']} with "
            "this model. Only the default (1) value is supported.",
            param="temperature",
            code="unsupported_value",
        )
    return await call.kind()


@mode
async def notemp_prose(call: Call) -> web.StreamResponse:
    """Takes no temperature but 1, and names no field: Moonshot's Kimi."""
    if call.body.get("temperature") not in (None, 1):
        return refused(400, "invalid temperature: only 1 is allowed for this model")
    return await call.kind()


@mode
async def strict(call: Call) -> web.StreamResponse:
    """Refuses every field it does not know, with 422 in FastAPI's shape: Mistral's API."""
    if "max_completion_tokens" in call.body:
        fault = {
            "type": "extra_forbidden",
            "loc": ["body", "max_completion_tokens"],
            "msg": "Extra inputs are not permitted",
            "input": call.body["max_completion_tokens"],
        }
        return web.json_response({"detail": [fault]}, status=422)
    return await call.kind()


@mode
async def max_tokens_only(call: Call) -> web.StreamResponse:
    """Knows max_tokens alone, refuses with 400: older Azure API versions, Databricks."""
    if "max_completion_tokens" in call.body:
        return refused(400, "Unrecognized request argument supplied: max_completion_tokens")
    return await call.kind()


@mode
async def no_stream_options(call: Call) -> web.StreamResponse:
    """Streams, and refuses to count tokens in one: Azure's API versions before September 2024."""
    if "stream_options" in call.body:
        return refused(400, "Unrecognized request argument supplied: stream_options")
    return await call.kind()


@mode
async def strict_notemp(call: Call) -> web.StreamResponse:
    """Refuses both, one after the other: a reasoning model behind a strict gateway."""
    return await (notemp if "max_completion_tokens" not in call.body else strict)(call)


@mode
async def ignores_limit(call: Call) -> web.StreamResponse:
    """Passes over max_completion_tokens and tells what it wrote: llama-cpp-python, older vLLM."""
    return await call.send(call.think(longer=3))


@mode
async def ignores_temperature(call: Call) -> web.StreamResponse:
    """Passes over temperature without a word: gateways that drop parameters (LiteLLM)."""
    call.body = {**call.body, "temperature": None}
    return await call.kind()


# --- It is awkward on the wire ---


@mode
async def keepalive(call: Call) -> web.StreamResponse:
    """`: PROCESSING` comments before a stream's first word, blanks before a whole: OpenRouter."""
    comments = (b": OPENROUTER PROCESSING\n\n",) * 5
    if call.streams:
        return await call.send(call.think(limit=call.limit), before=comments)
    return await leading_newlines(call)


@mode
async def empty_chunks(call: Call) -> web.StreamResponse:
    """Chunks with a role and no word, and without choices, come first: Azure, vLLM, gateways."""
    head = {"id": call.id, "object": "chat.completion.chunk", "created": 0, "model": MODEL}
    role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    chunks = [head | {"choices": []}] + [head | {"choices": [role]}] * 4
    before = tuple(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks)
    return await call.send(call.think(limit=call.limit), before=before)


@mode
async def leading_newlines(call: Call) -> web.StreamResponse:
    """Newlines keep the connection open before a whole answer's JSON: DeepSeek under load."""
    if call.streams:
        return await call.kind()
    answer = call.think(limit=call.limit)
    response = await call.begin("application/json")
    for _ in range(5):
        await response.write(b"\n")
        await asyncio.sleep(call.upstream.delay_s)
    await response.write(json.dumps(call.whole(answer)).encode())
    await response.write_eof()
    return response


@mode
async def crlf(call: Call) -> web.StreamResponse:
    """Events that end in CR LF, as the standard allows: sse-starlette, llama-cpp-python."""
    return await call.send(call.think(limit=call.limit), end="\r\n\r\n")


@mode
async def no_done(call: Call) -> web.StreamResponse:
    """Streams that end without [DONE]: Gemini's OpenAI route, some gateways."""
    return await call.send(call.think(limit=call.limit), done=False)


@mode
async def cut(call: Call) -> web.StreamResponse:
    """The connection ends in the middle of an answer: load balancers that are restarted."""
    answer = call.think(limit=call.limit)
    if call.streams:
        return await call.send(answer, cut_after=4)
    response = await call.begin("application/json")
    body = json.dumps(call.whole(answer)).encode()
    await response.write(body[: len(body) // 2])
    return await call.cut(response)


@mode
async def stall(call: Call) -> web.StreamResponse:
    """Takes the request and says nothing more: a backend that hangs."""
    await call.stall()
    return await call.kind()


@mode
async def stall_midway(call: Call) -> web.StreamResponse:
    """Falls silent in the middle of an answer: a backend whose GPU is gone."""
    answer = call.think(limit=call.limit)
    if call.streams:
        return await call.send(answer, stall_after=4)
    response = await call.begin("application/json")
    await response.write(b"{")
    await call.stall()
    return await call.cut(response)


# --- It is the wrong address, the wrong key, or down ---


@mode
async def no_v1(call: Call) -> web.StreamResponse:
    """Serves under /openai/v1 alone, elsewhere Go's page for 404: Groq's path, Ollama's page."""
    return await call.kind()


@mode
async def bad_key(call: Call) -> web.StreamResponse:
    """No key is good enough: one that was revoked."""
    return refused(401, f"Incorrect API key provided: {masked(call.key)}.", code="invalid_api_key")


@mode
async def forbidden(call: Call) -> web.StreamResponse:
    """403, for the country or the project: OpenAI."""
    message = "Country, region, or territory not supported"
    return refused(
        403, message, kind="request_forbidden", code="unsupported_country_region_territory"
    )


@mode
async def no_model(call: Call) -> web.StreamResponse:
    """404, because there is no such model: OpenAI."""
    name = call.body.get("model")
    message = f"The model `{name}` does not exist or you do not have access to it."
    return refused(404, message, code="model_not_found")


@mode
async def error_list(call: Call) -> web.StreamResponse:
    """The error in a list of one: Gemini's OpenAI route."""
    error = {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}
    return web.json_response([{"error": error}], status=400)


@mode
async def context_length(call: Call) -> web.StreamResponse:
    """400, because the prompt is too long for the model: OpenAI."""
    message = "This model's maximum context length is 100 tokens, however you requested 411 tokens."
    return refused(400, message, param="messages", code="context_length_exceeded")


@mode
async def server_error(call: Call) -> web.StreamResponse:
    """500 in OpenAI's words."""
    message = "The server had an error while processing your request. Sorry about that!"
    return refused(500, message, kind="server_error")


@mode
async def bad_gateway(call: Call) -> web.StreamResponse:
    """502 with a page of HTML: nginx, Cloudflare."""
    page = "<html><head><title>502 Bad Gateway</title></head></html>"
    return web.Response(status=502, text=page, content_type="text/html")


@mode
async def overloaded(call: Call) -> web.StreamResponse:
    """503 with a Retry-After: OpenAI's "engine overloaded", vLLM behind a full queue."""
    message = "The engine is currently overloaded, please try again later"
    return refused(503, message, kind="service_unavailable_error", headers={"retry-after": "0.1"})


@mode
async def overloaded_529(call: Call) -> web.StreamResponse:
    """529, a status that no standard has: Anthropic and its gateways."""
    return refused(529, "Overloaded", kind="overloaded_error")


# --- It says the key aloud ---


@mode
async def echo_key(call: Call) -> web.StreamResponse:
    """The key stands in an error's message: LiteLLM's proxy ("Received API Key = sk-...")."""
    message = (
        f"Authentication Error, Invalid proxy server token passed. Received API Key = {call.key}"
    )
    return refused(401, message, kind="auth_error", code="401")


@mode
async def echo_key_page(call: Call) -> web.StreamResponse:
    """The request's headers stand on an error page: debug pages of web frameworks."""
    page = f"<h1>Server Error</h1><pre>HTTP_AUTHORIZATION = Bearer {call.key}</pre>"
    return web.Response(status=500, text=page, content_type="text/html")


@mode
async def echo_key_header(call: Call) -> web.StreamResponse:
    """The key comes back in a header of a good answer: gateways in debug mode."""
    call.headers["x-debug-authorization"] = f"Bearer {call.key}"
    return await call.kind()


# --- 429, in every shape that is published ---


class Refusal(NamedTuple):
    """A 429: OpenAI's shape unless `body` says otherwise; `date_s` is a Retry-After as a date."""

    who: str
    message: str = ""
    kind: str | None = None
    code: str | int | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    date_s: float | None = None
    body: Any = None


def _openai_rate(who: str, **headers: str) -> Refusal:
    message = (
        "Rate limit reached for gpt-4o in organization org-x on requests per min (RPM): Limit 3, "
        "Used 3, Requested 1. Please try again in 20ms."
    )
    return Refusal(who, message, "requests", "rate_limit_exceeded", headers)


REFUSALS: dict[str, Refusal] = {
    "rate_tokens": Refusal(
        "OpenAI, tokens per minute.",
        "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, "
        "Used 29000, Requested 1100. Please try again in 200ms.",
        "tokens",
        "rate_limit_exceeded",
        {"retry-after": "0.2", "retry-after-ms": "200", "x-ratelimit-limit-tokens": "30000"},
    ),
    "rate_requests": _openai_rate(
        "OpenAI, requests per minute.", **{"retry-after-ms": "100", "x-should-retry": "true"}
    ),
    "rate_day": Refusal(
        "OpenAI, requests per day.",
        "Rate limit reached for gpt-4o in organization org-x on requests per day (RPD): Limit "
        "10000, Used 10000, Requested 1. Please try again in 7m12s.",
        "requests",
        "rate_limit_exceeded",
        {"x-ratelimit-limit-requests": "10000", "x-ratelimit-remaining-requests": "0"},
    ),
    "rate_groq": Refusal(
        "Groq: the limit that its header tells is the day's, and the reset says when one is free.",
        "Rate limit reached for model `llama-3.3-70b-versatile` in organization `org_x` service "
        "tier `on_demand` on requests per minute (RPM): Limit 30, Used 30, Requested 1. Please try "
        "again in 100ms.",
        "requests",
        "rate_limit_exceeded",
        {
            "retry-after": "0.1",
            "x-ratelimit-limit-requests": "14400",
            "x-ratelimit-remaining-requests": "14370",
            "x-ratelimit-reset-requests": "6s",
        },
    ),
    "rate_organisation": Refusal(
        "Moonshot and others: too many at the same time, and no word of when to come back.",
        "Your account org-x request reached organization max concurrency: 1, please try again "
        "after 1 seconds",
        "rate_limit_reached_error",
    ),
    "day_over": Refusal(
        "OpenRouter: the day's free requests are used up.",
        "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model "
        "requests per day",
        code=429,
        headers={"x-ratelimit-limit": "50", "x-ratelimit-remaining": "0"},
    ),
    "rate_no_header": _openai_rate("Gateways that drop Retry-After."),
    "rate_date": Refusal(
        "Retry-After as a date, as the standard allows: Azure's front doors, Cloudflare.",
        "Too many requests",
        date_s=60.0,
    ),
    "rate_date_past": Refusal("A date that has passed.", "Too many requests", date_s=-60.0),
    "rate_negative": _openai_rate("Clocks that disagree.", **{"retry-after": "-1"}),
    "rate_nan": _openai_rate("A gateway that divides by zero.", **{"retry-after": "nan"}),
    "rate_inf": _openai_rate("The same, with another zero.", **{"retry-after": "inf"}),
    "rate_text": _openai_rate("A gateway that writes for people.", **{"retry-after": "soon"}),
    "rate_hour": _openai_rate(
        "A limit per hour or day: Groq, Together.", **{"retry-after": "3600"}
    ),
    "rate_page": Refusal("nginx's limit_req.", body="<html><title>429</title></html>"),
    "too_large": Refusal(
        "OpenAI: one request is larger than the whole minute's limit.",
        "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 100, "
        "Requested 411. The input or output tokens must be reduced in order to run successfully.",
        "tokens",
        "rate_limit_exceeded",
    ),
    "quota": Refusal(
        "OpenAI: nothing is left on the account.",
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
        "insufficient_quota",
    ),
    "quota_type": Refusal(
        "Older OpenAI and its resellers: the type alone says it.",
        "This request was not admitted.",
        "insufficient_quota",
    ),
    "quota_code": Refusal(
        "Resellers: the code alone says it.",
        "This request was not admitted.",
        code="insufficient_quota",
    ),
    "quota_moonshot": Refusal(
        "Moonshot: a type of its own.",
        "Your account org-x is suspended because of insufficient balance, please recharge your "
        "account or check your plan and billing details",
        "exceeded_current_quota_error",
    ),
    "quota_prose": Refusal(
        "Resellers: no type and no code, only words.",
        "Your credit balance is too low to access the API. Please go to Plans & Billing.",
    ),
    "rate_gemini": Refusal(
        "Gemini: 'quota' is its word for a rate limit, in a list of one.",
        body=[
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota, please check your plan and "
                    "billing details. Please retry in 130.5ms.",
                    "status": "RESOURCE_EXHAUSTED",
                }
            }
        ],
    ),
}


def _refusing(name: str, refusal: Refusal) -> Behave:
    async def refuse(call: Call) -> web.StreamResponse:
        headers = dict(refusal.headers)
        if refusal.date_s is not None:
            headers["retry-after"] = formatdate(time.time() + refusal.date_s, usegmt=True)
        if isinstance(refusal.body, str):
            return web.Response(status=429, text=refusal.body, content_type="text/html")
        if refusal.body is not None:
            return web.json_response(refusal.body, status=429, headers=headers)
        return refused(429, refusal.message, kind=refusal.kind, code=refusal.code, headers=headers)

    refuse.__name__, refuse.__doc__ = name, f"429. {refusal.who}"
    return refuse


for _name, _refusal in REFUSALS.items():
    mode(_refusing(_name, _refusal))


@mode
async def two_at_a_time(call: Call) -> web.StreamResponse:
    """429 for the third in flight, without Retry-After: concurrency limits of organisations."""
    if len(call.upstream.answering) > 2:
        return await MODES["rate_organisation"](call)
    return await call.kind()


def main() -> None:
    """Serve until Ctrl-C."""
    lines = "\n".join(f"  {name:18} {behave.__doc__}" for name, behave in MODES.items())
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"modes:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--mode", choices=MODES, default="kind", metavar="NAME")
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    parser.add_argument("--delay", type=float, default=0.002, help="seconds an answer takes")
    options = parser.parse_args()
    upstream = Upstream(options.mode, delay_s=options.delay)

    async def announced() -> None:
        serving = asyncio.create_task(upstream.serve(options.port))
        while not upstream.url and not serving.done():
            await asyncio.sleep(0.01)
        url = upstream.url
        print(f"OPENAI_BASE_URL={url} OPENAI_API_KEY={KEY} OPENAI_MODEL={MODEL}", flush=True)
        await serving

    try:
        asyncio.run(announced())
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
