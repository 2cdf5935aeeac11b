"""Answers of endpoints of every make: what was said, what was counted, what went wrong."""

from __future__ import annotations

import json

import pytest

from agentlab.clock import run_virtual
from agentlab.errors import ModelError
from agentlab.reply import Reply, read
from agentlab.wire import Answer


def answer(said: object, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, headers or {}, json.dumps(said).encode())


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
    "said", [{"choices": []}, {"choices": [{}]}, {"detail": "not found"}, "Hello", None]
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
