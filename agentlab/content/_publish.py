"""Markdown and HTML files, whole or not at all, and the same bytes for the same text."""

import re
from collections.abc import Mapping
from hashlib import blake2b
from html import escape
from pathlib import Path
from typing import NamedTuple

import yaml
from jinja2 import Template
from markdown_it import MarkdownIt

from agentlab._support.system import write_whole

# A page loads nothing and runs nothing, whatever a model wrote into it.
_PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).disable("image")
# The beginning of a tag, which a link in angle brackets is not, or of an image
_MARKUP = r"<(?=[A-Za-z/!?])(?!https?://[^\s<>]*>)|!(?=\[)"
_LONGEST = 20_000  # a longer text is not read as Markdown: that can take minutes


class Article(NamedTuple):
    """What is published: a title, a sentence about it, a text in Markdown, and its sources."""

    title: str
    description: str
    text: str
    content_type: str
    sources: tuple[tuple[str, str], ...] = ()  # the id and the title of each document

    @property
    def name(self) -> str:
        """What its files are called, as nothing of another title or type is."""
        words = re.sub(r"\W+", "-", self.title.lower()).strip("-")[:60]
        # A file system counts a name's bytes, and a letter may have four.
        words = words.encode()[:200].decode(errors="ignore").rstrip("-") or "topic"
        key = f"{self.content_type}\n{self.title}".encode()
        return f"{words}-{blake2b(key, digest_size=8).hexdigest()}"

    def markdown(self) -> str:
        """Write the text below a front matter in YAML; site generators obey no markup in it."""
        front = {"title": self.title, "description": self.description, "type": self.content_type}
        matter = yaml.safe_dump(front, allow_unicode=True, sort_keys=False, width=1000)
        lines = [f"- [{id}] {title}" for id, title in self.sources]
        cited = ["## Sources", "\n".join(lines)] if lines else []
        text = "\n\n".join(map(_without_markup, [self.text.strip(), *cited]))
        return f"---\n{matter}---\n\n{text}\n"

    def html(self) -> str:
        """Write a page of its own. Markup that a model wrote is shown, and images are links."""
        plain = f"<pre>{escape(self.text)}</pre>\n"
        body = _MARKDOWN.render(self.text) if len(self.text) <= _LONGEST else plain
        return str(Template(_PAGE, autoescape=True).render(article=self, body=body)) + "\n"


class Published(NamedTuple):
    """Where a text is published; `kept` are those of the files that somebody had edited."""

    files: tuple[Path, ...] = ()
    pages: Mapping[str, str] = {}  # name -> digest of what was published
    kept: tuple[Path, ...] = ()


def publish(folder: Path, article: Article, before: Mapping[str, str] = {}) -> Published:
    """Write NAME.md and NAME.html, or raise an OSError; what says the same is left alone.

    `before` are the `pages` of the last time: one with another digest now was edited since, so it
    stays as it is, and so does what is no file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = next((Path(file).stem for file in before), article.name)
    pages, kept, files = dict(before), [], []
    for kind, text in (("md", article.markdown()), ("html", article.html())):
        path, content = folder / f"{name}.{kind}", text.encode()
        files.append(path)
        there = None
        if path.exists() or path.is_symlink():
            there = _digest(path.read_bytes()) if path.is_file() else ""
        new, last = _digest(content), before.get(path.name, there or None)
        if there not in (None, last):  # edited, or no file
            kept += [path] if last != new else []
            continue
        if there != new:
            for part in folder.glob(f".{path.name}.*.part"):  # a process was killed as it wrote
                part.unlink(missing_ok=True)
            write_whole(path, content)
        pages[path.name] = new
    return Published(tuple(files), pages, tuple(kept))


def _without_markup(text: str) -> str:
    """Escape raw HTML and images outside of fenced code, so that no reader obeys them."""
    lines = re.split("\r\n?|\n", text)
    fenced: set[int] = set()
    for token in _MARKDOWN.parse("\n".join(lines)) if len(text) <= _LONGEST else []:
        if token.type == "fence" and token.level == 0 and token.map is not None:
            fenced |= set(range(*token.map))
    for number in {*range(len(lines))} - fenced:
        lines[number] = re.sub(_MARKUP, lambda found: f"&#{ord(found[0])};", lines[number])
    return "\n".join(lines)


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()
