"""The contract's small print: which requests are refused, and with which code.

The oracle is OpenAI's API itself: its codes, as its answers have them; the types of its client,
which list what may be sent; and the client's own classes of errors.
"""

from __future__ import annotations

import datetime
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import httpx
import openai
import pytest
from openai.lib._pydantic import to_strict_json_schema
from openai.types import embedding_create_params as embedding_params
from openai.types import shared_params
from openai.types.chat import ChatCompletionMessage, completion_create_params
from openai.types.chat import chat_completion_message_param as message_param
from openai.types.chat import chat_completion_stream_options_param as stream_options
from pydantic import BaseModel, Field

from agentlab.clock import run_virtual
from agentlab.endpoint.contract.openai_json import RequestError, decode
from agentlab.endpoint.contract.request import ChatRequest, Message, Schema, StreamOptions
from agentlab.endpoint.dialects.embeddings import EmbeddingRequest
from agentlab.endpoint.server.app import local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.settings import Settings

USER = {"role": "user", "content": "Describe tides."}
TOOL = {"type": "function", "function": {"name": "tides", "parameters": {}}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:,"}}
CALL = {"id": "c", "type": "function", "function": {"name": "tides", "arguments": "{}"}}


def refusal(body: bytes | dict[str, Any], kind: Any = ChatRequest) -> dict[str, Any] | None:
    """What is said of a request; None if it is accepted."""
    try:
        decode(body if isinstance(body, bytes) else json.dumps(body).encode(), kind)
    except RequestError as error:
        assert (error.status, error.body["error"]["type"]) == (400, "invalid_request_error")
        return error.body["error"]
    return None


def chat(**fields: Any) -> dict[str, Any] | None:
    """What is said of a chat request with these fields."""
    return refusal({"model": "m", "messages": [USER], **fields})


def form(**fields: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": fields}}


def said(*content: Any) -> dict[str, Any]:
    """The fields of a chat whose one message has these parts."""
    return {"messages": [{"role": "user", "content": list(content)}]}


def turn(**fields: Any) -> dict[str, Any]:
    """The fields of a chat in which the assistant has answered so."""
    return {"messages": [USER, {"role": "assistant", **fields}]}


# What is said: OpenAI's code, the parameter, the sentence.
VERBATIM: list[tuple[dict[str, Any], str | None, str | None, str]] = [
    ({"n": "2"}, "invalid_type", "n",
     "Invalid type for 'n': expected an integer, but got a string instead."),
    ({"temperature": "hot"}, "invalid_type", "temperature",
     "Invalid type for 'temperature': expected a decimal, but got a string instead."),
    ({"store": "yes"}, "invalid_type", "store",
     "Invalid type for 'store': expected a boolean, but got a string instead."),
    ({"seed": 1.5}, "invalid_type", "seed",
     "Invalid type for 'seed': expected an integer, but got a decimal instead."),
    ({"user": {"a": 1}}, "invalid_type", "user",
     "Invalid type for 'user': expected a string, but got an object instead."),
    ({"tools": "none"}, "invalid_type", "tools",
     "Invalid type for 'tools': expected an array, but got a string instead."),
    ({"messages": ["ping"]}, "invalid_type", "messages[0]",
     "Invalid type for 'messages[0]': expected an object, but got a string instead."),
    ({"messages": [{"role": "user", "content": 7}]}, "invalid_type", "messages[0].content",
     "Invalid type for 'messages[0].content': expected a string or an array, but got an integer "
     "instead."),
    ({"prompt_cache_retention": {}}, "invalid_type", "prompt_cache_retention",
     "Invalid type for 'prompt_cache_retention': expected a string, but got an object "
     "instead."),
    ({"metadata": {"k": 7}}, "invalid_type", "metadata",
     "Invalid type for 'metadata': expected a string, but got an integer instead."),
    ({"n": 0}, "integer_below_min_value", "n",
     "Invalid 'n': expected integer >= 1, but got 0 instead."),
    ({"n": 130}, "integer_above_max_value", "n",
     "Invalid 'n': expected integer <= 128, but got 130 instead."),
    ({"presence_penalty": -3}, "decimal_below_min_value", "presence_penalty",
     "Invalid 'presence_penalty': expected decimal >= -2, but got -3 instead."),
    ({"temperature": 2.5}, "decimal_above_max_value", "temperature",
     "Invalid 'temperature': expected decimal <= 2, but got 2.5 instead."),
    ({"messages": []}, "empty_array", "messages",
     "Invalid 'messages': expected array of length >= 1."),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "empty_string",
     "tools[0].function.name",
     "Invalid 'tools[0].function.name': expected string of length >= 1."),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "invalid_value",
     "tools[0].function.name",
     "Invalid value for 'tools[0].function.name': it must match '^[a-zA-Z0-9_-]+$'."),
    ({"metadata": {"k": "x" * 600}}, "string_above_max_length", "metadata",
     "Invalid 'metadata': expected string of length <= 512."),
    ({"metadata": {str(i): "" for i in range(17)}}, "object_above_max_properties", "metadata",
     "Invalid 'metadata': expected object of length <= 16."),
    ({"stop": list("abcde")}, "array_above_max_length", "stop",
     "Invalid 'stop': expected array of length <= 4."),
    ({"verbosity": "loud"}, "invalid_value", "verbosity",
     "Invalid value: 'loud'. Supported values are: 'high', 'low', and 'medium'."),
    ({"tools": [TOOL], "tool_choice": "always"}, "invalid_value", "tool_choice",
     "Invalid value: 'always'. Supported values are: 'auto', 'none', and 'required'."),
    (said({"type": "image_url", "image_url": "http://x/y.png"}), "invalid_type",
     "messages[0].content[0].image_url",
     "Invalid type for 'messages[0].content[0].image_url': expected an object, but got a string "
     "instead."),
    (turn(content=[{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]),
     "invalid_value", "messages[1].content[0].type",
     "Invalid value: 'input_audio'. Supported values are: 'text' and 'refusal'."),
    (said({"type": "input_text", "text": "x"}), "invalid_value", "messages[0].content[0].type",
     "Invalid value: 'input_text'. Supported values are: 'text', 'image_url', "
     "'input_audio', 'refusal', and 'file'."),
    ({"messages": [{"content": "x"}]}, "missing_required_parameter", "messages[0].role",
     "Missing required parameter: 'messages[0].role'."),
    ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].function",
     "Missing required parameter: 'tools[0].function'."),
    (form(), "missing_required_parameter", "response_format.json_schema.name",
     "Missing required parameter: 'response_format.json_schema.name'."),
    ({"zzz": 1}, "unknown_parameter", "zzz",
     "Unknown parameter: 'zzz'."),
    ({"messagess": 1}, "unknown_parameter", "messagess",
     "Unknown parameter: 'messagess'."),
    ({"stream": True, "stream_options": {"bogus": 1}}, "unknown_parameter",
     "stream_options.bogus",
     "Unknown parameter: 'stream_options.bogus'."),
    (turn(tool_calls=[{**CALL, "index": 0}]), "unknown_parameter",
     "messages[1].tool_calls[0].index",
     "Unknown parameter: 'messages[1].tool_calls[0].index'."),
    ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options",
     "Invalid value for 'stream_options': it is only allowed when 'stream' is enabled."),
    ({"logit_bias": {"1": 101}}, "decimal_above_max_value", "logit_bias",
     "Invalid 'logit_bias': expected decimal <= 100."),
    ({"top_logprobs": 1}, "unsupported_parameter", "top_logprobs",
     "Unsupported parameter: 'top_logprobs' is not supported with this model; leave it "
     "out."),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "param", "words"), VERBATIM)
