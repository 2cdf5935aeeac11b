"""Answers of endpoints of every make: what was said, what was counted, what went wrong."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import pytest
from httpx import Response
from hypothesis import given
from hypothesis import strategies as st

from agentlab.clock import run_virtual
from agentlab.errors import (
    AnswerEmpty,
    AnswerFiltered,
    AnswerInterrupted,
    AnswerRefused,
    AnswerTruncated,
    IncompleteAnswer,
    ModelError,
    ReasoningExhausted,
)
from agentlab.lab import Reply, read


def answer(said: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(status, headers=headers, content=json.dumps(said))


def completion(**more: object) -> dict[str, object]:
    return {
        "choices": [
            {"message": {"role": "assistant", "content": "Danube."}, "finish_reason": "stop"}
        ],
        **more,
    }


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"usage": {"prompt_tokens": 5, "completion_tokens": 2}}, (5, 2)),
        ({"usage": {"prompt_tokens": 5, "completion_tokens": None}}, (5, 0)),
        ({"usage": None}, (0, 0)),
        ({}, (0, 0)),
    ],
    ids=["counted", "null inside", "null", "absent"],
)
def test_a_good_answer_is_read_whatever_it_counts(usage: dict, counted: tuple[int, int]):
    """A count that is not there, or null, is 0, and no reason to lose the text."""
    assert read(answer(completion(**usage))) == Reply("Danube.", *counted, "stop")


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        ({"type": "BadRequestError", "param": None, "code": 400}, "400"),  # vLLM
        ({"type": "invalid_request_error", "code": 400}, "400"),  # llama.cpp
        ({"type": "invalid_request_error", "code": "context_length_exceeded"}, None),  # OpenAI
        ({"type": "server_error", "code": None}, None),
        ({"type": "server_error"}, None),
    ],
    ids=["vllm", "llama.cpp", "openai", "null", "absent"],
)
def test_an_error_keeps_its_message_and_its_code(problem: dict, code: str | None):
    """Which some endpoints send as a number; it is a text here."""
    code = code or problem.get("code")
    with pytest.raises(ModelError, match=r"^the model answered 400: The prompt is") as error:
        read(answer({"error": {"message": "The prompt is too long.", **problem}}, status=400))
    assert (error.value.status, error.value.code) == (400, code)


@pytest.mark.parametrize(
    "said", [{"choices": []}, {"choices": [{}]}, {"choices": [{"message": None}]}, "Hello", None]
)
def test_what_is_no_completion_is_shown(said: object):
    """Status 200, and no answer in it: the error shows how it began."""
    with pytest.raises(ModelError, match="no chat completion: '") as error:
        read(answer(said))
    assert json.dumps(said)[:20] in str(error.value)


def test_an_error_says_how_long_to_wait_and_what_to_look_for():
    """In model seconds, which are the clock's own in virtual time."""

    async def main() -> None:
        headers = {"retry-after-ms": "1500", "x-request-id": "req_7"}
        read(answer({"error": {"message": "Slow down."}}, status=429, headers=headers))

    with pytest.raises(ModelError) as error:
        run_virtual(main())
    assert (error.value.retry_after_s, error.value.request_id) == (1.5, "req_7")


