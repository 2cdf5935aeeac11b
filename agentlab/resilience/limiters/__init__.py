"""How many calls may be in flight: a number that stays, or a limit that learns.

    _slots       as many slots as a limiter says, first come, first served
    _adaptive    a limit that finds the endpoint's knee, and follows it
    _estimates   what it concludes from: answers in order, and what more calls in flight are worth

Other rules, against which it is judged, are in `agentlab.bench.opponents`.
"""

from agentlab.resilience.limiters._adaptive import Adaptive
from agentlab.resilience.limiters._slots import Limiter, Sample, Slots

__all__ = ["Adaptive", "Limiter", "Sample", "Slots"]
