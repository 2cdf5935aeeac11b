"""How long a model takes: the formulas, with no clock in them.

    time to first token  =  wait for a slot + prefill_base_s + prefill
    step                 =  itl_base_s + itl_per_active_s * sequences
                            + itl_per_context_token_s * tokens of context held
                            + prefill_per_token_s * prompt tokens read
                            + reading_base_s if there are any
                            or streaming_per_token_s * sequences, if that is more

An engine works in steps. Each gives every decoding sequence its next token, and reads up to
`batched_tokens` of the prompts that wait, in their order. So an inter-token latency is one step,
which all prompts that are read meanwhile make longer. Where `batched_tokens` is None, each prompt
is read in its own time and takes nothing from the others.

Sources: Orca (OSDI 2022) for steps, Sarathi-Serve (OSDI 2024) for prompts read beside decoding;
`agentlab fit` says how well the form predicts what was measured.
"""

import math
import random
from collections.abc import Sequence

import msgspec

from agentlab.settings import Capacity


class Physics(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one endpoint, in seconds and tokens; None means no limit.

    A request's base and its decode have a lognormal factor each, of sigma `jitter_sigma`.

    Attributes:
        prefill_base_s: What a request takes before it is read, whatever its length.
        reading_base_s: What a step takes longer if it reads any prompt, whatever its length.
        streaming_per_token_s: What the server takes to hand on a token, one after the other.
        batched_tokens: The prompt tokens that one step reads at most (vLLM's
            `max_num_batched_tokens`); None if prompts are read side by side.
        kv_tokens: The tokens of context that the memory holds.
        preempts: Whether a request is let in when its prompt fits, and the newest goes back to the
            queue once the memory is full (vLLM). If not, it waits until its whole answer fits.
        prefix_caching: Whether the beginning of a prompt that was read before is not read again.
    """

    prefill_base_s: float = 0.0
    prefill_per_token_s: float = 0.0
    reading_base_s: float = 0.0
    itl_base_s: float = 0.0
    itl_per_active_s: float = 0.0
    itl_per_context_token_s: float = 0.0
    streaming_per_token_s: float = 0.0
    batched_tokens: int | None = None
    kv_tokens: int | None = None
    preempts: bool = False
    prefix_caching: bool = False
    slots: int | None = None
    queue: int | None = None
    jitter_sigma: float = 0.0
    capacity: Sequence[Capacity] = ()

    @property
    def takes_no_time(self) -> bool:
        """True if every answer is there immediately, whatever its length."""
        return not (self.prefill_s(1) or self.itl_s())

    def prefill_s(self, prompt_tokens: int) -> float:
        """Return the time from getting a slot to the first token; no jitter, no other prompt."""
        read_s = self.prefill_base_s + self.prefill_per_token_s * prompt_tokens
        if self.batched_tokens is None:
            return read_s
        steps = max(1.0, prompt_tokens / self.batched_tokens)
        return read_s + steps * (self.itl_s() + self.reading_base_s)

    def itl_s(self, active: int = 1, context_tokens: float = 0.0) -> float:
        """Return the time of a step that reads no prompt, without jitter."""
        held_s = self.itl_per_context_token_s * context_tokens
        step_s = self.itl_base_s + self.itl_per_active_s * active + held_s
        return max(step_s, self.streaming_per_token_s * active)

    def service_s(self, prompt_tokens: int, output_tokens: int) -> float:
        """Return the time of an answer that is alone, without jitter."""
        itl_s = self.itl_s(1, prompt_tokens + output_tokens / 2)
        return round(self.prefill_s(prompt_tokens) + max(output_tokens - 1, 0) * itl_s, 9)

    def jitter(self, draw: random.Random) -> float:
        """Draw a lognormal factor with median 1; without jitter it is 1."""
        return math.exp(draw.gauss(0.0, self.jitter_sigma)) if self.jitter_sigma else 1.0
