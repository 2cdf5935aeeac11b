"""Learning in real time: the bandit against an oracle, and the cheap path against the real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agentlab import lab
from agentlab.errors import ConfigError, ModelError
from agentlab.learning import SimulatedSkill, tasks
from agentlab.learning._bandit import Bandit
from agentlab.learning._simulated_skill import SHIFTED
from agentlab.learning.regret import (
    ARMS,
    PRICE,
    World,
    follow,
    live,
    mean_rewards,
)

TOOLS = Path(__file__).parents[1] / "tools"
sys.path.insert(0, str(TOOLS))

from tuning_policies import (  # noqa: E402  tools/ is no package
    NoContext,
    Static,
    Ucb1,
    against_oracle,
    best_static,
    recovery,
)

SEEDS = [11, 12]  # others than those at which discount and noise were looked at


@pytest.fixture(scope="module")
def steady():
    return against_oracle("steady", seeds=SEEDS).policies


@pytest.fixture(scope="module")
def shifted():
    return against_oracle("shift", seeds=SEEDS, shift_at=1000).policies


def test_it_earns_nine_tenths_of_the_oracle(steady):
    """Over 2,000 runs, with every seed: at least .90, and above what any static choice earns."""
    thompson, static = steady["Thompson"], steady["best static"]
    assert thompson.least_share >= 0.90
    assert thompson.least_share > static.most_share


def test_it_beats_its_peers(steady):
    """The kind of task is what it learns from: without it less is earned than by a static choice.

    By UCB1, which explores more than these few runs repay, less than by Thompson sampling.
    """
    share = {policy: curve.share for policy, curve in steady.items()}
    assert share["Thompson"] > share["UCB1"] > share["best static"]
    assert share["best static"] > share["Thompson, no context"]


def test_forgetting_has_its_price(steady):
    """Where nothing changes, who forgets nothing earns more."""
    assert steady["Thompson, forgets nothing"].least_share > steady["Thompson"].share


def test_it_recovers_after_a_shift(shifted):
    """Four of five kinds change at run 1,000: below .90 at first, back within 300 runs, to stay."""
    thompson = shifted["Thompson"]
    assert thompson.curve[10] < 0.90
    assert recovery(thompson.curve, 1000) <= 300
    assert thompson.least_share >= 0.90
    assert thompson.least_share > shifted["best static"].most_share


def test_who_forgets_recovers_sooner(shifted):
    """In the 500 runs after the shift the discount earns more."""
    forgets, keeps = (
        sum(shifted[name].curve[10:15]) for name in ("Thompson", "Thompson, forgets nothing")
    )
    assert forgets > keeps


def test_forgetting_earns_no_more_by_the_end(shifted):
    """Over all 2,000 runs with one shift, what it gained after the shift it had cost before."""
    forgets, keeps = shifted["Thompson"], shifted["Thompson, forgets nothing"]
    assert forgets.share <= keeps.share + 0.005


def test_luck_evens_out():
    """What was earned, as answers fell, is near to what the choices earn on average."""
    for policy in (Bandit(ARMS), Static("debate")):
        world = World(1000, seed=11)
        runs = follow(policy, world)
        earned = sum(run.reward for run in runs) / sum(world.oracle)
        assert earned == pytest.approx(world.share(runs), abs=0.03)


@pytest.mark.parametrize("shift_at", [None, 60])
def test_the_cheap_path_is_the_real_one(fresh_lab, shift_at):
    """120 tasks with the real client: the same arms, answers, calls and rewards as without it."""
    before = SimulatedSkill(ask=lab.ask, seed=3)
    after = SimulatedSkill(SHIFTED, ask=lab.ask, seed=3)

    def on(task):
        return (before if shift_at is None or task.number < shift_at else after).on(task)

    some = tasks.sequence(120, seed=3)
    runs, t = lab.simulate(live(Bandit(ARMS), some, on))
    cheap = follow(Bandit(ARMS), World(120, seed=3, shift_at=shift_at))
    assert runs == cheap
    assert sum(run.calls for run in runs) == t.requests


def test_each_run_has_the_endpoints_own_record(fresh_lab):
    """Calls are what the endpoint saw: they add up to the whole, one by one."""
    some = tasks.sequence(30)
    runs, t = lab.simulate(live(Static("vote of 3"), some, SimulatedSkill(ask=lab.ask).on))
    assert {run.calls for run in runs} == {3}
    assert sum(run.calls for run in runs) == t.requests
    assert t.peak == 3
    for run in runs:
        assert run.reward == pytest.approx(run.right - 3 * PRICE)


def test_nothing_is_learned_from_a_call_that_failed(fresh_lab):
    """The model's error comes out, and the policy is told of no reward for that task."""
    told = []

    class Noting(Static):
        def learn(self, kind, arm, reward):
            told.append(reward)

    fault = {"kind": "error", "status": 400, "agent": "solver", "calls": [4]}
    with fresh_lab.configure(faults=[fault]), pytest.raises(ModelError, match="400"):
        lab.simulate(live(Noting("single"), tasks.sequence(20), SimulatedSkill(ask=lab.ask).on))
    assert len(told) == 3


