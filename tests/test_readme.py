"""What the README promises: its example, its tables, its map."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from agentlab import settings
from agentlab.endpoint import presets

ROOT = settings.DATA.parent
PACKAGES = ["bench", "content", "endpoint", "engines", "resilience", "tuning"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_examples_run(fresh_lab, tmp_path, monkeypatch):
    """As they stand: three agents at once, a workflow's span, a guarded call, three texts."""
    monkeypatch.chdir(tmp_path)
    names = {}
    first, second, third, fourth = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    exec(first, names)
    assert names["t"].peak == 3
    assert names["run"].elapsed_s == names["t"].makespan_s
    exec(second, names)
    assert names["workflow"].plan(names["t"].seconds).span_s == names["t"].makespan_s
    exec(third, names)
    assert names["t"].requests == names["guard"].monitor.health()["attempts"] == 1
    exec(fourth, names)
    assert [content.status for content in names["contents"]] == ["done"] * 3
    assert (names["t"].requests, len(list(tmp_path.glob("content/*.html")))) == (16, 3)


@pytest.mark.parametrize(
    "names",
    [
        [path.name for path in (ROOT / "notebooks").glob("*.ipynb")],
        [f"`{name}`" for name in presets.names()],
        [f"`{variable}`" for variable in settings._VARIABLES.values()],
        [path.name for path in (ROOT / "agentlab").glob("[a-z]*.py")],
    ],
    ids=["notebooks", "presets", "variables", "modules"],
)
def test_it_names_all(names):
    """Whatever there is for a user to find stands in the README."""
    assert names
    assert [name for name in names if name not in README] == []


def test_what_it_links_to_is_there():
    """Every link inside the project leads somewhere."""
    links = re.findall(r"\]\((?!http)(.+?)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_package_lists_its_rooms():
    """`agentlab.__all__` is what there is to import, the command line left out."""
    import agentlab

    rooms = {path.stem for path in (ROOT / "agentlab").glob("[a-z]*.py")}
    assert set(agentlab.__all__) == rooms - {"cli"} | set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_list_their_rooms(package):
    """The map at the top of a package names each of its modules."""
    described = import_module(f"agentlab.{package}").__doc__
    modules = {path.stem for path in (ROOT / "agentlab" / package).glob("[a-z]*.py")}
    assert set(re.findall(r"^ *(\w+)  +\w", described, re.MULTILINE)) == modules
