"""What `/v1/responses` takes, and the chat request that asks the same.

Source: OpenAI's API reference for responses, and what its Python client sends.
"""

import re
from typing import Annotated, Any, ClassVar, Literal, get_args

import msgspec

from agentlab._support import DATA
from agentlab._support.fields import Text
from agentlab.endpoint.contract import request as chat
from agentlab.endpoint.contract.openai_json import Json, RequestError, decode, not_among, refusal

_Call = Literal["function_call", "custom_tool_call"]
_Output = Literal["function_call_output", "custom_tool_call_output"]
_Kind = Literal["message", _Call, _Output, "reasoning", "item_reference"]
FORMS: dict[str, Json] = msgspec.yaml.decode((DATA / "wire" / "responses.yaml").read_bytes())
Said = list[tuple[str, bytes]]  # the items of a conversation: their ids, and their JSON

_TOOLS, _CHOICES = ("function", "custom"), ("function", "custom", "allowed_tools")


class _Part(chat.Strict, omit_defaults=True):
    type: str
    text: str | None = None
    refusal: str | None = None
    annotations: list[Json] | None = None
    logprobs: list[Json] | None = None
    image_url: str | None = None
    detail: Literal["low", "high", "auto", "original"] | None = None
    file_id: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None
    input_audio: Json | None = None
    prompt_cache_breakpoint: Json | None = None

    def __post_init__(self) -> None:
        needed = "text" if self.type.endswith("text") else self.type
        if getattr(self, needed, "") is None:
            raise ValueError(f"Object missing required field `{needed}`")


_Content = str | Annotated[list[_Part], chat.UpToMost]


class Item(chat.Strict, omit_defaults=True):
    """One item of a conversation; which fields it needs depends on its type."""

    type: _Kind | None = None
    id: Text | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: _Content | None = None
    call_id: Text | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: _Content | None = None
    summary: list[Json] | None = None
    encrypted_content: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: str | None = None
    namespace: str | None = None
    caller: Json | None = None
    created_by: str | None = None
    run_async: bool | None = msgspec.field(name="async", default=None)
    async_: bool | None = None  # so openai 3.57 sends an item back

    def __post_init__(self) -> None:
        if self.type is None:  # as a client may leave it out
            self.type = "item_reference" if self.id and not self.role else "message"
        for name in FORMS["needed"].get(self.type, ()):
            if getattr(self, name) is None:  # msgspec adds where, and words it as its own error
                raise ValueError(f"Object missing required field `{name}`")


class TextOptions(chat.Strict):
    format: Json | None = None
    verbosity: chat.Verbosity | None = None


class ResponsesRequest(chat.Shared, kw_only=True):
    """What `/v1/responses` takes."""

    cannot = FORMS["cannot"]
    input: Text | Annotated[list[Item], chat.SomeUpToMost] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=16, le=2**53 - 1)] | None = None
    tools: Annotated[list[Json], msgspec.Meta(max_length=128)] | None = None
    tool_choice: chat.ToolChoice | Json | None = None
    max_tool_calls: Annotated[int, msgspec.Meta(ge=1)] | None = None
    text: TextOptions | None = None
    reasoning: Json | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: list[str] | None = None
    background: bool | None = None

    def __post_init__(self) -> None:
        if self.background:
            raise refusal("unsupported", "background")
        for index, each in enumerate(self.include or []):
            if each not in FORMS["include"]:
                raise not_among(f"include[{index}]", each, FORMS["include"])
        for name, known in FORMS["preferences"].items():
            if (preferred := (self.reasoning or {}).get(name)) not in (None, *known):
                raise not_among(f"reasoning.{name}", str(preferred), known)
        super().__post_init__()
        if isinstance(self.input, str):
            self.input = [Item(role="user", content=self.input)]
        if self.input is None and self.previous_response_id is None:
            raise refusal("no_input", "input")
        for index, item in enumerate(self.items):
            for field in ("content", "output") if item.type != "reasoning" else ():
                said, where = getattr(item, field), f"input[{index}].{field}"
                chat.check_parts(said, chat.PARTS["responses"], item.role or "tool", where)

    @property
    def items(self) -> list[Item]:
        """The input as items."""
        return self.input if isinstance(self.input, list) else []


class _Conversation(chat.ChatRequest):
    parts: ClassVar[dict[str, list[str]]] = chat.PARTS["responses"]