def test_a_wrong_request_gets_openais_code_and_one_sentence(
    fields: dict[str, Any], code: str | None, param: str | None, words: str
):
    """The code and the parameter that OpenAI's API gives, and what would be right."""
    assert chat(**fields) == {
        "message": words, "type": "invalid_request_error", "param": param, "code": code
    }  # fmt: skip


# Other mistakes of the same kinds: code and parameter.
REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    ({"max_tokens": 0}, "integer_below_min_value", "max_tokens"),
    ({"max_completion_tokens": 2**60}, "integer_above_max_value", "max_completion_tokens"),
    ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
    ({"max_tokens": True}, "invalid_type", "max_tokens"),
    ({"seed": 2**70}, "integer_above_max_value", "seed"),
    ({"top_p": 2}, "decimal_above_max_value", "top_p"),
    ({"top_p": -0.1}, "decimal_below_min_value", "top_p"),
    ({"top_p": "x"}, "invalid_type", "top_p"),
    ({"frequency_penalty": 3}, "decimal_above_max_value", "frequency_penalty"),
    ({"logit_bias": [1]}, "invalid_type", "logit_bias"),
    ({"logit_bias": {"50256": -101}}, "decimal_below_min_value", "logit_bias"),
    ({"service_tier": "gold"}, "invalid_value", "service_tier"),
    ({"reasoning_effort": "galactic"}, "invalid_value", "reasoning_effort"),
    ({"metadata": {"a": {}}}, "invalid_type", "metadata"),
    ({"metadata": ["a"]}, "invalid_type", "metadata"),
    ({"metadata": {"k" * 65: "v"}}, "property_name_above_max_length", "metadata"),
    ({"user": 3}, "invalid_type", "user"),
    ({"safety_identifier": "x" * 65}, "string_above_max_length", "safety_identifier"),
    ({"model": ""}, "empty_string", "model"),
    ({"model": None}, "invalid_type", "model"),
    ({"model": "x" * 300}, "string_above_max_length", "model"),
    ({"stop": 7}, "invalid_type", "stop"),
    ({"stop": ["a", 7]}, "invalid_type", "stop[1]"),
    ({"stream": "yes"}, "invalid_type", "stream"),
    ({"tools": []}, "empty_array", "tools"),
    ({"tools": [TOOL] * 129}, "array_above_max_length", "tools"),
    ({"tools": [TOOL, TOOL]}, "invalid_value", "tools[1].function.name"),
    ({"tools": [{**TOOL, "name": "tides"}]}, "unknown_parameter", "tools[0].name"),
    ({"tools": [TOOL], "tool_choice": 7}, "invalid_type", "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}},
     "invalid_value", "tool_choice"),
    ({"tool_choice": "auto"}, "invalid_value", "tool_choice"),
    ({"parallel_tool_calls": False}, "invalid_value", "parallel_tool_calls"),
    ({"response_format": "json"}, "invalid_type", "response_format"),
    ({"response_format": {}}, "missing_required_parameter", "response_format.type"),
    ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "missing_required_parameter",
     "response_format.json_schema"),
    (form(name="x"), "missing_required_parameter", "response_format.json_schema.schema"),
    (form(name="x", schema={}, more=1), "unknown_parameter", "response_format.json_schema.more"),
    ({"response_format": {"type": "json_object"}}, "invalid_value", "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "invalid_value", "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "invalid_type", "messages[0].content"),
    ({"messages": [{"role": "user", "tool_calls": [CALL]}]}, "invalid_type",
     "messages[0].content"),
    (turn(), "invalid_type", "messages[1].content"),
    (turn(content=None, refusal=None, tool_calls=None), "invalid_type", "messages[1].content"),
    (turn(content="x", reasoning="y"), "unknown_parameter", "messages[1].reasoning"),
    ({"messages": [{**USER, "name": "not a name"}]}, "invalid_value", "messages[0].name"),
    (turn(content="x", tool_calls=[]), "empty_array", "messages[1].tool_calls"),
    (turn(tool_calls=[{"id": "c", "type": "function"}]), "missing_required_parameter",
     "messages[1].tool_calls[0].function"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "missing_required_parameter",
     "messages[0].tool_call_id"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}, "invalid_value",
     "messages[0].role"),
    (said({"text": "x"}), "missing_required_parameter", "messages[0].content[0].type"),
    (said({"type": "text"}), "missing_required_parameter", "messages[0].content[0].text"),
    (said({"type": "image_url"}), "missing_required_parameter",
     "messages[0].content[0].image_url"),
    (said({"type": "video", "video": {}}), "unknown_parameter", "messages[0].content[0].video"),
    (said({"type": "video"}), "invalid_value", "messages[0].content[0].type"),
    (said("x"), "invalid_type", "messages[0].content[0]"),
    (said({"type": "image_url", "image_url": {}}), "missing_required_parameter",
     "messages[0].content[0].image_url.url"),
    (said({"type": "image_url", "image_url": {"url": 7}}), "invalid_type",
     "messages[0].content[0].image_url.url"),
    (said({"type": "image_url", "image_url": {"url": "x", "detail": "ultra"}}), "invalid_value",
     "messages[0].content[0].image_url.detail"),
    (said({"type": "input_audio", "input_audio": {"data": "AA=="}}), "missing_required_parameter",
     "messages[0].content[0].input_audio.format"),
    (said({"type": "input_audio", "input_audio": {"data": "", "format": "ogg"}}), "invalid_value",
     "messages[0].content[0].input_audio.format"),
    (said({"type": "input_audio", "input_audio": "AA=="}), "invalid_type",
     "messages[0].content[0].input_audio"),
    (said({"type": "refusal", "refusal": "No."}), "invalid_value", "messages[0].content[0].type"),
    (turn(content=[{"type": "text", "text": "x"}, PICTURE]), "invalid_value",
     "messages[1].content[1].type"),
    ({"messages": [{"role": "system", "content": [PICTURE]}, USER]}, "invalid_value",
     "messages[0].content[0].type"),
    ({"modalities": ["text", "audio"]}, "invalid_value", "modalities[1]"),
    ({"logprobs": True}, "unsupported_parameter", "logprobs"),
    ({"top_logprobs": 21, "logprobs": True}, "integer_above_max_value", "top_logprobs"),
    ({"guided_json": {}}, "unknown_parameter", "guided_json"),
    ({"x" * 5000: 1}, "unknown_parameter", "x" * 1000),
    ({"verbosity": "x - at $.n.n"}, "invalid_value", "verbosity"),
    ({"metadata": {"...": "a", "k": 7}}, "invalid_type", "metadata"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "param"), REFUSED)
