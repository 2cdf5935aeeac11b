"""Links: every one of the course leads somewhere, and the checker sees one that does not."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import check_links  # noqa: E402  tools/ is no package


def found(tmp_path: Path, text: str, name: str = "page.md") -> list[str]:
    """What the checker says about a page of such a text, beside one with two headings."""
    (tmp_path / "other.md").write_text("# First\n\n## What `ask` does, and why\n")
    page = tmp_path / name
    page.write_text(text, encoding="utf-8")
    check_links.read.cache_clear()
    return check_links.findings([page], lambda path: path.name)


def test_every_link_of_the_course_leads_somewhere():
    """README, docs and notebooks, anchors included."""
    pages = check_links.pages(ROOT)
    names = {path.name for path in pages}
    assert {"README.md", "teaching.md", "glossary.md", "01_sequential.ipynb"} <= names
    assert check_links.findings(pages) == []


def test_without_git_the_same_pages_are_found(monkeypatch: pytest.MonkeyPatch):
    """As in a bundle that was unpacked: all that git lists."""
    listed = check_links.pages(ROOT)
    monkeypatch.setenv("PATH", "")
    found = check_links.pages(ROOT)
    assert len(found) > 20
    assert set(listed) <= set(found)


@pytest.mark.parametrize(
    "text",
    [
        "[a](other.md)",
        "[a](other.md#what-ask-does-and-why)",
        "[a](#here)\n\n# Here",
        "[a](https://example.org/a_(b)?c=d#e)",
        "[a](mailto:somebody@example.org)",
        "![a](data:image/png;base64,AAAA)",
        '<a href="other.md">a</a>',
        "`[a](gone.md)`",
        "```\n[a](gone.md)\n```",
    ],
)
def test_what_is_right(tmp_path: Path, text: str):
    """Files, anchors, well-formed addresses; what stands in code is no link."""
    assert found(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](gone.md)", "gone.md: there is no such file"),
        ("![a](gone.png)", "gone.png: there is no such file"),
        ("[a][b]\n\n[b]: gone.md", "gone.md: there is no such file"),
        ("| a |\n|---|\n| [a](gone.md) |", "gone.md: there is no such file"),
        ('<img src="gone.png">', "gone.png: there is no such file"),
        ("[a](other.md#second)", "other.md#second: there is no #second in other.md"),
        ("[a](#nowhere)", "#nowhere: there is no #nowhere in page.md"),
        ("[a](htps://example.org)", "htps://example.org: neither http nor https"),
        ("[a](https://example)", "https://example: no host can have that name"),
        ("[a](mailto:somebody)", "mailto:somebody: no mail address"),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, problem: str):
    """Each kind of mistake, named once."""
    assert found(tmp_path, text) == [f"page.md: {problem}"]


def test_links_of_notebooks_count(tmp_path: Path):
    """In cells of prose."""
    notebook = nbformat.writes(new_notebook(cells=[new_markdown_cell("[a](gone.ipynb)")]))
    said = found(tmp_path, notebook, "page.ipynb")
    assert said == ["page.ipynb: gone.ipynb: there is no such file"]


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example.org/a.js"></script>',
        '<link rel="stylesheet" href="//fonts.example.org/a.css">',
        '<link rel="preload" as="font" href="https://fonts.example.org/a.woff2">',
        '<img src="https://example.org/a.png">',
        '<p style="background: url(https://example.org/a.png)">a</p>',
        '<style>@import "https://example.org/a.css";</style>',
    ],
)
def test_a_page_that_loads_from_elsewhere(tmp_path: Path, text: str):
    """A script, a style, a font or a picture."""
    (said,) = found(tmp_path, text, "page.html")
    assert said.endswith("is loaded from elsewhere; bring it along")


def test_a_page_may_lead_elsewhere(tmp_path: Path):
    """What only a click follows is nobody's script."""
    page = '<a href="https://example.org">a</a><link rel="canonical" href="https://example.org/a">'
    assert found(tmp_path, page, "page.html") == []


def test_equal_headings_get_numbers():
    """As on GitHub: the second one ends in -1."""
    seen = Counter[str]()
    assert [check_links.slug("An engine", seen) for _ in range(3)] == [
        "an-engine",
        "an-engine-1",
        "an-engine-2",
    ]
