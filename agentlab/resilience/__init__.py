"""Calls that fail, wait and cost too much: one remedy per file, composed in `guard`.

    guard      all of the below around any awaitable call; the order in which they are nested
    verdict    which errors are worth another attempt, and how long to wait for it
    retry      how often, with back-off, jitter, and a budget for all calls together
    breaker    an endpoint that is down is left alone, but for a probe
    pace       a rate limit kept by the client: a token bucket for requests and one for tokens
    limiters   slots for calls in flight, as many as a limit says that changes as it learns
    adaptive   such a limit: it finds the endpoint's knee, and follows it
    evidence   what it concludes from: answers in order, and what more calls in flight are worth
    hedge      a second request when the first is late; the faster one wins
    stream     any number of calls, a few at the same time, and memory bounded
    monitor    what happened: attempts, outcomes, latency, for Prometheus

All times are model seconds. Nothing here knows a framework: a guard takes a function that makes
an awaitable, be it `lab.ask`, a chat model's `ainvoke`, or an `LLM`'s `acall`.
"""
