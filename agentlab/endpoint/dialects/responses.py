"""An answer in the words of OpenAI's responses, whole or as the events of a stream; and those kept.

They are in memory, each for the learner who asked. When they take too much, the oldest one goes
of the learner who keeps most. What was said is in memory once, however many responses follow.
Source: OpenAI's API reference for responses, and what its Python client accepts.
"""

import itertools
from collections import Counter
from typing import Any

import msgspec

from agentlab.endpoint.answers.answer import Answer, Called, Choice
from agentlab.endpoint.contract.asgi import MAX_BODY_BYTES, Scope
from agentlab.endpoint.contract.openai_json import Json, event, refusal
from agentlab.endpoint.contract.request import MOST_ITEMS
from agentlab.endpoint.dialects.responses_request import FORMS, Item, ResponsesRequest, Said

_MOST_BYTES = 64 * 2**20
_LEAST_BYTES = 64 * 2**10  # that a response counts, so that there are 1,024 at most
_REFERENCE = "item_reference"


class Kept(msgspec.Struct):
    """A response as JSON; all that was said with it, and how much of that before its request.

    It counts with all of the conversation, though it shares most with the responses before it.
    """

    body: bytes
    said: Said
    before: int

    @property
    def size_bytes(self) -> int:
        return max(_LEAST_BYTES, len(self.body) + size_bytes(self.said))

    def inputs(self) -> Json:
        """Return all that it was given, the newest first, as its own route lists it."""
        made = len(msgspec.json.decode(self.body)["output"])
        items = [msgspec.json.decode(item) for _, item in reversed(self.said[:-made])]
        for item in items:
            if isinstance(text := item.get("content"), str):
                kind = "output_text" if item["role"] == "assistant" else "input_text"
                item["content"] = [{"type": kind, "text": text}]
        ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]}
        return {"object": "list", "data": items, "has_more": False, **ends}


