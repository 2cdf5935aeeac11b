"""Which errors are worth another attempt, and how long the endpoint asks to wait.

A 429 may be a rate, a day's limit, a request over any limit, or an account without credit.
"""

import json
import sys
import traceback
from typing import NamedTuple

import httpx

from agentlab import errors, lab
from agentlab._support import DATA
from agentlab._support.patterns import Patterns
from agentlab.errors import EndpointError, IncompleteAnswer, ModelError

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses that may be gone at the next attempt."""

OVERLOAD = frozenset({408, 429, 503, 504, 529})
"""Statuses that fewer requests at the same time may avoid."""

_RE = Patterns(DATA / "patterns" / "refusals.yaml")
_LONGEST_WAIT_S = 366 * 86_400.0  # a longer wait means something else, such as a date in seconds


class RetryDecision(NamedTuple):
    """What to make of an error: is the same call worth another attempt, and when?"""

    retry: bool
    wait_s: float | None = None  # how long the endpoint asks to wait, in model seconds
    outage: bool = False  # it seems to be down; a rate limit or a refusal is not an outage
    overload: bool = False  # it was asked too much: a rate limit, a full queue, no answer in time
    answered: bool = False  # it gave an answer, even a refusal
    limited: bool = False  # a rate limit refused it, which waiting cures, if need be for a minute
    exhausted: bool = False  # the account has no credit left, or nothing more for today


def classify(error: BaseException) -> RetryDecision:
    """Return what to make of an error of `lab.ask`, openai's client, `ChatOpenAI` or `crewai.LLM`.

    Worth another attempt are broken connections, time-outs, the statuses in `PASSING`, and an
    answer without text, broken off, or unreadable with status 200. It never raises.

    Example:
        >>> classify(ModelError("busy", status=503, code=None, request_id=None)).retry
        True
        >>> classify(ModelError("no key", status=401, code=None, request_id=None)).retry
        False
    """
    try:
        verdict = _judged(error)
        if verdict.wait_s is not None and not 0 <= verdict.wait_s <= _LONGEST_WAIT_S:
            return verdict._replace(wait_s=None)
        return verdict
    except Exception:
        return RetryDecision(False)


def words(error: BaseException) -> str:
    """Return what an error says, or else its type: never nothing, even if its own text fails."""
    try:
        said = str(error)
    except Exception:
        said = ""
    return said if said.strip() else type(error).__name__


def asked_to_wait_s(message: str) -> float | None:
    """Read how long an error's message asks to wait, in seconds; None if it does not say.

    Example:
        >>> asked_to_wait_s("Rate limit reached. Please try again in 7m33.6s.")
        453.6
    """
    found = _RE.try_again.search(message)
    return None if found is None else lab.duration_s(found[1])


def _judged(error: BaseException) -> RetryDecision:
    if isinstance(error, IncompleteAnswer):
        again = isinstance(error, errors.AnswerEmpty | errors.AnswerInterrupted)
        return RetryDecision(again, answered=True)
    if isinstance(error, ModelError):
        names = f"{error.code} {error.kind}"
        return _refusal(error.status, names, words(error), error.retry_after_s)
    late = isinstance(error, TimeoutError | httpx.TimeoutException)
    if late or isinstance(error, EndpointError | ConnectionError | httpx.TransportError):
        return RetryDecision(True, outage=True, overload=late)
    openai = sys.modules.get("openai")  # slow to import; an error of its own is one only if it was
    if openai is not None and isinstance(error, openai.APIStatusError):
        wait_s = lab.retry_after_s(error.response.headers)
        return _refusal(error.status_code, f"{error.code} {error.type}", words(error), wait_s)
    if openai is not None and isinstance(error, openai.APIConnectionError):
        return RetryDecision(True, outage=True, overload=isinstance(error, openai.APITimeoutError))
    if not _is_garbage(error):
        return RetryDecision(False)
    problem = error.args[0] if error.args else None
    if not isinstance(problem, dict):
        return RetryDecision(True, answered=True)
    # An error inside a good answer, which LangChain raises as it stands.
    code = problem.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 200
    return _refusal(status, f"{code} {problem.get('type')}", str(problem.get("message")), None)


def _refusal(status: int, names: str, said: str, wait_s: float | None) -> RetryDecision:
    """Judge an error that the endpoint sent, be it with status 200; `names` it by code and type."""
    wait_s = asked_to_wait_s(said) if wait_s is None else wait_s
    too_large = status == 429 and _is_too_large(said)
    exhausted = status == 402 or _RE.no_credit.search(names) is not None
    if wait_s is None and (status in (403, 429) or status < 300):
        exhausted = exhausted or _RE.no_credit.search(said) is not None
    if wait_s is None and status == 429 and not too_large:
        exhausted = exhausted or _RE.per_day.search(said) is not None
    if exhausted or too_large:
        return RetryDecision(False, answered=True, exhausted=exhausted)
    garbage = status < 300 and not _RE.final.search(names)
    retry, outage, overload = status in PASSING or garbage, status >= 500, status in OVERLOAD
    return RetryDecision(retry, wait_s, outage, overload, answered=True, limited=status == 429)


def _is_too_large(said: str) -> bool:
    """Return whether the message says that the request alone is over the limit."""
    numbers = _RE.limit_and_requested.search(said)
    if numbers is None:
        return _RE.too_large.search(said) is not None
    limit, requested = (int(number.replace(",", "")) for number in numbers.groups())
    return requested > limit


def _is_garbage(error: BaseException) -> bool:
    """Return whether it is what LangChain makes of an answer that is cut off, empty, or a page."""
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return True
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    raised_in = str(frames[-1].f_globals.get("__name__")) if frames else ""
    by_langchain = raised_in.startswith(("langchain_openai", "langchain_core"))
    return by_langchain and type(error) in (IndexError, ValueError, TypeError)
