"""Topics as people write them, and as the content system tells them apart."""

import re
import unicodedata
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from agentlab._support.system import read_list
from agentlab.errors import ConfigError

_LONGEST = 500  # characters


class Job(NamedTuple):
    """One topic, to be written about in one way; `key` is its name in the journal."""

    topic: str
    content_type: str

    @property
    def key(self) -> str:
        return f"{self.content_type}: {self.topic}"


def jobs(topics: Iterable[str], content_type: str, known: Iterable[str]) -> list[Job]:
    """Name the work on each of the topics, once; a ConfigError where there can be none."""
    if content_type not in known:
        raise ConfigError(f"no content type {content_type!r}; choose {' or '.join(known)}")
    if isinstance(topics, str):  # it would be one topic a letter
        raise ConfigError(f"topics {topics[:40]!r} are one text; give a list of texts")
    titles = [title_of(topic) for topic in topics]
    if wrong := [title for title in titles if not 0 < len(title) <= _LONGEST]:
        says = f"a topic is empty, or over {_LONGEST} characters: {wrong[0][:40]!r}"
        raise ConfigError(f"{says}; give each a few words")
    return [Job(title, content_type) for title in dict.fromkeys(titles)]


def title_of(topic: str) -> str:
    """Spell a topic in one way: letters composed (NFC), and one space where there is any."""
    try:
        topic.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise ConfigError(f"topic {topic!r}: {error}; give a text of whole characters") from None
    return one_line(unicodedata.normalize("NFC", topic))


def one_line(text: str) -> str:
    """Make a line of a text: one space where there is any, or a control character."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]", " ", text).split())


def clean(text: str) -> str:
    """Put U+FFFD where NUL or half of a character is, which not every file or database holds."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.replace("\0", "\ufffd")


read_topics = partial(read_list, what="topics", read=title_of)
"""Read a file's topics, a line each, without comments; a ConfigError if there are none."""
