"""The offline bundle: what is packed for which machine, and that it installs without a network."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_setup import LOCK, SETUP

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import bundle  # noqa: E402  tools/ is no package

EVERYWHERE = [(name, python) for name in bundle.SYSTEMS for python in bundle.PYTHONS]


def names(wanted: dict[str, dict[str, list[str]]]) -> set[str]:
    return {pinned.partition("==")[0] for needed in wanted.values() for pinned in needed}


@pytest.mark.parametrize(("name", "python"), EVERYWHERE)
def test_each_machine_gets_what_its_conditions_ask_for(name: str, python: str):
    """Windows gets pywin32 and no uvloop, macOS appnope, and all of them the frameworks."""
    packages = names(bundle.wanted(LOCK, bundle.SYSTEMS[name], python))
    assert {"crewai", "langgraph", "jupyterlab", "distributed", "hatchling"} <= packages
    assert ("pywin32" in packages, "uvloop" in packages) == (name == "windows", name != "windows")
    assert ("appnope" in packages) == (name == "macos")


def test_a_condition_on_the_last_part_of_the_version_packs_both():
    """A bundle for 3.11 serves 3.11.2 as well as 3.11.9; only what differs is there twice."""
    lock = "a==1 ; python_full_version < '3.11.5'\na==2 ; python_full_version >= '3.11.5'\nb==1"
    assert bundle.wanted(lock, bundle.SYSTEMS["linux"], "3.11") == {
        "3.11.99": {"a==2": [], "b==1": []},
        "3.11.0": {"a==1": []},
    }


def test_hashes_go_with_their_package():
    """Each pinned package keeps all the hashes of the lock, and nothing else."""
    for needed in bundle.wanted(LOCK, bundle.SYSTEMS["linux"], "3.12").values():
        for hashes in needed.values():
            assert hashes
            assert all(re.fullmatch("[0-9a-f]{64}", one) for one in hashes)


def test_this_machine_has_a_name():
    """Or the way out is told."""
    assert bundle.this_system() in bundle.SYSTEMS


@pytest.mark.parametrize("name", bundle.SYSTEMS)
def test_the_instructions_name_commands_of_the_system(name: str, tmp_path: Path):
    """Its Python and its slashes, the size, and no placeholder left."""
    wheel = tmp_path / "a-1-py3-none-any.whl"
    wheel.write_bytes(b"0" * 2_000_000)
    said = bundle.instructions(name, "3.12", [wheel])
    assert ("-venv" in said) == name.startswith("linux")
    assert ("py -3.12 tools\\setup.py" in said) == (name == "windows")
    assert ("python3.12 tools/setup.py" in said) == (name != "windows")
    assert "1 packages, 2 MB" in said
    assert not re.search(r"[{}]", said)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A checkout like the course's, with one package in its lock, and that one's wheel at hand.

    The package is a stand-in for all: it is flit_core as well, which builds the module.
    """
    if shutil.which("git") is None:
        pytest.skip("there is no git here, which a bundle is made with")
    wheel = _wheel(tmp_path / "build" / "wheels" / _target())
    root = tmp_path / "course"
    (root / "tools").mkdir(parents=True)
    (root / "tools" / "setup.py").write_text((ROOT / "tools" / "setup.py").read_text())
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (root / "requirements.lock").write_text(f"tiny-build==1.0 \\\n    --hash=sha256:{digest}\n")
    (root / "pyproject.toml").write_text(PROJECT)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Course"]):
        subprocess.run([*git, *command], cwd=root, check=True)
    return root


PROJECT = """[build-system]
requires = ["tiny-build"]
build-backend = "tiny_build"

[project]
name = "course"
version = "1.0"
"""

BACKEND = '''"""Builds an editable wheel of one .pth file, as flit_core does for the course."""
import os, zipfile


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "course-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        wheel.writestr("course.pth", os.getcwd())
        wheel.writestr("course-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: course\\nVersion: 1.0\\n")
        wheel.writestr("course-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("course-1.0.dist-info/RECORD", "")
    return name


build_wheel = build_editable
'''  # fmt: skip  # noqa: E501


def _target() -> str:
    return f"{bundle.this_system()}-py{'{}.{}'.format(*sys.version_info)}"