def choice(finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    said = {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": finish}]}
    return {**said, "usage": {"prompt_tokens": 5, "completion_tokens": 64}}


PARTS = [{"type": "thinking", "text": "Hm."}, {"type": "text", "text": "Dan"}, "ube."]
FLAWS: dict[str, tuple[dict[str, Any], type[IncompleteAnswer], str]] = {
    "cut": (choice("length", content="The riv"), AnswerTruncated, "'The riv'; pass a larger"),
    "cut, says Mistral": (choice("model_length", content="The riv"), AnswerTruncated, "larger"),
    "interrupted": (choice("abort", content="The riv"), AnswerInterrupted, "ask again"),
    "interrupted, says DeepSeek": (
        choice("insufficient_system_resource", content=""),
        AnswerInterrupted,
        "ask again",
    ),
    "filtered, says Gemini": (choice("SAFETY", content=None), AnswerFiltered, "content filter"),
    "filtered": (choice("content_filter", content="The"), AnswerFiltered, "content filter"),
    "empty": (choice(content=""), AnswerEmpty, "no text"),
    "blank": (choice(content=" \n"), AnswerEmpty, "no text"),
    "null": (choice(content=None), AnswerEmpty, "no text"),
    "absent": (choice(), AnswerEmpty, "no text"),
    "no reason either": (choice(None, content=None), AnswerEmpty, "no text"),
    "refused": (choice(content=None, refusal="I can't."), AnswerRefused, "I can't."),
    "reasoned to the limit": (
        choice("length", content=None, reasoning_content="Let me see"),
        ReasoningExhausted,
        "raise max_tokens",
    ),
    "reasoned in secret": (choice("length", content=""), ReasoningExhausted, "64 tokens"),
}


@pytest.mark.parametrize(("said", "kind", "words"), FLAWS.values(), ids=FLAWS)
def test_an_answer_that_is_not_whole_is_an_error(
    said: dict[str, Any], kind: type[IncompleteAnswer], words: str
):
    """Each kind of its own, with the way out, what there is of it, and what it cost."""
    with pytest.raises(ModelError) as error:
        read(answer(said))
    assert type(error.value) is kind
    assert words in str(error.value)
    assert (error.value.prompt_tokens, error.value.completion_tokens) == (5, 64)


def test_text_that_the_callers_own_limit_cut_is_what_was_asked_for():
    """And says so; with no text at all it is no answer for all that."""
    assert (
        read(answer(choice("length", content="The riv")), max_tokens=64).finish_reason == "length"
    )
    with pytest.raises(ReasoningExhausted, match="limit of 64 tokens"):
        read(answer(choice("length", content="")), max_tokens=64)


def test_text_in_parts_is_joined():
    """Of a list of parts the text counts, and no thoughts."""
    assert read(answer(choice(content=PARTS))).text == "Danube."


@pytest.mark.parametrize("counted", [-1, 1.5, "7", True, None, [], 10**30])
def test_a_count_that_is_no_number_of_tokens_is_0(counted: object):
    """Whatever stands there, the text is not lost."""
    usage = {"prompt_tokens": counted, "completion_tokens": counted}
    reply = read(answer({**choice(content="Danube."), "usage": usage}))
    right = counted if counted == 10**30 else 0
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("Danube.", right, right)


PROBLEMS: dict[str, tuple[int, Any, tuple[int, str | None, str | None, str | None], str]] = {
    "error inside 200": (
        200,
        {"error": {"message": "Provider returned error", "code": 502}},
        (502, "502", None, None),
        "Provider returned",
    ),
    "a list of one": (
        429,
        [{"error": {"message": "Quota", "status": "RESOURCE_EXHAUSTED", "code": 429}}],
        (429, "429", None, None),
        "Quota",
    ),
    "a sentence": (500, {"error": "model runner has stopped"}, (500, None, None, None), "runner"),
    "FastAPI's list": (
        422,
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "x_y"], "msg": "Not permitted"}]},
        (422, None, "extra_forbidden", "x_y"),
        "body.x_y: Not permitted",
    ),
    "FastAPI's sentence": (
        404,
        {"detail": "Not Found"},
        (404, None, None, None),
        "OPENAI_BASE_URL",
    ),
    "old vLLM": (
        400,
        {"object": "error", "message": "too long", "type": "BadRequestError", "code": 400},
        (400, "400", "BadRequestError", None),
        "too long",
    ),
    "Mistral and Cohere": (
        429,
        {"message": "Requests rate limit exceeded", "type": "rate_limited", "code": "1300"},
        (429, "1300", "rate_limited", None),
        "rate limit exceeded",
    ),
    "Cloudflare": (
        401,
        {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}]},
        (401, "10000", None, None),
        "Authentication error",
    ),
    "type without code": (
        429,
        {"error": {"message": "x", "type": "insufficient_quota", "param": None, "code": None}},
        (429, None, "insufficient_quota", None),
        "x",
    ),
    "no message": (400, {"error": {"reason": "odd"}}, (400, None, None, None), "odd"),
}


@pytest.mark.parametrize(("status", "said", "facts", "words"), PROBLEMS.values(), ids=PROBLEMS)
def test_an_error_of_any_shape_keeps_its_facts(
    status: int, said: Any, facts: tuple[int, str | None, str | None, str | None], words: str
):
    """Status, code, type and field, wherever the endpoint writes them."""
    with pytest.raises(ModelError, match=re.escape(words)) as error:
        read(answer(said, status))
    found = error.value
    assert (found.status, found.code, found.kind, found.param) == facts


@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd_to_be_an_error(content: bytes):
    """What is no completion is said to be none, be it UTF-8 or not."""
    with pytest.raises(ModelError):
        read(Response(200, content=content))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "message", "content", "error", "usage", "detail", "code"]
                ),
                inner,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from([200, 201, 400, 404, 429, 503]),
)
def test_no_json_is_too_odd_to_be_an_error(said: Any, status: int):
    """A reply or a ModelError, and nothing else, whatever is nested in what."""
    with contextlib.suppress(ModelError):
        assert isinstance(read(answer(said, status)), Reply)
