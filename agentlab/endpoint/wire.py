"""OpenAI's shapes: a chat request in; an answer, its chunks, or an error out. Nothing here waits.

Source: OpenAI's API reference for chat completions, and what its Python client accepts and sends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

Json = dict[str, Any]


class RequestError(Exception):
    """A request that cannot be answered, as OpenAI would say it.

    Attributes:
        status: The HTTP status.
        body: ``{"error": {message, type, param, code}}``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Part(msgspec.Struct):
    """A piece of a message's content; only text is read."""

    type: str
    text: str | None = None


class Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        """The content as plain text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.text)
        return self.content or ""


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatRequest(msgspec.Struct):
    """The fields of a chat request that the local model acts on; any other is let pass."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    seed: int | None = None
    tool_choice: Any = None
    response_format: Json | None = None
    logprobs: bool | None = None

    @property
    def turns(self) -> list[tuple[str, str]]:
        """The conversation as (role, text), oldest first."""
        return [(message.role, message.text) for message in self.messages]

    @property
    def limit_tokens(self) -> int | None:
        """The most tokens a choice may have."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> Sequence[str]:
        """The strings at which a choice ends."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def wants_usage(self) -> bool:
        """True if the stream is to end with a chunk that carries the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


_decoder = msgspec.json.Decoder(ChatRequest)


def parse_chat(body: bytes) -> ChatRequest:
    """Read a chat request.

    Raises:
        RequestError: 400, if it is no JSON, if a field is missing or of the wrong type or out of
            range, or if it asks for what the local model cannot do; `param` names the field.
    """
    try:
        request = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"We could not parse the JSON body of your request: {error}."
        raise RequestError(400, message) from None
    _refuse_what_it_cannot_do(request)
    return request


def _invalid(error: str) -> RequestError:
    what, _, path = error.partition(" - at `$")
    param = path.rstrip("`").lstrip(".") or None
    missing = re.match(r"Object missing required field `(\w+)`", what)
    if missing:
        param = f"{param}.{missing[1]}" if param else missing[1]
        message = f"Missing required parameter: '{param}'."
        return RequestError(400, message, param=param, code="missing_required_parameter")
    return RequestError(400, f"Invalid '{param}': {what}.", param=param, code="invalid_value")


def _refuse_what_it_cannot_do(request: ChatRequest) -> None:
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise RequestError(
            400,
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            code="invalid_parameter_combination",
        )
    shape = (request.response_format or {}).get("type", "text")
    tool = request.tool_choice
    unsupported = {
        "logprobs": bool(request.logprobs),
        "response_format": shape != "text",
        "tool_choice": tool is not None and tool not in ("auto", "none"),
    }
    for param, asked in unsupported.items():
        if asked:
            message = f"'{param}' is not supported by the local model; leave it out."
            raise RequestError(400, message, param=param, code="unsupported_parameter")


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """The token counts that an answer carries."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def completion(
    *, id: str, created: int, model: str, choices: Sequence[tuple[str, str]], usage: Json
) -> Json:
    """A whole answer; `choices` are (text, finish_reason)."""
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": reason,
            }
            for index, (text, reason) in enumerate(choices)
        ],
        "usage": usage,
        "system_fingerprint": "agentlab",
    }


def chunk(
    *,
    id: str,
    created: int,
    model: str,
    index: int,
    delta: Mapping[str, Any],
    finish_reason: str | None = None,
) -> Json:
    """One piece of a streamed answer, for the choice number `index`."""
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _chunk(id, created, model) | {"choices": [choice]}


def usage_chunk(*, id: str, created: int, model: str, usage: Json) -> Json:
    """The last piece of a stream whose client asked for the token counts."""
    return _chunk(id, created, model) | {"choices": [], "usage": usage}


def _chunk(id: str, created: int, model: str) -> Json:
    return {
        "id": id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "system_fingerprint": "agentlab",
    }


def event(data: Json) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


DONE = b"data: [DONE]\n\n"
"""The event that ends a stream."""


def model_card(name: str) -> Json:
    """One entry of the list of models."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "agentlab"}
