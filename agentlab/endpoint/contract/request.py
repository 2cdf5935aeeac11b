"""A chat request, read and checked as OpenAI would; the other routes' are turned into one.

Source: OpenAI's API reference for chat completions, and what its Python client accepts and sends.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET

from agentlab._support.fields import Text
from agentlab.endpoint.contract.json_schema import Budget, problem
from agentlab.endpoint.contract.openai_json import Json, RequestError, invalid, missing, unsupported

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
    type: str
    text: str | None = None


class CalledFunction(msgspec.Struct):
    name: str
    arguments: str


class CalledCustom(msgspec.Struct):
    name: str
    input: str


class ToolCall(msgspec.Struct):
    """A call that the model made; one of a custom tool is read as a function's, too."""

    id: Text
    function: CalledFunction = UNSET  # type: ignore[assignment]
    type: Literal["function", "custom"] = "function"
    custom: CalledCustom = UNSET  # type: ignore[assignment]

    def __post_init__(self) -> None:
        _check_named(self)
        if self.type == "custom":
            self.function = CalledFunction(self.custom.name, self.custom.input)


class Message(msgspec.Struct):
    role: _Role
    content: str | Annotated[list[Part], _UpToMost] | None = None
    tool_calls: Annotated[list[ToolCall], _UpToMost] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.text)
        return self.content or ""


class Function(msgspec.Struct):
    name: _Identifier
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class Custom(Function):
    """A tool that takes a text, in the form that its grammar says, instead of arguments."""

    format: Json = {}


class Tool(msgspec.Struct):
    """A tool that is offered; or, by its name alone, the choice of one.

    The function of a custom tool is the tool itself, so that most readers need not know which.
    """

    function: Function = UNSET  # type: ignore[assignment]
    type: Literal["function", "custom"] = "function"
    custom: Custom = UNSET  # type: ignore[assignment]

    def __post_init__(self) -> None:
        _check_named(self)
        if self.type == "custom":
            self.function = self.custom


class AllowedTools(msgspec.Struct):
    mode: Literal["auto", "required"]
    tools: Annotated[list[Tool], msgspec.Meta(min_length=1, max_length=128)]


class Choice(msgspec.Struct):
    """The choice of one tool by its name, or of those that may be called in this turn."""

    type: Literal["function", "custom", "allowed_tools"] = "function"
    function: Function = UNSET  # type: ignore[assignment]
    custom: Custom = UNSET  # type: ignore[assignment]
    allowed_tools: AllowedTools = UNSET  # type: ignore[assignment]

    def __post_init__(self) -> None:
        _check_named(self)

    @property
    def names(self) -> list[str]:
        """The names of the tools it leaves to the model."""
        if self.type == "allowed_tools":
            return [tool.function.name for tool in self.allowed_tools.tools]
        return [getattr(self, self.type).name]


def _check_named(chosen: ToolCall | Tool | Choice) -> None:
    """Check that what its type names is there; msgspec makes a ValidationError of a ValueError."""
    if getattr(chosen, chosen.type) is UNSET:
        raise ValueError(f"Object missing required field `{chosen.type}`")


class Schema(msgspec.Struct):
    name: _Identifier
    schema: Json = {}
    strict: bool | None = None


class Form(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None


class ChatRequest(msgspec.Struct):
    """The fields of a chat request that the local model acts on; it ignores any other.

    One that does not fit together, or asks for what the model cannot do, raises a RequestError.
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
    tool_choice: ToolChoice | Choice | None = None
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
    def offered(self) -> list[Function]:
        """The functions that the model may call in this turn."""
        choice, tools = self.tool_choice, [tool.function for tool in self.tools or []]
        if isinstance(choice, Choice):
            tools = [tool for tool in tools if tool.name in choice.names]
        return [] if choice == "none" else tools

    @property
    def must_call(self) -> bool:
        """True if the model has to call something, whichever it is."""
        choice = self.tool_choice
        if isinstance(choice, Choice) and choice.type == "allowed_tools":
            return choice.allowed_tools.mode == "required"
        return choice == "required"

    @property
    def must_call_this(self) -> bool:
        """True if the model has to call the one tool that is offered in this turn."""
        return isinstance(self.tool_choice, Choice) and self.tool_choice.type != "allowed_tools"


def _check_support(request: ChatRequest) -> None:
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        what = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise RequestError(400, what, code="invalid_parameter_combination")
    if request.logprobs or request.top_logprobs:
        raise unsupported("logprobs")


def _check_tools(request: ChatRequest) -> None:
    choice = request.tool_choice
    for param in ("tool_choice", "parallel_tool_calls"):
        if not request.tools and getattr(request, param) not in (None, "none"):
            raise invalid(param, f"'{param}' is only allowed when 'tools' are specified.")
    names = [tool.function.name for tool in request.tools or []]
    for name in choice.names if isinstance(choice, Choice) else []:
        if name not in names:
            raise invalid("tool_choice", f"tool {name!r} is not among the tools: {names}.")


def _check_form(request: ChatRequest) -> None:
    form = request.response_format
    if form and form.type == "json_schema" and form.json_schema is None:
        raise missing("response_format.json_schema")
    said = (text.lower() for _, text in request.turns)
    if form and form.type == "json_object" and not any("json" in text for text in said):
        what = "they must contain the word 'json' in some form, to use 'response_format' of type "
        raise invalid("messages", f"{what}'json_object'.")


def _check_schemas(request: ChatRequest) -> None:
    budget = Budget()  # for all of them, since others wait meanwhile

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
