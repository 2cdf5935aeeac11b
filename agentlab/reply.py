"""A reply, and how it is read from what an endpoint answers, be it the lab's own or another.

An answer counts only if it is whole. Status 200 says that the endpoint did its part; whether the
model did, `finish_reason`, a refusal and the text itself say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from agentlab.errors import (
    AnswerEmpty,
    AnswerFiltered,
    AnswerInterrupted,
    AnswerRefused,
    AnswerTruncated,
    IncompleteAnswer,
    ModelError,
    ReasoningExhausted,
)
from agentlab.model_time import retry_after_s
from agentlab.wire import Answer

SHOWN = 300
"""So many characters of what is no chat completion are shown."""

# How endpoints say why an answer ended, where it is not whole; in lower case.
_CUT = frozenset({"length", "max_tokens", "model_length"})  # OpenAI, Anthropic, Mistral
_FILTERED = frozenset(  # OpenAI and Azure; Gemini has a word for each reason
    {"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii"}
)
_INTERRUPTED = frozenset(  # vLLM and SGLang; OpenRouter and Mistral; DeepSeek
    {"abort", "aborted", "cancelled", "error", "insufficient_system_resource"}
)
_BASE_URL = "; is OPENAI_BASE_URL right? Most servers' ends in /v1"


class Reply(NamedTuple):
    """A whole answer, and what the endpoint counted for it.

    Attributes:
        finish_reason: ``"stop"``, ``"length"`` where the caller's own limit cut it off, or what
            else the endpoint says; None where it says nothing.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str | None = None


