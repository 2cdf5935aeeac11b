"""What an experiment would cost on a real model, said before it is paid."""

from __future__ import annotations

from typing import NamedTuple

from agentlab import engines, lab
from agentlab.bench.experiment import Experiment, Workload
from agentlab.trace import Trace


class Cost(NamedTuple):
    """Requests and tokens of a whole experiment, warm-ups and repeats included.

    Attributes:
        prompt_tokens: By the course's own estimate; a model's tokenizer differs by some percent.
        answer_tokens: The most there may be, where each step limits its answer.
        unlimited: How many answers have no limit; for these the local model's length is taken.
    """

    requests: int
    prompt_tokens: int
    answer_tokens: int
    unlimited: int

    def dollars(self, prompt_price: float, answer_price: float) -> float:
        """The same in money, at these prices for a million tokens.

        Example:
            >>> Cost(10, 2_000_000, 1_000_000, 0).dollars(0.15, 0.60)
            0.9
        """
        millionths = self.prompt_tokens * prompt_price + self.answer_tokens * answer_price
        return round(millionths / 1e6, 6)

    def __str__(self) -> str:
        said = (
            f"{self.requests:,} requests with some {self.prompt_tokens:,} tokens of prompts and "
            f"up to {self.answer_tokens:,} of answers"
        )
        return said + (f" ({self.unlimited:,} of them without a limit)" if self.unlimited else "")


def cost(experiment: Experiment) -> Cost:
    """Rehearse each workload on the local model, and count. Nothing is sent anywhere.

    A request that is refused is not billed; one that times out and is asked again may be, twice.

    Example:
        >>> three = Experiment(about="x", workloads=[Workload(agents=3)], clock="real", repeats=2)
        >>> print(cost(three))
        18 requests with some 252 tokens of prompts and up to 198 of answers
    """
    times = experiment.warmups + experiment.repeats
    total = Cost(0, 0, 0, 0)
    rehearsed = {workload.name: _rehearsed(workload) for workload in experiment.workloads}
    for case in experiment.cases():
        once = rehearsed[case.workload]
        total = Cost(*(sum_ + times * more for sum_, more in zip(total, once, strict=True)))
    return total


def _rehearsed(workload: Workload) -> Cost:
    workflow = workload.build()
    with lab.configure(preset="instant", upstream=None, faults=[], replay=None):
        _, t = lab.simulate(engines.run(workflow, workload.inputs))
    answered = {step.name: step.max_tokens for step in workflow.steps}
    return Cost(
        requests=t.requests,
        prompt_tokens=sum(span.prompt_tokens for span in t.spans),
        answer_tokens=sum(_most(answered, t, step) for step in answered),
        unlimited=sum(most is None for most in answered.values()),
    )


def _most(limits: dict[str, int | None], t: Trace, step: str) -> int:
    limit = limits[step]
    return sum(s.completion_tokens for s in t.spans if s.agent == step) if limit is None else limit