def _wheel(folder: Path) -> Path:
    folder.mkdir(parents=True)
    path = folder / "tiny_build-1.0-py3-none-any.whl"
    about = "tiny_build-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_build.py", BACKEND)
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-build\nVersion: 1.0")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return path


def packed(root: Path) -> Path:
    python = "{}.{}".format(*sys.version_info)
    return bundle.bundle(bundle.this_system(), python, root=root, build=root.parent / "build")


def test_a_bundle_holds_the_committed_files_the_wheels_and_the_instructions(tiny: Path):
    """And nothing that is not committed."""
    (tiny / "notes.txt").write_text("mine alone")
    with zipfile.ZipFile(packed(tiny)) as file:
        assert {name for name in file.namelist() if not name.endswith("/")} == {
            "agentlab-course/INSTALL.txt",
            "agentlab-course/pyproject.toml",
            "agentlab-course/requirements.lock",
            "agentlab-course/tools/setup.py",
            "agentlab-course/wheels/tiny_build-1.0-py3-none-any.whl",
        }


def unpacked(root: Path) -> Path:
    where = root.parent / "elsewhere"
    with zipfile.ZipFile(packed(root)) as file:
        file.extractall(where)
    return where / bundle.FOLDER


def test_it_installs_without_a_network(tiny: Path):
    """In a fresh folder, in a namespace that has none: the locked package and the module work."""
    folder = unpacked(tiny)
    # No notebooks to trust here; what is left of the set-up is the real one.
    command = [*bundle.without_network(), sys.executable, "tools/setup.py"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHONPATH"))}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    python = folder / ".venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    asked = "import tiny_build, importlib.metadata as m; print(m.version('course'))"
    said = subprocess.run([python, "-c", asked], env=environment, capture_output=True, text=True)
    assert said.stdout == "1.0\n"


def test_a_wheel_that_is_not_the_locks_is_refused(tiny: Path):
    """A changed byte stops the set-up, and nothing half-made is used."""
    folder = unpacked(tiny)
    (wheel,) = (folder / "wheels").iterdir()
    with zipfile.ZipFile(wheel, "a") as file:
        file.writestr("more.py", "")
    ran = subprocess.run(
        [sys.executable, "tools/setup.py"], cwd=folder, capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert "DO NOT MATCH THE HASHES" in ran.stderr
    assert not (folder / ".venv" / "agentlab-setup").exists()


def test_what_lies_there_is_not_fetched_again(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """Equal hashes are equal wheels; pip is not asked."""
    monkeypatch.setattr(bundle, "_download", lambda *_: pytest.fail("it was fetched"))
    assert packed(tiny).is_file()


def test_another_wheel_of_the_package_is_no_substitute(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """One whose hash the lock does not have is fetched anew; without the right one, no bundle."""
    lock = (tiny / "requirements.lock").read_text()
    (tiny / "requirements.lock").write_text(re.sub(r"[0-9a-f]{64}", "0" * 64, lock))
    asked: list[str] = []
    monkeypatch.setattr(bundle, "_download", lambda packages, *_: asked.extend(packages))
    with pytest.raises(SystemExit, match=r"no wheel of tiny-build==1\.0"):
        packed(tiny)
    assert asked == ["tiny-build==1.0"]


def test_a_folder_that_is_no_checkout_is_told(tmp_path: Path):
    """In one line."""
    with pytest.raises(SystemExit, match="no git checkout"):
        bundle.course(tmp_path, tmp_path / "bundle.zip")


def test_set_up_from_wheels_asks_no_index():
    """Neither uv, which would fetch pip, nor a setting of pip's that names an index."""
    make, *installs = SETUP["steps"]("/usr/bin/uv", "/wheels")
    assert make[1:3] == ["-m", "venv"]
    for command in installs:
        assert command[3] == "--isolated"
        assert command[command.index("--no-index") :][:3] == [
            "--no-index",
            "--find-links",
            "/wheels",
        ]


def test_without_wheels_set_up_is_as_before():
    """uv if there is one; no word of wheels."""
    for uv in (None, "/usr/bin/uv"):
        assert not [word for command in SETUP["steps"](uv) for word in command if "index" in word]
