"""How long a model takes: the formulas, with no clock in them.

    time to first token  =  wait for a slot + prefill
    prefill              =  a + b * prompt tokens + g * n
    inter-token latency  =  c + d * n

n is the number of requests that hold a slot, this one included. The form is fitted to NVIDIA's NIM
tables (Llama 3.1 8B, n = 1..250: inter-token latency 3.96 + 0.0445 n ms, R2 = .975).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import msgspec

from agentlab.settings import Capacity


class Physics(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one endpoint, in seconds; None means no limit of its slots or queue.

    A request's prefill and its decode have a lognormal factor each, of sigma `jitter_sigma`.
    """

    prefill_base_s: float = 0.0
    prefill_per_token_s: float = 0.0
    prefill_per_active_s: float = 0.0
    itl_base_s: float = 0.0
    itl_per_active_s: float = 0.0
    slots: int | None = None
    queue: int | None = None
    jitter_sigma: float = 0.0
    capacity: Sequence[Capacity] = ()

    @property
    def takes_no_time(self) -> bool:
        """True if every answer is there immediately, whatever its length."""
        return not (self.prefill_s(1) or self.itl_s())

    def prefill_s(self, prompt_tokens: int, active: int = 1) -> float:
        """Return the time from getting a slot to the first token, without jitter."""
        per_token_s = self.prefill_per_token_s * prompt_tokens
        return self.prefill_base_s + per_token_s + self.prefill_per_active_s * active

    def itl_s(self, active: int = 1) -> float:
        """Return the time from one token of an answer to the next, without jitter."""
        return self.itl_base_s + self.itl_per_active_s * active

    def service_s(self, prompt_tokens: int, output_tokens: int, active: int = 1) -> float:
        """Return the time of an answer with `active` requests all along; no jitter, no queue."""
        decode_s = max(output_tokens - 1, 0) * self.itl_s(active)
        return round(self.prefill_s(prompt_tokens, active) + decode_s, 9)

    def jitter(self, draw: random.Random) -> float:
        """Draw a lognormal factor with median 1."""
        return math.exp(draw.gauss(0.0, self.jitter_sigma))
