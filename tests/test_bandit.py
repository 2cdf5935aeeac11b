"""The bandit: exact beliefs, choices that repeat, forgetting, and a state that outlives it."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import ConfigError
from agentlab.learning._bandit import Bandit

ARMS = ["single", "vote", "debate"]


def means_of(bandit: Bandit, kind: str) -> dict[str, float]:
    """What each arm is believed to pay for a kind."""
    seen = bandit._seen[kind].items()
    return {arm: (0.5 + total) / (1 + many) for arm, (many, total) in seen}


def best(bandit: Bandit) -> str:
    """The arm that is believed to pay most for counting."""
    means = means_of(bandit, "counting")
    return max(means, key=means.__getitem__)


def lived(bandit, runs, *, seed=1, means=(0.3, 0.5, 0.8)):
    """So many choices and rewards; the arms that were chosen."""
    draw = random.Random(seed)
    chosen = []
    for _ in range(runs):
        arm = bandit.choose("counting")
        reward = float(draw.random() < means[ARMS.index(arm)])
        bandit.learn("counting", arm, reward)
        chosen.append(arm)
    return chosen


def test_belief_is_the_average_with_the_prior():
    """A prior of .5 worth one reward, and rewards 1 and 0: (.5 + 1 + 0) / 3."""
    bandit = Bandit(ARMS, discount=1.0)
    bandit.learn("counting", "vote", 1.0)
    bandit.learn("counting", "vote", 0.0)
    assert means_of(bandit, "counting") == {"single": 0.5, "vote": 0.5, "debate": 0.5}
    bandit.learn("counting", "vote", 1.0)
    assert means_of(bandit, "counting")["vote"] == 2.5 / 4


@given(st.lists(st.tuples(st.sampled_from(ARMS), st.floats(-1, 1)), max_size=30))
def test_old_rewards_fade(rewards):
    """The oracle: each reward counts .9 to the power of how many came after it, of its kind."""
    bandit = Bandit(ARMS, discount=0.9)
    for arm, reward in rewards:
        bandit.learn("counting", arm, reward)
    for arm in ARMS:
        aged = [(0.9**age, r) for age, (a, r) in enumerate(reversed(rewards)) if a == arm]
        total, weight = sum(w * r for w, r in aged), sum(w for w, _ in aged)
        assert means_of(bandit, "counting")[arm] == pytest.approx((0.5 + total) / (1 + weight))


def test_choices_follow_the_beliefs():
    """An arm is chosen as often as a draw from its posterior is the largest.

    With one reward each, of .1 and .9, the means are .3 and .7, each of deviation .4 / sqrt(2). So
    the draws differ by a normal of mean .4 and deviation .4: the second wins at Phi(1) = .84.
    """
    bandit = Bandit(["a", "b"], discount=1.0)
    bandit.learn("x", "a", 0.1)
    bandit.learn("x", "b", 0.9)
    won = Counter(bandit.choose("x") for _ in range(4000))["b"] / 4000
    expected = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    assert won == pytest.approx(expected, abs=4 * math.sqrt(0.84 * 0.16 / 4000))


def test_it_finds_the_best_arm():
    """Of three arms that are right .3, .5 and .8 of the time the last soon gets most choices."""
    bandit = Bandit(ARMS)
    chosen = lived(bandit, 300)
    assert best(bandit) == "debate"
    assert Counter(chosen[100:])["debate"] > 150


def test_kinds_are_learned_apart():
    """What is good for counting says nothing about a chain."""
    bandit = Bandit(ARMS)
    lived(bandit, 100)
    assert means_of(bandit, "chain") == dict.fromkeys(ARMS, 0.5)
    assert best(bandit) == "debate"


def test_who_forgets_notices_a_change():
    """After 500 runs the best arm becomes the worst: with a discount it is dropped much sooner."""

    def still_chosen(discount):
        bandit = Bandit(ARMS, discount=discount)
        lived(bandit, 500)
        return Counter(lived(bandit, 500, means=(0.8, 0.5, 0.1)))["debate"]

    assert still_chosen(0.95) < still_chosen(1.0) / 3


def test_same_seed_same_choices():
    """Two bandits alike choose alike; another seed chooses otherwise."""
    assert lived(Bandit(ARMS), 100) == lived(Bandit(ARMS), 100)
    assert lived(Bandit(ARMS, seed=8), 100) != lived(Bandit(ARMS), 100)


def test_choices_may_run_ahead_of_rewards():
    """Chosen before anything is learned, arms are drawn anew each time: all are tried."""
    bandit = Bandit(ARMS)
    assert {bandit.choose("counting") for _ in range(30)} == set(ARMS)


def test_each_kind_has_chance_of_its_own():
    """Two kinds of which nothing is known do not choose in step."""
    bandit = Bandit(ARMS)
    assert len({(bandit.choose("counting"), bandit.choose("chain")) for _ in range(60)}) > 3


def test_choices_do_not_depend_on_other_kinds():
    """Tasks of other kinds in between change nothing."""
    alone, mixed = Bandit(ARMS), Bandit(ARMS)
    expected = [alone.choose("counting") for _ in range(20)]
    found = []
    for _ in range(20):
        mixed.choose("chain")
        mixed.learn("sorting", "vote", 1.0)
        found.append(mixed.choose("counting"))
    assert found == expected


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"arms": []}, "arms must be one or more"),
        ({"arms": ["a", "a"]}, "each once"),
        ({"discount": 0}, "above 0 and at most 1; got 0"),
        ({"discount": 1.1}, "above 0 and at most 1; got 1.1"),
        ({"discount": math.nan}, "above 0 and at most 1; got nan"),
    ],
)
def test_wrong_settings_are_refused(wrong, says):
    """Before anything is chosen."""
    with pytest.raises(ConfigError, match=says):
        Bandit(**({"arms": ARMS} | wrong))


def test_wrong_rewards_are_refused():
    """One that is no number would spoil every belief after it."""
    bandit = Bandit(ARMS)
    with pytest.raises(ConfigError, match="no arm 'singel'; choose one of single"):
        bandit.learn("counting", "singel", 1.0)
    for reward in (math.nan, math.inf):
        with pytest.raises(ConfigError, match="must be a finite number"):
            bandit.learn("counting", "single", reward)
    assert means_of(bandit, "counting") == dict.fromkeys(ARMS, 0.5)
