"""What the bandit is measured against does what its name says."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from tuning_policies import NoContext, Static, Ucb1


def test_static_never_changes():
    """Whatever it is told."""
    policy = Static("vote")
    policy.learn("x", "vote", -1.0)
    assert policy.choose("x") == policy.choose("y") == "vote"


def test_no_context_learns_from_all_kinds_alike():
    """What was learned of one kind is used for every other."""
    policy = NoContext(["a", "b"])
    for _ in range(200):
        policy.learn("x", "b", 1.0)
        policy.learn("x", "a", 0.0)
    assert {policy.choose("y") for _ in range(20)} == {"b"}


def test_ucb1_takes_the_largest_upper_bound():
    """Means .5 of 3 rewards, .4 of 1: .5 + sqrt(2 ln 4 / 3) = 1.46 < .4 + sqrt(2 ln 4) = 2.07."""
    ucb = Ucb1(["a", "b"])
    assert ucb.choose("x") == "a"
    for reward in (0.4, 0.5, 0.6):
        ucb.learn("x", "a", reward)
    assert ucb.choose("x") == "b"
    ucb.learn("x", "b", 0.4)
    assert ucb.choose("x") == "b"
    for _ in range(5):
        ucb.learn("x", "b", 0.2)
    assert ucb.choose("x") == "a"


def test_ucb1_learns_kinds_apart():
    """Each kind tries every arm once."""
    ucb = Ucb1(["a", "b"])
    ucb.learn("x", "a", 1.0)
    assert (ucb.choose("x"), ucb.choose("y")) == ("b", "a")
