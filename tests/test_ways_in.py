"""The ways in without a set-up of one's own: their files name what there is, and nothing else."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))


def devcontainer() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(text(".devcontainer/devcontainer.json"))
    return loaded


def pythons() -> tuple[str, str]:
    """The oldest Python that the project takes, and the first that it does not."""
    wanted = tomllib.loads(text("pyproject.toml"))["project"]["requires-python"]
    found = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", wanted)
    assert found
    return found[1], found[2]


def test_the_devcontainer_sets_up_as_the_readme_does():
    """`make setup` makes .venv, which VS Code then takes; notebooks run in their own folder."""
    chosen = devcontainer()
    assert chosen["postCreateCommand"] == "make setup" and "setup" in targets()
    settings = chosen["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"].endswith("/.venv/bin/python")
    assert settings["jupyter.notebookFileRoot"] == "${fileDirname}"  # it says the language
    assert (ROOT / "notebooks" / "00_start_here.ipynb").exists()


def test_containers_have_a_python_of_the_course():
    """The images' version is one that the project takes."""
    oldest, too_new = pythons()
    images = [devcontainer()["image"], *re.findall(r"^FROM (\S+)", text("Dockerfile"), re.M)]
    for image in images:
        found = re.search(r"3\.(\d+)", image)
        assert found and int(oldest) <= int(found[1]) < int(too_new), image


def test_the_dockerfile_copies_what_there_is():
    """Each path that it copies, and each target that it makes, exists."""
    dockerfile = text("Dockerfile")
    for line in re.findall(r"^COPY --chown=learner (.+)$", dockerfile, re.M):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line
    made = re.findall(r'^RUN make (\w+)|"make", "(\w+)"', dockerfile, re.M)
    assert {one or other for one, other in made} == {"setup", "lab"} <= targets()


def test_what_setting_up_needs_is_copied_before_it():
    """The lock, the project file and the set-up program; lessons come after."""
    before, after = text("Dockerfile").split("RUN make setup")
    for needed in ("requirements.lock", "pyproject.toml", "tools", "Makefile", "agentlab", "data"):
        assert needed in before
    assert "COPY --chown=learner . ." in after and "notebooks " not in before


def test_the_workflow_runs_the_projects_own_check():
    """On each Python of the course, and with no steps of its own beyond getting there."""
    job = yaml.safe_load(text(".github/workflows/test.yml"))["jobs"]["test"]
    oldest, too_new = pythons()
    expected = [f"3.{minor}" for minor in range(int(oldest), int(too_new))]
    assert job["strategy"]["matrix"]["python"] == expected
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]


def test_binder_installs_the_lock():
    """environment.yml and postBuild, which repo2docker reads: the lock, then the module."""
    chosen = yaml.safe_load(text("environment.yml"))
    (pip,) = [part["pip"] for part in chosen["dependencies"] if isinstance(part, dict)]
    assert pip == ["-r requirements.lock"]
    assert "pip install --no-deps --no-build-isolation -e ." in text("postBuild")
