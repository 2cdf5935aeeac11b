"""A token bucket, with which both the endpoint and its clients count; it reads no clock."""

import math

_DUST = 1e-9  # the share by which rounded times and sums of floats may miss what is asked for


class Bucket:
    """Holds at most `burst`, begins full, and gains `per_s` each second.

    Example:
        >>> bucket = Bucket(per_s=1, burst=60)
        >>> bucket.take(60, now_s=0.0)
        >>> bucket.wait_s(3, now_s=1.0), bucket.level(now_s=1.0)
        (2.0, 1.0)
    """

    def __init__(self, per_s: float, burst: float):
        self.per_s, self.burst = per_s, float(burst)
        self._level, self._at_s = self.burst, math.inf

    def level(self, now_s: float) -> float:
        return min(self.burst, self._level + max(now_s - self._at_s, 0.0) * self.per_s)

    def wait_s(self, amount: float, now_s: float) -> float:
        """Return in how many seconds `amount` is there, to the nanosecond; infinity if never."""
        if amount > self.burst:
            return math.inf
        lacking = amount - self.level(now_s)
        enough = lacking <= _DUST * max(amount, self.per_s, 1.0)
        return 0.0 if enough else round(lacking / self.per_s, 9)

    def take(self, amount: float, now_s: float) -> None:
        """Take `amount`, which `wait_s` said is there; a negative amount is given back."""
        self._set(self.level(now_s) - amount, now_s)

    def lower_to(self, level: float, now_s: float) -> None:
        """Lower the level to what is left of what this bucket models; it never rises by this."""
        self._set(min(self.level(now_s), level), now_s)

    def resize(self, per_s: float, burst: float, now_s: float) -> None:
        """Change rate and size; what has been taken stays taken, as far as that goes."""
        taken = self.burst - self.level(now_s)
        self.per_s, self.burst = per_s, float(burst)
        self._set(max(0.0, burst - taken), now_s)

    def _set(self, level: float, now_s: float) -> None:
        self._level, self._at_s = min(level, self.burst), now_s
