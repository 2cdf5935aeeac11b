"""What a failure means for a batch: whether it may pass, whose fault it is, and how it is said."""

from agentlab import errors
from agentlab.content._topics import clean, one_line
from agentlab.errors import AgentLabError, ConfigError, IncompleteAnswer, RetriesExhausted
from agentlab.resilience import classify


class Unfinished(AgentLabError):
    """A call with an effect was begun, and nobody knows how it ended, so it is not made again."""


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
    if isinstance(met, errors.ClusterLost | ConfigError):
        return True
    said = classify(met)
    if said.exhausted or said.retry:
        return said.exhausted
    status, param = getattr(met, "status", None), getattr(met, "param", None) or ""
    if status in (400, 422):
        of_the_prompt = getattr(met, "code", None) == "context_length_exceeded"
        return bool(param) and not (of_the_prompt or param.startswith(("messages", "prompt")))
    return status in (401, 402, 403, 404, 410)


def is_final(error: BaseException) -> bool:
    """Return True where asking again would bring the same, as for what was cut off or refused."""
    met = last(error)
    stuck = isinstance(met, Unfinished | errors.TurnsExhausted)
    return stuck or (isinstance(met, IncompleteAnswer) and not classify(met).retry)


def in_words(error: BaseException, step: str, content_type: str) -> str:
    """Say a failure in a line that can be recorded and shown, with the way out if there is one."""
    met, said = last(error), clean(one_line(str(error))) or type(error).__name__
    said = said if len(said) <= 2000 else f"{said[:1000]} ... {said[-900:]}"  # a whole page
    if isinstance(met, TimeoutError):
        return f"{said}; raise timeout_seconds"
    if isinstance(met, errors.ReasoningExhausted | errors.AnswerTruncated):
        return f"{step!r}: {said} (in data/workflows/{content_type}.yaml)"
    if isinstance(error, IncompleteAnswer) or not isinstance(error, AgentLabError | OSError):
        return f"{step!r}: {said}"
    return said  # what was given up is named already
