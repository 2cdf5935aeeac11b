"""Calls that fail, wait and cost too much: one remedy per file, composed in `Guard`.

All times are model seconds.
"""

from agentlab.resilience._amap import amap
from agentlab.resilience._breaker import Breaker
from agentlab.resilience._classify import asked_to_wait_s, classify, words
from agentlab.resilience._hedge import Hedge
from agentlab.resilience._monitor import Monitor
from agentlab.resilience._rate_limit import RateLimit, size_tokens
from agentlab.resilience._retry import Retry, RetryBudget
from agentlab.resilience.guard import Guard

__all__ = ["Breaker", "Guard", "Hedge", "Monitor", "RateLimit", "Retry", "RetryBudget", "amap"]
__all__ += ["asked_to_wait_s", "classify", "size_tokens", "words"]
