"""Another lab's endpoint, such as a class's: how fast its time runs, and whether it costs money."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Annotated

import httpx
import msgspec

from agentlab.endpoint.app import CLOCK
from agentlab.errors import EndpointError
from agentlab.settings import OPENAI_URL

PATIENCE_S = 3.0
"""Seconds to wait for an endpoint to say whether it is a lab's."""


class Clock(msgspec.Struct, frozen=True):
    """What a lab's endpoint says of itself.

    Attributes:
        time_scale: Model seconds to a second there.
        paid: True if its answers cost money. An endpoint that does not say is taken to.
    """

    time_scale: Annotated[float, msgspec.Meta(gt=0, le=10_000)]
    paid: bool = True


def clock_of(upstream: str) -> Clock | None:
    """Ask `upstream` (an address ending in `/v1`), without a key; None if it is no lab's.

    Raises:
        EndpointError: If nothing answers within `PATIENCE_S` seconds.
    """
    if upstream.rstrip("/") == OPENAI_URL:
        return None
    url = upstream.rstrip("/").removesuffix("/v1") + CLOCK
    answers: list[bytes] = []

    def get() -> None:
        with suppress(Exception):  # whatever it is, there is no answer
            answers.append(httpx.get(url, timeout=PATIENCE_S).content)

    # httpx bounds each step, but neither the search for a name nor an answer that drips.
    asking = threading.Thread(target=get, name="clock", daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    if not answers:
        raise EndpointError(f"{upstream} does not answer within {PATIENCE_S:g} s")
    try:
        return msgspec.json.decode(answers[0], type=Clock)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
