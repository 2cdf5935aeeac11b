"""Agents that learn which pattern of agents pays: what a run has shown decides the next one.

parallel           plain functions that run side by side, along their parameters
planner            a plan that a model wrote, read into functions that run in parallel
tasks              questions whose right answers are computed, in five kinds
patterns           single, vote, map-reduce, debate: coroutines over an `ask`
regret             what each policy earns, as a share of an oracle; the same live
_bandit            which pattern for which kind: Thompson sampling that forgets
_simulated_skill   SIMULATED quality, on top of real calls; each pattern's exact expectation
"""

from agentlab.learning._bandit import Bandit
from agentlab.learning._simulated_skill import SimulatedSkill
from agentlab.learning.regret import ARMS, World, follow, live, mean_rewards

__all__ = ["ARMS", "Bandit", "SimulatedSkill", "World", "follow", "live", "mean_rewards"]
