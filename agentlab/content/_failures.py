"""What a failure means for a batch: whether it may pass, whose fault it is, and how it is said."""

from typing import Literal

from agentlab import errors
from agentlab.content._topics import clean, one_line
from agentlab.errors import AgentLabError, ConfigError, IncompleteAnswer, RetriesExhausted
from agentlab.resilience import classify

Meaning = Literal["passes", "final", "everybody's", "its own"]


class Unfinished(AgentLabError):
    """A call with an effect was begun, and nobody knows how it ended, so it is not made again."""


def last(error: BaseException) -> BaseException:
    """Return the error of the last attempt, where there were several."""
    return (error.__cause__ or error) if isinstance(error, RetriesExhausted) else error


def meaning(error: BaseException) -> Meaning:
    """Return what a failure means for the topic that met it.

    It "passes" if it may be gone later; it is "final" if asking again would bring the same, as for
    what was cut off or refused; "everybody's" if every topic would meet it: a wrong key, no credit,
    a refused parameter. Else it is "its own".
    """
    met = last(error)
    said = classify(met)
    if said.exhausted or isinstance(met, errors.ClusterLost | ConfigError):
        return "everybody's"
    if said.retry or isinstance(met, RetriesExhausted):  # of a wait that was not begun
        return "passes"
    if isinstance(met, Unfinished | errors.TurnsExhausted | IncompleteAnswer):
        return "final"
    status, param = getattr(met, "status", None), getattr(met, "param", None) or ""
    if status in (400, 422):
        too_long = getattr(met, "code", None) == "context_length_exceeded"
        of_the_prompt = not param or too_long or param.startswith(("messages", "prompt"))
        return "its own" if of_the_prompt else "everybody's"
    return "everybody's" if status in (401, 402, 403, 404, 410) else "its own"


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
