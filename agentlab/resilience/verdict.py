"""Which errors are worth another attempt, and how long the endpoint asks to wait."""

from __future__ import annotations

import json
import sys
from typing import NamedTuple

from agentlab import lab
from agentlab.errors import CircuitOpen, EndpointError, ModelError

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses that may be gone at the next attempt."""

OVERLOAD = frozenset({408, 429, 503, 504, 529})
"""Those of them that fewer requests at once may spare the caller."""


class Verdict(NamedTuple):
    """What to make of an error.

    Attributes:
        retry: True if the same call may well succeed later.
        wait_s: How long the endpoint asks to wait, in model seconds; None if it does not say.
        outage: True if the endpoint seems to be down; a rate limit or a refusal is no outage.
        overload: True if it was asked too much: a rate limit, a full queue, no answer in time.
        answered: True if it gave an answer, be it a refusal; False too for an error that says
            nothing about the endpoint, such as one in your own code.
    """

    retry: bool
    wait_s: float | None = None
    outage: bool = False
    overload: bool = False
    answered: bool = False


def judge(error: BaseException) -> Verdict:
    """What to make of an error of `lab.ask`, openai's client, `ChatOpenAI` or `crewai.LLM`.

    Worth another attempt are broken connections, time-outs, the statuses in `PASSING`, and an
    answer with status 200 that is none. Not worth one are a wrong key, a wrong request, a quota
    that is used up, and whatever this module does not know: an error in your own code stays one.

    Example:
        >>> judge(ModelError("busy", status=503, code=None, request_id=None)).retry
        True
        >>> judge(ModelError("no key", status=401, code=None, request_id=None)).retry
        False
    """
    if isinstance(error, CircuitOpen):
        return Verdict(True, error.retry_after_s)
    if isinstance(error, ModelError):
        garbage = error.status < 300
        return _of_status(error.status, error.code, error.retry_after_s, garbage=garbage)
    if isinstance(error, (EndpointError, TimeoutError, ConnectionError)):
        return Verdict(True, outage=True, overload=isinstance(error, TimeoutError))
    if _is_garbage(error):
        return Verdict(True, answered=True)
    return _of_openai(error)


def _of_status(status: int, code: str | None, wait_s: float | None, *, garbage: bool) -> Verdict:
    if code == "insufficient_quota":  # a 429 that no waiting cures
        return Verdict(False, answered=True)
    retry = status in PASSING or garbage
    overload = status in OVERLOAD
    return Verdict(retry, wait_s, outage=status >= 500, overload=overload, answered=True)


def _is_garbage(error: BaseException) -> bool:
    """What LangChain makes of an answer with status 200 that is cut off, empty, or a web page."""
    if isinstance(error, json.JSONDecodeError):
        return True
    by_langchain = _module_where_raised(error).startswith(("langchain_openai", "langchain_core"))
    return by_langchain and type(error) in (IndexError, ValueError, TypeError)


def _module_where_raised(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""


def _of_openai(error: BaseException) -> Verdict:
    openai = sys.modules.get("openai")  # slow to import; an error of its own is one only if it was
    if openai is None:
        return Verdict(False)
    if isinstance(error, openai.APIStatusError):
        wait_s = lab.retry_after_s(error.response.headers)
        return _of_status(error.status_code, error.code, wait_s, garbage=False)
    broken_off = isinstance(error, openai.APIConnectionError)
    late = isinstance(error, openai.APITimeoutError)  # of the same family
    return Verdict(broken_off, outage=broken_off, overload=late)
