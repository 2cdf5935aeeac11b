"""The rule that everybody begins with; those of others are in `tools/opponents.py`."""

from typing import NamedTuple

from agentlab.resilience.limiters import Sample


class Fixed(NamedTuple):
    """So many calls in flight, whatever happens."""

    limit: int

    def update(self, sample: Sample) -> int:
        return self.limit