def read(answer: Answer, *, max_tokens: int | None = None) -> Reply:
    """Read the reply in an endpoint's answer to a question.

    Args:
        max_tokens: The limit that the caller set. Text that was cut off there is what was asked
            for; without a limit it is no answer.

    Raises:
        IncompleteAnswer: If the answer was cut off, filtered, refused or is empty.
        ModelError: If it is an error, with whatever status, or no chat completion.

    Example:
        >>> said = b'{"choices": [{"message": {"content": "Danube."}, "finish_reason": "stop"}]}'
        >>> read(Answer(200, {}, said))
        Reply(text='Danube.', prompt_tokens=0, completion_tokens=0, finish_reason='stop')
    """
    try:
        said = msgspec.json.decode(answer.content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _unreadable(answer) from None
    problem = _problem(said)
    if problem is not None:
        raise _as_error(problem, answer)
    try:
        completion = msgspec.convert(said, type=_Completion)
        choice = completion.choices[0]
    except (msgspec.ValidationError, IndexError):
        raise _unreadable(answer) from None
    if not 200 <= answer.status < 300:
        raise _unreadable(answer)
    return _whole(choice, completion.usage or _Usage(), answer, max_tokens)


def _whole(choice: _Choice, used: _Usage, answer: Answer, max_tokens: int | None) -> Reply:
    message = choice.message
    text, reason = _text(message.content), choice.finish_reason
    facts: dict[str, Any] = {
        "finish_reason": reason,
        "prompt_tokens": _count(used.prompt_tokens),
        "completion_tokens": _count(used.completion_tokens),
        "request_id": answer.headers.get("x-request-id"),
    }
    refusal = message.refusal or _refusal(message.content)
    if refusal:
        raise AnswerRefused(
            f"the model refused to answer: {refusal[:SHOWN]}; ask in another way",
            **facts | {"text": refusal},
        )
    kind, message_ = _flaw(text, reason, message, facts["completion_tokens"], max_tokens)
    if kind is not None:
        raise kind(message_, **facts | {"text": text})
    cut = (reason or "").lower() in _CUT  # one word for it, whoever says it
    return Reply(
        text, facts["prompt_tokens"], facts["completion_tokens"], "length" if cut else reason
    )


def _flaw(
    text: str, reason: str | None, message: _Message, counted: int, max_tokens: int | None
) -> tuple[type[IncompleteAnswer] | None, str]:
    """What keeps an answer from being whole, and the way out; (None, "") where nothing does."""
    blank, ended = not text.strip(), (reason or "").lower()
    if ended in _FILTERED:
        return AnswerFiltered, (
            f"the provider's content filter withheld the answer, of which came: {text[:80]!r}; "
            "ask for something else"
        )
    if ended in _INTERRUPTED:
        return AnswerInterrupted, (
            f"the endpoint broke its answer off (finish_reason {reason!r}), which ends in "
            f"{text[-40:]!r}; ask again"
        )
    if blank and ended in _CUT:
        spent = max_tokens or counted or None
        budget = f"the limit of {spent} tokens" if spent else "the limit on tokens"
        return ReasoningExhausted, (
            f"{budget} was used up before the answer began, as models do that reason first; "
            "raise max_tokens"
        )
    if blank and message.reasoned:
        return AnswerEmpty, "the model reasoned, and then answered with no text; ask again"
    if blank:
        return AnswerEmpty, (
            f"the model answered with no text (finish_reason {reason!r}); ask again"
        )
    if ended in _CUT and max_tokens is None:
        return AnswerTruncated, (
            f"the answer was cut off after {counted or 'an unknown number of'} tokens by a limit "
            f"of the endpoint's own, and ends in {text[-40:]!r}; pass a larger max_tokens, or ask "
            "for a shorter answer"
        )
    return None, ""


def _text(content: str | list[Any] | None) -> str:
    """The text of a message: it may be one string, or a list of parts of which some are text."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(_part_text(part) for part in content)


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type") in ("text", "output_text"):
        text = part.get("text")
        return text if isinstance(text, str) else ""
    return ""


def _refusal(content: Any) -> str:
    parts: Iterable[Any] = content if isinstance(content, list) else ()
    said = (part.get("refusal") for part in parts if isinstance(part, dict))
    return " ".join(text for text in said if isinstance(text, str))


def _count(tokens: Any) -> int:
    """A number of tokens as an endpoint says it; 0 for what is none."""
    return tokens if isinstance(tokens, int) and tokens > 0 and tokens is not True else 0


def _problem(said: Any) -> dict[str, Any] | None:
    """The error that an answer holds, in any of the shapes in use; None if it holds none."""
    if isinstance(said, list):  # Gemini's OpenAI route: a list of one
        said = said[0] if len(said) == 1 else None
    if not isinstance(said, dict):
        return None
    error = said.get("error")
    if isinstance(error, str) and error:  # Ollama, llama-cpp-python's proxies
        return {"message": error}
    if isinstance(error, dict):
        return error
    detail = said.get("detail")
    if detail and "choices" not in said:  # FastAPI: a sentence, or a list of faults
        return _of_fastapi(detail)
    several = said.get("errors")  # Cloudflare
    if isinstance(several, list) and several and isinstance(several[0], dict):
        return several[0]
    # vLLM before 0.9, Mistral, Cohere
    return said if isinstance(said.get("message"), str) and "choices" not in said else None


def _of_fastapi(detail: Any) -> dict[str, Any]:
    listed = detail if isinstance(detail, list) else []
    faults = [fault for fault in listed if isinstance(fault, dict)]
    if not faults:
        return {"message": str(detail)}
    where = [_place(fault.get("loc")) for fault in faults]
    said = [f"{at}: {fault.get('msg', 'invalid')}" for at, fault in zip(where, faults, strict=True)]
    return {
        "message": "; ".join(said),
        "type": faults[0].get("type"),
        "param": where[0].removeprefix("body."),
    }


def _place(loc: Any) -> str:
    return ".".join(map(str, loc)) if isinstance(loc, list) and loc else "body"


def _as_error(problem: dict[str, Any], answer: Answer) -> ModelError:
    def named(field: str) -> str | None:
        value = problem.get(field)  # OpenAI's codes are names; vLLM's and llama.cpp's are numbers
        return None if value is None or value == "" else str(value)

    message = problem.get("message")
    if not isinstance(message, str) or not message:
        message = json.dumps(problem)[:SHOWN]
    status = answer.status
    if status == 404 and "model" not in message.lower():
        message += _BASE_URL
    if 200 <= status < 300:  # an error inside a good answer: its code may be the status it means
        code = problem.get("code")
        status = code if isinstance(code, int) and 400 <= code < 600 else status
    return ModelError(
        f"the model answered {answer.status}: {message}",
        status=status,
        code=named("code"),
        kind=named("type"),
        param=named("param"),
        request_id=answer.headers.get("x-request-id"),
        retry_after_s=retry_after_s(answer.headers),
    )


def _unreadable(answer: Answer) -> ModelError:
    start = answer.content[:SHOWN].decode(errors="replace")
    return ModelError(
        f"the model answered {answer.status}: it answered with what is no chat completion: "
        f"{start!r}{_BASE_URL if answer.status == 404 else ''}",
        status=answer.status,
        code=None,
        request_id=answer.headers.get("x-request-id"),
        retry_after_s=retry_after_s(answer.headers),
    )


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: Any = None  # DeepSeek, vLLM, llama.cpp
    reasoning: Any = None  # OpenRouter

    @property
    def reasoned(self) -> bool:
        return bool(self.reasoning_content or self.reasoning)


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):  # some endpoints count nothing, and some say null
    prompt_tokens: Any = None
    completion_tokens: Any = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None
