"""OpenAI's shapes: what is read from a request, and what a wrong one is told."""

from __future__ import annotations

import json
from typing import Any

import openai.types.chat as openai_types
import pytest

from agentlab.endpoint.answers.answer import Answer, Choice, Said
from agentlab.endpoint.contract.openai_json import RequestError, decode
from agentlab.endpoint.contract.request import ChatRequest
from agentlab.endpoint.dialects import chat

USER = {"role": "user", "content": "Hello"}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [USER], **fields}).encode()


def test_content_parts_are_read_as_text():
    """A list of parts, as clients send them, is the text of its text parts."""
    parts = [
        {"type": "text", "text": "one"},
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1/tides.png"}},
        {"type": "text", "text": "two"},
    ]
    request = decode(body(messages=[{"role": "user", "content": parts}]), ChatRequest)
    assert request.turns == [("user", "one\ntwo")]


def test_null_is_the_same_as_nothing():
    """Clients send null for what they leave out."""
    null = body(stop=None, n=None, max_tokens=None, stream=None, temperature=None)
    assert decode(null, ChatRequest) == decode(body(), ChatRequest)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_either_name_limits_the_tokens(field: str):
    """The old and the new name of the same limit."""
    assert decode(body(**{field: 5}), ChatRequest).limit_tokens == 5


@pytest.mark.parametrize(
    ("text", "param", "words"),
    [
        (b"{not json", None, "could not parse the JSON body"),
        (b'{"model": "m"}', "messages", "Missing required parameter: 'messages'"),
        (b'{"messages": [{"role": "user"}]}', "model", "Missing required parameter: 'model'"),
        (body(messages=[USER, {"role": "user", "content": 5}]), "messages[1].content", "integer"),
        (body(logprobs=True), "logprobs", "leave it out"),
        (body(tool_choice="required"), "tool_choice", "only allowed when 'tools'"),
        (body(response_format={"type": "json_object"}), "messages", "the word 'json'"),
        (body(max_tokens=1, max_completion_tokens=1), "max_tokens", "give one of them"),
    ],
)
def test_a_bad_request_is_told_what_and_where(text: bytes, param: str | None, words: str):
    """400 in OpenAI's shape: the message says what, `param` says where."""
    with pytest.raises(RequestError) as error:
        decode(text, ChatRequest)
    problem = error.value.body["error"]
    assert (error.value.status, problem["type"]) == (400, "invalid_request_error")
    assert problem["param"] == param
    assert words in problem["message"]


def answered(**fields: Any) -> chat.Chat:
    choices = [Choice(["a", " b"], "stop", text="a b"), Choice(["c"], "length", text="c")]
    said = Said(choices, prompt_tokens=3, completion_tokens=3, longest_tokens=2)
    return chat.Chat(decode(body(**fields), ChatRequest), Answer("c", said), created=1)


def test_a_completion_is_what_the_openai_client_expects():
    """Its own model reads it, strictly."""
    read = openai_types.ChatCompletion.model_validate(answered().whole(), strict=True)
    assert [c.message.content for c in read.choices] == ["a b", "c"]
    assert read.usage is not None and read.usage.total_tokens == 6


def test_a_chunk_is_what_the_openai_client_expects():
    """Its own model reads role, content, finish and usage chunks, strictly."""
    answer = answered(stream=True, stream_options={"include_usage": True})
    stream = answer.opening() + answer.between(0, 1) + answer.between(1, 2) + answer.closing()
    *events, done, end = stream.decode().split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    for event in events:
        data = json.loads(event.removeprefix("data: "))
        openai_types.ChatCompletionChunk.model_validate(data, strict=True)
    assert len(events) == 2 + 3 + 2 + 1
