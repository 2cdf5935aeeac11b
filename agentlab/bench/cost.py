"""What an experiment would cost on a real model, told before it is paid."""

from __future__ import annotations

from typing import NamedTuple

from agentlab import engines, lab
from agentlab.bench.experiment import Experiment, Workload
from agentlab.workflow import Workflow


class Cost(NamedTuple):
    """Requests and tokens of a whole experiment, warm-ups and repeats included.

    Tokens of prompts are the course's estimate, within some percent. Those of answers are the most
    there may be; for the `unlimited` ones the local model's length is taken.
    """

    requests: int
    prompt_tokens: int
    answer_tokens: int
    unlimited: int

    def dollars(self, prompt_price: float, answer_price: float) -> float:
        """Return the cost at these prices per million tokens."""
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

    A request that times out and is asked again may be billed twice.

    Example:
        >>> three = Experiment(about="x", workloads=[Workload(agents=3)], clock="real", repeats=2)
        >>> print(cost(three))
        18 requests with some 252 tokens of prompts and up to 198 of answers
    """
    experiment = experiment.as_asked()
    counted = []
    if experiment.asks_real:
        counted += _rehearsed(experiment.workloads[0].build(), experiment.workloads[0])[:1]
    for name, workload in experiment.by_name.items():
        cases = sum(case.workload == name for case in experiment.cases())
        for number in range(workload.random or 1):
            times = cases * (experiment.repeats + (0 if number else experiment.warmups))
            counted += _rehearsed(workload.build(number), workload) * times
    return Cost(*map(sum, zip(*counted, strict=True)))


def _rehearsed(workflow: Workflow, workload: Workload) -> list[Cost]:
    """Return what each step costs."""
    with lab.configure(preset="instant", upstream=None, faults=[], replay=None):
        _, t = lab.simulate(engines.run(workflow, workload.inputs))
    spans = {span.agent: span for span in t.spans}
    costs = []
    for step in workflow.steps:
        span, most = spans[step.name], step.max_tokens
        length = span.completion_tokens if most is None else most
        costs.append(Cost(1, span.prompt_tokens, length, unlimited=int(most is None)))
    return costs
