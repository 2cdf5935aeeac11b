"""How many calls may be in flight: a number that stays, or a limit that learns.

Other rules, against which it is judged, are in `tools/opponents.py`.
"""

from agentlab.resilience.limiters._adaptive import Adaptive
from agentlab.resilience.limiters._slots import Limiter, Sample, Slots

__all__ = ["Adaptive", "Limiter", "Sample", "Slots"]
