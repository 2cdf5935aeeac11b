"""OpenAI's responses: the same conversation as a chat, in other words.

The endpoint keeps no conversations, so it refuses `previous_response_id` and `conversation`.
Source: OpenAI's API reference for responses, and what its Python client accepts and sends.
"""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Any, ClassVar

import msgspec

from agentlab._support.fields import Text
from agentlab.endpoint.answers.answer import Answer, Choice
from agentlab.endpoint.contract.openai_json import Json, event, invalid, unsupported, wrong_field
from agentlab.endpoint.contract.request import (
    MOST_ITEMS,
    ChatRequest,
    Name,
    Temperature,
    Tokens,
    ToolChoice,
)


class _TextOptions(msgspec.Struct):
    format: Json | None = None


class ResponsesRequest(msgspec.Struct):
    """What `/v1/responses` takes and the local model acts on; it ignores any other field."""

    model: Name
    input: Text | Annotated[list[Json], msgspec.Meta(min_length=1, max_length=MOST_ITEMS)]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Tokens | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    temperature: Temperature | None = None
    tools: Annotated[list[Json], msgspec.Meta(max_length=128)] | None = None
    tool_choice: ToolChoice | Json | None = None
    parallel_tool_calls: bool | None = None
    text: _TextOptions | None = None
    previous_response_id: None = None
    conversation: None = None
    background: bool | None = None

    def __post_init__(self) -> None:
        if self.background:
            raise unsupported("background")


class _Conversation(ChatRequest):
    """One in the words of responses; clients send parts of chat completions as well."""

    part_types: ClassVar[tuple[str, ...]] = (
        *("input_text", "output_text", "input_image", "input_file", "summary_text"),
        *ChatRequest.part_types,
    )


def as_chat(request: ResponsesRequest) -> ChatRequest:
    """Return the chat request that asks the same, or raise a RequestError of status 400."""
    same = ("model", "stream", "temperature", "ignore_eos", "min_tokens")
    fields: Json = {name: getattr(request, name) for name in same}
    fields |= {"messages": _messages(request), "max_completion_tokens": request.max_output_tokens}
    if request.tools:
        choice = request.tool_choice
        fields |= {
            "tools": [_nested(tool) for tool in request.tools],
            "tool_choice": _nested(choice) if isinstance(choice, dict) else choice,
            "parallel_tool_calls": request.parallel_tool_calls,
        }
    if form := request.text and request.text.format:
        schema = _untyped(form) if form.get("type") == "json_schema" else None
        fields["response_format"] = {"type": form.get("type", "text"), "json_schema": schema}
    try:
        return msgspec.convert(fields, _Conversation)
    except (msgspec.ValidationError, RecursionError) as error:
        raise wrong_field(re.sub(r"\$\.messages.*", "$.input`", str(error))) from None


def _nested(tool: Json) -> Json:
    return {"type": tool.get("type"), "function": _untyped(tool)}


def _untyped(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if name != "type"}


def _content(given: Any) -> Any:
    """Return a content of which each part has only what is read of it: its type and its text."""
    if not isinstance(given, list):
        return given
    return [
        {k: part[k] for k in ("type", "text") if k in part} if isinstance(part, dict) else part
        for part in given
    ]


def _messages(request: ResponsesRequest) -> list[Json]:
    messages: list[Json] = []
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
    if isinstance(request.input, str):
        return [*messages, {"role": "user", "content": request.input}]
    for index, item in enumerate(request.input):
        kind = item.get("type", "message")
        if kind == "message":
            messages.append({"role": item.get("role"), "content": _content(item.get("content"))})
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            if not (messages and messages[-1].get("tool_calls")):
                messages.append({"role": "assistant", "content": None, "tool_calls": []})
            messages[-1]["tool_calls"].append({"id": item.get("call_id"), "function": function})
        elif kind == "function_call_output":
            answered = {
                "tool_call_id": item.get("call_id"),
                "content": _content(item.get("output")),
            }
            messages.append({"role": "tool", **answered})
        elif kind != "reasoning":
            said = repr(kind) if isinstance(kind, str) else "a type that is not text"
            raise invalid(f"input[{index}].type", f"{said} is not supported by the local model.")
    return messages