def test_other_mistakes_get_the_same_codes(fields: dict[str, Any], code: str, param: str):
    """One code for each kind of mistake, wherever it is; the parameter says where."""
    error = chat(**fields)
    assert error is not None and (error["code"], error["param"]) == (code, param)
    assert "`" not in error["message"] and len(error["message"]) <= 1000


def offered(parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The fields of a chat that offers a function with these parameters."""
    function = {"name": "f", "parameters": parameters, **more}
    return {"tools": [{"type": "function", "function": function}]}


def described(error: dict[str, Any] | None, code: str) -> str:
    """What an error of this code says of a schema."""
    assert error is not None and error["code"] == code
    return error["message"].split(": ", 1)[1]


@pytest.mark.parametrize(
    ("parameters", "kind"),
    [
        ({"type": "boolean"}, "boolean"),
        ({"type": "array", "items": {"type": "string"}}, "array"),
        ({"type": ["object", "null"]}, "['object', 'null']"),
        ({"const": 5}, "None"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}, "None"),
        ({"anyOf": [{"type": "object"}]}, "None"),
    ],
)
def test_parameters_are_an_object(parameters: dict[str, Any], kind: str):
    """Whatever else their schema says, its root is of this type, in strict mode or not."""
    for strict in (False, True):
        error = chat(**offered(parameters, strict=strict))
        said = described(error, "invalid_function_parameters")
        assert (
            said == f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
        )
    assert chat(**offered({})) is None


NO = {"additionalProperties": False}


def strictly(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A schema that strict mode takes if it takes these properties."""
    whole = {"type": "object", "properties": properties, "required": [*properties], **NO}
    return whole | more


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (strictly({"pet": {"oneOf": [{"type": "string"}]}}),
         "In context=('properties', 'pet'), 'oneOf' is not permitted."),
        (strictly({"a": {"type": "array", "items": {"not": {"type": "string"}}}}),
         "In context=('properties', 'a', 'items'), 'not' is not permitted."),
        (strictly({"a": {"anyOf": [{"type": "null"}, {"type": "string", "if": {}}]}}),
         "In context=('properties', 'a', 'anyOf', '1'), 'if' is not permitted."),
        (strictly({}, anyOf=[{"type": "object"}]), "In context=(), 'anyOf' is not permitted."),
        (strictly({"a": {"enum": [1, 2]}}),
         "In context=('properties', 'a'), schema must have a 'type' key."),
        (strictly({"a": {"type": ["array", "null"]}}),
         "In context=('properties', 'a'), array schema missing items."),
        (strictly({}, required=["z"]),
         "In context=(), 'required' is required to be supplied and to be an array including "
         "every key in properties. Extra required key 'z' supplied."),
        (strictly({"b": {"$ref": "#/$defs/b"}}, **{"$defs": {"b": strictly({"c": {
            "type": "string"}}, required=[])}}),
         "In context=('$defs', 'b'), 'required' is required to be supplied and to be an array "
         "including every key in properties. Missing 'c'."),
        (strictly({"a": {"type": "object"}}),
         "In context=('properties', 'a'), 'additionalProperties' is required to be supplied and "
         "to be false."),
    ],
)  # fmt: skip
def test_strict_mode_says_where_it_does_not_take_a_schema(schema: dict[str, Any], words: str):
    """In OpenAI's words, for a form of the answer and for a function alike."""
    of_form = chat(**form(name="x", schema=schema, strict=True))
    assert described(of_form, "invalid_json_schema") == words
    of_tool = chat(**offered(schema, strict=True))
    assert described(of_tool, "invalid_function_parameters") == words
    assert chat(**form(name="x", schema=schema)) is None


