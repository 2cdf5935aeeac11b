"""TODO."""

from agentlab.resilience.limiters._adaptive import Adaptive
from agentlab.resilience.limiters._slots import Limiter, Sample, Slots

__all__ = ["Adaptive", "Limiter", "Sample", "Slots"]
