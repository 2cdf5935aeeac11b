"""What the local model says: prepared answers to the course's prompts, assembled ones to others.

Assembled ones obey the form asked for; their sentences, none said twice, are general truths about
a piece of work, so that they claim nothing false about any topic.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from agentlab.endpoint.answers._form import ANY, render
from agentlab.endpoint.answers._patterns import RE
from agentlab.endpoint.answers._prompt import Asked, read, unframe
from agentlab.endpoint.answers._rounds import fields, folded
from agentlab.endpoint.answers._schema import build
from agentlab.endpoint.contract.json_schema import CannotFill, Schema, admits

_LONG = 200  # characters of a result that is an answer
_MOST_FIELDS = 50  # for which results are looked at


class Phrases(msgspec.Struct):
    """What answers in one language are assembled from; what is in braces is filled in."""

    sentences: list[str]
    aspects: list[str]
    terms: list[str]  # of JSON
    builds_on: str  # names earlier results
    found: str  # passes a tool's result on


class Replies:
    """Everything the local model can say, from a folder's files."""

    def __init__(self, folder: Path):
        course = msgspec.yaml.decode((folder / "course.yaml").read_bytes())
        self._prepared = {_folded(entry["prompt"]): entry["reply"] for entry in course}
        self._longest = 2 * max(map(len, self._prepared))  # white space is overlooked
        self._phrases = [
            msgspec.yaml.decode((folder / name).read_bytes(), type=Phrases)
            for name in ("english.yaml", "korean.yaml")
        ]

    def prepared(self, prompt: str) -> str | None:
        """Return the answer that the course has for this prompt, or None."""
        texts = [text for text in {prompt, unframe(prompt).task} if len(text) < self._longest]
        return next(filter(None, map(self._prepared.get, map(_folded, texts))), None)

    def writer(
        self, task: str, draw: random.Random, told: tuple[str, ...], as_json: bool
    ) -> Writer:
        """Return a writer of an answer to a prompt (`_prompt.read`); chance decides the rest."""
        asked = read(task, told, as_json)
        return Writer(asked, self._phrases[asked.korean], draw)