def test_the_arrays_of_any_function_say_what_is_in_them():
    """OpenAI refuses an array without items in functions that are not strict, too."""
    lists = {"type": "object", "properties": {"a": {"anyOf": [{"type": "array"}]}}}
    said = described(chat(**offered(lists)), "invalid_function_parameters")
    assert said == "In context=('properties', 'a', 'anyOf', '0'), array schema missing items."


class Leaf(BaseModel):
    kind: Literal["leaf"]
    sizes: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)


class Node(BaseModel):
    """Refers to itself, to another with words of its own, and to what may be missing."""

    kind: Literal["node", "root"]
    left: Node | Leaf | None = None
    right: Leaf = Field(description="The other side")
    day: datetime.date
    price: Decimal


@pytest.mark.parametrize("model", [Leaf, Node])
def test_strict_mode_takes_what_openais_client_makes_of_a_model(model: type[BaseModel]):
    """Its helper for pydantic's models is the oracle of what a strict schema is."""
    made = to_strict_json_schema(model)
    assert chat(**form(name="x", schema=made, strict=True)) is None
    assert chat(**offered(made, strict=True)) is None


@pytest.mark.parametrize("words", ["x - at `$.n.n`", "x - at `$.n.n", "`", " - at `$[0]", "\n"])
def test_words_that_read_as_a_way_lead_nowhere(words: str):
    """A client may name a field, or give a value, as the decoder's own errors are worded."""
    assert chat(verbosity=words) == chat(verbosity="x") | {  # type: ignore[operator]
        "message": f"Invalid value: '{words}'. Supported values are: 'high', 'low', and 'medium'."
    }
    nested = {"response_format": {"type": "text", words: 1}}
    for fields in ({words: 1}, nested, {"metadata": {words: 1}}):
        assert chat(**fields) is not None


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 128},
        {"temperature": 2},
        {"temperature": 0},
        {"top_p": 1},
        {"presence_penalty": -2, "frequency_penalty": 2},
        {"metadata": {"k" * 64: "v" * 512, **{str(i): "" for i in range(15)}}},
        {"seed": -(2**63)},
        {"stop": list("abcd")},
        said(),
        said({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}),
        said({"type": "text", "text": "x", "role": "user"}),
        said({"type": "image_url", "image_url": {"url": "data:,"}}),
        {"messages": [{**USER, "name": "ada"}]},
        {"messages": [{"role": "user", "content": ""}]},
        turn(refusal="no"),
        turn(function_call={"name": "f", "arguments": "{}"}),
        {"tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": False},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    ],
)
def test_the_near_side_of_each_bound_is_accepted(fields: dict[str, Any]):
    """A bound that is off by one refuses what OpenAI takes."""
    assert chat(**fields) is None


