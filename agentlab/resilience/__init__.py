"""Calls that fail, wait and cost too much: one remedy per file, composed in `Guard`.

    guard         all of the below around any awaitable call, and the order in which they are nested
    limiters/     how many calls in flight: slots, and a limit that finds the endpoint's knee
    _classify     which errors are worth another attempt, and how long to wait for it
    _retry        how often, with back-off, jitter, and a budget for all calls together
    _breaker      an endpoint that is down is left alone, but for a probe
    _rate_limit   a rate limit kept by the client: token buckets for requests and for tokens
    _hedge        a second request when the first is late; the faster one wins
    _amap         any number of calls, a few at the same time, and memory bounded
    _monitor      what happened: attempts, outcomes, latency, for Prometheus

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
