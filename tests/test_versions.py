"""Which Pythons the lessons are compared on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import versions

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Pythons are scripts here")


def a_python(path: Path, line: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_pythons_are_found_where_pyenv_and_the_path_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One that does not run, as a shim of pyenv's may not, hides none; 3.10 and 3.14 are no use."""
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for version in ("3.10", "3.12", "3.14"):
        a_python(
            tmp_path / "pyenv" / "versions" / f"{version}.1" / "bin/python3", f"echo {version}"
        )
    a_python(tmp_path / "bin" / "python3.12", "echo 'no such command' >&2; exit 127")
    on_the_path = a_python(tmp_path / "bin" / "python3.13", "echo 3.13")
    ours = str(tmp_path / "pyenv/versions/3.12.1/bin/python3")
    assert versions.found([]) == {"3.13": on_the_path, "3.12": ours}


def test_a_python_that_is_named_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`make versions PYTHONS=...` decides between two of one version."""
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    a_python(tmp_path / "pyenv/versions/3.12.1/bin/python3", "echo 3.12")
    named = a_python(tmp_path / "own" / "python", "echo 3.12")
    assert versions.found([named])["3.12"] == named
