"""A chat request, read and checked as OpenAI would; the other routes' are turned into one.

Source: OpenAI's API reference for chat completions, and what its Python client accepts and sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from agentlab.endpoint import schema as schemas
from agentlab.endpoint.wire import Json, RequestError, decode, invalid
from agentlab.fields import Text

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
"""A model's: each event of a stream repeats it."""

MOST_ITEMS = 2048
"""Messages, or parts of one. Source: what OpenAI's API says to longer lists."""

Tokens = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]


class Part(msgspec.Struct):
    """A piece of a message's content; only text is read."""

    type: str
    text: str | None = None


class CalledFunction(msgspec.Struct):
    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    """A call that the model made in an earlier turn."""

    id: Text
    function: CalledFunction
    type: Literal["function"] = "function"


class Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[Part], msgspec.Meta(max_length=MOST_ITEMS)] | None = None
    tool_calls: Annotated[list[ToolCall], msgspec.Meta(max_length=MOST_ITEMS)] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The content as plain text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.text)
        return self.content or ""


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Function(msgspec.Struct):
    """A function that the model may ask for; `parameters` is the JSON Schema of its arguments."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None

    @property
    def schema(self) -> Json:
        """The schema of the arguments, which are an object in any case."""
        return {"type": "object", "properties": {}, **(self.parameters or {})}


class Tool(msgspec.Struct):
    function: Function
    type: Literal["function"] = "function"


class NamedFunction(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct):
    """The choice of one tool by its name."""

    function: NamedFunction
    type: Literal["function"] = "function"


class Schema(msgspec.Struct, rename={"definition": "schema"}):
    """The schema that an answer is to keep to; on the wire, `definition` is called `schema`."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    definition: Json = {}
    strict: bool | None = None


class Form(msgspec.Struct):
    """A response_format."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None


class ChatRequest(msgspec.Struct):
    """The fields of a chat request that the local model acts on; any other is let pass."""

    model: Name
    messages: Annotated[list[Message], msgspec.Meta(min_length=1, max_length=MOST_ITEMS)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    seed: int | None = None
    tools: Annotated[list[Tool], msgspec.Meta(min_length=1, max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: Form | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    functions: Any = None
    function_call: Any = None
    modalities: list[str] | None = None

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

    @property
    def offered(self) -> list[Function]:
        """The functions that the model may call in this turn."""
        return [] if self.tool_choice == "none" else [tool.function for tool in self.tools or []]

    @property
    def results(self) -> list[tuple[str, str]]:
        """(function, result) of the calls made since the user last spoke, oldest first."""
        spoke = max((i for i, m in enumerate(self.messages) if m.role == "user"), default=-1)
        since = self.messages[spoke + 1 :]
        names = {call.id: call.function.name for m in since for call in m.tool_calls or []}
        return [(names[m.tool_call_id or ""], m.text) for m in since if m.role == "tool"]


_decoder = msgspec.json.Decoder(ChatRequest)


def parse_chat(body: bytes) -> ChatRequest:
    """Read a chat request.

    Raises:
        RequestError: 400, if it is no JSON, if a field is missing or of the wrong type or out of
            range, or if it asks for what the local model cannot do; `param` names the field.
    """
    return checked(decode(body, _decoder))


def checked(request: ChatRequest) -> ChatRequest:
    """The request itself, if its fields fit together.

    Raises:
        RequestError: 400, as `parse_chat`.
    """
    _check_fields(request)
    _check_calls(request.messages)
    return request


def _check_fields(request: ChatRequest) -> None:
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise RequestError(
            400,
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            code="invalid_parameter_combination",
        )
    for param, asked in (
        ("logprobs", request.logprobs or request.top_logprobs),
        ("functions", request.functions),
        ("function_call", request.function_call),
        ("modalities", request.modalities not in (None, ["text"])),
    ):
        if asked:
            message = f"'{param}' is not supported by the local model; leave it out."
            raise RequestError(400, message, param=param, code="unsupported_parameter")
    _check_size(request)
    _check_tools(request)
    check_form(request.response_format, request.turns)


def _check_size(request: ChatRequest) -> None:
    """All schemas together are short enough to be read while others wait."""
    form = request.response_format
    if not (form or request.tools):  # as in most requests
        return
    definitions = [tool.function.parameters for tool in request.tools or []]
    definitions.append(form.json_schema.definition if form and form.json_schema else None)
    if schemas.too_large(definitions):
        param = "tools" if request.tools else "response_format"
        message = f"Invalid '{param}': {schemas.TOO_LARGE}; simplify it."
        raise RequestError(400, message, param=param, code="unsupported_schema")


def _check_tools(request: ChatRequest) -> None:
    choice = request.tool_choice
    for param, value in (
        ("tool_choice", None if choice == "none" else choice),
        ("parallel_tool_calls", request.parallel_tool_calls),
    ):
        if value is not None and not request.tools:
            raise invalid(param, f"'{param}' is only allowed when 'tools' are specified.")
    names = [tool.function.name for tool in request.tools or []]
    if isinstance(choice, NamedTool) and choice.function.name not in names:
        raise invalid(
            "tool_choice", f"tool {choice.function.name!r} is not among the tools: {names}."
        )
    for index, tool in enumerate(request.tools or []):
        _check_schema(
            tool.function.parameters or {},
            f"tools[{index}].function.parameters",
            f"function '{tool.function.name}'",
            strict=bool(tool.function.strict),
        )


def check_form(form: Form | None, turns: Sequence[tuple[str, str]]) -> None:
    """Refuse a response_format that OpenAI would refuse.

    Raises:
        RequestError: 400, naming what is wrong.
    """
    if form is None or form.type == "text":
        return
    if form.type == "json_object":
        if not any("json" in text.lower() for _, text in turns):
            raise invalid(
                "messages",
                "they must contain the word 'json' in some form, to use 'response_format' of "
                "type 'json_object'.",
            )
        return
    if form.json_schema is None:
        message = "Missing required parameter: 'response_format.json_schema'."
        code = "missing_required_parameter"
        raise RequestError(400, message, param="response_format.json_schema", code=code)
    _check_schema(
        form.json_schema.definition,
        "response_format",
        f"response_format '{form.json_schema.name}'",
        strict=bool(form.json_schema.strict),
    )


def _check_schema(definition: Json, param: str, owner: str, *, strict: bool) -> None:
    what = schemas.problem(definition) or (schemas.strict_problem(definition) if strict else None)
    if what:
        kind = "json_schema" if param == "response_format" else "function_parameters"
        raise RequestError(
            400, f"Invalid schema for {owner}: {what}", param=param, code=f"invalid_{kind}"
        )


def _check_calls(messages: Sequence[Message]) -> None:
    """Every tool call is answered by the messages right after it, and nothing else is."""
    waiting: set[str] = set()
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                raise invalid(
                    f"{where}.role",
                    "messages with role 'tool' must be a response to a preceding message with "
                    f"'tool_calls'; no call {message.tool_call_id!r} waits for one.",
                )
            waiting.discard(message.tool_call_id)
            continue
        if waiting:
            raise _unanswered(waiting, where)
        waiting = {call.id for call in message.tool_calls or []}
        if message.content is None and not waiting and message.role != "assistant":
            raise invalid(f"{where}.content", "expected a string, got null.")
    if waiting:
        raise _unanswered(waiting, f"messages[{len(messages)}]")


def _unanswered(waiting: set[str], where: str) -> RequestError:
    return invalid(
        where,
        "an assistant message with 'tool_calls' must be followed by tool messages responding to "
        f"each 'tool_call_id'; these have none: {', '.join(sorted(waiting))}.",
    )