PARSED = "We could not parse the JSON body of your request."


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"", None, PARSED),
        (b"{", None, PARSED),
        (b"{not json", None, f"{PARSED} It is wrong from byte 1 on."),
        (b"\xff", None, PARSED),
        (b"[" * 100_000, None, PARSED),
        (b'{"model":' * 100_000, None, PARSED),
        (b'{"model": "m", "metadata": {"a": NaN}}', None, PARSED),
        (b'{"model": "m", "prediction": {"a": 1e999}}', None, PARSED),
        (b'{"model": "\\ud800"}', None, PARSED),
        (b'{"model": "m", "n": %s}' % (b"9" * 5000), None, PARSED),
        (b"[]", "invalid_type", "Invalid type: expected an object, but got an array instead."),
        (b"null", "invalid_type", "Invalid type: expected an object, but got null instead."),
        (b"3", "invalid_type", "Invalid type: expected an object, but got an integer instead."),
        (b'"x"', "invalid_type", "Invalid type: expected an object, but got a string instead."),
    ],
)
def test_a_body_that_is_no_request_is_told_so(body: bytes, code: str | None, words: str):
    """Broken JSON, endless depth, halves of characters: a short answer that names no library."""
    error = refusal(body)
    assert error is not None and error["message"].startswith(words)
    assert (error["code"], error["param"]) == (code, None)
    assert "msgspec" not in error["message"] and "truncated" not in error["message"]


def test_numbers_of_any_size_are_compared():
    """A number of 400 digits is above the maximum, as one of four is."""
    body = json.dumps({"model": "m", "messages": [USER], "n": int("9" * 400)}).encode()
    error = refusal(body)
    assert error is not None and error["code"] == "integer_above_max_value"


def test_of_two_values_for_a_field_the_last_one_counts():
    """Duplicate keys are JSON, and OpenAI takes them so."""
    body = b'{"model": "m", "n": 0, "n": 1, "messages": [{"role": "user", "content": "x"}]}'
    assert refusal(body) is None


VALUES = [None, True, 3, -(10**9), 1.5, 1e9, "", "x", "x" * 3000, [], {}, [3], [[]], {"a": 3}]