class Responses:
    """An answer in the words of the responses route; its methods are those of `Chat`."""

    cached_tokens = 0

    def __init__(self, request: ResponsesRequest, answer: Answer, created: int, before: Said):
        self._request, self._said, self._created = request, answer.said, created
        self._thought = answer.reasoning_tokens
        self._choice, self._before = answer.said.choices[0], before
        self._stem = answer.id.removeprefix("chatcmpl-")
        self.id, self.store = f"resp_{self._stem}", request.store is not False
        self._items = _items(self._choice, f"msg_{self._stem}")
        self._spans = [(call.start, call.end) for call in self._choice.calls]
        self._spans = self._spans or [(0, len(self._choice.pieces))]
        self._numbers, self._closed = itertools.count(), 0

    def whole(self) -> Json:
        cut = self._choice.finish_reason == "length"
        sent, made = self._said.prompt_tokens, self._thought + self._said.completion_tokens
        read = {"cached_tokens": self.cached_tokens, "cache_write_tokens": 0}
        usage = {"input_tokens": sent, "input_tokens_details": read, "output_tokens": made}
        usage |= {"output_tokens_details": {"reasoning_tokens": self._thought}}
        self._whole = self._frame("incomplete" if cut else "completed") | {
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": self._items,
            "usage": usage | {"total_tokens": sent + made},
        }
        return self._whole

    def kept(self) -> Kept:
        """Return what is to be kept, once it is whole; items that came without an id get one."""
        said = list(self._before)
        for number, item in enumerate(self._request.items):
            prefix = "msg" if item.type == "message" else "fc"
            item.id = item.id or f"{prefix}_{self._stem}{number:04d}"
            said.append((item.id, msgspec.json.encode(item)))
        said += [(item["id"], msgspec.json.encode(item)) for item in self._items]
        return Kept(msgspec.json.encode(self._whole), said, len(self._before))

    def opening(self) -> bytes:
        frame = self._frame("in_progress")
        data = [self._event(kind, response=frame) for kind in ("created", "in_progress")]
        if not self._choice.calls:
            data.append(self._added(0))
            part = self._items[0]["content"][0] | {"text": ""}
            data.append(self._event("content_part.added", **self._place(0), part=part))
        return b"".join(data)

    def between(self, sent: int, have: int) -> bytes:
        data, pieces = [], self._choice.pieces
        for index, (start, end) in enumerate(self._spans):
            if self._choice.calls and sent <= start < have:
                data.append(self._added(index))
            if new := "".join(pieces[max(sent, start) : min(have, end)]):
                kind = FORMS["streamed"][self._items[index]["type"]][0]
                more: Json = {} if self._choice.calls else {"logprobs": []}
                data.append(self._event(f"{kind}.delta", **self._place(index), delta=new, **more))
            if sent < end <= have:
                data.append(self._done(index))
        return b"".join(data)

    def closing(self) -> bytes:
        whole, left = self.whole(), range(self._closed, len(self._items))
        return b"".join([*map(self._done, left), self._event(whole["status"], response=whole)])

    def _added(self, index: int) -> bytes:
        item = self._items[index]
        empty = {FORMS["streamed"][item["type"]][1]: [] if item["type"] == "message" else ""}
        item = item | empty | {"status": "in_progress"}
        return self._event("output_item.added", output_index=index, item=item)

    def _done(self, index: int) -> bytes:
        """Return the events that close an item: a client may act on it before the next begins."""
        item, place, self._closed = self._items[index], self._place(index), index + 1
        kind, field = FORMS["streamed"][item["type"]]
        if item["type"] == "message":
            (part,) = item[field]
            data = self._event(f"{kind}.done", **place, text=part["text"], logprobs=[])
            data += self._event("content_part.done", **place, part=part)
        else:
            more = {"name": item["name"]} if item["type"] == "function_call" else {}
            data = self._event(f"{kind}.done", **place, **more, **{field: item[field]})
        return data + self._event("output_item.done", output_index=index, item=item)

    def _place(self, index: int) -> Json:
        place = {"item_id": self._items[index]["id"], "output_index": index}
        return place if self._choice.calls else place | {"content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        kind = f"response.{kind}"
        data = {"type": kind, "sequence_number": next(self._numbers), **fields}
        return b"event: " + kind.encode() + b"\n" + event(data)

    def _frame(self, status: str) -> Json:
        request, form = self._request, FORMS["response"]
        asked = {name: getattr(request, name, None) for name in form}
        text = msgspec.to_builtins(request.text or {})
        return {
            **form,
            **{name: value for name, value in asked.items() if value not in (None, {})},
            "id": self.id,
            "created_at": self._created,
            "status": status,
            "text": {name: text.get(name) or unset for name, unset in FORMS["text"].items()},
            "tools": [FORMS["tool"] | each for each in request.tools or []],
        }


def _items(said: Choice, id: str) -> list[Json]:
    message = FORMS["message"] | {"id": id, "content": [FORMS["part"] | {"text": said.text}]}
    if said.finish_reason == "length":
        message["status"] = "incomplete"
    return [_called(call, said) for call in said.calls] or [message]


def _called(call: Called, said: Choice) -> Json:
    kind, prefix = ("custom_tool_call", "ctc") if call.custom else ("function_call", "fc")
    return {
        "id": f"{prefix}_{call.id}",
        "type": kind,
        "status": "incomplete" if call.end > len(said.pieces) else "completed",
        "call_id": call.id,
        "name": call.name,
        FORMS["streamed"][kind][1]: said.arguments(call),
    }


class Stored:
    """Keeps the newest responses, `most_bytes` of them."""

    def __init__(self, most_bytes: int = _MOST_BYTES):
        self._most_bytes = most_bytes
        self._kept: dict[tuple[str | None, str], Kept] = {}  # by learner and id, the oldest first
        self._bytes: Counter[str | None] = Counter()

    def keep(self, learner: str | None, id: str, kept: Kept) -> None:
        """Keep a response; a retry's has the id of the first, and takes its place."""
        self._drop(learner, id)
        self._kept[learner, id] = kept
        self._bytes[learner] += kept.size_bytes
        while self._bytes.total() > self._most_bytes:
            most = max(self._bytes, key=self._bytes.__getitem__)
            self._drop(*next(place for place in self._kept if place[0] == most))

    def recall(self, learner: str | None, request: ResponsesRequest) -> Said:
        """Return what was said before, and put items where the request refers to them.

        An id that is not kept, and a conversation that is too long, are a RequestError.
        """
        items, before, known = request.items, Said(), dict[str, bytes]()
        if (id := request.previous_response_id) is not None:
            if (kept := self._kept.pop((learner, id), None)) is None:
                raise refusal("previous_response_not_found", "previous_response_id", id=id)
            self._kept[learner, id] = kept  # it is needed, so it counts as the newest
            before = kept.said
        referred = {i: item.id or "" for i, item in enumerate(items) if item.type == _REFERENCE}
        for (whose, _), kept in self._kept.items() if referred else ():
            known |= kept.said[kept.before :] if whose == learner else ()
        for id in referred.values():
            if id not in known:
                raise refusal("item_not_found", "input", id=id)
        held_bytes = size_bytes(before) + sum(len(known[id]) for id in referred.values())
        if len(before) + len(items) > MOST_ITEMS or held_bytes > MAX_BODY_BYTES:
            raise refusal("too_long", "input", most=MOST_ITEMS, most_bytes=MAX_BODY_BYTES)
        for index, id in referred.items():
            items[index] = msgspec.json.decode(known[id], type=Item)
        return before

    def answer(self, learner: str | None, scope: Scope) -> Json | bytes:
        """Return what a route of one kept response answers, or raise a RequestError."""
        id, _, inner = scope["path"].removeprefix("/v1/responses/").partition("/")
        kept = self._kept.get((learner, id))
        if kept is None:
            raise refusal("response_not_found", id=id)
        if inner:
            return kept.inputs()
        if scope["method"] == "DELETE":
            self._drop(learner, id)
            return {"id": id, "object": "response", "deleted": True}
        if b"stream=true" in scope["query_string"]:
            raise refusal("cannot_be_streamed", "stream")
        return kept.body

    def _drop(self, learner: str | None, id: str) -> None:
        if kept := self._kept.pop((learner, id), None):
            self._bytes[learner] -= kept.size_bytes
            self._bytes = +self._bytes  # without those who keep nothing


def size_bytes(said: Said) -> int:
    """Return how much JSON the items are."""
    return sum(len(data) for _, data in said)
