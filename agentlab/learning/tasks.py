"""Tasks whose right answer is computed, so that a program can check what an agent says.

Of the five kinds a chain cannot be split: its parts do not know what the steps before came to.
"""

import random
import re
from collections.abc import Callable, Sequence
from heapq import merge
from string import ascii_lowercase
from typing import TypeVar

import msgspec

from agentlab.endpoint.contract import seeded_random
from agentlab.errors import ConfigError

Some = TypeVar("Some", list[int], str)

_PARTS = 3
_ANSWER = re.compile(r"^\W*answer\W*:\s*(.*)$", re.IGNORECASE | re.MULTILINE)


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
        _, join = _KINDS[self.kind]
        try:
            return join([said(text) for text in texts])
        except ValueError:
            return ""


def said(text: str) -> str:
    """Return what stands after the last `Answer:`, or in the last line, with even spacing.

    Example:
        >>> said("Let me see.\\n**Answer:** 3,5 , 9.")
        '3, 5, 9'
    """
    found = _ANSWER.findall(text) or text.strip().splitlines()[-1:] or [""]
    return re.sub(r"\s*,\s*", ", ", " ".join(found[-1].split())).strip("*`. ")


def draw(kind: str, number: int, seed: int = 7) -> Task:
    """Return the task of that kind and number; the same seed makes the same one anywhere."""
    if kind not in KINDS:
        raise ConfigError(f"no kind {kind!r} of tasks; choose one of {', '.join(KINDS)}")
    chance = seeded_random.generator(seed, kind.encode(), number, "task")
    draw_it, _ = _KINDS[kind]
    whole, *parts = draw_it(chance)
    return Task(kind, number, whole, tuple(parts))


def sequence(many: int, seed: int = 7) -> list[Task]:
    """Return tasks of kinds drawn at random, the same ones for the same seed."""
    chance = seeded_random.generator(seed, b"", many, "kinds")
    return [draw(chance.choice(KINDS), number, seed) for number in range(many)]


def _arithmetic(chance: random.Random) -> list[Question]:
    numbers = [chance.randint(10, 99) for _ in range(2 * _PARTS)]
    return [_number(f"What is {' + '.join(map(str, n))}?", sum(n)) for n in _and_parts(numbers)]


def _reversing(chance: random.Random) -> list[Question]:
    letters = "".join(chance.sample(ascii_lowercase, 3 * _PARTS))  # no two alike, see _mistakes
    ask = "Write these letters backwards:"
    return [
        _question(f"{ask} {some}", some[::-1], _mistakes(some[::-1]), "letters")
        for some in _and_parts(letters)
    ]


def _counting(chance: random.Random) -> list[Question]:
    numbers = [chance.randint(10, 99) for _ in range(12 * _PARTS)]
    ask = "How many of these numbers are above 50?"
    return [
        _number(f"{ask} {_listed(some)}", sum(number > 50 for number in some))
        for some in _and_parts(numbers)
    ]


def _sorting(chance: random.Random) -> list[Question]:
    numbers = chance.sample(range(10, 100), 6 * _PARTS)  # no two alike, see _mistakes
    found = []
    for some in _and_parts(numbers):
        prompt, right = f"Sort these numbers, the smallest first: {_listed(some)}", sorted(some)
        mistakes = [_listed(wrong) for wrong in _mistakes(right)]
        found.append(_question(prompt, _listed(right), mistakes, "numbers, with commas"))
    return found


def _chain(chance: random.Random) -> list[Question]:
    start, adds = chance.randint(5, 9), [chance.randint(1, 9) for _ in range(_PARTS)]
    # A part starts with 0, which is what is left to those who do not wait for the part before.
    return [_steps(start, adds), *(_steps(0, [add]) for add in adds)]


def _steps(start: int, adds: Sequence[int]) -> Question:
    told = " ".join(f"Double it. Add {add}." for add in adds)
    prompt, result = f"Start with {start}. {told} What is the result?", start
    for add in adds:
        result = 2 * result + add
    return _number(prompt, result)


def _and_parts(whole: Some) -> list[Some]:
    size = len(whole) // _PARTS
    return [whole] + [whole[at : at + size] for at in range(0, len(whole), size)]


def _mistakes(right: Some) -> list[Some]:
    """Two neighbours swapped, at the start or at the end, or the last one left out.

    Parts with such mistakes, put together, are never right by accident if no two items are alike.
    """
    return [right[1::-1] + right[2:], right[:-2] + right[:-3:-1], right[:-1]]


def _number(prompt: str, right: int) -> Question:
    # Who errs errs upwards, so the mistakes of several parts do not make up for each other.
    return _question(prompt, str(right), [str(right + more) for more in (1, 2, 10)], "number")


def _question(prompt: str, answer: str, mistakes: Sequence[str], what: str) -> Question:
    form = f"Explain briefly, and end with a line that reads Answer: and then only the {what}."
    return Question(f"{prompt}\n{form}", answer, tuple(mistakes))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _sum(answers: Sequence[str]) -> str:
    return str(sum(map(int, answers)))


def _merged(answers: Sequence[str]) -> str:
    # Not sorted: that would correct the mistakes inside a part.
    return _listed(list(merge(*([int(number) for number in one.split(",")] for one in answers))))


# How a task of each kind is drawn, and how the answers to its parts are joined.
_KINDS: dict[
    str, tuple[Callable[[random.Random], list[Question]], Callable[[Sequence[str]], str]]
] = {
    "arithmetic": (_arithmetic, _sum),
    "reversing": (_reversing, lambda answers: "".join(reversed(answers))),
    "counting": (_counting, _sum),
    "sorting": (_sorting, _merged),
    "chain": (_chain, _sum),
}
KINDS = tuple(_KINDS)  # each is drawn as often as the others
