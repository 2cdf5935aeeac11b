"""How long an answer takes with nobody else's in the way, by the formulas of the physics."""

from agentlab.endpoint.physics.formulas import Physics


def service_s(physics: Physics, prompt_tokens: int, output_tokens: int, active: int = 1) -> float:
    """The time of an answer with `active` such requests all along; no jitter, no queue.

    They decode together, and no prompt is read meanwhile.
    """
    context_tokens = active * (prompt_tokens + output_tokens / 2)
    decode_s = max(output_tokens - 1, 0) * physics.itl_s(active, context_tokens)
    return round(physics.prefill_s(prompt_tokens, active) + decode_s, 9)
