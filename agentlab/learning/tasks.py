"""Tasks whose right answer is computed, so that a program can check what an agent says.

Of the five kinds a chain cannot be split: its parts do not know what the steps before came to.
"""

import random
import re
from collections.abc import Callable, Sequence
from functools import partial, reduce
from heapq import merge
from string import ascii_lowercase
from typing import Any, NamedTuple

import msgspec

from agentlab.endpoint.contract import seeded_random
from agentlab.errors import ConfigError

_PARTS = 3


class Question(msgspec.Struct, frozen=True):
    """What is asked, the right answer, and mistakes: the likeliest one, which recurs, is first."""

    prompt: str
    answer: str
    mistakes: tuple[str, ...]


class Task(msgspec.Struct, frozen=True):
    """A question that can be checked, and its parts; `number` is its place in a run."""

    kind: str
    number: int
    whole: Question
    parts: tuple[Question, ...]

    def right(self, text: str) -> bool:
        """Return whether an agent's words give the right answer."""
        return said(text) == self.whole.answer

    def join(self, texts: Sequence[str]) -> str:
        """Join the parts' answers into one, by arithmetic; "" if one has another form."""
        try:
            return _KINDS[self.kind].join([said(text) for text in texts])
        except ValueError:
            return ""


def said(text: str) -> str:
    """Return what stands after the last `Answer:`, or in the last line, with even spacing.

    Example:
        >>> said("Let me see.\\n**Answer:** 3,5 , 9.")
        '3, 5, 9'
    """
    found = re.findall(r"(?im)^\W*answer\W*:\s*(.*)$", text) or ["", *text.strip().splitlines()]
    return re.sub(r"\s*,\s*", ", ", " ".join(found[-1].split())).strip("*`. ")


def draw(kind: str, number: int, seed: int = 7) -> Task:
    """Return the task of that kind and number; the same seed makes the same one anywhere."""
    if kind not in KINDS:
        raise ConfigError(f"no kind {kind!r} of tasks; choose one of {', '.join(KINDS)}")
    chance = seeded_random.generator(seed, kind.encode(), number, "task")
    whole, *parts = [_question(_KINDS[kind], some) for some in _KINDS[kind].draw(chance)]
    return Task(kind, number, whole, tuple(parts))


def sequence(many: int, seed: int = 7) -> list[Task]:
    """Return tasks of kinds drawn at random, the same ones for the same seed."""
    chance = seeded_random.generator(seed, b"", many, "kinds")
    return [draw(chance.choice(KINDS), number, seed) for number in range(many)]


def _question(kind: "_Kind", some: Any) -> Question:
    right = kind.solve(some)
    if isinstance(right, int):
        # Who errs errs upwards, so the mistakes of several parts do not make up for each other.
        what, mistakes = "number", [right + more for more in (1, 2, 10)]
    else:
        # Two neighbours swapped, at the start or at the end, or the last one left out: parts with
        # such mistakes, put together, are never right by accident if no two items are alike.
        what = "letters" if isinstance(right, str) else "numbers, with commas"
        mistakes = [right[1::-1] + right[2:], right[:-2] + right[:-3:-1], right[:-1]]
    form = f"Explain briefly, and end with a line that reads Answer: and then only the {what}."
    answer, *wrong = map(_written, (right, *mistakes))
    return Question(f"{kind.ask(some)}\n{form}", answer, tuple(wrong))


def _written(some: Any) -> str:
    return ", ".join(map(str, some)) if isinstance(some, list) else str(some)


def _numbers(chance: random.Random, many: int) -> list[int]:
    return [chance.randint(10, 99) for _ in range(many * _PARTS)]


def _and_parts(whole: Any) -> list[Any]:
    size = len(whole) // _PARTS
    return [whole] + [whole[at : at + size] for at in range(0, len(whole), size)]


def _chains(chance: random.Random) -> list[list[int]]:
    start, adds = chance.randint(5, 9), [chance.randint(1, 9) for _ in range(_PARTS)]
    # A part starts with 0, which is what is left to those who do not wait for the part before.
    return [[start, *adds], *([0, add] for add in adds)]


def _told(chain: list[int]) -> str:
    steps = " ".join(f"Double it. Add {add}." for add in chain[1:])
    return f"Start with {chain[0]}. {steps} What is the result?"


def _sum(answers: Sequence[str]) -> str:
    return str(sum(map(int, answers)))


def _merged(answers: Sequence[str]) -> str:
    # Not sorted: that would correct the mistakes inside a part.
    return _written(list(merge(*([int(number) for number in one.split(",")] for one in answers))))


class _Kind(NamedTuple):
    """How a task is drawn, whole and in parts; asked, solved, and joined from parts' answers."""

    draw: Callable[[random.Random], list[Any]]
    ask: Callable[[Any], str]
    solve: Callable[[Any], Any]  # a number, or items
    join: Callable[[Sequence[str]], str]


_KINDS = {
    "arithmetic": _Kind(
        lambda chance: _and_parts(_numbers(chance, 2)),
        lambda some: f"What is {' + '.join(map(str, some))}?",
        sum,
        _sum,
    ),
    "reversing": _Kind(
        lambda chance: _and_parts("".join(chance.sample(ascii_lowercase, 3 * _PARTS))),
        lambda some: f"Write these letters backwards: {some}",
        lambda some: some[::-1],
        lambda answers: "".join(reversed(answers)),
    ),
    "counting": _Kind(
        lambda chance: _and_parts(_numbers(chance, 12)),
        lambda some: f"How many of these numbers are above 50? {_written(some)}",
        lambda some: sum(number > 50 for number in some),
        _sum,
    ),
    "sorting": _Kind(
        lambda chance: _and_parts(chance.sample(range(10, 100), 6 * _PARTS)),
        lambda some: f"Sort these numbers, the smallest first: {_written(some)}",
        sorted,
        _merged,
    ),
    "chain": _Kind(_chains, _told, partial(reduce, lambda so_far, add: 2 * so_far + add), _sum),
}
KINDS = tuple(_KINDS)  # each is drawn as often as the others
