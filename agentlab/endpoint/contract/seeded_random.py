"""Randomness that repeats: every draw has a generator of its own, seeded with a digest.

It is of the endpoint's seed, the request, and how often the same request came before; so neither
the order of arrival nor the process matters.
"""

import random
from hashlib import blake2b


class Occurrences:
    """Counts how often each of the newest `keep` requests came; a retry is the same once more.

    Example:
        >>> seen = Occurrences()
        >>> [seen.next(b"a"), seen.next(b"b"), seen.next(b"a"), seen.next(b"a", retry=True)]
        [0, 0, 1, 1]
    """

    def __init__(self, keep: int = 100_000) -> None:
        self._keep = keep
        self._seen: dict[bytes, int] = {}  # the newest last

    def next(self, key: bytes, *, retry: bool = False) -> int:
        """Return the number, from 0, of this request among those of the same `key`."""
        seen = self._seen.pop(key, 0)
        if not (retry and seen):
            seen += 1
        if len(self._seen) >= self._keep:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = seen
        return seen - 1


def digest(seed: int, key: bytes, occurrence: int, purpose: str) -> bytes:
    """Return twelve bytes that stand for one draw."""
    return blake2b(f"{seed} {occurrence} {purpose}".encode(), key=key, digest_size=12).digest()


def generator(seed: int, key: bytes, occurrence: int, purpose: str) -> random.Random:
    """Return a generator for one purpose."""
    return random.Random(int.from_bytes(digest(seed, key, occurrence, purpose)))


def uniform(seed: int, key: bytes, occurrence: int, purpose: str) -> float:
    """Return one number from 0 up to 1, without the cost of a generator."""
    return int.from_bytes(digest(seed, key, occurrence, purpose)[:8]) / 2**64
