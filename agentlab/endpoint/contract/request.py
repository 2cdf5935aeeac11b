"""A chat request, read and checked as OpenAI would; the other routes' are turned into one.

Source: OpenAI's API reference for chat completions, and what its Python client accepts and sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from agentlab._support.fields import Text
from agentlab.endpoint.contract.json_schema import Budget, problem
from agentlab.endpoint.contract.openai_json import (
    Json,
    RequestError,
    invalid,
    missing_parameter,
    unsupported,
)

# The names and ranges that OpenAI's API accepts.
MOST_ITEMS = 2048
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]  # each event repeats it
Tokens = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
ToolChoice = Literal["none", "auto", "required"]
_Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
_Identifier = Annotated[str, msgspec.Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
_UpToMost = msgspec.Meta(max_length=MOST_ITEMS)


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
    role: _Role
    content: str | Annotated[list[Part], _UpToMost] | None = None
    tool_calls: Annotated[list[ToolCall], _UpToMost] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The content as plain text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.text)
        return self.content or ""


class Function(msgspec.Struct):
    """A function that the model may ask for; `parameters` is the JSON Schema of its arguments."""

    name: _Identifier
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None

    @property
    def schema(self) -> Json:
        """The schema of the arguments, which are an object in any case."""
        return {"type": "object", "properties": {}, **(self.parameters or {})}


class Tool(msgspec.Struct):
    """A tool that is offered; or, by its name alone, the choice of one."""

    function: Function
    type: Literal["function"] = "function"


class Schema(msgspec.Struct):
    """The schema that an answer is to keep to."""

    name: _Identifier
    schema: Json = {}
    strict: bool | None = None


class Form(msgspec.Struct):
    """A response_format."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None


class ChatRequest(msgspec.Struct):
    """The fields of a chat request that the local model acts on; it ignores any other.

    There is none whose fields do not fit together, or that asks for what the local model cannot do:
    to make one raises a RequestError of status 400, whose `param` names the field.
    """

    model: Name
    messages: Annotated[list[Message], msgspec.Meta(min_length=1, max_length=MOST_ITEMS)]
    stream: bool | None = None
    stream_options: dict[str, bool | None] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    temperature: Temperature | None = None
    seed: int | None = None
    tools: Annotated[list[Tool], msgspec.Meta(min_length=1, max_length=128)] | None = None
    tool_choice: ToolChoice | Tool | None = None
    parallel_tool_calls: bool | None = None
    response_format: Form | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    functions: None = None
    function_call: None = None
    modalities: list[Literal["text"]] | None = None

    def __post_init__(self) -> None:
        for check in (_check_support, _check_tools, _check_form, _check_schemas, _check_calls):
            check(self)

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
        return bool((self.stream_options or {}).get("include_usage"))

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


def _check_support(request: ChatRequest) -> None:
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        both = "'max_tokens' and 'max_completion_tokens'"
        message = f"Setting {both} at the same time is not supported."
        raise RequestError(400, message, code="invalid_parameter_combination")
    if request.logprobs or request.top_logprobs:
        raise unsupported("logprobs")


def _check_tools(request: ChatRequest) -> None:
    choice = request.tool_choice
    asked = {
        "tool_choice": None if choice == "none" else choice,
        "parallel_tool_calls": request.parallel_tool_calls,
    }
    for param, value in asked.items():
        if value is not None and not request.tools:
            raise invalid(param, f"'{param}' is only allowed when 'tools' are specified.")
    names = [tool.function.name for tool in request.tools or []]
    if isinstance(choice, Tool) and (name := choice.function.name) not in names:
        raise invalid("tool_choice", f"tool {name!r} is not among the tools: {names}.")


def _check_form(request: ChatRequest) -> None:
    form = request.response_format
    if form and form.type == "json_schema" and form.json_schema is None:
        raise missing_parameter("response_format.json_schema")
    if form is None or form.type != "json_object":
        return
    if not any("json" in text.lower() for _, text in request.turns):
        what = "they must contain the word 'json' in some form, to use 'response_format' of type "
        raise invalid("messages", f"{what}'json_object'.")


def _check_schemas(request: ChatRequest) -> None:
    """Check each schema; all together must be short enough to be read while others wait."""
    budget = Budget()

    def check(schema: Json, strict: bool | None, owner: str, param: str, code: str) -> None:
        if what := problem(schema, budget, strict=bool(strict)):
            raise RequestError(400, f"Invalid schema for {owner}: {what}", param=param, code=code)

    for index, tool in enumerate(request.tools or []):
        function, param = tool.function, f"tools[{index}].function.parameters"
        owner, code = f"function '{function.name}'", "invalid_function_parameters"
        check(function.parameters or {}, function.strict, owner, param, code)
    form = request.response_format
    if form and form.type == "json_schema" and (given := form.json_schema):
        owner, code = f"response_format '{given.name}'", "invalid_json_schema"
        check(given.schema, given.strict, owner, "response_format", code)


def _check_calls(request: ChatRequest) -> None:
    """Check that the messages right after tool calls answer each call, and no others."""
    waiting: set[str] = set()
    for index, message in enumerate([*request.messages, None]):
        where = f"messages[{index}]"
        if message is not None and message.role == "tool":
            if message.tool_call_id not in waiting:
                what = "messages with role 'tool' must be a response to a preceding message with "
                which = f"'tool_calls'; no call {message.tool_call_id!r} waits for one."
                raise invalid(f"{where}.role", what + which)
            waiting.discard(message.tool_call_id)
            continue
        if waiting:
            what = "an assistant message with 'tool_calls' must be followed by tool messages "
            which = "responding to each 'tool_call_id'; these have none: "
            raise invalid(where, f"{what}{which}{', '.join(sorted(waiting))}.")
        if message is not None:
            waiting = {call.id for call in message.tool_calls or []}
            if message.content is None and not waiting and message.role != "assistant":
                raise invalid(f"{where}.content", "expected a string, got null.")
