"""The patterns: how many calls, how many at once, and what becomes of the answers."""

from __future__ import annotations

import asyncio

import pytest

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.errors import ConfigError, EndpointError, ModelError
from agentlab.learning import patterns
from agentlab.learning.patterns import PATTERNS
from agentlab.learning.tasks import draw
from agentlab.trace import trace


class Script:
    """An `ask` of prepared answers: agent -> answer. It takes a second, and notes the prompts."""

    def __init__(self, **answers):
        self._answers = {agent.replace("_", " "): text for agent, text in answers.items()}
        self.asked = {}

    async def __call__(self, prompt, *, agent):
        self.asked[agent] = prompt
        await asyncio.sleep(1)
        return self._answers[agent]


def ran(coroutine):
    """The answer, and how long it took in seconds."""
    run = run_virtual(coroutine)
    return run.result, run.elapsed_s


def test_single_asks_once():
    """One call, one second."""
    assert ran(patterns.single(Script(solver="So:\nAnswer: 4"), "2 + 2?")) == ("4", 1)


@pytest.mark.parametrize(
    ("answers", "wins"),
    [("4 5 4", "4"), ("5 4 4", "4"), ("6 5 4", "6"), ("5 4 4 5 6", "5"), ("7", "7")],
)
def test_vote_takes_the_most_frequent_answer(answers, wins):
    """All voters are asked at once; of a tie the answer that the first of them gave wins."""
    said = answers.split()
    ask = Script(**{f"voter_{number}": answer for number, answer in enumerate(said, 1)})
    assert ran(patterns.vote(ask, "2 + 2?", voters=len(said))) == (wins, 1)


def test_map_reduce_joins_the_parts_in_order():
    """Each part is asked by itself, all at once, and code puts the answers together."""
    ask = Script(part_1="Answer: a", part_2="Answer: b")
    assert ran(patterns.map_reduce(ask, ["first", "second"], "+".join)) == ("a+b", 1)
    assert ask.asked == {"part 1": "first", "part 2": "second"}


def test_a_debate_ends_where_all_agree():
    """Two calls where nobody disagrees."""
    ask = Script(debater_1="4", debater_2="Answer: 4.")
    assert ran(patterns.debate(ask, "2 + 2?")) == ("4", 1)
    assert set(ask.asked) == {"debater 1", "debater 2"}


def test_who_disagrees_sees_the_others_answers():
    """In the second round each sees all; if one gives way, that is the end of it."""
    ask = Script(debater_1="4", debater_2="5", critic_1="4", critic_2="4")
    assert ran(patterns.debate(ask, "2 + 2?")) == ("4", 2)
    assert patterns.proposals(ask.asked["critic 1"]) == ["4", "5"]
    assert ask.asked["critic 1"].startswith("2 + 2?")


def test_a_judge_decides_what_critics_leave_open():
    """After a second round without agreement a judge sees its answers, and decides: 5 calls."""
    ask = Script(debater_1="4", debater_2="5", critic_1="4", critic_2="6", judge="Answer: 6")
    assert ran(patterns.debate(ask, "2 + 2?")) == ("6", 3)
    assert patterns.proposals(ask.asked["judge"]) == ["4", "6"]
    assert len(ask.asked) == 5


def test_a_prompt_without_proposals_has_none():
    """A prompt of the user's own shows no answers of others."""
    assert patterns.proposals("- one\n- two") == []


@pytest.mark.parametrize(
    ("name", "requests", "peak"),
    [("single", 1, 1), ("vote of 3", 3, 3), ("vote of 5", 5, 5), ("map-reduce", 3, 3)],
)
def test_calls_overlap_as_the_endpoint_saw(fresh_lab, name, requests, peak):
    """A pattern's calls are in flight at once, so that it takes as long as its longest one."""
    with trace() as t:
        run_virtual(PATTERNS[name](lab.ask, draw("counting", 0)))
    assert (t.requests, t.peak) == (requests, peak)
    assert t.makespan_s == max(span.service_s for span in t.spans)


def test_a_debate_overlaps_within_its_rounds(fresh_lab):
    """The local model's words differ each time: five calls, two at once, in three rounds."""
    with trace() as t:
        run_virtual(PATTERNS["debate"](lab.ask, draw("counting", 0)))
    assert [
        span.agent.split()[0] for span in t.spans
    ] == "debater debater critic critic judge".split()
    assert t.peak == 2


def test_a_failed_call_is_one_error_and_ends_the_others(fresh_lab):
    """The model's own error comes out, and the other voters hang up at once."""
    with (
        lab.configure(faults=[{"kind": "error", "status": 400, "agent": "voter 2", "calls": [1]}]),
        trace() as t,
        pytest.raises(ModelError, match="400"),
    ):
        run_virtual(PATTERNS["vote of 3"](lab.ask, draw("counting", 0)))
    assert {span.agent: span.status for span in t.spans} == {
        "voter 1": 499,
        "voter 2": 400,
        "voter 3": 499,
    }


def test_a_call_that_ends_as_cancelled_is_an_error():
    """Nobody cancelled the vote, so it must not look as if somebody had."""

    async def ask(prompt: str, **options: object) -> str:
        raise asyncio.CancelledError

    with pytest.raises(EndpointError, match="cancelled by its own maker"):
        run_virtual(patterns.vote(ask, "How many?"))


@pytest.mark.parametrize("most", [0, -1])
def test_nobody_to_ask_is_refused(most):
    """A vote of none has no answer."""
    with pytest.raises(ConfigError, match="needs 1 voter or more, got 0"):
        run_virtual(patterns.vote(Script(), "2 + 2?", voters=most))