@pytest.mark.parametrize("kind", [ChatRequest, EmbeddingRequest])
def test_no_value_of_any_field_is_refused_in_a_librarys_words(kind: Any):
    """Each field with values of all types: taken, or refused with a code and OpenAI's sentence."""
    for name in kind.__struct_fields__:
        for value in VALUES:
            body = {"model": "m", "messages": [USER], "input": "x", name: value}
            error = refusal({k: v for k, v in body.items() if k in kind.__struct_fields__}, kind)
            if error is not None:
                assert "`" not in error["message"] and "Expected `" not in error["message"]
                assert error["param"].startswith(name)
                alone = ("stream_options", "top_logprobs")
                assert error["code"] or name in alone


# What OpenAI's client can send.


def fields_of(params: Any) -> set[str]:
    """The fields that the types of OpenAI's client list."""
    kinds = get_args(params) or [params]
    return {name for kind in kinds for name in get_type_hints(kind)}


UNSUPPORTED = {"functions", "function_call", "audio", "web_search_options", "moderation"}


def test_every_field_that_openais_client_sends_is_known():
    """Accepted, or refused by its name as unsupported; none is called unknown."""
    names = fields_of(completion_create_params.CompletionCreateParams)
    assert len(names) > 35
    assert names - set(ChatRequest.__struct_fields__) == UNSUPPORTED
    for name in names - {"model", "messages"}:
        assert chat(**{name: None}) is None
    for name in UNSUPPORTED:
        error = chat(**{name: {}})
        assert error is not None and error["code"] == "unsupported_parameter"
        assert error["message"].startswith(f"Unsupported parameter: '{name}' is not supported")


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        (embedding_params.EmbeddingCreateParams, EmbeddingRequest),
        (message_param.ChatCompletionMessageParam, Message),
        (stream_options.ChatCompletionStreamOptionsParam, StreamOptions),
        (shared_params.response_format_json_schema.JSONSchema, Schema),
    ],
)
def test_every_field_within_is_known(params: Any, kind: Any):
    """Of messages, of the options of a stream, of a schema, of embeddings."""
    assert fields_of(params) - set(kind.__struct_fields__) == set()


PREFERENCES: dict[str, Any] = {
    "top_p": 0.5, "presence_penalty": 1, "frequency_penalty": -1, "logit_bias": {"7": 5},
    "modalities": ["text"], "prediction": {"type": "content", "content": "x"},
    "reasoning_effort": "low", "verbosity": "low", "service_tier": "auto", "store": True,
    "metadata": {"a": "b"}, "user": "u", "safety_identifier": "s", "prompt_cache_key": "k",
    "prompt_cache_retention": "24h", "prompt_cache_options": {"mode": "explicit"},
}  # fmt: skip
OF_OTHERS: dict[str, Any] = {
    "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": True,
    "chat_template_kwargs": {"enable_thinking": False},
}  # fmt: skip


def client() -> openai.AsyncOpenAI:
    app = local_app(Settings(), time_scale=1.0)
    http = httpx.AsyncClient(transport=InProcessTransport(app))
    url = "http://127.0.0.1/v1"
    return openai.AsyncOpenAI(base_url=url, api_key="any", http_client=http, max_retries=0)


def asked(**fields: Any) -> Any:
    """What OpenAI's client gets for a chat, whole or as its chunks, from a new local model."""

    async def main() -> Any:
        body = {"model": "m", "messages": [USER], **fields}
        got = await client().chat.completions.create(**body)
        return [chunk async for chunk in got] if fields.get("stream") else got

    return run_virtual(main()).result


def words(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def test_preferences_and_names_change_no_word():
    """What is checked and ignored gives the very answer that a request without it gets."""
    part = {"type": "text", "text": USER["content"]}
    named = {"role": "user", "content": [part], "name": "ada"}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    plain = asked(messages=[{"role": "user", "content": [part]}])
    assert words(asked(**PREFERENCES, messages=[named])) == words(plain)
    assert words(asked(extra_body=OF_OTHERS)) == words(asked())
    assert chat(messages=[{"role": "user", "content": [part, image]}]) is None


def test_an_answer_can_be_sent_back_as_it_came():
    """With all its fields, the null ones too, as clients keep a message."""
    for fields in ({}, {"tools": [TOOL], "tool_choice": "required"}):
        message = asked(**fields).choices[0].message
        assert isinstance(message, ChatCompletionMessage)
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": "high"}
            for call in message.tool_calls or []
        ]
        back = {**message.model_dump(), "annotations": []}
        assert chat(messages=[USER, back, *results]) is None


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"temperature": 3}, "decimal_above_max_value", "temperature"),
        ({"messages": []}, "empty_array", "messages"),
        ({"extra_body": {"foo": 1}}, "unknown_parameter", "foo"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "unsupported_parameter", "audio"),
    ],
)
def test_the_client_raises_its_own_error(fields: dict[str, Any], code: str, param: str):
    """BadRequestError with code and param, as a program that handles errors reads them."""
    with pytest.raises(openai.BadRequestError) as error:
        asked(**fields)
    assert (error.value.code, error.value.param, error.value.status_code) == (code, param, 400)
    assert error.value.type == "invalid_request_error"