class Writer:
    """Assembles one answer; fills the fields of a form, too (`schema.Filler`), as `draw` has it."""

    def __init__(self, asked: Asked, phrases: Phrases, draw: random.Random):
        self.asked, self.draw, self.topic, self.form = asked, draw, asked.topic, asked.form
        self.found = ""  # what tools gave, for fields that pass a result on
        self._held: dict[str, list[Any]] = {}  # and what its fields hold
        self._phrases, self._sentences = phrases, self._shuffled(phrases.sentences)
        self._aspects, self._terms = self._shuffled(phrases.aspects), self._shuffled(phrases.terms)

    def write(self) -> str:
        """Return the answer in the form that the prompt asks for."""
        if self.form is None or (value := self._value()) is None:
            return self._prose()
        return render(self.form.written, value) or self._prose()

    def as_object(self) -> Any:
        """Return the answer as a JSON object, of the form that was asked for, if any."""
        value = self._value()
        return value if isinstance(value, dict) else build(ANY, self)

    def _value(self) -> Any:
        with suppress(CannotFill):
            schema = self.form and self.form.schema
            return schema and self.with_results(build(schema, self), schema)
        return None

    def heed(self, results: Sequence[tuple[str, str]]) -> None:
        """Take in what tools gave, (name, result) of each."""
        self.found = self.from_results(results) if results else ""
        self._held = {name: held for _, text in results for name, held in fields(text).items()}

    def with_results(self, value: Any, schema: Schema) -> Any:
        """Return an object with what results have in fields of the same names, if it may be."""
        names = list(value)[:_MOST_FIELDS] if isinstance(value, dict) else []
        for name, held in [(name, self._held.get(folded(name))) for name in names]:
            if held and admits(schema, informed := value | {name: held[0]}):
                value = informed
        return value

    def _prose(self) -> str:
        asked = self.asked
        if asked.headings:
            return "\n\n".join(self._sections())
        if asked.items:
            lines = (f"**{item}**: {self._about(item)}".rstrip(": ") for item in asked.items)
            return self._listed(lines)
        many, unit, least, most = asked.length or (0, "sentences", 0, 0)
        many = many or self.draw.randrange(3, 6)
        if unit == "words":
            return self._words(many, least, most)
        if unit == "characters":
            part = " ".join(self._take(1 + many // 30))[: many - 1].rpartition(" ")[0]
            return f"{part.rstrip('.,;:')}."
        if unit == "paragraphs":
            return "\n\n".join(islice(iter(lambda: " ".join(self._take(3)), ""), many))
        said = self._take(many)
        return self._listed(said) if unit == "bullets" else " ".join(said)

    def paragraphs(self) -> Iterator[str]:
        """Yield paragraphs without end; no sentence comes again before all were said."""
        while True:
            if said := self._take(4):
                yield " ".join(said)
            else:
                self._sentences = self._shuffled(self._phrases.sentences)

    def from_results(self, results: Sequence[tuple[str, str]]) -> str:
        """Return the answer after calls, (name, result) of each; a long result is one already."""
        texts = dict.fromkeys(text.strip() for _, text in results if text.strip())
        if len(texts) == 1 and len(only := next(iter(texts))) > _LONG:
            return only
        found = self._phrases.found
        return "\n".join(found.replace("{result}", text.rstrip(".")) for text in texts)

    def text(self, name: str, schema: Mapping[str, Any]) -> str:
        """Return what stands in a field called `name`: a sentence, or a few words."""
        if form := RE.mapping("formats").get(schema.get("format", "")):
            return str(form[0])
        words = name.lower().replace("_", " ").split()
        if any(map(RE.title_field.fullmatch, words)):
            return _capital(self.topic)
        if self.found and any(map(RE.result_field.fullmatch, words)):
            return self.found
        if any(map(RE.prose_field.fullmatch, words)) or schema.get("minLength", 0) > 40:
            return " ".join(self._take(2)) or _capital(self.topic)
        return next(self._terms, self.topic)

    def choose(self, name: str, options: Sequence[Any]) -> Any:
        return options[self.draw.randrange(len(options))]

    def number(self, name: str, least: float, most: float, whole: bool) -> float:
        least = min(0, most) if least == -math.inf else least
        most = least + (9 if whole or least else 1) if most == math.inf else most
        if whole:
            return self.draw.randrange(math.ceil(least), math.floor(most) + 1)
        return round(self.draw.uniform(least, most), 2 if most - least > 0.1 else 15)

    def _shuffled(self, phrases: Sequence[str]) -> Iterator[str]:
        left = list(phrases)
        while left:  # drawn only as far as the answer needs
            yield left.pop(int(self.draw.random() * len(left))).replace("{topic}", self.topic)

    def _sections(self) -> Iterator[str]:
        headings, given = self.asked.headings, dict.fromkeys(self.asked.given)
        for number, (level, title) in enumerate(headings):
            yield f"{'#' * level} {title}"
            if number == 0 and given:
                yield self._phrases.builds_on.replace("{given}", ", ".join(given))
            deeper = headings[number + 1 : number + 2]
            if not deeper or deeper[0][0] <= level:  # a heading over headings needs no text
                yield " ".join(filter(None, [self._about(title), *self._take(1)]))

    def _listed(self, lines: Iterable[str]) -> str:
        mark = "{}. {}" if self.asked.numbered else "- {1}"
        return "\n".join(mark.format(number, line) for number, line in enumerate(lines, 1))

    def _words(self, limit: int, least: int, most: int) -> str:
        """Return about `limit` words in whole sentences; within bounds, if there are any."""
        said, room, sentence = list[str](), limit, ""
        for sentence in self._take(1000):
            size = len(sentence.split())
            slack = 0 if most else size if least else size // 2
            if room <= 0 or size > room + slack:  # it is nearer without this one
                break
            said.append(sentence)
            room -= size
        if said and limit - room >= least:
            return " ".join(said)
        part = " ".join(" ".join([*said, sentence]).split()[:limit])
        return f"{part.rstrip('.,;:')}." if least > 1 else part

    def _take(self, many: int) -> list[str]:
        """Return up to `many` sentences that were not said yet; fewer when the bank runs out."""
        return [*map(_capital, islice(self._sentences, many))]

    def _about(self, aspect: str) -> str:
        template = next(self._aspects, None) or next(self._sentences, "")
        # In the middle of a sentence; acronyms are left alone.
        lowered = aspect if aspect[1:2].isupper() else aspect[:1].lower() + aspect[1:]
        return _capital(template.replace("{aspect}", lowered))


def _folded(text: str) -> str:
    return " ".join(text.split())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
