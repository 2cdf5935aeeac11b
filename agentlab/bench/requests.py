"""Every request of a run: when it was due, when it was sent, and what the endpoint made of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from agentlab import lab
from agentlab._support.fields import AtLeastOne, Count
from agentlab.engines import Ask
from agentlab.lab import Reply
from agentlab.trace import Span, Turn

Figure = Annotated[float, msgspec.Meta(ge=0, le=1e11)]  # none is negative, none is millennia
Send = Callable[..., Awaitable[Reply]]
"""What asks once: `lab.reply`, or anything that is called like it."""


class Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request, a retry being one of its own. Times are model seconds since the run began.

    A call is `due_s` when its turn comes: at its arrival, or at the end of the last step that it
    needs. Its engine asks at `asked_s`; limits and back-off hold it until `sent_s`. At the endpoint
    it waits in the queue from `arrived_s` to `started_s`, is read until `first_token_s`, and
    answered until `end_s`; the client has the answer, or the failure, at `returned_s`. A time that
    never came is None. A turn after tools is due when the longest of them could have ended.
    """

    run: Count
    call: str
    attempt: AtLeastOne
    due_s: Figure
    asked_s: Figure
    sent_s: Figure
    arrived_s: Figure | None = None
    started_s: Figure | None = None
    first_token_s: Figure | None = None
    end_s: Figure | None = None
    returned_s: Figure | None = None
    prompt_tokens: Count = 0
    cached_tokens: Count = 0
    completion_tokens: Count = 0
    status: Count | None = None
    finish_reason: str | None = None
    fault: str | None = None
    late_ms: Figure | None = None

    @property
    def over_s(self) -> float | None:
        """When it was in flight no more: its end, or when the client gave it up before."""
        ends_s = [at_s for at_s in (self.end_s, self.returned_s) if at_s is not None]
        return min(ends_s, default=None)

    @property
    def ok(self) -> bool:
        """True if the model answered in full, even if late or slowly; see `Span.ok`."""
        return self.status == 200 and self.fault in (None, "stall", "drip")


class Said(msgspec.Struct, frozen=True):
    """What a real model said of one answer; `tokens` is 0 if they were not counted."""

    finish_reason: str
    tokens: Count
    limit_tokens: Count | None


_OF_THE_SPAN = set(Request.__struct_fields__) & set(Span.__struct_fields__) - {"attempt"}


class Calls:
    """The client's side of one run: when each call was due, asked, sent and answered.

    `needs` has the calls that each call needs, and `wait_s` how long after the last of them it is
    due: a user's time to think. For a call that needs none it is when it arrives.
    """

    def __init__(self, needs: Mapping[str, Sequence[str]], wait_s: Mapping[str, float]):
        self._needs, self._wait_s = needs, wait_s
        self._asked: dict[str, dict[str, Any]] = {}  # when it was due, and when asked
        self._sent: dict[str, list[Request]] = {name: [] for name in needs}
        self._scale, self._began_s = 1.0, 0.0
        self.said: list[Said] = []  # of each answer

    def begin(self) -> None:
        """Set the run's clock to 0; to be called inside the event loop."""
        self._scale = lab.model_seconds_a_second()
        self._began_s = asyncio.get_running_loop().time()

    def _now_s(self) -> float:
        return round((asyncio.get_running_loop().time() - self._began_s) * self._scale, 9)

    def when_due(self, ask: Ask) -> Ask:
        """Return an ask function that waits until its call is due; it goes around all limits."""

        async def waiting(prompt: str, *, agent: str, **options: Any) -> str:
            ends_s = [self._sent[need][-1].returned_s or 0.0 for need in self._needs[agent]]
            due_s = round(max(ends_s, default=0.0) + self._wait_s.get(agent, 0.0), 9)
            if due_s > self._now_s():
                await lab.sleep_until(self._began_s * self._scale + due_s)
            self._asked[agent] = {"due_s": due_s, "asked_s": max(self._now_s(), due_s)}
            return await ask(prompt, agent=agent, **options)

        return waiting

    def noting(self, send: Send) -> Ask:
        """Return what sends one attempt and notes when; it goes around the client alone."""

        async def noted(prompt: str, *, agent: str, **options: Any) -> Any:
            mine, times_s = self._sent[agent], {**self._asked[agent], "sent_s": self._now_s()}
            row = Request(run=0, call=agent, attempt=len(mine) + 1, **times_s)
            mine.append(row)
            told: dict[str, Any] = {}
            try:
                reply = await send(prompt, agent=agent, **options)
                told |= {"status": 200, "finish_reason": reply.finish_reason}
                reason, limit = reply.finish_reason or "none", options.get("max_tokens")
                self.said.append(Said(reason, reply.completion_tokens, limit))
                return reply if options.get("tools") else reply.text
            finally:
                mine[row.attempt - 1] = replace(row, returned_s=self._now_s(), **told)

        return noted

    def rows(self, spans: Iterable[Span], turns: Mapping[str, Sequence[Turn]]) -> list[Request]:
        """Return a row for each request, with what the endpoint's `spans` and `turns` say of it.

        The endpoint's clock is another one. No request arrives before it was sent, and no answer
        is there before its end, so its zero lies between two bounds; their middle is taken. In
        virtual time the bounds are equal.
        """
        seen: dict[str, list[Span]] = {name: [] for name in self._sent}
        for span in spans:
            if span.agent in seen:  # else it is somebody else's
                seen[span.agent].append(span)
        rows, shift_s = list[Request](), self._shift_s(seen)
        for call, sent in self._sent.items():
            attempts = [*_after_tools(sent, turns.get(call, ()))]
            left = [span.shifted(-shift_s) for span in reversed(seen[call])]
            one_each = len(left) == len(attempts)
            for row in attempts:
                # The last attempt has all that is left; dask may have asked for it twice.
                ends_s = None if row is attempts[-1] else row.returned_s
                here = len(rows)
                while left and (ends_s is None or left[-1].arrived_s <= ends_s):
                    told = {name: getattr(left[-1], name) for name in _OF_THE_SPAN}
                    told["finish_reason"] = left.pop().finish_reason or row.finish_reason
                    rows.append(replace(row, **told))
                    if one_each:  # after a tool that takes no time the next arrives as this returns
                        break
                rows += [row] if len(rows) == here else []
        return sorted(rows, key=lambda row: row.sent_s)

    def _shift_s(self, seen: Mapping[str, Sequence[Span]]) -> float:
        alike = [
            (own, seen[call]) for call, own in self._sent.items() if len(own) == len(seen[call])
        ]
        pairs = [pair for both in alike for pair in zip(*both, strict=True)]
        least_s = max((row.sent_s - span.arrived_s for row, span in pairs), default=0.0)
        most_s = [(row.returned_s or 0.0) - (span.end_s or 0.0) for row, span in pairs if row.ok]
        return round(max(least_s, (least_s + min(most_s, default=least_s)) / 2), 9)


def _after_tools(rows: Sequence[Request], turns: Sequence[Turn]) -> Iterator[Request]:
    """Yield the requests of a call; after an answer the next is due once the tools can have run."""
    tools_s = (Turn(None, turn.tools).bound_s() for turn in turns if turn.tools)
    due_s: float | None = None
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before.ok:
            due_s = round((before.returned_s or 0.0) + next(tools_s, 0.0), 9)
        yield row if due_s is None else replace(row, due_s=min(due_s, row.asked_s))