# What the docs say.

DOCS = Path(__file__).resolve().parents[1] / "docs" / "local_model.md"
REFUSES = DOCS.read_text(encoding="utf-8").partition("## What it refuses")[2].partition("\n## ")[0]


def test_the_docs_show_what_is_refused():
    """Each row of the table: the request gets this code and this message."""
    rows = re.findall(r"^\| `(\{.*\})` \| `(\w+)` \| (.*) \|$", REFUSES, re.M)
    assert len(rows) == 9
    for fields, code, message in rows:
        error = chat(**json.loads(fields))
        assert error is not None and (error["code"], error["message"]) == (code, message)


def test_the_docs_name_each_parameter_once():
    """Those of OpenAI's client in the three lists; those of other servers below."""
    acted, checked, refused, others = (
        set(re.findall(r"`(\w+)`", line))
        for line in re.findall(r"^(?:- |Of other).*$", REFUSES, re.M)
    )
    openais = fields_of(completion_create_params.CompletionCreateParams)
    assert acted | checked | refused == openais
    assert len(acted) + len(checked) + len(refused) == len(openais)
    assert checked == {*PREFERENCES}
    assert refused == {*UNSUPPORTED, "logprobs", "top_logprobs"}
    assert others == {*OF_OTHERS, "continuous_usage_stats", "stream_options"}


@pytest.mark.parametrize("part", ["# The local model", "## What it refuses", "## What Responses"])
def test_the_docs_say_that_a_repeated_request_gets_another_answer(part: str):
    """Where answers, `seed` and responses are described, with the way to the same words."""
    said = DOCS.read_text(encoding="utf-8").partition(f"{part}")[2].partition("\n## ")[0]
    assert re.search(
        r"[^.]*\b(?:second time|repeated request)\b[^\n]*`.?temperature\b[^\n]*0", said
    )


@pytest.mark.parametrize(
    ("route", "asks"),
    [
        ("responses", {"input": "Describe Busan."}),
        ("chat/completions", {"messages": [{"role": "user", "content": "Describe Busan."}]}),
        ("chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "seed": 3}),
    ],
)
def test_a_repeated_request_gets_another_answer_unless_the_temperature_is_0(
    route: str, asks: dict[str, Any]
):
    """With a seed of the client's, too, as the docs say."""

    async def twice(**more: Any) -> list[str]:
        transport = InProcessTransport(local_app(Settings(), time_scale=1.0))
        async with httpx.AsyncClient(transport=transport, timeout=None) as http:
            body = {"model": "m", **asks, **more}
            url = f"http://127.0.0.1/v1/{route}"
            answers = [(await http.post(url, json=body)).json() for _ in range(2)]
        return [json.dumps(each.get("output") or each["choices"]) for each in answers]

    words = r'"(?:text|content)": ("[^"]{20,}")'
    one, two = (re.findall(words, each) for each in run_virtual(twice()).result)
    assert one and two and one != two
    one, two = (re.findall(words, each) for each in run_virtual(twice(temperature=0)).result)
    assert one and one == two


# Answers.


def test_usage_has_its_details():
    """Of the prompt and of the completion, as the client's types have them since openai 2."""
    usage = asked().usage
    assert usage.prompt_tokens_details.model_dump()["cached_tokens"] == 0
    kinds = "accepted_prediction_tokens audio_tokens reasoning_tokens rejected_prediction_tokens"
    details = usage.completion_tokens_details.model_dump(exclude_none=True)
    assert details == dict.fromkeys(kinds.split(), 0)


def test_langchain_shows_the_details():
    """Its usage says what came from a cache, and what was spent on reasoning: nothing."""
    from langchain_openai import ChatOpenAI

    http = httpx.AsyncClient(transport=InProcessTransport(local_app(Settings(), time_scale=1.0)))
    url = "http://127.0.0.1/v1"
    model = ChatOpenAI(model="m", base_url=url, api_key="any", http_async_client=http)  # type: ignore[arg-type]
    usage = run_virtual(model.ainvoke("Describe tides.")).result.usage_metadata
    assert usage is not None
    assert usage["input_token_details"] == {"audio": 0, "cache_read": 0}
    assert usage["output_token_details"] == {"audio": 0, "reasoning": 0}


@pytest.mark.parametrize("fields", [{}, {"tools": [TOOL], "tool_choice": "required"}])
def test_a_stream_opens_as_openais_does(fields: dict[str, Any]):
    """An empty text before words, null before calls."""
    first = asked(stream=True, **fields)[0].choices[0].delta
    assert (first.role, first.content) == ("assistant", None if fields else "")


def test_the_chunks_before_the_usage_say_that_it_is_to_come():
    """With include_usage each has `usage: null`; without it none has the field."""
    asks = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = asked(**asks)
    assert last.usage.completion_tokens > 0
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in chunks)
    assert not any("usage" in chunk.model_fields_set for chunk in asked(stream=True))


