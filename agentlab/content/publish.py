"""Markdown and HTML files, whole or not at all, and the same bytes for the same text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from html import escape, unescape
from itertools import count
from pathlib import Path
from typing import NamedTuple

import yaml
from markdown_it import MarkdownIt

from agentlab.files import write_whole

_PAGE = """<!doctype html>
<html>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="{description}">
<title>{title}</title>
</head>
<body>
<main>
<h1>{title}</h1>
{body}</main>
</body>
</html>
"""


class Article(NamedTuple):
    """What is published: a title, a sentence about it, and a text in Markdown."""

    title: str
    description: str
    text: str
    content_type: str

    @classmethod
    def of(cls, title: str, content_type: str, answers: Mapping[str, str]) -> Article:
        """Make it of what the editor and the publisher answered."""
        description = " ".join(answers["publisher"].split())
        return cls(title, description, answers["editor"], content_type)

    @property
    def name(self) -> str:
        """A file's name for it: readable, and hardly ever that of another title or type.

        Example:
            >>> Article("Why tides?", "", "", "blog").name
            'why-tides-77896b'
        """
        return self._named(3)

    def names(self) -> Iterator[str]:
        """Names to choose from: the usual one, and longer ones where that is taken."""
        yield self.name
        yield self._named(8)
        yield from (f"{self._named(16)}-{number}" for number in count(1))

    def _named(self, digest_bytes: int) -> str:
        words = re.sub(r"\W+", "-", self.title.lower()).strip("-")[:60]
        # A file system counts a name's bytes, and a letter may have four.
        words = words.encode()[:200].decode(errors="ignore").rstrip("-")
        key = f"{self.content_type}\n{self.title}".encode()
        return f"{words or 'topic'}-{blake2b(key, digest_size=digest_bytes).hexdigest()}"

    def files(self, name: str) -> dict[str, bytes]:
        """File name -> content, of its two pages."""
        return {f"{name}.md": self.markdown().encode(), f"{name}.html": self.html().encode()}

    def markdown(self) -> str:
        """The text below a front matter in YAML."""
        front = {"title": self.title, "description": self.description, "type": self.content_type}
        matter = yaml.safe_dump(front, allow_unicode=True, sort_keys=False, width=1000)
        return f"---\n{matter}---\n\n{self.text.strip()}\n"

    def html(self) -> str:
        """A page of its own. Markup that a model wrote is shown, not obeyed."""
        body = MarkdownIt("commonmark", {"html": False}).render(self.text)
        return _PAGE.format(
            title=escape(self.title), description=escape(self.description), body=body
        )


def publish(
    folder: Path, article: Article, pages: dict[str, str] | None = None
) -> tuple[Path, Path]:
    """Write NAME.md and NAME.html; a file that already says the same is left alone.

    A page of another title or type is never replaced: this one gets a longer name then.

    Args:
        pages: File name -> digest of what was published there before; it is brought up to date.
            A page with another digest was edited since, so it is left as it is, and so is its
            entry here.

    Raises:
        OSError: If one cannot be written; what was there before is still there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pages = {} if pages is None else pages
    name = _place(folder, article, pages)
    for file, content in article.files(name).items():
        path = folder / file
        there = path.read_bytes() if path.is_file() else None
        if there not in (None, content) and pages.get(file, digest(there)) != digest(there):
            continue
        if there != content:
            write_whole(path, content)
        pages[file] = digest(content)
    return folder / f"{name}.md", folder / f"{name}.html"


def digest(content: bytes) -> str:
    """Tell one content of a page from another."""
    return blake2b(content, digest_size=16).hexdigest()


def _place(folder: Path, article: Article, pages: dict[str, str]) -> str:
    for file in pages:
        return Path(file).stem
    free = (
        name
        for name in article.names()
        if not any(_is_anothers(folder / f"{name}{kind}", article) for kind in (".md", ".html"))
    )
    return next(free)


def _is_anothers(page: Path, article: Article) -> bool:
    """True if a page is there and says that it has another title, or is of another type."""
    if not page.is_file():
        return False
    text = page.read_text(encoding="utf-8", errors="replace")
    if page.suffix == ".html":
        found = re.search("<title>(.*?)</title>", text, re.DOTALL)
        return found is not None and unescape(found[1]) != article.title
    try:
        front = yaml.safe_load(text.split("---\n")[1])
        return (front["title"], front["type"]) != (article.title, article.content_type)
    except (IndexError, KeyError, TypeError, yaml.YAMLError):
        return False
