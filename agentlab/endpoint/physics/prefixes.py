"""Which beginnings of prompts are in the memory already, in blocks of 16 tokens, as vLLM has them.

A block is known by its own tokens and all before it, so equal blocks follow equal beginnings. A
block in use is held once, by all requests that share it. When room is needed, blocks that no
request uses go, the least recently used first.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable

from agentlab.endpoint.contract.tokens import split

BLOCK_TOKENS = 16
Blocks = tuple[int, ...]
"""A prompt's full blocks, in their order."""


def blocks(texts: Iterable[str]) -> Blocks:
    """Return the blocks of a prompt of these texts.

    Example:
        >>> first, second = (blocks(["You are a poet. " * 8, name]) for name in ("Ann", "Bob"))
        >>> len(first), first == second
        (2, True)
    """
    pieces = [piece for text in texts for piece in split(text)]
    known, before = [], 0
    for end in range(BLOCK_TOKENS, len(pieces) + 1, BLOCK_TOKENS):
        before = hash((before, *pieces[end - BLOCK_TOKENS : end]))
        known.append(before)
    return tuple(known)


class Prefixes:
    """The blocks in memory: those in use, with the number of their users, and the idle ones."""

    def __init__(self) -> None:
        self._users: Counter[int] = Counter()
        self._idle: OrderedDict[int, None] = OrderedDict()  # the least recently used first
        self._uses = 0

    @property
    def saved_tokens(self) -> int:
        """What the users would hold beyond this if each had blocks of its own."""
        return (self._uses - len(self._users)) * BLOCK_TOKENS

    def match(self, wanted: Blocks) -> tuple[int, int]:
        """Return how many blocks from the first on are known, and how many of them are in use."""
        known = used = 0
        for block in wanted:
            if block in self._users:
                used += 1
            elif block not in self._idle:
                break
            known += 1
        return known, used

    def use(self, taken: Blocks) -> None:
        """Note one more user of each block, known or new."""
        for block in taken:
            self._idle.pop(block, None)
        self._users.update(taken)
        self._uses += len(taken)

    def leave(self, taken: Blocks) -> None:
        """Note one user less; the last blocks of a prompt are the first to go."""
        for block in reversed(taken):
            self._users[block] -= 1
            if not self._users[block]:
                del self._users[block]
                self._idle[block] = None
        self._uses -= len(taken)

    def shrink(self, tokens: float) -> None:
        """Forget idle blocks until they hold no more tokens than this."""
        while len(self._idle) * BLOCK_TOKENS > max(tokens, 0):
            self._idle.popitem(last=False)
