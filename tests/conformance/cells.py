"""What the scripts of `clients/` share: where the endpoint is, tools, and how a cell is told.

A cell is a function that a real user could have written, decorated with `@cell(name, requests)`.
It runs immediately; what it asserts has to hold, and it may take no other number of requests. A
line of JSON tells the outcome. It needs the standard library alone, because it is imported in
every client's own environment.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any
from urllib.request import ProxyHandler, build_opener

BASE_URL = os.environ["OPENAI_BASE_URL"]
MODEL = "gpt-4o-mini"
TIMEOUT_S = 300

ASKS = "What is the weather in Seoul?"
DEPENDENT = "Find the user id of Ana, then get the orders of that user."
FAN_OUT = "What is the weather in Seoul and in Busan?"
USER_ID = "u-4711"

calls: list[tuple[str, str]] = []
"""The tools called in this cell, and with what."""

_loop = asyncio.new_event_loop()
_open = build_opener(ProxyHandler({})).open
_out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # some clients print as they work


def get_weather(city: str) -> str:
    """Get the weather of a city.

    Args:
        city: The name of the city.
    """
    calls.append(("get_weather", city))
    return f"sunny, 24 degrees in {city}"


def find_user(name: str) -> str:
    """Find the user id of a person.

    Args:
        name: The name of the person.
    """
    calls.append(("find_user", name))
    return json.dumps({"user_id": USER_ID, "name": name})


def get_orders(user_id: str) -> str:
    """Get the orders of a user.

    Args:
        user_id: The id of the user.
    """
    calls.append(("get_orders", user_id))
    return json.dumps([{"order": 31, "item": "bicycle"}])


TOOLS = {"get_weather": get_weather, "find_user": find_user, "get_orders": get_orders}


def function(tool: Callable[[str], str]) -> dict[str, Any]:
    """Describe one of these tools in the words of OpenAI's API."""
    (name,) = inspect.signature(tool).parameters
    description = (tool.__doc__ or "").splitlines()[0]
    parameters = {"type": "object", "properties": {name: {"type": "string"}}, "required": [name]}
    return {"name": tool.__name__, "description": description, "parameters": parameters}


def asked_for_weather(answer: str | None) -> None:
    """Assert that the tool was called once, for Seoul, and that the answer says what it gave."""
    assert calls == [("get_weather", "Seoul")], f"calls {calls}"
    assert "24 degrees" in (answer or ""), f"answer {answer!r}"


def asked_for_orders(answer: str | None) -> None:
    """Assert that the id came from the first tool's result; the answer says what was ordered."""
    assert calls == [("find_user", "Ana"), ("get_orders", USER_ID)], f"calls {calls}"
    assert "bicycle" in (answer or ""), f"answer {answer!r}"


def asked_for_both(answer: str | None) -> None:
    """Assert that there was one call for each city."""
    assert sorted(calls) == [("get_weather", "Busan"), ("get_weather", "Seoul")], f"calls {calls}"
    assert "24 degrees" in (answer or ""), f"answer {answer!r}"


def cell(name: str, requests: int | None = None, route: str = "") -> Callable[[Any], Any]:
    """Run the decorated function and print its cell; `route` names the row, if there are several.

    `requests` is the number that the client should need; None where it is the client's affair.
    """

    def run(function: Callable[[], Any]) -> Callable[[], Any]:
        calls.clear()
        before, reason = _lab("mark")["mark"], None
        signal.alarm(TIMEOUT_S)
        try:
            _awaited(function())
        except Exception as error:
            traceback.print_exc()
            line = traceback.extract_tb(error.__traceback__)[-1].line
            reason = f"{type(error).__name__}: {str(error) or line}"
        finally:
            signal.alarm(0)
        took = len(_lab(f"spans?since={before}")["spans"])
        if reason is None and requests is not None and took != requests:
            reason = f"{took} requests, not {requests}"
        told = {"route": route, "cell": name, "requests": took, "reason": reason}
        print(json.dumps(told), file=_out, flush=True)
        return function

    return run


def tool_cells(ask: Callable[[str], Any], route: str = "") -> None:
    """Try an agent that has all tools: `ask` takes a question and returns the answer's text."""
    for name, requests, question, holds in (
        ("tool loop", 2, ASKS, asked_for_weather),
        ("dependent calls", 3, DEPENDENT, asked_for_orders),
        ("fan-out", 2, FAN_OUT, asked_for_both),
    ):
        cell(name, requests, route)(lambda q=question, holds=holds: holds(_awaited(ask(q))))


def _awaited(result: Any) -> Any:
    return _loop.run_until_complete(result) if inspect.isawaitable(result) else result


def _lab(what: str) -> Any:
    with _open(f"{BASE_URL.removesuffix('/v1')}/lab/{what}", timeout=30) as answer:
        return json.load(answer)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"no end after {TIMEOUT_S} s")


signal.signal(signal.SIGALRM, _too_long)
