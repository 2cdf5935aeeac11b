"""What a prompt asks for: language, topic, outline, shape and length.

The form asked for is what follows the last instruction about form ("Answer in this format:");
headings before it are of earlier results.
"""

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from agentlab.endpoint.answers._form import Form, form_of, listed, mentions, number
from agentlab.endpoint.answers._patterns import RE, lacks, words_in

# How many (0: as the model likes), of what, and the least and the most, which are 0 for about.
Length = tuple[int, Literal["sentences", "bullets", "paragraphs", "words", "characters"], int, int]

_LONGEST_TOPIC = 200
_READ = 12_000  # characters
_OF_FIELDS = "Respond with "  # what is expected of fields; the inputs say nothing of their form
_REACH = 40  # characters from a number to its noun
_LENGTHS = [  # a noun, what precedes it, its unit, and the words of which it is one in ASCII
    (getattr(RE, noun), getattr(RE, before, None), unit, frozenset(words.split()))
    for noun, (unit, before, words) in RE.mapping("lengths").items()
]


def glance(text: str) -> str:
    """Return the text, or the beginning and the end of one that is too long to be read whole."""
    half = _READ // 2
    return text if len(text) <= _READ else f"{text[:half]}\n{text[-half:]}"


class Framed(NamedTuple):
    """A prompt taken apart."""

    task: str
    expected: str = ""
    context: str = ""


@lru_cache(maxsize=8)  # each prompt is taken apart several times
def unframe(prompt: str) -> Framed:
    """Take a framework's words about the task away; a plain prompt is all task."""
    framed = prompt.strip().removeprefix("New task:\n")
    end = framed.rfind(f"\n{_OF_FIELDS}")
    if end >= 0 and RE.field_mark.match(framed):  # by DSPy
        given, *past = RE.trajectory.split(framed[:end], 1)
        return Framed(RE.field_mark.sub("", given).strip(), framed[end + 1 :], "".join(past))
    if framed.startswith("Current Task: ") and (found := RE.framed_by_crewai.match(framed)):
        return Framed(*map(str.strip, found.groups("")))
    return Framed(prompt.removeprefix("New task:\n"))


class Asked(NamedTuple):
    """The form of the answer that a prompt asks for; `given` are headings of earlier results."""

    korean: bool  # otherwise English
    headings: list[tuple[int, str]]  # (level, title), in order
    items: list[str]  # bullets, or numbered aspects
    numbered: bool
    length: Length | None
    form: Form | None = None  # None for prose
    topic: str = ""
    given: tuple[str, ...] = ()
    around: tuple[str, str] = ("", "")  # what it begins and ends with


@lru_cache(maxsize=256)  # the same prompt comes again and again
def read(prompt: str, told: tuple[str, ...] = (), as_json: bool = False) -> Asked:
    """Read the form that `prompt` asks for, or else what other messages have `told`.

    With `as_json`, an answer in JSON is wanted, whatever they say.

    Example:
        >>> asked = read("Describe tides in two sentences.")
        >>> asked.topic, asked.length
        ('tides', (2, 'sentences', 0, 0))
    """
    if "{{" in prompt and re.search(r'\{\{\s*"', prompt):  # a template's, that nobody filled in
        prompt = prompt.replace("{{", "{").replace("}}", "}")
    framed = unframe(prompt)
    said = f"{framed.task}\n\n{framed.expected}".rstrip()
    all_said = "\n".join((*told, said))
    task, told = _wanted(said), tuple(map(_wanted, told))
    start = _form_start(task) if "\n" in task else 0  # nothing follows a line
    before, shown = task[:start], task[start:]
    of_fields = framed.expected if framed.expected.startswith(_OF_FIELDS) else ""
    form = form_of(of_fields or task, told, as_json=as_json)
    asked = _prose(task, shown)
    if told and not (asked.headings or asked.items or asked.length):
        asked = _prose("\n".join(told), "")._replace(korean=asked.korean)
    about = re.sub(r"\{.*\}|</?[\w-]+>", " ", said, flags=re.S) if form and form.schema else said
    given = tuple([title for _, title in _outline(framed.context + before)[0]])
    around = ("", "")
    if not lacks(all_said, "around"):
        first, last = RE.begins_with.search(all_said), RE.ends_with.search(all_said)
        around = f"{first[1]} " if first else "", f"\n{last[1]}" if last else ""
    return Asked(*asked[:5], form, _topic(about), given, around)


def _wanted(text: str) -> str:
    """Return a text without what it forbids, or says of another text that is there."""
    return text if lacks(text, "forbidding") else RE.not_asked_for.sub("", text)


def _outline(text: str) -> tuple[list[tuple[int, str]], list[str], bool]:
    """Return a text's headings with their levels, and its bullets or else its numbered items."""
    if "\n" not in text and (not text or text[0] not in "#-*•0123456789 \t"):  # it has no mark
        return [], [], False
    marked = RE.marked.findall(text)
    headings = [(len(level), title.rstrip(" \t")) for level, _, _, title in marked if level]
    kind = 1 if any(bullet for _, bullet, _, _ in marked) else 2
    items = [title.strip("*_` \t").rstrip(".:;") for *marks, title in marked if marks[kind]]
    return headings, items, kind == 2 and bool(items)


def _prose(text: str, shown: str) -> Asked:
    headings, items, numbered = _outline(shown)
    if not (headings or items) and mentions(text, "heading", "section", "섹션", "제목"):
        headings = [(2, title) for title in listed(text, RE.headings_listed)]
    hangul = 0 if text.isascii() else len(re.findall(r"[\uac00-\ud7a3]", text))
    length = _length(text)
    kind = RE.list_asked.search(text.lower()) if length and length[1] == "bullets" else None
    korean = hangul > 0 and hangul * 2 > len(re.findall("[A-Za-z]", text))
    return Asked(korean, headings, items, numbered or bool(kind and kind.lastindex), length)


def _form_start(prompt: str) -> int:
    """Return where the last instruction about form begins that a heading or item follows."""
    last = max((found.start() for found in RE.marked.finditer(prompt)), default=0)
    cues = RE.cue_of_form.finditer(prompt, 0, max(prompt.rfind("\n", 0, last), 0))
    return max((found.start() for found in cues), default=0)


def _topic(prompt: str) -> str:
    for pattern in RE.each("topics"):
        found = pattern.search(prompt)
        if found and (topic := found[1].strip(" \"'`*#-")):
            return " ".join(topic.split()[:9])[:_LONGEST_TOPIC]
    return " ".join(prompt.split()[:6])[:_LONGEST_TOPIC] or "this"


def _length(text: str) -> Length | None:
    said, text = words_in(text), text.lower()
    for noun, before, unit, words in _LENGTHS:
        if words.isdisjoint(said) and text.isascii():
            continue
        for found in noun.finditer(text):
            at = max(0, found.start() - _REACH)
            many = before.search(text, at, found.start()) if before else found
            if many:
                bound = RE.bound.search(text, max(0, many.start() - _REACH), many.start())
                bound = bound or RE.bound_behind.match(text, found.end())
                kind = (bound and bound.lastgroup) or "about"
                more, least, most = RE.mapping("bounds")[kind]
                count = max(1, number(many[1]) + more)
                start = number(bound["start"]) if bound and kind == "start" else count
                return count, unit, least * start, most * count
    listed_so = mentions(text, "list", "bullet", "글머리", "번호") and RE.list_asked.search(text)
    return (0, "bullets", 0, 0) if listed_so else None
