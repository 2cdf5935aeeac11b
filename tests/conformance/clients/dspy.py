"""DSPy: its signatures as field markers, as JSON and as XML, and ReAct."""

import cells
import dspy
import litellm  # noqa: F401  DSPy would import it with the first question
from cells import ASKS, MODEL, cell

dspy.configure(lm=dspy.LM(f"openai/{MODEL}", cache=False))


class Market(dspy.Signature):
    """Describe the market for a topic."""

    topic: str = dspy.InputField()
    title: str = dspy.OutputField()
    risks: list[str] = dspy.OutputField()
    outlook: float = dspy.OutputField(desc="between 0 and 1")


@cell("plain", 1)
def _():
    answer = dspy.Predict("question -> answer")(question="What are tides?").answer
    assert answer
    assert "##" not in answer, answer


@cell("structured output", 1)
def _():
    answer = dspy.Predict(Market)(topic="tides")
    assert isinstance(answer.risks, list)
    assert isinstance(answer.outlook, float)


@cell("ChainOfThought", 1)
def _():
    answer = dspy.ChainOfThought("question -> answer")(question="What are tides?")
    assert answer.reasoning
    assert answer.answer


@cell("ReAct", 3)
def _():
    answer = dspy.ReAct("question -> answer", tools=[cells.get_weather])(question=ASKS)
    cells.asked_for_weather(answer.answer)


for adapter in [dspy.JSONAdapter, dspy.XMLAdapter]:

    @cell(adapter.__name__, 1)
    def _():
        with dspy.context(adapter=adapter()):
            assert isinstance(dspy.Predict(Market)(topic="tides").risks, list)
