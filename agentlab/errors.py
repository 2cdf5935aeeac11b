"""Every error that Agent Lab raises on purpose: what is wrong, the value, and the way out."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class AgentLabError(Exception):
    """The root of all errors; facts are given by keyword, become attributes, and can be pickled."""

    def __init__(self, message: str, **facts: Any):
        super().__init__(message)
        self.__dict__.update(facts)


def reason(error: BaseException) -> BaseException:
    """Return what the lab itself said, if `error` was caused by that; else `error`.

    Clients and frameworks wrap errors, often in words that hide them ("Connection error.").
    Where several are found, a ConfigError comes first, because it names the way out.
    """
    found = [error]
    for one in found:  # which grows meanwhile
        inner = [one.__cause__, None if one.__suppress_context__ else one.__context__]
        if isinstance(one, BaseExceptionGroup):
            inner = [*one.exceptions, *inner]
        found += [each for each in inner if each is not None and each not in found]
    kinds = (ConfigError, AgentLabError, BaseException)
    return next(one for kind in kinds for one in found if isinstance(one, kind))


class ConfigError(AgentLabError, ValueError):
    """A setting, an argument or a data file holds a value that cannot work."""

    field: str | None = None  # of a data file


class Problem(NamedTuple):
    """One thing that is wrong in a file; lines and columns count from 1."""

    line: int
    column: int
    field: str
    says: str


class FileError(ConfigError):
    """A data file at `path` is wrong; its `problems` are in the order of the lines."""

    path: str
    problems: list[Problem]

    def __init__(self, what: str, path: str = "", problems: Sequence[Problem] = ()):
        lines = [
            f"{path}:{line}:{column}: {f'{field}: ' if field else ''}{says}"
            for line, column, field, says in problems
        ]
        if len(lines) > 1:
            lines = [f"file with {len(lines)} problems:", *lines]
        message = f"{what} " + "\n  ".join(lines) if lines else what  # none when unpickled
        super().__init__(message, path=path, problems=list(problems))


class EndpointError(AgentLabError):
    """The endpoint cannot be started, reached or understood."""


class ModelError(AgentLabError):
    """The model answered a call with an error.

    `code`, `kind` and `param` are OpenAI's error code, error type and the field that is to blame.
    """

    status: int  # of HTTP
    code: str | None = None
    kind: str | None = None
    param: str | None = None
    request_id: str | None = None  # the request's name in the trace
    retry_after_s: float | None = None  # in model seconds


class IncompleteAnswer(ModelError):
    """The model answered with status 200, but the answer is not whole; it costs money all the same.

    `text` is what came of it; tokens are 0 where the endpoint counts none.
    """

    status = 200
    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class AnswerTruncated(IncompleteAnswer):
    """A limit that the caller did not set cut the answer off; raise it, or ask for less."""


class ReasoningExhausted(IncompleteAnswer):
    """Reasoning used up the limit on tokens, so that no answer is left; raise the limit."""


class AnswerFiltered(IncompleteAnswer):
    """The provider's content filter withheld the answer; ask for something else."""


class AnswerRefused(IncompleteAnswer):
    """The model declined to answer; `text` holds what it said instead."""


class AnswerInterrupted(IncompleteAnswer):
    """The endpoint broke its answer off for a reason of its own; asking again may help."""


class AnswerEmpty(IncompleteAnswer):
    """The answer has no text, and nothing says why; asking again may help."""


class RetriesExhausted(AgentLabError):
    """A guarded call failed for good; its last error is the `__cause__`."""

    attempts: int  # requests that were sent for it, without hedges
    errors: list[Exception]


class TurnsExhausted(AgentLabError):
    """An agent went on calling tools for as many turns as it may take; it has them as `turns`."""


class ClusterLost(AgentLabError):
    """The scheduler is gone, and with it all calls that were placed; what is recorded is kept."""


class StepError(AgentLabError):
    """A step of a workflow failed; its own error is the `__cause__`."""

    step: str
    results: dict[str, str]  # of the steps that had ended by then; they cost money: keep them


class JournalError(AgentLabError):
    """The content system's journal cannot be written: the disk is full, or the database fails."""


class Stopped(AgentLabError):
    """A guard, or the content system, was told to send nothing more, so this was not sent."""


class DeadlockError(AgentLabError):
    """In virtual time nothing is ready and no timer is set, so nothing can ever happen again."""

    waiting: list[str]  # a line for each task, with its name and where it stands


class RaceError(AgentLabError, AssertionError):
    """A program failed under a schedule of `agentlab.explore`; its `__cause__` is how.

    `seed` draws the schedule; of its events, only those in `late` are needed for the failure.
    """

    seed: int | None = None  # None: it fails in asyncio's own order
    late: dict[int, int]
