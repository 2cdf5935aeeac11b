"""Markdown and HTML files, whole or not at all, and the same bytes for the same text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from html import escape, unescape
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import yaml
from markdown_it import MarkdownIt

from agentlab._support.atomic import write_whole

# A page loads nothing and runs nothing, whatever a model wrote into it.
_PAGE = """<!doctype html>
<html>
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
base-uri 'none'; form-action 'none'">
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

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).disable("image")
_BLOCKS = MarkdownIt("commonmark", {"html": False}).disable("inline")
_OBEDIENT = MarkdownIt("commonmark", {"html": True})
_MARKUP = r"(?P<markup>\\?<(?=[A-Za-z/!?])|\\?!(?=\[))"
"""The beginning of a tag or an image, with a backslash before it or not."""
_KEPT = r"\\[\\`]|(?<!`)(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)|`+|<https?://[^\s<>`]*>"
"""Code and links."""


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
        return next(self.names())

    def names(self) -> Iterator[str]:
        """Yield names to choose from: the usual one, and longer ones where that is taken."""
        words = re.sub(r"\W+", "-", self.title.lower()).strip("-")[:60]
        # A file system counts a name's bytes, and a letter may have four.
        words = words.encode()[:200].decode(errors="ignore").rstrip("-") or "topic"
        key = f"{self.content_type}\n{self.title}".encode()
        for digest_bytes in (3, 8):
            yield f"{words}-{blake2b(key, digest_size=digest_bytes).hexdigest()}"
        for number in count(1):
            yield f"{words}-{digest(key)}-{number}"

    def files(self, name: str) -> dict[str, bytes]:
        """Return the content of its two pages, by their names."""
        return {f"{name}.md": self.markdown().encode(), f"{name}.html": self.html().encode()}

    def markdown(self) -> str:
        """Write the text below a front matter in YAML; site generators obey no markup in it."""
        front = {"title": self.title, "description": self.description, "type": self.content_type}
        matter = yaml.safe_dump(front, allow_unicode=True, sort_keys=False, width=1000)
        return f"---\n{matter}---\n\n{_without_markup(self.text.strip())}\n"

    def html(self) -> str:
        """Write a page of its own. Markup that a model wrote is shown, and images are links."""
        plain = f"<pre>{escape(self.text)}</pre>\n"
        body = plain if _is_too_long(self.text) else _MARKDOWN.render(self.text)
        return _PAGE.format(
            title=escape(self.title), description=escape(self.description), body=body
        )


def publish(
    folder: Path, article: Article, pages: dict[str, str] | None = None
) -> tuple[Path, Path]:
    """Write NAME.md and NAME.html; a file that already says the same is left alone.

    A page of another title or type is never replaced: this one gets a longer name then.

    Args:
        pages: The digest of what was published before in each file; it is brought up to date.
            A page with another digest was edited since, so it stays as it is, and so does its
            entry here.

    Raises:
        OSError: If one cannot be written; what was there before is still there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pages = {} if pages is None else pages
    own = set(islice(article.names(), 9))
    published = [Path(file).stem for file in pages if Path(file).stem in own]
    name = published[0] if published else _free_name(folder, article)
    for file, content in article.files(name).items():
        path = folder / file
        there = path.read_bytes() if path.is_file() else b"" if path.exists() else None
        if there not in (None, content) and pages.get(file, digest(there)) != digest(there):
            continue
        if there != content:
            write_whole(path, content)
        pages[file] = digest(content)
    return folder / f"{name}.md", folder / f"{name}.html"


def _without_markup(text: str) -> str:
    """Escape raw HTML and images outside of code, so that no reader of the Markdown obeys them.

    Only fences at the left edge and spans within a line are left as code: site generators do not
    agree on what else is code. If any markup is left after that, everything is escaped.
    """

    def escaped(found: re.Match[str]) -> str:
        if found.lastgroup != "markup":
            return found[0]
        return {"<": "&lt;", "!": "\\!"}[found[0][-1]]

    lines = re.split("\r\n?|\n", text)
    if not _is_too_long(text):
        fenced: set[int] = set()
        for token in _MARKDOWN.parse(text):
            if token.type == "fence" and token.level == 0 and token.map is not None:
                first, end = token.map
                last = lines[end - 1].rstrip()
                if lines[first].startswith(token.markup) and last == token.markup:
                    fenced |= set(range(first, end))
        kept = "\n".join(
            line if number in fenced else re.sub(f"{_KEPT}|{_MARKUP}", escaped, line)
            for number, line in enumerate(lines)
        )
        blocks = _OBEDIENT.parse(kept)
        tokens = [token for block in blocks for token in (block, *(block.children or ()))]
        if not any(token.type in ("html_block", "html_inline", "image") for token in tokens):
            return kept
    return re.sub(_MARKUP, escaped, "\n".join(lines))


def _is_too_long(text: str) -> bool:
    """Return True for a text that nobody writes: 200,000 characters, or 5,000 in one paragraph.

    To read it as Markdown takes time by the square of its length.
    """
    if len(text) > 200_000:
        return True
    return any(len(t.content) > 5_000 for t in _BLOCKS.parse(text) if t.type != "fence")


def digest(content: bytes) -> str:
    """Return what tells one content of a page from another."""
    return blake2b(content, digest_size=16).hexdigest()


def _free_name(folder: Path, article: Article) -> str:
    for name in article.names():
        if not any(_is_anothers(folder / f"{name}{kind}", article) for kind in (".md", ".html")):
            break
    return name


def _is_anothers(page: Path, article: Article) -> bool:
    """Return True for a page that says that it has another title, or is of another type."""
    if not page.is_file():
        return page.exists() or page.is_symlink()
    text = page.read_text(encoding="utf-8", errors="replace")
    if page.suffix == ".html":
        found = re.search("<title>(.*?)</title>", text, re.DOTALL)
        return found is not None and unescape(found[1]) != article.title
    try:
        front = yaml.safe_load(re.split("^---\n", text, flags=re.MULTILINE)[1])
        return (front["title"], front["type"]) != (article.title, article.content_type)
    except (IndexError, KeyError, TypeError, yaml.YAMLError):
        return False
