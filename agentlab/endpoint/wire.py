"""What OpenAI's routes have in common: how a body is read, what an error looks like, events.

Source: OpenAI's API reference, and what its Python client accepts and sends.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

Json = dict[str, Any]
T = TypeVar("T")

_LONGEST_MESSAGE = 1000


class RequestError(Exception):
    """A request that cannot be answered, as OpenAI would say it.

    Attributes:
        status: The HTTP status.
        body: ``{"error": {message, type, param, code}}``.
        retry_after_s: When to try again, in model seconds; None where that would not help.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ):
        # It may quote what a client sent: too much, or what no JSON can carry.
        message = message[:_LONGEST_MESSAGE].encode("utf-8", "backslashreplace").decode()
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Read a request's body.

    Raises:
        RequestError: 400, as `parse_chat`.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"We could not parse the JSON body of your request: {error}."
        raise RequestError(400, message) from None


def _invalid(error: str) -> RequestError:
    what, _, path = error.partition(" - at `$")
    param = path.rstrip("`").lstrip(".") or None
    missing = re.match(r"Object missing required field `(\w+)`", what)
    if missing:
        param = f"{param}.{missing[1]}" if param else missing[1]
        message = f"Missing required parameter: '{param}'."
        return RequestError(400, message, param=param, code="missing_required_parameter")
    return invalid(param, f"{what}.")


def invalid(param: str | None, what: str, code: str = "invalid_value") -> RequestError:
    """The answer to a field that holds what it cannot."""
    return RequestError(400, f"Invalid '{param}': {what}", param=param, code=code)


def event(data: Json) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


DONE = b"data: [DONE]\n\n"
"""The event that ends a stream."""


def model_card(name: str) -> Json:
    """One entry of the list of models."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "agentlab"}
