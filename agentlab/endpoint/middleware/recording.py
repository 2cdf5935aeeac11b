"""Answers kept on disk, and given again: what a real model said, when it said it.

A recording has a line of JSON per answer, and no request, header or key.
"""

import asyncio
from codecs import getincrementaldecoder
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Annotated

import msgspec

from agentlab.endpoint.contract import asgi
from agentlab.endpoint.contract.asgi import Around, Message, Model, Receive, Scope, Send
from agentlab.endpoint.contract.openai_json import Events, RequestError
from agentlab.endpoint.contract.record import Span
from agentlab.endpoint.contract.seeded_random import Occurrences
from agentlab.errors import ConfigError

_Key = tuple[str, int, int]
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_ModelSeconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Recorded(msgspec.Struct, forbid_unknown_fields=True):
    """One answer, and to which request: a digest, its number among equals, the client's attempt."""

    key: Annotated[str, msgspec.Meta(max_length=64)]
    occurrence: _Number
    attempt: _Number
    status: Annotated[int, msgspec.Meta(ge=200, le=599)]
    content_type: Annotated[str, msgspec.Meta(pattern=r"\A[ -~]{0,200}\Z")]
    prompt_tokens: _Number
    completion_tokens: _Number
    pieces: list[tuple[_ModelSeconds, str]]  # with the time since the request

    def __post_init__(self) -> None:
        if self.status in (204, 205, 304) and self.pieces:
            raise ValueError(f"an answer of status {self.status} has no body")


class Recording(Around):
    """A model whose answers are appended to a file as they are complete; a model itself."""

    def __init__(self, model: Model, path: str):
        super().__init__(model)
        self._seen = Occurrences()
        self._path = Path(path)
        try:
            self._path.open("a").close()
        except OSError as error:
            raise ConfigError(f"cannot record to {path!r}: {error}; choose another file") from None

    async def question(
        self, body: bytes, scope: Scope, receive: Receive, send: Send, span: Span
    ) -> None:
        asked_s = self.now_s()
        key = _key(scope, body, span, self._seen)
        begun: Message = {}
        pieces: list[tuple[float, str]] = []
        text = getincrementaldecoder("utf-8")("replace")  # a piece may end within a character

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.update(message)
            elif data := message.get("body"):
                pieces.append((round(self.now_s() - asked_s, 6), text.decode(data)))
            if message["type"] == "http.response.body" and not message.get("more_body"):
                kind = dict(begun["headers"]).get(b"content-type", b"")
                answer = Recorded(
                    *key,
                    status=begun["status"],
                    content_type=kind.decode("ascii", "ignore"),
                    prompt_tokens=span.prompt_tokens,
                    completion_tokens=span.completion_tokens,
                    pieces=pieces,
                )
                with self._path.open("ab") as file:
                    file.write(msgspec.json.encode(answer) + b"\n")
            await send(message)  # last: a client that has its answer may end this process

        await self._model(scope, receive, noting, span)


class Replay:
    """Gives the answers that `Recording` wrote, in their time; after the last, the first again."""

    def __init__(self, path: str, *, time_scale: float = 1.0):
        self.time_scale, self.paid = time_scale, False
        self._answers, self._path = _load(path), path
        self._seen = Occurrences()
        self._epoch: float | None = None

    def now_s(self) -> float:
        now = asyncio.get_running_loop().time()
        if self._epoch is None:  # only now there is a loop whose clock can be read
            self._epoch = now
        return round((now - self._epoch) * self.time_scale, 9)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        body = await asgi.read_body(scope, receive)
        key = _key(scope, body, span, self._seen)
        answer = self._answers.get(key) or self._answers.get((key[0], 0, 1))
        if answer is None:
            message = f"This request is not in the recording {self._path!r}; record it, or send it "
            raise RequestError(404, message + "as it was recorded.", code="not_recorded")
        span.arrived_s = span.started_s = self.now_s()
        span.prompt_tokens = answer.prompt_tokens
        await asgi.unless_gone(receive, self._answer(answer, send, span))

    async def _answer(self, answer: Recorded, send: Send, span: Span) -> None:
        events, begun = Events(), False
        for at_s, text in [*answer.pieces, (0.0, "")]:  # the last is the end
            await asyncio.sleep(max(span.arrived_s + at_s - self.now_s(), 0) / self.time_scale)
            if not begun:
                await asgi.start(send, answer.status, answer.content_type.encode())
                begun = True
            body = text.encode()
            events.feed(body)
            if events.begun and span.first_token_s is None:
                span.first_token_s = self.now_s()
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
        span.status, span.completion_tokens = answer.status, answer.completion_tokens
        span.end_s = self.now_s()
        await asgi.finish(send)


def _key(scope: Scope, body: bytes, span: Span, seen: Occurrences) -> _Key:
    with suppress(*_NOT_JSON):  # what is not JSON stands for itself
        body = msgspec.json.encode(msgspec.json.decode(body), order="deterministic")
    digest = blake2b(scope["path"].encode() + b"\0" + body, digest_size=12).digest()
    return digest.hex(), seen.next(digest, retry=span.attempt > 1), span.attempt


def _load(path: str) -> dict[_Key, Recorded]:
    answers: dict[_Key, Recorded] = {}
    number = 0
    try:
        for line in Path(path).read_bytes().splitlines():
            number += 1
            answer = msgspec.json.decode(line, type=Recorded)
            answers[answer.key, answer.occurrence, answer.attempt] = answer
    except (OSError, *_NOT_JSON) as error:
        where = f"recording {path!r}" + (f", line {number}" if number else "")
        raise ConfigError(f"{where}: {error}; give one that was recorded") from None
    return answers
