"""Published files are whole, safe and the same for the same text."""

from __future__ import annotations

import pytest
import yaml

from agentlab.content._publish import Article, publish

ARTICLE = Article("Why tides?", "The moon: why", "## So\n\nTwice a *day*.", "blog")


def test_markdown_has_its_front_matter(tmp_path):
    """YAML that any site generator reads back, and the text below it."""
    path, _ = publish(tmp_path, ARTICLE).files
    _, front, text = path.read_text(encoding="utf-8").split("---\n")
    assert yaml.safe_load(front) == {
        "title": "Why tides?",
        "description": "The moon: why",
        "type": "blog",
    }
    assert text.strip() == ARTICLE.text


def test_html_is_a_page(tmp_path):
    """Title, description, and the text rendered."""
    _, path = publish(tmp_path, ARTICLE).files
    page = path.read_text(encoding="utf-8")
    assert "<title>Why tides?</title>" in page and 'content="The moon: why"' in page
    assert "<h2>So</h2>" in page and "<em>day</em>" in page


def test_what_a_model_wrote_is_not_obeyed(tmp_path):
    """Scripts and links that run something are text."""
    text = "<script>alert(1)</script> [here](javascript:alert(1))"
    page = publish(tmp_path, ARTICLE._replace(title="<b>&", text=text)).files[1].read_text()
    assert "<script" not in page and 'href="javascript' not in page
    assert "<title>&lt;b&gt;&amp;</title>" in page


@pytest.mark.parametrize(
    ("title", "start"),
    [("../../etc/passwd", "etc-passwd-"), ("왜 밀물이?", "왜-밀물이-"), ("???", "topic-")],
)
def test_names_are_safe(tmp_path, title, start):
    """Any title in any language makes a file in the folder, and nowhere else."""
    for path in publish(tmp_path, ARTICLE._replace(title=title)).files:
        assert path.parent == tmp_path and path.name.startswith(start)


def test_names_differ_where_titles_do():
    """By case or type alone, too: no file is written over another's."""
    articles = [ARTICLE, ARTICLE._replace(title="why tides?"), ARTICLE._replace(content_type="x")]
    assert len({article.name for article in articles}) == 3


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    """The old file whole, and nothing half-written."""
    publish(tmp_path, ARTICLE)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        publish(tmp_path, ARTICLE._replace(text="longer"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