class Responses:
    """An answer in the words of the responses route; its methods are those of `Chat`."""

    def __init__(self, request: ResponsesRequest, answer: Answer, created: int):
        self._request, self._said, self._created = request, answer.said, created
        self._choice = answer.said.choices[0]
        self._id = answer.id.removeprefix("chatcmpl-")
        self._items = _items(self._choice, f"msg_{self._id}")
        self._numbers = itertools.count()

    def whole(self) -> Json:
        cut = self._choice.finish_reason == "length"
        sent, made = self._said.prompt_tokens, self._said.completion_tokens
        return self._frame("incomplete" if cut else "completed") | {
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": self._items,
            "usage": {
                "input_tokens": sent,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": made,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": sent + made,
            },
        }

    def opening(self) -> bytes:
        frame = self._frame("in_progress")
        data = [self._event(kind, response=frame) for kind in ("created", "in_progress")]
        if not self._choice.calls:
            (item,) = self._items
            part = item["content"][0] | {"text": ""}
            data.append(self._added(0, item | {"content": []}))
            data.append(self._event("content_part.added", **self._place(0), part=part))
        return b"".join(data)

    def between(self, sent: int, have: int) -> bytes:
        data, pieces = [], self._choice.pieces
        for index, call in enumerate(self._choice.calls):
            if sent <= call.start < have:
                data.append(self._added(index, self._items[index] | {"arguments": ""}))
            if new := "".join(pieces[max(sent, call.start) : min(have, call.end)]):
                kind = "function_call_arguments.delta"
                data.append(self._event(kind, **self._place(index), delta=new))
        if not self._choice.calls and (new := "".join(pieces[sent:have])):
            place = self._place(0)
            data.append(self._event("output_text.delta", **place, delta=new, logprobs=[]))
        return b"".join(data)

    def closing(self) -> bytes:
        whole, data = self.whole(), []
        for index, item in enumerate(whole["output"]):
            place = self._place(index)
            if item["type"] == "message":
                (part,) = item["content"]
                said = {"text": part["text"], "logprobs": []}
                data.append(self._event("output_text.done", **place, **said))
                data.append(self._event("content_part.done", **place, part=part))
            else:
                said = {"name": item["name"], "arguments": item["arguments"]}
                data.append(self._event("function_call_arguments.done", **place, **said))
            data.append(self._event("output_item.done", output_index=index, item=item))
        return b"".join([*data, self._event(whole["status"], response=whole)])

    def _added(self, index: int, item: Json) -> bytes:
        item = item | {"status": "in_progress"}
        return self._event("output_item.added", output_index=index, item=item)

    def _place(self, index: int) -> Json:
        place = {"item_id": self._items[index]["id"], "output_index": index}
        return place if self._choice.calls else place | {"content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        kind = f"response.{kind}"
        data = {"type": kind, "sequence_number": next(self._numbers), **fields}
        return b"event: " + kind.encode() + b"\n" + event(data)

    def _frame(self, status: str) -> Json:
        request = self._request
        format = request.text and request.text.format
        tool = dict.fromkeys(["description", "parameters", "strict"])
        null = ["error", "incomplete_details", "previous_response_id", "top_p", "usage"]
        echoed = ["instructions", "max_output_tokens", "model", "temperature"]
        return {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            **dict.fromkeys(null),
            **{name: getattr(request, name) for name in echoed},
            "metadata": {},
            "output": [],
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "store": False,
            "text": {"format": {"type": "text"} | (format or {})},
            "tool_choice": request.tool_choice or "auto",
            "tools": [tool | each for each in request.tools or []],
            "truncation": "disabled",
        }


def _items(said: Choice, id: str) -> list[Json]:
    part = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
    message = {"type": "message", "role": "assistant", "status": "completed", "content": [part]}
    calls = [
        {
            "id": f"fc_{call.id}",
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": call.name,
            "arguments": said.arguments(call),
        }
        for call in said.calls
    ]
    return calls or [{"id": id} | message]
