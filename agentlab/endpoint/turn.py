"""What the model does on its turn: it speaks, fills a form, or calls tools."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec

from agentlab.endpoint import react, tools
from agentlab.endpoint.asked import glance, unframe
from agentlab.endpoint.replies import Replies, Writer
from agentlab.endpoint.request import ChatRequest
from agentlab.endpoint.schema import CannotFill, admits, build
from agentlab.endpoint.wire import RequestError


class Turn(msgspec.Struct, frozen=True):
    """What the model says, or the tools that it calls."""

    text: str
    calls: list[tools.Call] = []
    fixed: bool = False  # the request alone decides it, and no chance


def take(request: ChatRequest, replies: Replies, generator: Callable[[], random.Random]) -> Turn:
    """The model's turn; what `generator` makes decides what the request leaves open.

    Raises:
        RequestError: 400, if a schema asks for what the local model cannot build.
    """
    turns = request.turns
    prompt = glance(next((text for role, text in reversed(turns) if role == "user"), ""))
    prepared = replies.prepared(prompt)
    if prepared and not (request.tools or request.response_format or react.asked_for(turns)):
        return Turn(prepared, fixed=True)
    draw = generator()
    writer = replies.writer(prompt, draw)
    try:
        if request.offered and (calls := tools.calls(request, prompt, writer, draw)):
            return Turn("", calls)
        return Turn(_said(request, prepared, writer, draw))
    except CannotFill as error:
        raise RequestError(
            400,
            f"The local model cannot fill this schema: {error}; simplify it.",
            param="response_format" if request.response_format else "tools",
            code="unsupported_schema",
        ) from None


def _said(request: ChatRequest, prepared: str | None, writer: Writer, draw: random.Random) -> str:
    form = request.response_format
    if form is not None and form.type != "text":
        definition = form.json_schema.definition if form.json_schema else {"type": "object"}
        if prepared and _fits(prepared, definition):
            return prepared
        if form.json_schema is None:
            return _json(writer.shaped())
        return _json(build(definition, writer, draw=draw))
    if request.results:
        return writer.from_results(request.results)
    if react.asked_for(request.turns):
        return _react(request, writer, draw)
    if prepared:
        return prepared
    return writer.write()


def _fits(text: str, definition: dict[str, Any]) -> bool:
    try:
        return admits(definition, json.loads(text))
    except ValueError:
        return False


def _react(request: ChatRequest, writer: Writer, draw: random.Random) -> str:
    """One action of a tool that is described in words, and then the final answer."""
    if (found := react.observed(request.turns)) is not None:
        return react.final(writer.from_results([("", found)]))
    task = glance(next((text for role, text in request.turns if role == "user"), ""))
    described = react.described(request.turns)
    chosen = tools.suitable(described, unframe(task).task) or described
    if not chosen:
        return react.final(writer.write())
    return react.action(*tools.call(chosen[0], tools.Prompt(task), writer, draw))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
