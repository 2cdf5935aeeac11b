"""Set-up: lock, project and environment.yml agree; a wrong Python is told; make does the rest."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SETUP = runpy.run_path(str(ROOT / "tools" / "setup.py"), run_name="setup")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
WITH_MAKE = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


def locked() -> list[tuple[Requirement, list[str]]]:
    """Each requirement of the lock, and its hashes."""
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    parts = [[part.strip() for part in entry.split("\\\n")] for entry in entries]
    return [(Requirement(requirement), hashes) for requirement, *hashes in parts]


def pins() -> dict[str, str]:
    """What the lock asks for in this environment: name -> version."""
    return {
        canonicalize_name(r.name): str(r.specifier).removeprefix("==")
        for r, _ in locked()
        if r.marker is None or r.marker.evaluate()
    }


def direct() -> list[Requirement]:
    needed = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]
    return [Requirement(text) for text in [*needed, *PROJECT["build-system"]["requires"]]]


def test_every_package_is_pinned_with_hashes():
    """One exact version each, and at least one sha256."""
    assert len(locked()) > 100
    for requirement, hashes in locked():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", h) for h in hashes), requirement


def test_the_lock_names_no_registry():
    """No address and no option but the hashes."""
    assert "://" not in LOCK
    assert not re.search(r"^\s*--(?!hash)", LOCK, re.MULTILINE)


def test_the_lock_holds_what_the_project_asks_for():
    """Every direct dependency, for development and for the build, in a version that fits."""
    for requirement in direct():
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_every_direct_dependency_has_its_reason():
    """A comment on its line."""
    text = (ROOT / "pyproject.toml").read_text()
    for requirement in direct()[:-1]:
        assert re.search(rf'^\s+"{requirement.name}\b[^"]*",\s+# \w', text, re.MULTILINE)


def test_what_is_installed_is_what_is_locked():
    """Nothing else, and nothing missing; seeds and the module aside."""
    installed = {canonicalize_name(d.metadata["Name"]): d.version for d in distributions()}
    seeds = {"agentlab-course", "pip", "setuptools", "wheel"}
    extra = {n: v for n, v in installed.items() if n not in seeds and pins().get(n) != v}
    missing = {n: v for n, v in pins().items() if installed.get(n) != v}
    assert (extra, missing) == ({}, {})


def test_environment_yml_installs_the_lock_and_nothing_else():
    """Python as the project says, pip, and the lock."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, section = environment["dependencies"]
    asked = SpecifierSet(python.removeprefix("python").strip())
    assert asked == SpecifierSet(PROJECT["project"]["requires-python"])
    assert (pip, section) == ("pip", {"pip": ["-r requirements.lock"]})


@pytest.mark.parametrize("version", [(3, 10), (3, 14), (2, 7)])
def test_a_wrong_python_is_told_in_one_line(version: tuple[int, int]):
    """Which it is, which will do, and what to install."""
    line = SETUP["wrong_python"](version)
    assert f"{version[0]}.{version[1]}" in line
    assert "3.11, 3.12 or 3.13" in line
    assert "install" in line
    assert "\n" not in line


@pytest.mark.parametrize("version", [(3, 11), (3, 12, 1), (3, 13)])
def test_the_right_pythons_will_do(version: tuple[int, ...]):
    """Three minor versions."""
    assert SETUP["wrong_python"](version) is None


def test_any_python_3_can_read_the_set_up():
    """No syntax that is newer than 3.5, so that an old one gets the line, not a SyntaxError."""
    import ast

    ast.parse((ROOT / "tools" / "setup.py").read_text(), feature_version=(3, 5))


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_a_changed_file_makes_the_environment_stale(name: str, tmp_path: Path):
    """So does another Python."""
    for file in ("requirements.lock", "pyproject.toml", "tools/setup.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    fingerprint = SETUP["fingerprint"]
    before = fingerprint(tmp_path, (3, 12, 1))
    assert fingerprint(ROOT, (3, 12, 1)) == before
    assert fingerprint(ROOT, (3, 12, 2)) != before
    with (tmp_path / name).open("a") as file:
        file.write("\n# changed")
    assert fingerprint(tmp_path, (3, 12, 1)) != before


def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails: str) -> tuple[list[str], Any]:
    """The installing commands that `made` runs where those that contain `fails` fail."""
    commands: list[str] = []

    def call(command: list[str], **options: object) -> int:
        line = " ".join(command)
        if "install" in command:
            by_uv = Path(command[0]).name == "uv"
            commands.append("uv" if by_uv else "pip gets uv" if "uv.txt" in line else "pip")
        return int(bool(fails) and re.search(fails, line) is not None)

    monkeypatch.setattr(subprocess, "call", call)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    problem = SETUP["made"](tmp_path / "venv")
    return commands, problem


@pytest.mark.parametrize(
    "fails, expected",
    [
        ("", ["pip gets uv", "uv", "uv"]),
        ("uv.txt", ["pip gets uv", "pip", "pip"]),
        ("uv pip install --comp", ["pip gets uv", "uv", "pip", "pip"]),
    ],
)
def test_pip_fetches_uv_and_does_what_uv_cannot(
    fails: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Where there is no uv, where pip cannot get it, and where uv knows no way to the registry."""
    assert ran(monkeypatch, tmp_path, fails) == (expected, None)


def test_a_set_up_that_nothing_can_do_names_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The last one that failed, which is pip's."""
    _, problem = ran(monkeypatch, tmp_path, "install")
    assert problem[1:3] == ["-m", "pip"]


@WITH_MAKE
def test_make_alone_lists_the_targets():
    """All of them, a line each."""
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^  make (\w+) {2,}\S", said, re.MULTILINE)
    expected = (
        "attack book browser bundle check class clean conformance help korean lab links lock "
        "newest real refresh setup soak test versions"
    )
    assert sorted(targets) == expected.split()


@WITH_MAKE
def test_make_with_a_wrong_python_says_one_line():
    """Whatever the interpreter is, if it is not 3.11 to 3.13."""
    ran = subprocess.run(
        ["make", "setup", "PYTHON=no-such-python"], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode != 0
    assert ran.stderr.startswith("Agent Lab needs Python 3.11, 3.12 or 3.13; install Python 3.12")


def fetched(address: str, within_s: float = 30.0) -> bytes:
    """What is there, once the server that announced the address listens."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(address, timeout=within_s) as answer:
                return answer.read()
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@WITH_MAKE
def test_make_lab_serves_the_course_without_a_screen():
    """It prints an address with a token; the page it opens is there; nothing is left behind."""
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "BROWSER")}
    lab = subprocess.Popen(
        ["make", "lab", "LAB_ARGS=--port=0 --no-browser", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert lab.stdout is not None
    try:
        said = ""
        for line in lab.stdout:
            said += line
            if address := re.search(r"http://127\.0\.0\.1:(\d+)/lab/tree/\S+\?token=(\w+)", line):
                break
        assert address, said
        assert "/lab/tree/notebooks/00_start_here.ipynb" in address[0]
        port, token = address.groups()
        contents = f"http://127.0.0.1:{port}/api/contents/notebooks?token={token}"
        assert b"00_start_here.ipynb" in fetched(contents)
    finally:
        os.killpg(lab.pid, signal.SIGTERM)
        lab.stdout.close()
        lab.wait(timeout=60)
