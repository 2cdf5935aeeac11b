"""What a failure says: whether one topic has met it or every topic would, and in which words."""

from __future__ import annotations

from agentlab.errors import (
    AnswerTruncated,
    ClusterLost,
    ConfigError,
    GaveUp,
    IncompleteAnswer,
    ReasoningExhausted,
)
from agentlab.resilience.verdict import Verdict, judge


def verdict(error: BaseException) -> Verdict:
    """What to make of a failure: of the last attempt's error, where there were several."""
    return judge(_last(error))


def passes(error: BaseException) -> bool:
    """True for what may be gone later, such as an outage, and for a wait that was not begun."""
    last = _last(error)
    return isinstance(last, GaveUp) or judge(last).retry


def is_everybodys(error: BaseException) -> bool:
    """True for what every topic would meet: a wrong key, no credit, a parameter that is refused."""
    last = _last(error)
    if isinstance(last, ClusterLost | ConfigError):
        return True
    said = judge(last)
    if said.exhausted or said.retry:
        return said.exhausted
    status, param = getattr(last, "status", None), getattr(last, "param", None) or ""
    if status in (400, 422):
        of_the_prompt = getattr(last, "code", None) == "context_length_exceeded"
        return bool(param) and not (of_the_prompt or param.startswith(("messages", "prompt")))
    return status in (401, 402, 403, 404, 410)


def may_end_soon(error: BaseException, *, was_there: bool) -> bool:
    """True for a refusal that says "later", and for anything that passes if all was well before.

    A server that nobody has reached yet, or that has sent nothing but nonsense, is a wrong one.
    """
    last = _last(error)
    gone = getattr(last, "code", None) == "upstream_unreachable"
    later = getattr(last, "status", 0) >= 400 and not gone
    return judge(last).retry and (was_there or later)


def is_final(error: BaseException) -> bool:
    """True where asking the same again would bring the same: cut off, filtered or refused."""
    last = _last(error)
    return isinstance(last, IncompleteAnswer) and not judge(last).retry


def exhausts_limit(error: BaseException) -> bool:
    """True if the model's reasoning left nothing of the limit for an answer."""
    return isinstance(_last(error), ReasoningExhausted)


def in_words(error: BaseException, step: str, content_type: str) -> str:
    """A failure's message, with the step's name and the setting that is the way out."""
    last, file = _last(error), f"data/workflows/{content_type}.yaml"
    if isinstance(last, TimeoutError):
        return f"{error}; raise timeout_seconds"
    if isinstance(last, ReasoningExhausted | AnswerTruncated):
        return f"{step!r}: {error} (in {file})"
    if isinstance(last, IncompleteAnswer):
        return f"{step!r}: {error}"
    param = getattr(last, "param", None) or ""
    if any(name in param for name in ("temperature", "max_tokens", "max_completion_tokens")):
        return f"{error}; the steps in {file} set it, and null leaves it out"
    return str(error)


def _last(error: BaseException) -> BaseException:
    return (error.__cause__ or error) if isinstance(error, GaveUp) else error