def test_an_oracle_is_above_all_and_the_best_static_above_static_ones():
    """By trying every pattern on all tasks."""
    world = World(300, seed=2)
    shares = {arm: world.share(follow(Static(arm), world)) for arm in ARMS}
    assert max(shares, key=shares.get) == best_static(world)
    assert max(shares.values()) < 1
    for policy in (Bandit(ARMS), Ucb1(ARMS), NoContext(ARMS)):
        assert world.share(follow(policy, world)) <= 1


def test_each_pattern_but_one_is_the_best_for_some_kind():
    """So that no static choice can be the best: it is what the made-up skills are for."""
    for means in (mean_rewards(), mean_rewards(shifted=True)):
        best = {max(earned, key=earned.get) for earned in means.values()}
        assert best == {"single", "vote of 5", "map-reduce", "debate"}


def test_the_shift_changes_what_is_best():
    """For four of the five kinds."""
    before, after = mean_rewards(), mean_rewards(shifted=True)
    changed = [
        k for k in before if max(before[k], key=before[k].get) != max(after[k], key=after[k].get)
    ]
    assert sorted(changed) == ["arithmetic", "chain", "counting", "reversing"]


def test_equal_arguments_give_equal_bytes():
    """Here and in another process, to the byte: nothing depends on Python's own hash."""
    code = (
        "import sys, msgspec; from tuning_policies import against_oracle;"
        "sys.stdout.write(msgspec.json.encode("
        "against_oracle('x', runs=200, seeds=[1], shift_at=100)).decode())"
    )
    command = [sys.executable, "-c", code]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TOOLS), *sys.path])}
    other = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    mine = msgspec.json.encode(against_oracle("x", runs=200, seeds=[1], shift_at=100)).decode()
    assert other.stdout == mine


@pytest.mark.parametrize(
    ("curve", "after"),
    [
        ([1, 1, 0.9, 0.95], 0),
        ([1, 1, 0.5, 0.95], 100),
        ([1, 1, 0.5, 0.95, 0.89, 0.9], 300),
        ([1, 1, 0.5, 0.7], None),
        ([0.1, 0.1, 0.95], 0),
    ],
)
def test_recovery_is_for_good(curve, after):
    """It counts the runs up to the last block below the share; None if that is the end."""
    assert recovery(curve, shift_at=200) == after


def test_no_runs_are_refused():
    """There is nothing to take a share of."""
    with pytest.raises(ConfigError, match="runs must be a whole number, at least 1; got 0"):
        World(0)


@pytest.mark.parametrize("shift_at", [-5, 100, 5000])
def test_a_shift_that_never_comes_is_refused(shift_at):
    """Nobody would see that the skills stay as they are."""
    with pytest.raises(
        ConfigError, match=f"shift_at must be a whole number.* or None; got {shift_at}"
    ):
        World(100, shift_at=shift_at)
    with pytest.raises(ConfigError, match=rf"multiple of 100 below runs \(100\); got {shift_at}"):
        against_oracle("x", runs=100, seeds=[1], shift_at=shift_at)


def test_a_shift_within_a_block_is_refused_where_curves_are_drawn():
    """A point of the curve would be of both sides, and the recovery be counted from elsewhere."""
    with pytest.raises(ConfigError, match="multiple of 100"):
        against_oracle("x", runs=200, seeds=[1], shift_at=150)
    with pytest.raises(ConfigError, match="multiple of 100"):
        recovery([1, 1, 0.5, 0.95], shift_at=150)
