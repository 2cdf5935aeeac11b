"""Every request of a run: when it was due, when it was sent, and what the endpoint made of it."""

import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request, a retry being one of its own. Times are model seconds since the run began.

    A call is `due_s` when its turn comes: at its arrival, or at the end of the last step that it
    needs. Its engine asks at `asked_s`; limits and back-off hold it until `sent_s`. At the endpoint
    it waits in the queue from `arrived_s` to `started_s`, is read until `first_token_s`, and
    answered until `end_s`; the client has the answer, or the failure, at `returned_s`. A time that
    never came is None.
    """

    run: int
    call: str
    attempt: int
    due_s: float
    asked_s: float
    sent_s: float
    arrived_s: float | None = None
    started_s: float | None = None
    first_token_s: float | None = None
    end_s: float | None = None
    returned_s: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    status: int | None = None
    finish_reason: str | None = None
    fault: str | None = None
    late_ms: float | None = None
