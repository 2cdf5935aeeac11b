"""Workflows that tune themselves: what a run has shown decides how the next one is run.

planner     a plan that a model wrote, read into functions that run in parallel
tasks       questions whose right answers are computed, in five kinds
patterns    single, vote, map-reduce, debate: coroutines over an `ask`
skills      SIMULATED quality, on top of real calls; the exact expectation of each pattern
bandit      which pattern for which kind: Thompson sampling that forgets, and survives a restart
peers       what it is measured against: a static choice, no context, UCB1
learning    what each earns, as a share of an oracle; the same live, from the endpoint's record
scenarios   endpoints on which limiters are tuned, and others on which they are judged
trial       a limiter in a scenario, against the best static limit there
plots       limits over time, limiters judged, what a bandit earns
"""

from agentlab.learning._simulated_skill import SimulatedSkill

__all__ = ["SimulatedSkill"]
