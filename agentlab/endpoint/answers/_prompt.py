"""What a prompt asks for: language, topic, outline, shape and length.

The form asked for is what follows the last instruction about form ("Answer in this format:");
headings before it are of earlier results. The patterns take time in proportion to a text's length.
"""

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from agentlab.endpoint.answers._form import MANY, Form, form_of, listed, mentions, number

Unit = Literal["sentences", "bullets", "paragraphs", "words", "characters"]

_LONGEST_TOPIC = 200
_READ = 12_000  # characters

_CUE = re.compile(
    r"(?i)\b(format|structure|sections?|headings?|outline|cover|include|following|should|respond"
    r"|answer|for|on|keys?|json)\b"
)
_KOREAN_CUE = re.compile("형식|구성|항목|포함|응답|답변|작성|다음")
# The mark of a heading, of a bullet or of a numbered item, and what follows it.
_MARKED = re.compile(r"^[ \t]*(?:(#{1,6})|([-*•])|(\d{1,2}[.)]))[ \t]+(.+)$", re.M)
_KEY = re.compile(r'"([^"\n]+)"\s*:')
_NAMED = (  # headings that a sentence names
    r"(?:with|under|using|into|ha(?:s|ve|ving)|contain\w*|includ\w*|follow\w*|these|use)"
    r"(?: [\w-]+){0,3}? (?:sub)?(?:headings?|sections?)|(?:headings|sections)(?= ?:)|섹션|제목"
)
_HEADINGS = ("heading", "section", "섹션", "제목")  # one of which it has
# The patterns of lengths are for texts in lower case: a noun, and what comes before it.
_LISTED = re.compile(r"\b(?:(numbered)|bullet\w*) list|\b(?:in|as|with) bullet|글머리|(번호)")
_BOUND = re.compile(r"(?:(no more than|at most|up to|within|under)|at least|minimum of) $")
_ENGLISH = re.compile(rf"{MANY}[ -](?:\w+ )?$")
_KOREAN = re.compile(rf"{MANY}\s*(?:개의\s*)?$")
_REACH = 40  # characters from a number to its noun
_LENGTHS: list[tuple[Unit, re.Pattern[str], re.Pattern[str] | None]] = [
    ("sentences", re.compile(r"sentences?\b"), _ENGLISH),
    ("bullets", re.compile(r"(?:bullet|point|item)s?\b"), _ENGLISH),
    ("paragraphs", re.compile(r"paragraphs?\b"), _ENGLISH),
    ("words", re.compile(r"words?\b"), _ENGLISH),
    ("sentences", re.compile("문장"), _KOREAN),
    ("bullets", re.compile("항목|요점|글머리|번호"), re.compile(rf"{MANY}\s*개의?\s*$")),
    ("paragraphs", re.compile("문단|단락"), _KOREAN),
    ("bullets", re.compile(rf"\blist (?:of|with) (?:exactly )?{MANY}\b"), None),
    ("characters", re.compile(r"((?<!\d)\d{1,9})\s*자\b"), None),
]
_PHRASE = (  # up to the end of the clause, or to words about its length
    r"(.+?)(?:[.:;?!\n]|, (?:in|with|as)\b| (?:in|as) JSON\b"
    r"| in (?:[\w-]+ ){1,5}(?:sentences?|words?|bullets?|points?|paragraphs?)\b"
    r"| (?:with|under) (?:[\w-]+ ){0,2}(?:sections?|headings?|columns?|keys?|fields?)\b|$)"
)
_OBJECT = re.compile(r"^[^\S\n]*+(.+?)(?:에 대해|에 대하여|에 대한|을 |를 )", re.M)
_TOPIC = [
    re.compile(r"^[^\S\n]*+(?:topic|subject|theme|주제|토픽)\s*[:=]\s*(.+)$", re.I | re.M),
    _OBJECT,
    re.compile(r"\b(?:about|regarding)[ :]+(?!\d|this\b|the following)" + _PHRASE, re.I),
    re.compile(
        r"(?i)\b(?:describe|explain|analy[sz]e|research|summari[sz]e|compare|review|name|list"
        r"|discuss)[ :]+(?!this\b|the following)" + _PHRASE
    ),
    re.compile(r"(?i)\A\s*(?:get|find|fetch|show|look up|check) (?:me )?" + _PHRASE),
    re.compile(r"^[^\S\n]*+(.+?)[.:?!\n]", re.M),
]

# How CrewAI frames a task; others do not.
_FRAME = "Current Task: "
_EXPECTED = "\nThis is the expected criteria for your final answer: "
_COMPLETE = "\nyou MUST return the actual complete content"
_CONTEXT = "\nThis is the context you're working with:\n"
_FIELDS = re.compile(r"^\[\[ ## \w+ ## \]\]\n|\nRespond with [^\n]*\Z", re.M)  # DSPy's
_END = re.compile(r"\n\n(?:Provide your complete response:|Begin! )")


def glance(text: str) -> str:
    """Return the text, or the beginning and the end of one that is too long to be read whole."""
    half = _READ // 2
    return text if len(text) <= _READ else f"{text[:half]}\n{text[-half:]}"


class Framed(NamedTuple):
    """A prompt taken apart."""

    task: str
    expected: str = ""
    context: str = ""


