"""The site: built from the checkout without a warning, whole, and with nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "docs" / "extensions")]

import check_links  # noqa: E402  tools/ and docs/ are no packages
import mathtext  # noqa: E402
import mermaid  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The site as `make book` builds it, elsewhere."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs"]
    command += ["-d", str(folder / "doctrees"), ".", str(folder / "book")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    yield folder / "book"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_it_has_a_page_for_each_notebook_and_each_document(book: Path):
    """And its folder opens at the first one."""
    sources = [*NOTEBOOKS, *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    pages = [book / path.relative_to(ROOT).with_suffix(".html") for path in sources]
    assert len(pages) > 20
    assert [page for page in pages if not page.is_file()] == []
    (start,) = re.findall(r"url=(\S+?)\"", text_of(book / "index.html"))
    assert (book / start).is_file()


def test_nothing_on_it_comes_from_elsewhere_and_every_link_leads_somewhere(book: Path):
    """No script, style, font or picture of another host; no link without a target."""
    pages = check_links.site(book)
    assert sum(bool(check_links.read(page).loads) for page in pages) > 20
    assert check_links.findings(pages, lambda page: page.name) == []


def test_scripts_of_the_course_ask_nobody(book: Path):
    """The loader of diagrams reads beside itself only."""
    assert "://" not in text_of(book / "_static" / "mermaid" / "loader.js")


def test_notebooks_are_shown_with_their_stored_outputs(book: Path):
    """Every line that a cell of lesson 01 printed is on its page, and every picture."""
    (path,) = (path for path in NOTEBOOKS if path.stem == "01_sequential")
    cells = nbformat.read(path, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    page = text_of(book / "notebooks" / "01_sequential.html")
    shown = unescape(re.sub(r"<[^>]+>", "", page))
    printed = [line for output in outputs for line in output.get("text", "").splitlines()]
    assert len(printed) > 20
    assert [line for line in printed if line not in shown] == []
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert len(set(re.findall(r'src="\.\./_images/(\w+\.png)"', page))) == pictures


def test_the_list_of_lessons_has_their_numbers(book: Path):
    """In order, on every page."""
    start = re.sub(r"<[^>]+>", " ", text_of(book / "docs" / "index.html"))
    places = [start.find(f" {path.name.partition('_')[0]} ") for path in NOTEBOOKS]
    assert -1 not in places
    assert places == sorted(places)


def test_diagrams_are_places_for_mermaid_and_only_their_pages_load_it(book: Path):
    """In a notebook's output and in Markdown; lesson 00 has none."""
    for page in ("notebooks/02_langgraph_parallel.html", "README.html"):
        assert '<pre class="mermaid">' in text_of(book / page)
        assert "mermaid/loader.js" in text_of(book / page)
    assert "mermaid" not in text_of(book / "notebooks" / "00_start_here.html")
    kept = {path.name for path in mermaid.find().files.values()}
    assert kept < {path.name for path in (book / "_static" / "mermaid").iterdir()}


def test_mermaid_is_found_in_jupyterlab():
    """Its chunks are there, those that are wanted at once among them."""
    found = mermaid.find()
    assert set(found.entry) <= set(found.files)
    assert all(path.is_file() for path in found.files.values())


def test_another_jupyterlab_is_told(tmp_path: Path):
    """A build in which Mermaid lies elsewhere stops the site, and says where to look."""
    (tmp_path / "main.abc.js").write_text("nothing to find")
    with pytest.raises(Exception, match=r"requirements\.lock"):
        mermaid.find(tmp_path)


@pytest.mark.parametrize("formula", [r"T_P \;\ge\; \max\left(\frac{\text{work}}{P}, s\right)", "P"])
def test_formulas_are_pictures_and_equal_ones_are_equal(formula: str):
    """Outlines, so no font is needed; no date, so a page does not change by itself."""
    drawn, _ = mathtext.svg(formula)
    assert drawn == mathtext.svg(formula)[0]
    assert "<path" in drawn
    assert "<text" not in drawn
    assert "dc:date" not in drawn


def test_a_formula_that_cannot_be_set_is_an_error():
    """And no gap on the page."""
    with pytest.raises(ValueError, match="Unknown symbol"):
        mathtext.svg(r"\nosuchthing")
