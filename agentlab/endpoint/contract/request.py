"""A chat request, read and checked as OpenAI would; the other routes' are turned into one.

Source: OpenAI's API reference for chat completions, and what its Python client accepts and sends.
"""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType

from agentlab._support import DATA
from agentlab._support.fields import Text
from agentlab.endpoint.contract.json_schema import Budget, problem
from agentlab.endpoint.contract.openai_json import Json, invalid, not_among, refusal, wrong_type

# The names and ranges that OpenAI's API accepts.
MOST_ITEMS = 2048
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]  # each event repeats it
Tokens = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
ToolChoice = Literal["none", "auto", "required"]
_Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
_Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern="^[a-zA-Z0-9_-]+$")]
UpToMost = msgspec.Meta(max_length=MOST_ITEMS)
SomeUpToMost = msgspec.Meta(min_length=1, max_length=MOST_ITEMS)
_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
_Bias = Annotated[float, msgspec.Meta(ge=-100, le=100)]
_Label = Annotated[str, msgspec.Meta(max_length=64)]
_Value = Annotated[str, msgspec.Meta(max_length=512)]
_Metadata = Annotated[dict[_Label, _Value], msgspec.Meta(max_length=16)]
_Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]
PARTS = msgspec.yaml.decode((DATA / "wire" / "parts.yaml").read_bytes())
_Unread = Json | str | list[Json] | UnsetType | None  # and forgotten: no part of the request's key


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a request that has no fields but its own."""


class _ImageUrl(Strict):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class _InputAudio(Strict):
    data: str
    format: Literal["wav", "mp3"]


class Part(Strict):
    """A part of a content; each type's field has its name, and only a text is read."""

    type: str
    text: str | None = None
    image_url: _ImageUrl | UnsetType | None = UNSET
    input_audio: _InputAudio | UnsetType | None = UNSET
    file: _Unread = UNSET
    refusal: _Unread = UNSET
    prompt_cache_breakpoint: _Unread = UNSET
    cache_control: _Unread = UNSET  # Anthropic's; OpenAI overlooks it
    role: _Unread = UNSET  # the message's again, which OpenAI's own agents send from Node


class CalledFunction(Strict):
    name: str
    arguments: str


class CalledCustom(Strict):
    name: str
    arguments: str = msgspec.field(name="input")


class _Typed(Strict):
    """A part whose `type` names the field that has to be there; `custom` is its own `function`."""

    def __post_init__(self: Any) -> None:
        if getattr(self, self.type) is UNSET:  # of a ValueError msgspec makes a ValidationError
            raise ValueError(f"Object missing required field `{self.type}`")
        if self.type == "custom":
            self.function = self.custom


class ToolCall(_Typed):
    """A call that the model made."""

    id: Text
    function: CalledFunction = UNSET  # type: ignore[assignment]
    type: Literal["function", "custom"] = "function"
    custom: CalledCustom = UNSET  # type: ignore[assignment]


class Message(Strict):
    role: _Role
    content: str | Annotated[list[Part], UpToMost] | None = None
    tool_calls: Annotated[list[ToolCall], SomeUpToMost] | None = None
    tool_call_id: str | None = None
    name: Annotated[str, msgspec.Meta(pattern=r"^[^\s<|\\/>]+$")] | UnsetType | None = UNSET
    refusal: _Unread = UNSET
    annotations: _Unread = UNSET
    audio: _Unread = UNSET
    function_call: _Unread = UNSET

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.text)
        return self.content or ""


class Function(Strict):
    name: _Identifier
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class Custom(Function):
    """A tool that takes a text, in the form that its grammar says, instead of arguments."""

    format: Json = {}


class Tool(_Typed):
    """A tool that is offered, or chosen by its name."""

    function: Function = UNSET  # type: ignore[assignment]
    type: Literal["function", "custom"] = "function"
    custom: Custom = UNSET  # type: ignore[assignment]


