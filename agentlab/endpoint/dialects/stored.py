"""The responses that the local model keeps, so that an id is enough to go on with a conversation.

They are in memory, each for the learner who asked. When they take too much, the oldest one goes
of the learner who keeps most. What was said is in memory once, however many responses follow.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from agentlab.endpoint.contract import asgi
from agentlab.endpoint.contract.asgi import MAX_BODY_BYTES, Scope
from agentlab.endpoint.contract.openai_json import Json, RequestError
from agentlab.endpoint.contract.request import MOST_ITEMS
from agentlab.endpoint.dialects.responses_request import Item, ResponsesRequest, Said

_MOST_BYTES = 64 * 2**20
_LEAST_BYTES = 64 * 2**10  # that a response counts, so that there are 1,024 at most
METHODS = ("GET", "DELETE")  # which the path of one response takes


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


class Stored:
    """Keeps the newest responses, `most_bytes` of them."""

    def __init__(self, most_bytes: int = _MOST_BYTES):
        self._most_bytes = most_bytes
        self._kept: dict[str | None, dict[str, Kept]] = {}  # by learner and id, the oldest first
        self._bytes: Counter[str | None] = Counter()

    def keep(self, learner: str | None, id: str, kept: Kept) -> None:
        """Keep a response; a retry's has the id of the first, and takes its place."""
        self._drop(learner, id)
        self._kept.setdefault(learner, {})[id] = kept
        self._bytes[learner] += kept.size_bytes
        while self._bytes.total() > self._most_bytes:
            most = max(self._bytes, key=self._bytes.__getitem__)
            self._drop(most, next(iter(self._kept[most])))

    def recall(self, learner: str | None, request: ResponsesRequest) -> Said:
        """Return what was said before, and put items where the request refers to them.

        An id that is not kept, and a conversation that is too long, are a RequestError.
        """
        mine, id = self._kept.get(learner, {}), request.previous_response_id
        before: Said = []
        if id is not None:
            if id not in mine:
                what = f"Previous response with id '{id}' not found."
                code = "previous_response_not_found"
                raise RequestError(400, what, param="previous_response_id", code=code)
            mine[id] = mine.pop(id)  # it is needed, so it counts as the newest
            before = mine[id].said
        referred = _referred(mine, request.items)
        held_bytes = size_bytes(before) + sum(map(len, referred.values()))
        if len(before) + len(request.items) > MOST_ITEMS or held_bytes > MAX_BODY_BYTES:
            what = f"The conversation is too long; begin one of {MOST_ITEMS} items and "
            what += f"{MAX_BODY_BYTES:,} bytes at most."
            raise RequestError(400, what, param="input", code="context_length_exceeded")
        for index, data in referred.items():
            request.items[index] = msgspec.json.decode(data, type=Item)
        return before

    def answer(self, learner: str | None, scope: Scope) -> Json | bytes:
        """Return what a route of one kept response answers, or raise a RequestError."""
        id = scope["path"].removeprefix("/v1/responses/")
        if "/" in id:
            raise asgi.unknown_route(scope, ["/v1/responses/{id}"])
        kept = self._kept.get(learner, {}).get(id)
        if kept is None:
            raise RequestError(404, f"Response with id '{id}' not found.")
        if scope["method"] == "DELETE":
            self._drop(learner, id)
            return {"id": id, "object": "response", "deleted": True}
        if b"stream=true" in scope["query_string"]:
            what = "This response cannot be streamed, because it did not run in the background."
            raise RequestError(400, what, param="stream")
        return kept.body

    def _drop(self, learner: str | None, id: str) -> None:
        if kept := self._kept.get(learner, {}).pop(id, None):
            self._bytes[learner] -= kept.size_bytes
            if not self._kept[learner]:
                del self._kept[learner], self._bytes[learner]


def _referred(mine: dict[str, Kept], items: list[Item]) -> dict[int, bytes]:
    """Return the items to which others refer by their ids, by the place where they do."""
    places = {i: item.id or "" for i, item in enumerate(items) if item.type == "item_reference"}
    known: dict[str, bytes] = {}
    for kept in mine.values() if places else ():
        known |= kept.said[kept.before :]
    for id in places.values():
        if id not in known:
            what = f"Item with id '{id}' not found. Items are not persisted when `store` is set to "
            what += (
                "false. Try again with `store` set to true, or remove this item from your input."
            )
            raise RequestError(404, what, param="input")
    return {index: known[id] for index, id in places.items()}


def size_bytes(said: Said) -> int:
    """Return how much JSON the items are."""
    return sum(len(data) for _, data in said)
