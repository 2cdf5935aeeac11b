"""Check every link of the course, without a network.

    python tools/check_links.py              the pages of the checkout: Markdown and notebooks
    python tools/check_links.py build/book   the site, too

A link inside must lead to a file, and its anchor to a heading there. One that leads elsewhere must
be well formed; nothing is fetched. What a page of the site loads must be its own: a script, style,
font or picture from elsewhere would make it useless offline, and tell others who reads.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import nbformat
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("", "agentlab/", "data/results/", "docs/", "docs/ko/", "notebooks/", "notebooks/ko/")
LOADING = {"script", "img", "iframe", "source", "video", "audio", "embed", "link"}
NAMED_ONLY = {"canonical", "author", "license", "help", "search", "next", "prev", "index"}


class Page(NamedTuple):
    """What a page links to, what it loads, and where one can land on it."""

    links: list[str]
    loads: list[str]
    anchors: set[str]


class _Html(HTMLParser):
    """Collects what a piece of HTML links to, loads, and can be reached at."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        target = given.get("src") or given.get("href") or given.get("data-src")
        loading = tag in LOADING and not set(given.get("rel", "").split()) & NAMED_ONLY
        if target is not None and tag != "base":
            (self.loads if loading else self.links).append(target)
        self.loads += _in_style(given.get("style", ""))


def _in_style(css: str) -> list[str]:
    """What a style sheet loads: url(...) and @import."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    found = re.findall(r"""url\(\s*(["']?)(.*?)\1\s*\)|@import\s+["'](.*?)["']""", css)
    return [url or imported for _, url, imported in found if url or imported]


def slug(heading: str, seen: Counter[str]) -> str:
    """A heading's anchor, as GitHub and the site make it; `seen` counts those before it.

    Example:
        >>> slug("What `gather` does, and why?", Counter())
        'what-gather-does-and-why'
    """
    text = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
    seen[text] += 1
    return text if seen[text] == 1 else f"{text}-{seen[text] - 1}"


def markdown(text: str) -> Page:
    """Read a page of Markdown; HTML inside it counts as well."""
    html, seen = _Html(), Counter[str]()
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open" and following is not None:
            plain = (child.content for child in following.children or () if child.content)
            html.anchors.add(slug("".join(plain), seen))
        for part in (token, *(token.children or ())):
            if part.type == "link_open":
                html.links.append(str(part.attrs["href"]))
            elif part.type == "image":
                html.links.append(str(part.attrs["src"]))
            elif part.type in ("html_block", "html_inline"):
                html.feed(part.content)
    return Page(html.links + html.loads, [], html.anchors)


@cache
def read(path: Path) -> Page:
    """A page of any kind that the course has; other files have no links and no anchors."""
    if path.suffix == ".md":
        return markdown(path.read_text(encoding="utf-8"))
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        prose = (cell.source for cell in cells if cell.cell_type == "markdown")
        return markdown("\n\n".join(prose))
    if path.suffix in (".html", ".css"):
        html, text = _Html(), path.read_text(encoding="utf-8")
        if path.suffix == ".css":
            html.loads += _in_style(text)
        else:
            html.feed(text)
            for style in re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL):
                html.loads += _in_style(style)
        return Page(html.links, html.loads, html.anchors)
    return Page([], [], set())


def wrong(path: Path) -> Iterator[str]:
    """What is wrong with a page's links, one at a time."""
    page = read(path)
    foreign = [link for link in page.loads if urlsplit(link).netloc]
    yield from (f"{link} is loaded from elsewhere; bring it along" for link in foreign)
    for link in page.links + page.loads:
        if link in foreign:
            continue
        parts = urlsplit(link)
        if parts.scheme in ("data", "javascript"):
            continue
        problem = _elsewhere(link) if parts.scheme or parts.netloc else _inside(path, link)
        if problem:
            yield f"{link}: {problem}"


def _elsewhere(link: str) -> str | None:
    """What is wrong with the form of an address, if anything."""
    parts = urlsplit(link)
    if parts.scheme == "mailto":
        return None if re.fullmatch(r"[^@\s]+@[^@\s]+\.\w+", parts.path) else "no mail address"
    if parts.scheme not in ("http", "https"):
        return "neither http nor https"
    if not re.fullmatch(r"([\w-]+\.)+[a-z]{2,}|localhost|[\d.]+", parts.hostname or ""):
        return "no host can have that name"
    return "a space in it" if re.search(r"\s", link) else None


def _inside(path: Path, link: str) -> str | None:
    """What is wrong with a link inside the project, if anything."""
    parts = urlsplit(link)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.exists():
        return "there is no such file"
    anchor = unquote(parts.fragment)
    if anchor and target.is_file() and anchor not in read(target).anchors:
        return f"there is no #{anchor} in {target.name}"
    return None


def pages(root: Path) -> list[Path]:
    """The Markdown files and notebooks of the course, those that git ignores left out.

    Where there is no git, as in an unpacked bundle: those of the folders that have any.
    """
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md", "*.ipynb"]
    try:
        ran = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=True)
        names = ran.stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        found = (root.glob(f"{below}*{kind}") for below in FOLDERS for kind in (".md", ".ipynb"))
        names = [str(path.relative_to(root)) for some in found for path in some]
    return [root / name for name in sorted(names) if (root / name).exists()]


def site(folder: Path) -> list[Path]:
    """The pages and style sheets of a site; what themes keep as templates is no page."""
    html = (path for path in folder.rglob("*.html") if "_static" not in path.parts)
    return sorted([*html, *folder.rglob("*.css")])


def findings(paths: Iterable[Path], name: Callable[[Path], str] = str) -> list[str]:
    """A line for each link that is wrong."""
    return [f"{name(path)}: {problem}" for path in paths for problem in dict.fromkeys(wrong(path))]


def main(arguments: list[str]) -> int:
    checked = pages(ROOT)
    for folder in map(Path, arguments):
        built = site(folder.resolve())
        if not built:
            print(f"there is no page in {folder}; make it with: make book", file=sys.stderr)
            return 2
        checked += built
    found = findings(checked, lambda path: str(path.relative_to(ROOT)))
    links = sum(len(read(path).links) + len(read(path).loads) for path in checked)
    print("\n".join(found) or f"{len(checked)} pages, {links} links: nothing to mend")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