class AllowedTools(Strict):
    mode: Literal["auto", "required"]
    tools: Annotated[list[Tool], msgspec.Meta(min_length=1, max_length=128)]


class Choice(_Typed):
    """The choice of one tool by its name, or of those that may be called in this turn."""

    type: Literal["function", "custom", "allowed_tools"] = "function"
    function: Function = UNSET  # type: ignore[assignment]
    custom: Custom = UNSET  # type: ignore[assignment]
    allowed_tools: AllowedTools = UNSET  # type: ignore[assignment]

    @property
    def names(self) -> list[str]:
        """The names of the tools it leaves to the model."""
        if self.type == "allowed_tools":
            return [tool.function.name for tool in self.allowed_tools.tools]
        return [self.function.name]


class Schema(Strict):
    name: _Identifier
    schema: Json
    strict: bool | None = None
    description: str | UnsetType | None = UNSET  # no part of what makes requests the same


class Form(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None  # vLLM's, which its load generators ask for


class Shared(Strict, kw_only=True):
    """What chat completions and responses take alike."""

    model: Name
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    parallel_tool_calls: bool | None = None
    ignore_eos: bool | None = None  # this and the next are vLLM's
    min_tokens: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None

    # What changes nothing here.
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    store: bool | None = None
    metadata: _Metadata | None = None
    user: str | None = None
    safety_identifier: _Label | None = None
    prompt_cache_key: _Label | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    prompt_cache_options: Json | None = None

    def __post_init__(self) -> None:
        if self.stream_options and not self.stream:
            raise invalid("stream_options", "it is only allowed when 'stream' is enabled.")
        if self.top_logprobs:
            raise refusal("unsupported", "top_logprobs")


class ChatRequest(Shared, kw_only=True):
    """A chat request; one that does not fit together, or cannot be met, raises a RequestError."""

    parts: ClassVar[dict[str, list[str]]] = PARTS["chat"]
    cannot = dict.fromkeys("functions function_call audio web_search_options moderation".split())
    ignored = (*"top_k min_p repetition_penalty skip_special_tokens chat_template_kwargs".split(),)
    messages: Annotated[list[Message], msgspec.Meta(min_length=1, max_length=MOST_ITEMS)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    tools: Annotated[list[Tool], msgspec.Meta(min_length=1, max_length=128)] | None = None
    tool_choice: ToolChoice | Choice | None = None
    response_format: Form | None = None
    logprobs: bool | None = None

    # What changes nothing here.
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: Annotated[dict[str, _Bias], msgspec.Meta(max_length=MOST_ITEMS)] | None = None
    modalities: Annotated[list[Literal["text"]], msgspec.Meta(min_length=1)] | None = None
    prediction: Json | None = None
    reasoning_effort: _Effort | None = None
    verbosity: Verbosity | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.logprobs:
            raise refusal("unsupported", "logprobs")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise invalid("max_tokens", "'max_completion_tokens' says the same; give one of them.")
        _check_messages(self)
        if self.tools or self.tool_choice or self.parallel_tool_calls is not None:
            _check_tools(self)
        if self.tools or self.response_format:
            _check_schemas(self)
        if any(message.tool_calls or message.role == "tool" for message in self.messages):
            _check_calls(self)

    @property
    def turns(self) -> list[tuple[str, str]]:
        """The conversation as (role, text), oldest first."""
        return [(message.role, message.text) for message in self.messages]

    @property
    def described(self) -> list[str]:
        """What a provider writes before the conversation: of tools, and of the answer's form."""
        both = self.tools, self.response_format
        return [msgspec.json.encode(both).decode()] if any(both) else []

    @property
    def texts(self) -> list[str]:
        """All that a model reads of the conversation: texts, and each call's name and arguments."""
        texts: list[str] = []
        for message in self.messages:
            calls = [call.function for call in message.tool_calls or ()]
            if message.text or not calls:
                texts.append(message.text)
            texts += [said for call in calls for said in (call.name, call.arguments)]
        return texts

    @property
    def limit_tokens(self) -> int | None:
        """The most tokens a choice may have."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def offered(self) -> list[Function]:
        """The functions that the model may call in this turn."""
        choice, tools = self.tool_choice, [tool.function for tool in self.tools or ()]
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


def check_parts(content: Any, known: dict[str, list[str]], role: str, where: str) -> None:
    """Refuse a part that is of none of the `known` types, or that this role does not say."""
    for number, part in enumerate(content if isinstance(content, list) else []):
        supported = known[role] if part.type in known["any"] else known["any"]
        if part.type not in supported:
            raise not_among(f"{where}[{number}].type", part.type, supported)


def _check_messages(request: ChatRequest) -> None:
    for index, message in enumerate(request.messages):
        where = f"messages[{index}]"
        instead = message.tool_calls or message.function_call or message.refusal or message.audio
        if message.content is None and not (message.role == "assistant" and instead):
            raise wrong_type(f"{where}.content", "null", "str or array")
        if message.role == "tool" and message.tool_call_id is None:
            raise refusal("missing", f"{where}.tool_call_id")
        if isinstance(message.content, list):
            check_parts(message.content, request.parts, message.role, f"{where}.content")
            for number, part in enumerate(message.content):
                if getattr(part, part.type, True) in (None, UNSET):
                    raise refusal("missing", f"{where}.content[{number}].{part.type}")
                for name in part.__struct_fields__[2:]:
                    setattr(part, name, UNSET)
        message.name = message.refusal = message.annotations = UNSET
        message.audio = message.function_call = UNSET


def _check_tools(request: ChatRequest) -> None:
    choice = request.tool_choice
    for param in ("tool_choice", "parallel_tool_calls"):
        if not request.tools and getattr(request, param) not in (None, "none"):
            raise invalid(param, f"'{param}' is only allowed when 'tools' are specified.")
    names = [tool.function.name for tool in request.tools or []]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise invalid(f"tools[{index}].function.name", f"two tools are called {name!r}.")
    for name in choice.names if isinstance(choice, Choice) else []:
        if name not in names:
            raise invalid("tool_choice", f"tool {name!r} is not among the tools: {names}.")


def _check_schemas(request: ChatRequest) -> None:
    budget = Budget()  # for all of them, since others wait meanwhile
    for index, function in enumerate(tool.function for tool in request.tools or []):
        given = function.parameters or {"type": "object"}
        if wrong := problem(given, budget, strict=bool(function.strict)):
            param, name = f"tools[{index}].function.parameters", f"function '{function.name}'"
            raise refusal("invalid_function_parameters", param, wrong, of=name)
    kind, own = (form.type, form.json_schema) if (form := request.response_format) else ("", None)
    if own:
        own.description = UNSET
    if kind == "json_object" and not any("json" in text.lower() for _, text in request.turns):
        what = "'response_format' of type 'json_object' wants the word 'json' in them."
        raise invalid("messages", what)
    if kind == "json_schema":
        if own is None:
            raise refusal("missing", "response_format.json_schema")
        if wrong := problem(own.schema, budget, strict=own.strict or None):
            name = f"response_format '{own.name}'"
            raise refusal("invalid_json_schema", "response_format", wrong, of=name)


def _check_calls(request: ChatRequest) -> None:
    waiting: set[str] = set()
    for index, message in enumerate([*request.messages, Message("user")]):
        where, id = f"messages[{index}]", message.tool_call_id or ""
        if message.role == "tool" and id not in waiting:
            raise invalid(f"{where}.role", f"no call {id!r} in 'tool_calls' waits for a result.")
        if message.role != "tool" and waiting:
            what = f"tool messages have to follow for these calls: {', '.join(sorted(waiting))}."
            raise invalid(where, what)
        waiting = (waiting - {id}) or {call.id for call in message.tool_calls or []}