@pytest.mark.parametrize(
    ("sent", "served"),
    [("auto", "default"), ("default", "default"), ("flex", "flex"), ("fast", "priority")],
)
def test_the_answer_names_the_tier_that_served_it(sent: str, served: str):
    """Whole and in each chunk; auto is the default, fast is called priority."""
    assert asked(service_tier=sent).service_tier == served
    chunks = asked(service_tier=sent, stream=True)
    assert {chunk.service_tier for chunk in chunks} == {served}


# Embeddings.


def embedded(**fields: Any) -> dict[str, Any] | None:
    return refusal({"model": "e", "input": "x", **fields}, EmbeddingRequest)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input": ""}, "empty_string", "input"),
        ({"input": []}, "empty_array", "input"),
        ({"input": ["a", ""]}, "empty_string", "input[1]"),
        ({"input": ["a", 3]}, "invalid_value", "input"),
        ({"input": None}, "invalid_type", "input"),
        ({"input": ["x"] * 2049}, "array_above_max_length", "input"),
        ({"encoding_format": "hex"}, "invalid_value", "encoding_format"),
        ({"dimensions": 0}, "integer_below_min_value", "dimensions"),
        ({"dimensions": 1536, "model": "text-embedding-ada-002"}, "invalid_value", "dimensions"),
        ({"dimensions": 1537, "model": "text-embedding-3-small"}, "invalid_value", "dimensions"),
        ({"dimensions": 3073}, "integer_above_max_value", "dimensions"),
        ({"foo": 1}, "unknown_parameter", "foo"),
    ],
)
def test_wrong_embedding_requests_get_the_same_codes(fields: dict[str, Any], code: str, param: str):
    """The route has the contract of the others."""
    error = embedded(**fields)
    assert error is not None and (error["code"], error["param"]) == (code, param)


def embed(**fields: Any) -> Any:
    """What OpenAI's client gets for texts."""

    async def main() -> Any:
        return await client().embeddings.create(**{"model": "e", "input": "tides", **fields})

    return run_virtual(main()).result


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, 1536),
        ({"model": "text-embedding-3-small"}, 1536),
        ({"model": "text-embedding-ada-002"}, 1536),
        ({"model": "text-embedding-3-large"}, 3072),
        ({"model": "openai/text-embedding-3-large"}, 3072),
        ({"model": "text-embedding-3-large", "dimensions": 256}, 256),
        ({"dimensions": 3072}, 3072),
    ],
)
def test_a_vector_is_as_long_as_the_models(fields: dict[str, Any], size: int):
    """As OpenAI's models of these names, or as asked; of unit length."""
    (item,) = embed(**fields).data
    assert len(item.embedding) == size
    assert sum(x * x for x in item.embedding) == pytest.approx(1)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ("tide " * 8193, "input[0]"),
        (["tide", "tide " * 8193], "input[1]"),
        ([7] * 8193, "input[0]"),
    ],
)
def test_an_input_over_8192_tokens_is_refused(given: Any, param: str):
    """Each input by itself; token numbers count as what they are."""
    with pytest.raises(openai.BadRequestError, match="maximum input length is 8192") as error:
        embed(input=given)
    assert error.value.param == param


def test_a_request_embeds_300000_tokens_at_most():
    """Each of its inputs may be short enough; OpenAI's type and code."""
    with pytest.raises(openai.BadRequestError) as raised:
        embed(input=[[7] * 8000] * 38)
    assert raised.value.code == raised.value.type == "max_tokens_per_request"
    assert embed(input=[[7] * 8000] * 37, dimensions=1).usage.prompt_tokens == 296_000


def test_as_many_tokens_are_embedded_as_are_allowed():
    """8,192 token numbers are that many tokens."""
    assert embed(input=[7] * 8192).usage.prompt_tokens == 8192
