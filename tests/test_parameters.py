"""Which parameter a refusal names, in many servers' words, and what no refusal is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentlab.endpoint.contract.refused import Asking, refused, without

ASKED = {
    "model": "m", "messages": [], "temperature": 0, "seed": 1, "max_tokens": 9, "top_p": 1,
    "max_completion_tokens": 9, "max_output_tokens": 9, "parallel_tool_calls": True, "stop": ["x"],
    "stream_options": {}, "presence_penalty": 0, "frequency_penalty": 0,
}  # fmt: skip


def openai(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return {"error": error}


def extra(*at: str) -> dict[str, Any]:
    return {"type": "extra_forbidden", "loc": [*at], "msg": "Extra inputs are not permitted"}


REFUSALS: list[tuple[Any, set[str]]] = [
    (
        openai(
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default "
            "(1) value is supported.",
            "temperature",
            "unsupported_value",
        ),
        {"temperature"},
    ),
    (
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        ),
        {"max_tokens"},
    ),
    (openai("No.", "max_completion_tokens", "unknown_parameter"), {"max_completion_tokens"}),
    (openai("No.", "stream_options.include_usage", "unknown_parameter"), {"stream_options"}),
    ({"detail": [extra("body", "max_completion_tokens")]}, {"max_completion_tokens"}),
    ({"detail": [extra("body", "seed"), extra("body", "top_p")]}, {"seed", "top_p"}),
    ({"detail": [{"type": "value_error.extra", "loc": ["body", "seed"]}]}, {"seed"}),
    ({"object": "error", "message": {"detail": [extra("body", "seed")]}}, {"seed"}),
    (
        {
            "object": "error",
            "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'max_completion_tokens'), "
            "'msg': 'Extra inputs are not permitted', 'input': 100}]",
            "code": 400,
        },
        {"max_completion_tokens"},
    ),
    ([openai('Invalid JSON payload received. Unknown name "seed": Cannot find field.')], {"seed"}),
    (
        {"error": {"message": "Provider returned error", "metadata": {"raw": json.dumps(
            openai("Unsupported parameter: 'temperature' is not supported with this model."))}}},
        {"temperature"},
    ),
    ({"code": "invalid", "error": "Model g-4 does not support parameter presencePenalty."},
     {"presence_penalty"}),
    ("Unrecognized request argument supplied: max_completion_tokens", {"max_completion_tokens"}),
    ("got an unexpected keyword argument 'max_completion_tokens'", {"max_completion_tokens"}),
    ("Extra inputs are not permitted, field: 'max_completion_tokens', value: 9",
     {"max_completion_tokens"}),
    ("max_completion_tokens: Extra inputs are not permitted", {"max_completion_tokens"}),
    ("Additional properties are not allowed ('seed' was unexpected)", {"seed"}),
    ("property 'seed' is unsupported", {"seed"}),
    ("`temperature` is deprecated for this model.", {"temperature"}),
    ("temperature does not support 0; only the default (1)", {"temperature"}),
    ("temperature does not support 0.0 with this model", {"temperature"}),
    ("O-series models don't support temperature=0. Only temperature=1 is supported",
     {"temperature"}),
    ("m does not support parameters: ['temperature'], for model=m", {"temperature"}),
    ("invalid temperature: only 1 is allowed for this model", {"temperature"}),
    ("`temperature` may only be set to 1 when thinking is enabled.", {"temperature"}),
    ("deepseek-reasoner does not support parallel_tool_calls", {"parallel_tool_calls"}),
    ("The parameter 'seed' is not supported by this model", {"seed"}),
    ("This model does not support the 'temperature' parameter.", {"temperature"}),
    ("'temperature' is not a supported parameter.", {"temperature"}),
    ("parameter 'seed' is not a valid field", {"seed"}),
    ("temperature isn't supported when using reasoning", {"temperature"}),
    ("Unsupported parameter(s): `seed`", {"seed"}),
    ({"errors": [openai('json: unknown field "seed"')]}, {"seed"}),
    (openai("No.", "seed", "UnsupportedParameter"), {"seed"}),
    ("Argument not supported on this model: presencePenalty", {"presence_penalty"}),
    ("unknown field `max_completion_tokens`, expected one of `model`, `max_tokens`",
     {"max_completion_tokens"}),
]  # fmt: skip

OTHERS: list[Any] = [
    openai(
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens "
        "(1000 in the messages, 4000 in max_tokens). Reduce the length of the messages.",
        "messages",
        "context_length_exceeded",
    ),
    "'max_tokens' or 'max_completion_tokens' is too large: 99999. This model supports at most 4096",
    "max_tokens is too large: 99999.",
    "This model does not support max_tokens greater than 4096",
    "Invalid value for max_tokens: 100000 is not supported; use at most 4096",
    "max_tokens does not support 100000",
    "does not support max_tokens=100000",
    "max_tokens is not allowed to be larger than the context",
    openai("Invalid 'max_tokens': must be at least 1.", "max_tokens", "invalid_value"),
    openai("Invalid 'temperature': decimal above maximum value.", "temperature",
           "decimal_above_max_value"),
    openai("Unsupported value: 'max_tokens' does not support 9.", "max_tokens",
           "unsupported_value"),
    openai("Unsupported parameter: 'max_output_tokens'.", "max_output_tokens",
           "unsupported_parameter"),
    openai("Unsupported parameter: 'stop' is not supported.", "stop", "unsupported_parameter"),
    openai("Unknown parameter: 'messages[0].seed'.", "messages[0].seed", "unknown_parameter"),
    openai("temperature is not supported", "messages", "invalid_value"),
    {"detail": [extra("body", "messages", "0", "seed")]},
    {"detail": [{"type": "int_parsing", "loc": ["body", "seed"], "msg": "not a valid integer"}]},
    {"detail": [{"type": "missing", "loc": ["body"], "input": "Unsupported parameter: seed"}]},
    "temperature must be between 0 and 2",
    "temperature is not a valid number",
    "temperature is not supported above 2",
    "seed is not allowed to be negative",
    "Set temperature for best results; the model is not supported here",
    "You exceeded the seed of 1. seed is not the cause",
    "", None, 7, [], {}, {"error": None},
]  # fmt: skip


def body(told: Any) -> bytes:
    """As a server would say it: words alone in OpenAI's shape."""
    return json.dumps(openai(told) if isinstance(told, str) else told).encode()


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(("told", "names"), REFUSALS)
def test_a_refusal_names_its_parameter(told: Any, names: set[str], status: int):
    """By field, by place, or in words."""
    assert refused(status, body(told), ASKED) == names


