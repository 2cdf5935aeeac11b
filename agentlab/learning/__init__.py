"""Agents that learn which pattern of agents pays: what a run has shown decides the next one."""

from agentlab.learning._bandit import Bandit
from agentlab.learning._simulated_skill import SimulatedSkill, mean_rewards
from agentlab.learning.regret import ARMS, World, follow, live

__all__ = ["ARMS", "Bandit", "SimulatedSkill", "World", "follow", "live", "mean_rewards"]
