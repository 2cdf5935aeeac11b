"""What a stream tells while it passes, however it is cut into pieces."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.endpoint.contract.openai_json import Events


def chunk(**delta: Any) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def event(data: Any, before: str = "") -> bytes:
    return f"{before}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def read(*pieces: bytes) -> Events:
    events = Events()
    for piece in pieces:
        events.feed(piece)
    return events


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "get", "arguments": ""}}
TOKENS = [
    event(chunk(content="강")),
    event(chunk(content="\n")),
    event(chunk(role="assistant", content="Hi")),
    event(chunk(content=None, reasoning_content="Let me")),
    event(chunk(content="", reasoning="Let me")),
    event(chunk(refusal="I cannot")),
    event(chunk(tool_calls=[CALL])),
    event(chunk(content=[{"type": "text", "text": "Hi"}])),
    event(chunk(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}])),
    event({"object": "text_completion", "choices": [{"index": 0, "text": "Hi"}]}),
    event({"type": "response.output_text.delta", "delta": "Hi"}, "event: x\n"),
    event({"type": "response.reasoning_summary_text.delta", "delta": "Hm"}),
    event({"type": "response.refusal.delta", "delta": "No"}),
    event({"type": "response.function_call_arguments.delta", "delta": "{"}),
    event({"type": "response.output_item.added", "item": {"type": "function_call", "name": "get"}}),
    event(chunk(content="Hi"), ": a comment\nid: 7\n").replace(b"\n", b"\r\n"),
    event(chunk(content="Hi")).replace(b"data: ", b"data:"),
]
NO_TOKENS = [
    b": PROCESSING\n\n",
    b"\n\n\n",
    b"data:\n\n",
    b"data: no JSON\n\n",
    b"data: [[[\n\n",
    event(chunk(role="assistant", content="")),
    event(chunk(role="assistant", content=None, refusal=None, tool_calls=[])),
    event(chunk(content=[{"type": "text", "text": ""}])),
    event({"choices": []}),
    event({"choices": None}),
    event({"choices": ["odd"]}),
    event({"choices": [{"text": ""}]}),
    event(["odd"]),
    event({"type": "response.created", "response": {"output": []}}),
    event({"type": "response.output_item.added", "item": {"type": "message"}}),
    event({"type": "response.output_text.delta", "delta": ""}),
    event({"error": {"message": "overloaded"}}),
]
USAGE = event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}})
COMPLETED = event(
    {"type": "response.completed", "response": {"usage": {"input_tokens": 9, "output_tokens": 4}}}
)
LAST = [
    b"data: [DONE]\n\n",
    b"data:[DONE]\r\n\r\n",
    COMPLETED,
    b"event: response.incomplete\ndata: {}\n\n",
]
TIMES = b': x-lab-times {"end_s": 4.0}\n\n'


@pytest.mark.parametrize("token", TOKENS)
def test_content_reasoning_a_refusal_and_a_call_are_a_first_token(token: bytes):
    """In chat completions, completions and responses; not before the event is whole."""
    assert read(token).begun
    assert not read(token.rstrip()).begun


@pytest.mark.parametrize("other", NO_TOKENS)
def test_what_keeps_a_connection_alive_is_no_token(other: bytes):
    """Nor is what no client could read."""
    assert not read(other).begun


@pytest.mark.parametrize("last", LAST)
def test_the_last_event_ends_the_stream(last: bytes):
    """When it is whole."""
    assert read(TOKENS[0], last).ended
    assert not read(TOKENS[0], last[:-1]).ended


def test_an_answer_that_speaks_of_the_end_has_not_ended():
    """What looks like the last event, inside of a text."""
    assert not read(event(chunk(content="\n\ndata: [DONE]\n\nevent: response.completed\n\n"))).ended


@pytest.mark.parametrize("last", [USAGE, COMPLETED])
def test_the_counts_are_those_of_the_latest_usage(last: bytes):
    """Servers that count along say it in each event."""
    early = event({"usage": {"prompt_tokens": 9, "completion_tokens": 1}})
    assert read(early, last, event({"usage": None})).counts == [9, 4, 0]


@given(
    st.lists(st.sampled_from([*TOKENS, *NO_TOKENS, *LAST, USAGE, TIMES]), max_size=6),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_any_cut_tells_the_same(parts: list[bytes], cuts: list[int]):
    """Within characters and line ends, too: as if the stream had come in one piece."""
    stream = b"".join(parts)
    at = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    cut = read(*(stream[a:b] for a, b in pairwise(at)))
    whole = read(stream)
    assert vars(cut) == vars(whole)


def test_a_stream_without_events_is_not_kept():
    """A megabyte after the other of what is no event: the memory stays bounded."""
    events = read(*[b"x" * 2**21] * 6)
    assert len(events._rest) <= 8 * 2**20
