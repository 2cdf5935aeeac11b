"""A reply, and how it is read from what an endpoint answers, be it the lab's own or another."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from agentlab.errors import ModelError
from agentlab.model_time import retry_after_s
from agentlab.wire import Answer


class Reply(NamedTuple):
    """An answer, and what the endpoint counted for it."""

    text: str
    prompt_tokens: int
    completion_tokens: int


def read(answer: Answer) -> Reply:
    """The reply in an endpoint's answer to a question.

    Raises:
        ModelError: If it is an error, or no chat completion.

    Example:
        >>> said = b'{"choices": [{"message": {"content": "Danube."}}]}'
        >>> read(Answer(200, {}, said))
        Reply(text='Danube.', prompt_tokens=0, completion_tokens=0)
    """
    try:
        if answer.status == 200:
            completion = msgspec.json.decode(answer.content, type=_Completion)
            used = completion.usage or _Usage()
            text = completion.choices[0].message.content
            return Reply(text, used.prompt_tokens or 0, used.completion_tokens or 0)
        problem = msgspec.json.decode(answer.content, type=_Refusal).error
    except (msgspec.DecodeError, IndexError):
        start = answer.content[:80].decode(errors="replace")
        problem = _Problem(f"it answered with what is no chat completion: {start!r}")
    raise ModelError(
        f"the model answered {answer.status}: {problem.message}",
        status=answer.status,
        code=None if problem.code is None else str(problem.code),
        request_id=answer.headers.get("x-request-id"),
        retry_after_s=retry_after_s(answer.headers),
    )


class _Message(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    message: _Message


class _Usage(msgspec.Struct):  # some endpoints count nothing, and some say null
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class _Problem(msgspec.Struct):
    message: str
    code: str | int | None = None  # OpenAI names it; vLLM and llama.cpp repeat the status


class _Refusal(msgspec.Struct):
    error: _Problem
