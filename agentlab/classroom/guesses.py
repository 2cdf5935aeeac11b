"""Slows down whoever guesses at the teacher's token; it decides, and never waits.

Some wrong tokens are free, because people mistype. Each one more doubles the time in which that
address is asked for none at all, not even for the right one. Other addresses wait for nothing.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

_FREE = 5
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
_FORGOTTEN_S = 600.0
_MOST_ADDRESSES = 10_000


class Guesses:
    """Counts wrong tokens by address.

    Example:
        >>> guesses = Guesses()
        >>> for _ in range(6):
        ...     guesses.wrong("10.0.0.7", now_s=0.0)
        >>> guesses.wait_s("10.0.0.7", now_s=0.25), guesses.wait_s("10.0.0.8", now_s=0.25)
        (0.75, 0.0)
    """

    def __init__(self) -> None:
        self._wrong: dict[str, tuple[int, float]] = {}

    def wait_s(self, address: str, now_s: float) -> float:
        """How long until this address may try again; 0 if it may now."""
        count, at_s = self._wrong.get(address, (0, now_s))
        if count <= _FREE:
            return 0.0
        pause_s = min(_FIRST_WAIT_S * 2.0 ** min(count - _FREE - 1, 30), _LONGEST_WAIT_S)
        return max(0.0, at_s + pause_s - now_s)

    def wrong(self, address: str, now_s: float) -> None:
        """This address has shown a wrong token."""
        count, at_s = self._wrong.pop(address, (0, now_s))
        self._wrong[address] = (count + 1 if now_s - at_s < _FORGOTTEN_S else 1, now_s)
        if len(self._wrong) > _MOST_ADDRESSES:
            del self._wrong[next(iter(self._wrong))]  # that of the oldest guess


@lru_cache(maxsize=1024)
def machine(host: str) -> str:
    """What stands for one machine: its IPv4 address, or the network that IPv6 gives each.

    Example:
        >>> machine("::ffff:10.0.0.7"), machine("2001:db8::1") == machine("2001:db8::2")
        ('10.0.0.7', True)
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.ip_network((address, 64), strict=False))
