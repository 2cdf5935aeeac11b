"""What can go wrong at an endpoint, and when: the plan, which `gate` carries out."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from agentlab._support import fields
from agentlab._support.fields import AtLeastOne, NotNegative, model
from agentlab._support.yaml_file import LocatedFile
from agentlab.endpoint.contract.openai_json import FAULTS, RequestError, refusal
from agentlab.endpoint.contract.seeded_random import uniform
from agentlab.errors import ConfigError

# docs/local_model.md says what each does: an error, a reset or slowness, and a wrong answer.
_Failing = Literal["error", "quota", "reset", "broken", "stall", "drip"]
_Wrong = Literal["truncated_json", "empty_choices", "html", "cut", "stream_error"]
Kind = Literal[_Failing, _Wrong]


@model
class Fault:
    """One line of a plan: what happens, and to which requests.

    Either `probability` or `calls` (the 3rd) says when; `between_s` narrows it to a time after the
    endpoint's first request, or, alone, means all of it. With `agent`, only that agent's requests
    count. Of a plain answer, `cut` is `truncated_json`, and `stream_error` an error 500.
    """

    kind: Kind
    probability: Annotated[float, Field(ge=0, le=1, strict=True)] | None = None
    calls: Annotated[list[AtLeastOne], Field(min_length=1)] | None = None
    between_s: tuple[NotNegative, NotNegative] | None = None
    agent: str | None = None
    status: Annotated[int, Field(strict=True)] = 500
    retry_after_s: NotNegative = 1.0
    stall_s: NotNegative | None = None
    byte_s: NotNegative = 0.1

    def __post_init__(self) -> None:
        missing = [self.probability, self.calls].count(None)
        if missing == 0 or (missing == 2 and self.between_s is None):
            raise ValueError("give either probability or calls, or between_s alone")
        if self.between_s is not None and self.between_s[0] >= self.between_s[1]:
            raise ValueError(f"between_s goes from {self.between_s[0]} to {self.between_s[1]}")
        if self.status not in FAULTS:
            raise ValueError(f"status {self.status}; choose one of {', '.join(map(str, FAULTS))}")

    @property
    def error(self) -> RequestError:
        """The answer of a fault of kind "error" or "quota"."""
        if self.kind == "quota":
            return refusal("insufficient_quota")
        worth_a_retry = self.status >= 500 or self.status in (408, 409, 429)
        wait_s = self.retry_after_s if worth_a_retry else None
        return refusal(f"fault_{self.status}", retry_after_s=wait_s)


_PLAN = TypeAdapter(list[Fault])  # which takes a millisecond to make


def load(plan: str | Sequence[Any]) -> list[Fault]:
    """Read a fault plan, a list of faults or a YAML file's path; ConfigError if it cannot work.

    Example:
        >>> [fault.kind for fault in load([{"kind": "error", "probability": 0.05}])]
        ['error']
    """
    if isinstance(plan, str):
        faults = LocatedFile(Path(plan), what="fault plan").decode(list[Fault])
    else:
        try:
            faults = _PLAN.validate_python(plan)
        except ValidationError as error:
            says = fields.refusal(error, list[Fault])
            raise ConfigError(f"fault plan {plan!r}: {says}; correct it there") from None
    for agent in {fault.agent for fault in faults}:
        met = [f for f in faults if f.agent in (None, agent) and f.between_s is None]
        if (total := sum(f.probability or 0 for f in met)) > 1 + 1e-9:
            wrong = f"the probabilities add up to {total:g}; at most 1 is possible"
            raise ConfigError(f"fault plan {plan!r}: {wrong}")
    return faults


class FaultPlan:
    """Says which fault, if any, a request meets."""

    def __init__(self, faults: Sequence[Fault], seed: int):
        self._faults, self._seed = faults, seed
        self._calls: Counter[str | None] = Counter()
        self._counted = {fault.agent for fault in faults}
        self._first_at_s: float | None = None

    def next(
        self, key: bytes, occurrence: int, attempt: int, agent: str, *, at_s: float
    ) -> Fault | None:
        """Return the fault of the next request, of which each attempt is drawn by itself."""
        self._calls[None] += 1
        if agent in self._counted:
            self._calls[agent] += 1
        if self._first_at_s is None:
            self._first_at_s = at_s
        after_s = at_s - self._first_at_s
        drawn = uniform(self._seed, key, occurrence, f"fault {attempt}")
        for fault in self._faults:
            from_s, until_s = fault.between_s or (-math.inf, math.inf)
            if fault.agent not in (None, agent) or not from_s <= after_s < until_s:
                continue
            if fault.probability is not None:
                drawn -= fault.probability
                met = drawn < 0
            else:
                met = fault.calls is None or self._calls[fault.agent] in fault.calls
            if met:
                return fault
        return None
