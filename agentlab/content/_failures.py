"""What a failure says: whether one topic has met it or every topic would, and in which words."""

from __future__ import annotations

from agentlab.content._topics import one_line, without_halves
from agentlab.errors import (
    AgentLabError,
    AnswerTruncated,
    ClusterLost,
    ConfigError,
    IncompleteAnswer,
    ReasoningExhausted,
    RetriesExhausted,
)
from agentlab.resilience import classify


def last(error: BaseException) -> BaseException:
    """Return the error of the last attempt, where there were several."""
    return (error.__cause__ or error) if isinstance(error, RetriesExhausted) else error


def passes(error: BaseException) -> bool:
    """Return True for what may be gone later, and for a wait that was not begun."""
    met = last(error)
    return isinstance(met, RetriesExhausted) or classify(met).retry


def is_everybodys(error: BaseException) -> bool:
    """Return True for what every topic would meet: a wrong key, no credit, a refused parameter."""
    met = last(error)
    if isinstance(met, ClusterLost | ConfigError):
        return True
    said = classify(met)
    if said.exhausted or said.retry:
        return said.exhausted
    status, param = getattr(met, "status", None), getattr(met, "param", None) or ""
    if status in (400, 422):
        of_the_prompt = getattr(met, "code", None) == "context_length_exceeded"
        return bool(param) and not (of_the_prompt or param.startswith(("messages", "prompt")))
    return status in (401, 402, 403, 404, 410)


def may_end_soon(error: BaseException, *, was_there: bool) -> bool:
    """Return True for a refusal that says "later", and for what passes if all was well before.

    A server that nobody has reached yet, or that has sent nothing but nonsense, is a wrong one.
    """
    met = last(error)
    gone = getattr(met, "code", None) == "upstream_unreachable"
    later = getattr(met, "status", 0) >= 400 and not gone
    return classify(met).retry and (was_there or later)


def is_final(error: BaseException) -> bool:
    """Return True where asking again would bring the same: cut off, filtered or refused."""
    met = last(error)
    return isinstance(met, IncompleteAnswer) and not classify(met).retry


def in_words(error: BaseException, step: str, content_type: str) -> str:
    """Say a failure in a line, with the step's name and the setting that is the way out.

    Whatever an endpoint wrote into it, it can be recorded and shown in a terminal.
    """
    met, file = last(error), f"data/workflows/{content_type}.yaml"
    said = without_halves(one_line(str(error))) or type(error).__name__
    if len(said) > 2000:  # a whole page
        said = f"{said[:1000]} ... {said[-900:]}"
    if isinstance(met, TimeoutError):
        return f"{said}; raise timeout_seconds"
    if isinstance(met, ReasoningExhausted | AnswerTruncated):
        return f"{step!r}: {said} (in {file})"
    if isinstance(error, IncompleteAnswer) or not isinstance(error, AgentLabError | OSError):
        return f"{step!r}: {said}"  # what was given up is named already
    param = getattr(met, "param", None) or ""
    if any(name in param for name in ("temperature", "max_tokens", "max_completion_tokens")):
        return f"{said}; the steps in {file} set it, and null leaves it out"
    return said