def as_chat(request: ResponsesRequest, before: Said) -> chat.ChatRequest:
    """Return the chat request that asks the same after what was said; RequestError if wrong."""
    said = [msgspec.json.decode(data, type=Item) for _, data in before]
    messages = _messages([*said, *request.items], len(said))
    if request.instructions:
        messages.insert(0, {"role": "system", "content": request.instructions})
    same = ("model", "stream", "temperature", "ignore_eos", "min_tokens")
    fields: Json = {name: getattr(request, name) for name in same}
    fields |= {"messages": messages, "max_completion_tokens": request.max_output_tokens}
    if request.tools:
        fields["tools"] = [_nested(tool, f"tools[{i}]") for i, tool in enumerate(request.tools)]
        fields["parallel_tool_calls"] = request.parallel_tool_calls
    if request.tools or request.tool_choice not in ("auto", "none"):
        fields["tool_choice"] = _nested(request.tool_choice, "tool_choice")
    if request.text and request.text.format is not None:
        form = request.text.format
        whole = {name: value for name, value in form.items() if name != "type"}
        schema = {"json_schema": whole} if form.get("type") == "json_schema" else {}
        fields["response_format"] = {n: v for n, v in form.items() if n == "type"} | schema
    try:
        asked = msgspec.json.encode(fields)
    except RecursionError:  # a level more than in the body was one too many
        asked = b""  # which is refused as the body would be
    return decode(asked, _Conversation)


def _nested(tool: Any, where: str) -> Any:
    """Return a tool, or a choice, as a chat has it: what it is stands under its type's name."""
    if not isinstance(tool, dict):
        return tool
    kind, kinds = tool.get("type"), _CHOICES if where == "tool_choice" else _TOOLS
    if kind not in kinds:
        where = f"{where}.type"
        raise not_among(where, str(kind), kinds) if kind else refusal("missing", where)
    inner = {name: value for name, value in tool.items() if name not in FORMS["ignored"]}
    if kind == "allowed_tools" and isinstance(tools := inner.get("tools"), list):
        inner["tools"] = [_nested(each, f"{where}.tools[{i}]") for i, each in enumerate(tools)]
    elif kind != "allowed_tools" and "name" not in inner:  # or what it has is a chat's
        raise refusal("missing", f"{where}.name")
    return {"type": kind, kind: inner}


def _messages(items: list[Item], before: int) -> list[Json]:
    """Return what says the same in a chat, where a result comes right after its call."""
    groups: list[list[Json]] = []
    waiting: dict[str, list[Json]] = {}
    for index, item in enumerate(items):
        each: Any = item  # it has what its type needs
        if each.type == "message":
            groups.append([{"role": each.role, "content": _content(each.content)}])
        elif each.type in FORMS["called"]:
            kind, field = FORMS["called"][each.type]
            inner = {"name": each.name, field: getattr(each, field)}
            if not (groups and "tool_calls" in groups[-1][-1]):
                groups.append([{"role": "assistant", "tool_calls": []}])
            groups[-1][-1]["tool_calls"].append({"id": each.call_id, "type": kind, kind: inner})
            waiting[each.call_id] = groups[-1]
        elif each.type in get_args(_Output):
            if each.call_id not in waiting:
                kind, where = each.type.replace("_", " "), f"input[{index - before}]"
                raise refusal("no_tool_call", where, kind=kind, id=each.call_id)
            result = {"role": "tool", "content": _content(each.output)}
            waiting.pop(each.call_id).append(result | {"tool_call_id": each.call_id})
    for call_id in waiting:
        raise refusal("no_tool_output", "input", id=call_id)
    return [message for group in groups for message in group]


def _content(said: str | list[_Part]) -> str | list[Json]:
    if isinstance(said, str):
        return said
    return [{"type": p.type, "text": p.text, "refusal": p.refusal or ""} for p in said]


def in_own_words(error: RequestError) -> RequestError:
    """Return a chat's error with the names that a client of this route gave to the fields."""
    said: Json = error.body["error"]
    if param := said["param"]:
        own = re.sub(r"\.(function|custom|allowed_tools)\b", "", param)
        own = re.sub(r"^response_format(\.json_schema)?", "text.format", own)
        own = re.sub(r"^messages", "input", own)
        said |= {"param": own, "message": said["message"].replace(param, own)}
    said["message"] = said["message"].replace("'response_format'", "'text.format'")
    return error