@pytest.mark.parametrize("told", OTHERS)
def test_an_error_that_mentions_a_parameter_is_no_refusal(told: Any):
    """Nor one of a value that the caller chose wrongly, nor of what may not be left out."""
    assert refused(400, body(told), ASKED) == set()


@pytest.mark.parametrize("status", [200, 401, 404, 413, 429, 500])
def test_other_statuses_refuse_no_parameter(status: int):
    """Whatever they say."""
    assert refused(status, body(REFUSALS[0][0]), ASKED) == set()


@pytest.mark.parametrize("answer", [b"\xff\xfe", b"<html>", b"[" * 9999, b"{}"])
def test_what_is_no_error_at_all_refuses_nothing(answer: bytes):
    """And breaks nothing."""
    assert refused(400, answer, ASKED) == set()


def test_words_without_json_are_read_too():
    """A bare line of text."""
    assert refused(422, b"Unknown parameter: seed", ASKED) == {"seed"}


def test_what_was_not_asked_cannot_be_left_out():
    """So a question is never sent twice unchanged."""
    assert refused(400, body(REFUSALS[0][0]), {"model": "m"}) == set()


@pytest.mark.parametrize(
    ("asked", "names", "sent"),
    [
        ({"seed": 1, "stop": []}, {"seed"}, {"stop": []}),
        ({"max_tokens": 9}, {"max_tokens"}, {"max_completion_tokens": 9}),
        ({"max_completion_tokens": 9}, {"max_completion_tokens"}, {"max_tokens": 9}),
        ({"max_tokens": 9}, {"max_tokens", "max_completion_tokens"}, {}),
        (
            {"max_tokens": 9, "max_completion_tokens": 8},
            {"max_tokens"},
            {"max_completion_tokens": 8},
        ),
        (
            {"max_output_tokens": 9},
            {"max_tokens", "max_completion_tokens"},
            {"max_output_tokens": 9},
        ),
    ],
)
def test_a_limit_goes_by_its_other_name(asked: Any, names: set[str], sent: Any):
    """And only where both were refused it goes; that of responses never."""
    assert without(asked, names) == sent


def test_nothing_is_learned_from_a_refusal_that_leaving_out_did_not_cure():
    """The model's next question is asked as it is."""
    learned: dict[str, set[str]] = {}
    question = json.dumps({"model": "m", "seed": 1}).encode()
    asking = Asking(question, (), learned)
    assert asking.again(400, body("Unknown parameter: seed"))
    assert not asking.again(400, body("Go away."))
    assert Asking(question, (), learned).body == question


@pytest.mark.parametrize("text", [b"", b"no json", b"[1]", b'{"seed": 1}'])
def test_what_asks_nothing_of_the_kind_passes_as_it_is(text: bytes):
    """Byte for byte."""
    asking = Asking(text, ["temperature"], {})
    assert (asking.body, asking.left_out) == (text, [])
