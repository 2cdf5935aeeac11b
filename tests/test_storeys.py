"""The house: imports go down, the local model is sealed, and what is private stays private."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "agentlab"

# From the ground up: a room imports itself and the rooms of floors below it, and nothing else.
FLOORS = [
    ["errors"],
    ["_support"],
    ["settings"],
    ["endpoint", "clock"],
    ["trace"],
    ["lab"],
    ["plots", "workflow", "resilience", "exercises", "explore"],
    ["engines"],
    ["learning", "content", "classroom"],
    ["bench"],
    ["commands"],
    ["testing", "__main__"],
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or in a function, by its dotted name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                file = PACKAGE.parent / node.module.replace(".", "/") / f"{alias.name}.py"
                inner = file.exists() or file.with_suffix("").is_dir()
                yield f"{node.module}.{alias.name}" if inner else node.module


def room(path: Path) -> str:
    """The folder, or the loose file, that a file of the package belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def ours(path: Path) -> Iterator[list[str]]:
    """What a file imports of agentlab: the parts of each name after `agentlab`."""
    for name in imports(path):
        first, *rest = name.split(".")
        if first == "agentlab" and rest:
            yield rest


FILES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE or "__init__" not in path.name
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path):
    """To the same room, or to a floor below; so the endpoint imports no room but the ground's."""
    upward = [
        ".".join(name)
        for name in ours(path)
        if name[0] != room(path) and FLOOR[name[0]] >= FLOOR[room(path)]
    ]
    assert upward == []


def test_every_room_has_its_floor():
    """A new folder or file is placed before it can be imported."""
    assert {room(path) for path in FILES} == set(FLOOR)


def test_few_arrows_join_the_rooms():
    """At most ninety, however many imports each stands for: a newcomer can follow them."""
    arrows = {(room(path), name[0]) for path in FILES for name in ours(path)}
    assert len([pair for pair in arrows if pair[0] != pair[1]]) <= 90


def test_the_local_model_is_sealed():
    """It imports the settings, the errors and what several rooms need: no lab, no trace."""
    allowed = {"endpoint", "settings", "errors", "_support"}
    seen = {name[0] for path in (PACKAGE / "endpoint").rglob("*.py") for name in ours(path)}
    assert seen <= allowed


def test_only_plots_import_matplotlib():
    """So that a program without pictures does not wait for it."""
    drawing = [p for p in FILES if any(name.split(".")[0] == "matplotlib" for name in imports(p))]
    assert drawing
    assert [path.name for path in drawing if "plots" not in path.name] == []


@pytest.mark.parametrize("base", ["agentlab", "notebooks", "tools"])
def test_what_is_private_is_imported_by_its_own_folder_only(base: str):
    """A file that begins with `_` belongs to the files beside it; `_support` to the package."""
    strangers = [
        f"{path.name}: {'.'.join(name)}"
        for path in (PACKAGE.parent / base).rglob("*.py")
        for name in ours(path)
        for depth, part in enumerate(name)
        if part.startswith("_") and part not in ("_support", "__main__")
        and path.parent != PACKAGE.joinpath(*name[:depth])
    ]  # fmt: skip
    assert strangers == []


@pytest.mark.parametrize("room", ["lab", "workflow", "engines", "resilience", "content"])
def test_a_room_hands_on_its_public_names(room: str):
    """`from agentlab.resilience import Guard`: nobody needs to know in which file it is."""
    face = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
    assert any(isinstance(n, ast.Assign) and n.targets[0].id == "__all__" for n in face.body)


def test_few_files_lie_loose():
    """Eight beside the folders, the package's own two aside."""
    assert len([p for p in PACKAGE.glob("*.py") if not p.name.startswith("__")]) <= 8


FIRST = """clock explore trace plots exercises settings errors _support lab workflow engines
    resilience"""


def test_the_module_stays_small():
    """A stranger reads the first storey in an afternoon: a feature that does not fit has to go."""
    sizes = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")
    }
    beside = {
        PACKAGE / "engines" / f"{name}.py" for name in ("dask", "openai_agents", "pydantic_ai")
    }
    beside.add(PACKAGE / "resilience" / "limiters")
    must_read = [
        path for path in sizes if room(path) in FIRST.split() and not {path, path.parent} & beside
    ]
    assert sum(sizes[path] for path in must_read) <= 5_000
    assert sum(sizes.values()) <= 19_000
