"""Markdown and HTML files, whole or not at all, and the same bytes for the same text."""

from __future__ import annotations

import re
from hashlib import blake2b
from html import escape
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

    @property
    def name(self) -> str:
        """A file's name for it: readable, and different for each title and type.

        Example:
            >>> Article("Why tides?", "", "", "blog").name
            'why-tides-77896b'
        """
        words = re.sub(r"\W+", "-", self.title.lower()).strip("-")[:60]
        # A file system counts a name's bytes, and a letter may have four.
        words = words.encode()[:200].decode(errors="ignore").rstrip("-")
        key = f"{self.content_type}\n{self.title}".encode()
        return f"{words or 'topic'}-{blake2b(key, digest_size=3).hexdigest()}"

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


def publish(folder: Path, article: Article, *, again: bool = True) -> tuple[Path, Path]:
    """Write NAME.md and NAME.html; a file that already says the same is left alone.

    Args:
        again: Whether to replace what is there; somebody may have edited it.

    Raises:
        OSError: If one cannot be written; what was there before is still there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{article.name}.md", folder / f"{article.name}.html"
    for path, text in zip(paths, (article.markdown(), article.html()), strict=True):
        if path.is_file() and (not again or path.read_bytes() == text.encode()):
            continue
        write_whole(path, text.encode())
    return paths
