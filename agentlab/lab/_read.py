"""What an endpoint's answer holds: a whole reply, or the error that says why there is none."""

from typing import Any, NamedTuple

import httpx
import msgspec

from agentlab import errors
from agentlab._support import DATA
from agentlab.endpoint.contract.chunks import joined
from agentlab.errors import ModelError
from agentlab.lab._model_time import retry_after_s

SHOWN = 300  # characters of an answer that is not a chat completion
_ODD = (AttributeError, TypeError)  # of a chunk that has some other shape

_WORDS = msgspec.yaml.decode((DATA / "finish_reasons.yaml").read_bytes())
_ENDS: dict[str, str] = _WORDS["ends"]


class _Function(msgspec.Struct):
    name: str
    arguments: Any = ""

    def __post_init__(self) -> None:
        if not isinstance(self.arguments, str):  # some servers send an object, or null
            self.arguments = msgspec.json.encode(self.arguments or {}).decode()


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model asks for, with arguments in JSON; a result names its `id`."""

    id: str
    function: _Function
    type: str = "function"
    extra_content: Any = msgspec.UNSET  # Gemini's, which wants it back


class Reply(NamedTuple):
    """A whole answer, and what the endpoint counted for it."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str | None = None  # "length" where the caller's own limit cut it off
    tool_calls: tuple[ToolCall, ...] = ()


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: Any = None


def read(answer: httpx.Response, *, max_tokens: int | None = None) -> Reply:
    """Read the reply in an endpoint's answer, or raise the ModelError that it comes down to.

    Text that the caller's own limit, `max_tokens`, cut off is what was asked for. A stream that
    ends before its answer is an EndpointError.
    """
    kind = answer.headers.get("content-type", "") if answer.is_success else ""
    decode = joined if kind.startswith("text/event-stream") else msgspec.json.decode
    try:
        said = decode(answer.content)
        problem = _problem(said)
        if problem is None:
            completion = msgspec.convert(said, type=_Completion)
            choice = completion.choices[0]
    except (msgspec.DecodeError, ValueError, RecursionError, LookupError, *_ODD):
        raise _as_error(None, answer) from None
    if problem is not None or not answer.is_success:
        raise _as_error(problem, answer)
    message = choice.message
    parts = message.content if isinstance(message.content, list) else [message.content]
    reply = Reply(
        message.refusal or "".join(map(_text, parts)),
        _count(completion.usage, "prompt_tokens"),
        _count(completion.usage, "completion_tokens"),
        choice.finish_reason,
        message.tool_calls or (),
    )
    ended = _ENDS.get((reply.finish_reason or "").lower())  # None for a good end
    if flaw := _flaw(reply, ended, refused=bool(message.refusal), max_tokens=max_tokens):
        kind, says = _WORDS["flaws"][flaw]
        limit = max_tokens or reply.completion_tokens
        why = says.format(reply, start=reply.text[:SHOWN], end=repr(reply.text[-40:]), limit=limit)
        request_id = answer.headers.get("x-request-id")
        whole = f"the answer is not whole: {why}"
        raise getattr(errors, kind)(whole, request_id=request_id, **reply._asdict())
    # One word for a cut, in any server's spelling.
    return reply._replace(finish_reason="length") if ended == "cut" else reply


def _text(part: Any) -> str:
    """Return the text of one part of a message, which may be text itself; else nothing."""
    if isinstance(part, dict) and part.get("type") in ("text", "output_text"):
        part = part.get("text")
    return part if isinstance(part, str) else ""


def _count(usage: Any, what: str) -> int:
    """Return what an endpoint counted; 0 if it counts nothing, or says null, or something odd."""
    tokens = usage.get(what) if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) and tokens > 0 and tokens is not True else 0


def _flaw(reply: Reply, ended: str | None, *, refused: bool, max_tokens: int | None) -> str | None:
    """Return what keeps an answer from being whole, by its name in the data, or None."""
    acts = bool(reply.tool_calls)
    if refused:
        return "refused"
    if ended in ("filtered", "interrupted"):
        return ended
    if not (reply.text.strip() or acts):
        return "spent" if ended == "cut" else "empty"
    return "cut" if ended == "cut" and (max_tokens is None or acts) else None


def _problem(said: Any) -> dict[str, Any] | None:
    """Return the error that an answer holds, with OpenAI's names for its facts, or None."""
    if isinstance(said, list) and len(said) == 1:  # Gemini's OpenAI route
        said = said[0]
    if not isinstance(said, dict):
        return None
    found = said.get("error")
    if not found and "choices" not in said:
        found = said.get("detail") or said.get("errors")  # FastAPI; Cloudflare
        if not found and isinstance(said.get("message"), str):  # old vLLM, Mistral, Cohere
            found = said
    match found:
        case str(message) if message:  # Ollama
            return {"message": message}
        case [{"msg": says, "loc": [*way]} as fault, *_]:  # FastAPI: a field that cannot work
            place = ".".join(map(str, way))
            facts = {"type": fault.get("type"), "param": place.removeprefix("body.")}
            return {"message": f"{place}: {says}", **facts}
        case [dict(first), *_]:
            return first
    return found if isinstance(found, dict) else None


def _as_error(problem: dict[str, Any] | None, answer: httpx.Response) -> ModelError:
    """Return the error for an answer that holds a problem, or else is not a chat completion."""
    status, start = answer.status_code, answer.content[:SHOWN].decode(errors="replace")
    said = problem or {"message": f"it answered with what is no chat completion: {start!r}"}
    # OpenAI's codes are names; vLLM's and llama.cpp's are numbers.
    facts = {name: str(value) for name, value in said.items() if value not in (None, "")}
    message = facts.get("message", start)
    if status == 404 and (problem is None or "model" not in message.lower()):
        message += "; is OPENAI_BASE_URL right? Most servers' ends in /v1"
    code = said.get("code")
    if answer.is_success and isinstance(code, int) and 400 <= code < 600:
        status = code  # an error inside a good answer: its code is the status that it means
    named = {"code": facts.get("code"), "kind": facts.get("type"), "param": facts.get("param")}
    named["request_id"] = answer.headers.get("x-request-id")
    message = f"the model answered {answer.status_code}: {message}"
    return ModelError(message, status=status, retry_after_s=retry_after_s(answer.headers), **named)
