"""Every error that Agent Lab raises, as one tree.

    AgentLabError
    ├── ConfigError      a value given by the user cannot work (also a ValueError)
    │   └── FileError    a data file is wrong (carries each problem with its line and field)
    ├── EndpointError    the endpoint cannot be started, found or understood
    ├── ModelError       the model answered a call with an error (carries status, code, request id)
    │   └── IncompleteAnswer    it answered 200, and yet there is no whole answer
    │       ├── AnswerTruncated     cut off by a limit that the caller did not set
    │       ├── ReasoningExhausted  the whole limit went into reasoning, nothing into an answer
    │       ├── AnswerFiltered      withheld by the provider's content filter
    │       ├── AnswerRefused       the model declined, in its own words
    │       ├── AnswerInterrupted   broken off by the endpoint, for a reason of its own
    │       └── AnswerEmpty         no text, without a reason given
    ├── GaveUp           a guarded call failed for good (carries the attempts and their errors)
    ├── CircuitOpen      the endpoint is down, and the call was not sent (carries when to try again)
    ├── ClusterLost      the processes that calls were placed on cannot be reached any more
    ├── StepError        a step of a workflow failed (carries the step, and every finished answer)
    ├── JournalError     an answer cannot be written down
    ├── Stopped          a guard or the content system was told to send nothing more
    └── DeadlockError    in virtual time nothing is left that could ever happen (carries what waits)

Each message says what is wrong, the value, and the way out; the facts are attributes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class AgentLabError(Exception):
    """The root: catching it catches everything that this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle by calling their class with `args`, which leaves keywords out; errors
        # come back from other processes with all their facts.
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[AgentLabError], args: tuple[Any, ...], facts: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


def reason(error: BaseException) -> BaseException:
    """What the lab itself said, if `error` came of that; else `error`.

    Clients and frameworks wrap what they meet, often in words that hide it ("Connection error.").
    Where several are found, a ConfigError comes first: it names the way out.

    Example:
        >>> outer = RuntimeError("Connection error.")
        >>> outer.__cause__ = ConfigError("use ainvoke")
        >>> reason(outer)
        ConfigError('use ainvoke')
    """
    seen: dict[int, BaseException] = {}  # an error may be its own cause
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop(0)
        if one is None or id(one) in seen:
            continue
        seen[id(one)] = one
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
        left += [one.__cause__, None if one.__suppress_context__ else one.__context__]
    for kind in (ConfigError, AgentLabError):
        if found := [one for one in seen.values() if isinstance(one, kind)]:
            return found[0]
    return error


class ConfigError(AgentLabError, ValueError):
    """A setting, an argument or a data file holds a value that cannot work.

    Attributes:
        field: The field of a data file that holds it, if one does.
    """

    def __init__(self, message: str, *, field: str | None = None):
        super().__init__(message)
        self.field = field


class Problem(NamedTuple):
    """One thing that is wrong in a file; lines and columns count from 1."""

    line: int
    column: int
    field: str
    says: str


class FileError(ConfigError):
    """A data file is wrong; the message has a line for each problem, as compilers write them.

    Attributes:
        path: The file.
        problems: What is wrong, in the order of the lines.
    """

    def __init__(self, what: str, path: str, problems: Sequence[Problem]):
        self.path = path
        self.problems = list(problems)
        lines = [
            f"{path}:{line}:{column}: {f'{field}: ' if field else ''}{says}"
            for line, column, field, says in problems
        ]
        if len(lines) > 1:
            lines = [f"file with {len(lines)} problems:", *lines]
        super().__init__(f"{what} " + "\n  ".join(lines))


class EndpointError(AgentLabError):
    """The endpoint cannot be started, reached or understood."""


class ModelError(AgentLabError):
    """The model answered a call with an error.

    Attributes:
        status: HTTP status of the answer, such as 400.
        code: OpenAI's error code, such as ``"context_length_exceeded"``, or None.
        kind: OpenAI's error type, such as ``"insufficient_quota"``, or None.
        param: The field of the request that is to blame, such as ``"temperature"``, or None.
        request_id: What to look for in the trace.
        retry_after_s: Model seconds that the endpoint asks to wait; None if it does not say.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None,
        request_id: str | None,
        kind: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.code = code
        self.kind = kind
        self.param = param
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class IncompleteAnswer(ModelError):
    """The model answered with status 200, and yet there is no whole answer; it is paid for.

    Attributes:
        text: What came of an answer; often nothing.
        finish_reason: Why the endpoint says it ended, such as ``"length"``, or None.
        prompt_tokens, completion_tokens: What the endpoint counted, 0 where it does not.
    """

    def __init__(
        self,
        message: str,
        *,
        text: str = "",
        finish_reason: str | None = None,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        request_id: str | None = None,
    ):
        super().__init__(message, status=200, code=None, request_id=request_id)
        self.text = text
        self.finish_reason = finish_reason
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens


class AnswerTruncated(IncompleteAnswer):
    """The answer was cut off by a limit that the caller did not set; asking again changes nothing.

    The way out is a larger limit, or a shorter answer asked for.
    """


class ReasoningExhausted(IncompleteAnswer):
    """The limit on tokens was spent on reasoning, so that no answer is left; raise the limit."""


class AnswerFiltered(IncompleteAnswer):
    """The provider's content filter withheld the answer; ask for something else."""


class AnswerRefused(IncompleteAnswer):
    """The model declined to answer; `text` holds what it said instead."""


class AnswerInterrupted(IncompleteAnswer):
    """The endpoint broke its answer off for a reason of its own; asking again may help."""


class AnswerEmpty(IncompleteAnswer):
    """The answer has no text, and nothing says why; asking again may help."""


class GaveUp(AgentLabError):
    """A guarded call failed for good; its last error is the `__cause__`.

    Attributes:
        attempts: How many requests were sent for it, hedges left out.
        errors: What each attempt ended with, in order.
    """

    def __init__(self, message: str, *, attempts: int, errors: list[Exception]):
        super().__init__(message)
        self.attempts = attempts
        self.errors = errors


class CircuitOpen(AgentLabError):
    """The endpoint has failed too often of late, so nothing was sent.

    Attributes:
        retry_after_s: Model seconds until the next attempt is let through.
    """

    def __init__(self, message: str, *, retry_after_s: float):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ClusterLost(AgentLabError):
    """The scheduler is gone, and with it all calls that were placed; what is recorded is kept."""


class StepError(AgentLabError):
    """A step of a workflow failed; what its error was is the `__cause__`.

    Attributes:
        step: The name of the step.
        results: Step -> answer, of the steps that had ended by then. They are paid for: keep them.
    """

    def __init__(self, message: str, *, step: str, results: dict[str, str]):
        super().__init__(message)
        self.step = step
        self.results = results


class JournalError(AgentLabError):
    """The content system's journal cannot be written, for want of space or of the database."""


class Stopped(AgentLabError):
    """A guard, or the content system, was told to send nothing more, so this was not sent."""


class DeadlockError(AgentLabError):
    """In virtual time nothing is ready and no timer is set, so nothing can ever happen again.

    Attributes:
        waiting: One line for each task that waits, naming it and where it stands.
    """

    def __init__(self, message: str, *, waiting: list[str]):
        super().__init__(message)
        self.waiting = waiting
