"""Around any model, local or real: limits, faults, times."""
