"""OpenAI's responses: the same conversation as a chat, in other words.

A request is turned into a chat request, and its answer is worded as a response. The endpoint
keeps no conversations: `previous_response_id` and `conversation` are refused.

Source: OpenAI's API reference for responses, and what its Python client accepts and sends.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from agentlab.endpoint.answer import Answer, Called, Choice
from agentlab.endpoint.request import MOST_ITEMS, ChatRequest, Name, Tokens, checked
from agentlab.endpoint.wire import Json, RequestError, decode, event, invalid
from agentlab.fields import Text


class _Format(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    schema: Json | None = None
    strict: bool | None = None


class _TextOptions(msgspec.Struct):
    format: _Format | None = None


class _Tool(msgspec.Struct):
    type: Literal["function"]
    name: Text
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class _NamedTool(msgspec.Struct):
    type: Literal["function"]
    name: Text


class ResponsesRequest(msgspec.Struct):
    """What `/v1/responses` takes and the local model acts on; any other field is let pass."""

    model: Name
    input: Text | Annotated[list[Json], msgspec.Meta(min_length=1, max_length=MOST_ITEMS)]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Tokens | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    tools: Annotated[list[_Tool], msgspec.Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | _NamedTool | None = None
    parallel_tool_calls: bool | None = None
    text: _TextOptions | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None


_decoder = msgspec.json.Decoder(ResponsesRequest)


def parse_responses(body: bytes) -> ResponsesRequest:
    """Read a request.

    Raises:
        RequestError: 400, naming the field.
    """
    request = decode(body, _decoder)
    for param in ("previous_response_id", "conversation", "background"):
        if getattr(request, param):
            message = f"'{param}' is not supported: the endpoint keeps no responses; leave it out."
            raise RequestError(400, message, param=param, code="unsupported_parameter")
    return request


def as_chat(request: ResponsesRequest) -> ChatRequest:
    """The chat request that asks the same.

    Raises:
        RequestError: 400, if an item or a tool is of a kind that a chat does not know.
    """
    fields: Json = {
        "model": request.model,
        "messages": _messages(request),
        "stream": request.stream,
        "max_completion_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "tools": [_tool(tool) for tool in request.tools or []] or None,
        "tool_choice": _choice(request.tool_choice) if request.tools else None,
        "parallel_tool_calls": request.parallel_tool_calls if request.tools else None,
        "response_format": _form(request.text),
    }
    try:
        return checked(msgspec.convert(fields, ChatRequest))
    except (msgspec.ValidationError, RecursionError) as error:
        raise invalid("input", f"{error}.") from None


def _messages(request: ResponsesRequest) -> list[Json]:
    messages: list[Json] = []
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
    if isinstance(request.input, str):
        return [*messages, {"role": "user", "content": request.input}]
    for index, item in enumerate(request.input):
        kind = item.get("type", "message")
        if kind == "message":
            content = item.get("content")
            messages.append({"role": item.get("role"), "content": content})
        elif kind == "function_call":
            call = {
                "id": item.get("call_id"),
                "function": {"name": item.get("name"), "arguments": item.get("arguments")},
            }
            if messages and messages[-1].get("tool_calls"):
                messages[-1]["tool_calls"].append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif kind == "function_call_output":
            output = item.get("output")
            messages.append(
                {"role": "tool", "tool_call_id": item.get("call_id"), "content": output}
            )
        elif kind != "reasoning":
            said = repr(kind) if isinstance(kind, str) else "what is no text"
            raise invalid(f"input[{index}].type", f"{said} is not supported by the local model.")
    return messages


def _tool(tool: _Tool) -> Json:
    function = msgspec.structs.asdict(tool)
    return {"type": function.pop("type"), "function": function}


def _choice(choice: str | _NamedTool | None) -> Any:
    if isinstance(choice, _NamedTool):
        return {"type": choice.type, "function": {"name": choice.name}}
    return choice


def _form(text: _TextOptions | None) -> Json | None:
    if text is None or text.format is None or text.format.type == "text":
        return None
    form = text.format
    if form.type == "json_object":
        return {"type": form.type}
    schema = {"name": form.name, "schema": form.schema or {}, "strict": form.strict}
    return {"type": form.type, "json_schema": schema}


class Responses:
    """An answer in the words of the responses route (`exchange.Dialect`)."""

    def __init__(self, request: ResponsesRequest, answer: Answer, created: int):
        self._request, self._answer, self._created = request, answer, created
        self._choice: Choice = answer.choices[0]
        self._id = answer.id.removeprefix("chatcmpl-")
        self._numbers = itertools.count()

    def whole(self) -> Json:
        """The body of an answer that is not streamed; its last event carries it, too."""
        cut = self._choice.finish_reason == "length"
        counts = (self._answer.said.prompt_tokens, self._answer.said.completion_tokens)
        return self._frame("incomplete" if cut else "completed") | {
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": self._items(),
            "usage": {
                "input_tokens": counts[0],
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": counts[1],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": sum(counts),
            },
        }

    def opening(self) -> bytes:
        """created, in_progress, and the message's empty place."""
        frame = self._frame("in_progress")
        data = self._event("response.created", response=frame)
        data += self._event("response.in_progress", response=frame)
        return data if self._choice.calls else data + self._added(0, self._message(""))

    def between(self, sent: int, have: int) -> bytes:
        """Deltas of the text, or of each call's arguments."""
        return b"".join(self._deltas(sent, have))

    def closing(self) -> bytes:
        """What is done, and the whole response."""
        whole = self.whole()
        done = b"".join(self._done(i, item) for i, item in enumerate(whole["output"]))
        return done + self._event(f"response.{whole['status']}", response=whole)

    def _deltas(self, sent: int, have: int) -> Iterator[bytes]:
        pieces = self._choice.pieces
        if not self._choice.calls:
            if new := "".join(pieces[sent:have]):
                yield self._text_event("delta", delta=new, logprobs=[])
            return
        for index, call in enumerate(self._choice.calls):
            if sent <= call.start < have:
                yield self._added(index, self._call(call) | {"arguments": ""})
            if new := "".join(pieces[max(sent, call.start) : min(have, call.end)]):
                kind = "response.function_call_arguments.delta"
                yield self._event(kind, item_id=f"fc_{call.id}", output_index=index, delta=new)

    def _added(self, index: int, item: Json) -> bytes:
        item = item | {"status": "in_progress"}
        if item["type"] == "message":
            part, item = item["content"][0], item | {"content": []}
            data = self._event("response.output_item.added", output_index=index, item=item)
            place: Json = {"item_id": item["id"], "output_index": index, "content_index": 0}
            return data + self._event("response.content_part.added", **place, part=part)
        return self._event("response.output_item.added", output_index=index, item=item)

    def _done(self, index: int, item: Json) -> bytes:
        if item["type"] == "message":
            part = item["content"][0]
            data = self._text_event("done", text=part["text"], logprobs=[])
            place: Json = {"item_id": item["id"], "output_index": index, "content_index": 0}
            data += self._event("response.content_part.done", **place, part=part)
        else:
            data = self._event(
                "response.function_call_arguments.done",
                item_id=item["id"],
                output_index=index,
                name=item["name"],
                arguments=item["arguments"],
            )
        return data + self._event("response.output_item.done", output_index=index, item=item)

    def _text_event(self, what: str, **fields: Any) -> bytes:
        place: Json = {"item_id": f"msg_{self._id}", "output_index": 0, "content_index": 0}
        return self._event(f"response.output_text.{what}", **place, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": next(self._numbers), **fields}
        return b"event: " + kind.encode() + b"\n" + event(data)

    def _items(self) -> list[Json]:
        if self._choice.calls:
            return [self._call(call) for call in self._choice.calls]
        return [self._message(self._choice.text)]

    def _message(self, text: str) -> Json:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {
            "id": f"msg_{self._id}",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [part],
        }

    def _call(self, call: Called) -> Json:
        return {
            "id": f"fc_{call.id}",
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": call.name,
            "arguments": self._choice.arguments(call),
        }

    def _frame(self, status: str) -> Json:
        request = self._request
        choice = request.tool_choice
        return {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": {},
            "model": request.model,
            "output": [],
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": request.temperature,
            "text": {"format": request.text.format if request.text else {"type": "text"}},
            "tool_choice": "auto" if choice is None else choice,
            "tools": request.tools or [],
            "top_p": None,
            "truncation": "disabled",
            "usage": None,
        }
