"""What README and the pages of reference promise: their examples, their tables, their map."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from agentlab import settings
from agentlab.endpoint import presets

ROOT = settings.DATA.parent
PACKAGES = "bench classroom content endpoint engines lab learning resilience workflow".split()


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def examples(name: str) -> list[str]:
    return re.findall(r"```python\n(.+?)```", page(name), re.DOTALL)


def test_the_readmes_examples_run(fresh_lab):
    """As they stand: three agents at once, a workflow's span."""
    names = {}
    first, second = examples("README.md")
    exec(first, names)
    assert names["t"].peak == 3
    assert names["run"].elapsed_s == names["t"].makespan_s
    exec(second, names)
    assert names["workflow"].plan(names["t"].seconds).span_s == names["t"].makespan_s


def test_the_modules_examples_run(fresh_lab):
    """A guarded call, and an agent with a tool; other tests run the handlers of events."""
    names = {}
    guarded, acting, *_ = examples("docs/module.md")
    exec(guarded, names)
    assert names["t"].requests == names["guard"].monitor.health()["attempts"] == 1
    exec(acting, names)
    assert [(tool.name, tool.service_s) for tool in names["t"].tools][-1] == ("weather", 4)
    assert "rain" in names["answers"]["guide"]


def test_the_content_systems_example_runs(fresh_lab, tmp_path, monkeypatch):
    """Three texts, eight requests for the long one and four for each of the two posts; a tool with
    an effect is called once, however often its text is asked for."""
    monkeypatch.chdir(tmp_path)
    names = {}
    example, with_effect = examples("docs/content_system.md")
    exec(example, names)
    assert [content.status for content in names["contents"]] == ["done"] * 3
    assert (names["t"].requests, len(list(tmp_path.glob("content/*.html")))) == (16, 3)
    told = []
    exec(
        with_effect.replace("return f", "told.append(topic)\n    return f"), names | {"told": told}
    )
    assert told == ["Tides"]


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("README.md", [path.name for path in (ROOT / "notebooks").glob("*.ipynb")]),
        ("README.md", [f"({path.relative_to(ROOT)})" for path in (ROOT / "docs").rglob("*.md")]),
        ("docs/local_model.md", [f"`{name}`" for name in presets.names()]),
        (
            "docs/module.md",
            [f"`{variable}`" for variable in settings.Settings.variables().values()],
        ),
        ("docs/module.md", [path.name for path in (ROOT / "agentlab").glob("[a-z]*.py")]),
    ],
    ids=["notebooks", "pages", "presets", "variables", "modules"],
)
def test_a_user_finds_all(where, names):
    """Whatever there is stands on the page on which it is looked for."""
    # The site's own first page, and a report for developers, which CONTRIBUTING names.
    names = [name for name in names if name not in ("(docs/index.md)", "(docs/newest.md)")]
    assert names
    assert [name for name in names if name not in page(where)] == []


def test_the_readme_is_short():
    """What it is, how to begin, what there is: the rest lies in docs."""
    assert len(page("README.md").split()) < 1650


def test_its_pictures_are_small():
    """A reader on a train loads them."""
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert len(pictures) >= 2
    assert [path.name for path in pictures if path.stat().st_size > 200_000] == []


def test_package_lists_its_rooms():
    """`agentlab.__all__` is what there is for a user to import."""
    import agentlab

    loose = {path.stem for path in (ROOT / "agentlab").glob("[a-z]*.py")}
    assert set(agentlab.__all__) == loose | set(PACKAGES)


def test_a_room_is_imported_when_it_is_named():
    """`import agentlab` is enough for `agentlab.lab`, and Tab shows it before that."""
    code = "import agentlab; assert 'lab' in dir(agentlab); print(agentlab.lab.__name__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "agentlab.lab", ran.stderr


def test_what_is_no_room_is_no_attribute():
    """As of any module, so that `hasattr` works."""
    import agentlab

    with pytest.raises(AttributeError, match="'agentlab' has no attribute 'laboratory'"):
        _ = agentlab.laboratory


FOLDERS = sorted(
    str(path.parent.relative_to(ROOT / "agentlab"))
    for path in (ROOT / "agentlab").glob("*/**/__init__.py")
    if path.parent.name != "commands"
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_has_a_line_in_the_map(folder: str):
    """The map names each file and folder of a folder, and no other."""
    here = ROOT / "agentlab" / folder
    whole = (ROOT / "agentlab" / "FILES.md").read_text(encoding="utf-8")
    section = whole.partition(f"\n## {folder}\n")[2].partition("\n## ")[0]
    files = {path.stem for path in here.glob("*.py")} - {"__init__"}
    folders = {f"{path.parent.name}/" for path in here.glob("*/__init__.py")}
    assert set(re.findall(r"^- `(\w+/?)`: \w", section, re.MULTILINE)) == files | folders