def unframe(prompt: str) -> Framed:
    """Take a framework's words about the task away; a plain prompt is all task."""
    plain = prompt.removeprefix("New task:\n")
    framed = prompt.strip().removeprefix("New task:\n")
    if framed.startswith("[[ ## "):
        return Framed(_FIELDS.sub("", framed).strip())
    if not framed.startswith(_FRAME):
        return Framed(plain)
    framed = _END.split(framed.removeprefix(_FRAME), maxsplit=1)[0]
    framed, _, context = framed.partition(_CONTEXT)
    task, _, expected = framed.partition(_EXPECTED)
    return Framed(task.strip(), expected.partition(_COMPLETE)[0].strip(), context.strip())


class Asked(NamedTuple):
    """The form of the answer that a prompt asks for; `given` are headings of earlier results."""

    korean: bool  # otherwise English
    headings: list[tuple[int, str]]  # (level, title), in order
    items: list[str]  # bullets, or numbered aspects
    numbered: bool
    length: tuple[int, Unit] | None  # how many, of what; 0 if the model is to choose
    bound: str  # of a length in words: "most", "least", or nothing for about
    form: Form | None = None  # None for prose
    topic: str = ""
    given: tuple[str, ...] = ()


@lru_cache(maxsize=256)  # the same prompt comes again and again
def read(prompt: str, told: tuple[str, ...] = (), as_json: bool = False) -> Asked:
    """Read the form that `prompt` asks for, or else what other messages have `told`.

    With `as_json`, an answer in JSON is wanted, whatever they say.

    Example:
        >>> asked = read("Describe tides in two sentences.")
        >>> asked.topic, asked.length
        ('tides', (2, 'sentences'))
    """
    if "{{" in prompt and re.search(r'\{\{\s*"', prompt):  # a template's, that nobody filled in
        prompt = prompt.replace("{{", "{").replace("}}", "}")
    framed = unframe(prompt)
    task = f"{framed.task}\n\n{framed.expected}".rstrip()
    start = _form_start(task)
    before, shown = task[:start], task[start:]
    form = form_of(prompt if "[[ ## " in prompt else task, shown, told, as_json=as_json)
    asked = _prose(task, shown)
    if told and not (asked.headings or asked.items or asked.length):
        asked = _prose("\n".join(told), "")._replace(korean=asked.korean)
    about = re.sub(r"\{.*\}|</?[\w-]+>", " ", task, flags=re.S) if form and form.schema else task
    given = tuple(title for _, title in _outline(framed.context + before)[0])
    return asked._replace(topic=_topic(about), form=form, given=given)


def _outline(text: str) -> tuple[list[tuple[int, str]], list[str], list[str]]:
    """Return a text's headings with their levels, its bullets, and its numbered items."""
    if "\n" not in text and text[:1] not in "#-*•0123456789 \t":  # it cannot begin with a mark
        return [], [], []
    marked = _MARKED.findall(text)
    headings = [(len(level), title.rstrip(" \t")) for level, _, _, title in marked if level]
    bullets, numbered = (
        [title.strip("*_` \t").rstrip(".:;") for *marks, title in marked if marks[at]]
        for at in (1, 2)
    )
    return headings, bullets, numbered


def _prose(text: str, shown: str) -> Asked:
    headings, bullets, numbered = _outline(shown)
    if not (headings or bullets or numbered) and mentions(text, *_HEADINGS):
        headings = [(2, title) for title in listed(text, _NAMED)]
    hangul = 0 if text.isascii() else len(re.findall(r"[\uac00-\ud7a3]", text))
    length, bound = _length(text.lower())
    kind = _LISTED.search(text.lower()) if length and length[1] == "bullets" else None
    return Asked(
        korean=hangul > 0 and hangul * 2 > len(re.findall("[A-Za-z]", text)),
        headings=headings,
        items=bullets or numbered,
        numbered=(not bullets and bool(numbered)) or bool(kind and kind.lastindex),
        length=length,
        bound=bound,
    )


def _form_start(prompt: str) -> int:
    """Return where the last instruction about form begins that a heading, item or key follows."""
    if "\n" not in prompt:  # nothing follows a line
        return 0
    marked = [*_MARKED.finditer(prompt), *_KEY.finditer(prompt)]
    last = max((found.start() for found in marked), default=-1)
    start = at = 0
    for line in prompt[: max(last, 0)].split("\n")[:-1]:
        said = line.rstrip()
        english = said.endswith(":") and _CUE.search(said)
        if english or (said.endswith((":", ".")) and _KOREAN_CUE.search(said)):
            start = at
        at += len(line) + 1
    return start


def _topic(prompt: str) -> str:
    for pattern in _TOPIC:
        found = None if pattern is _OBJECT and prompt.isascii() else pattern.search(prompt)
        if found and (topic := found[1].strip(" \"'`*#-")):
            return " ".join(topic.split()[:9])[:_LONGEST_TOPIC]
    return " ".join(prompt.split()[:6])[:_LONGEST_TOPIC] or "this"


def _length(text: str) -> tuple[tuple[int, Unit] | None, str]:
    for unit, noun, before in _LENGTHS:
        for found in noun.finditer(text):
            at = max(0, found.start() - _REACH)
            many = before.search(text, at, found.start()) if before else found
            if many:
                bound = _BOUND.search(text, max(0, many.start() - 30), many.start())
                said = ("most" if bound[1] else "least") if bound else ""
                return (number(many[1]), unit), said
    listed_so = mentions(text, "list", "bullet", "글머리", "번호") and _LISTED.search(text)
    return (0, "bullets") if listed_so else None, ""
