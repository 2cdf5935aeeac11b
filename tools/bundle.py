"""Pack the course for a machine without a network: the files of HEAD, and every wheel of the lock.

    python tools/bundle.py                                    for this system and this Python
    python tools/bundle.py --system windows --python 3.12     for another
    python tools/bundle.py --check build/agentlab-....zip     does it install without a network?

It writes build/agentlab-SYSTEM-pyVERSION.zip and says how large it is. Who unpacks it finds the
folder agentlab-course, with INSTALL.txt; `python tools/setup.py` there makes .venv from the wheels
and asks no index. Every wheel is checked against the lock's hashes, here and there.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "agentlab-course"
PYTHONS = ("3.11", "3.12", "3.13")


class System(NamedTuple):
    """What pip and the lock call a kind of machine.

    Attributes:
        tags: The platforms whose wheels it takes, the best first.
        markers: What the lock's conditions see there.
    """

    tags: list[str]
    markers: dict[str, str]


def _linux(machine: str) -> System:
    # glibc 2.34 is that of Debian 12, Ubuntu 22.04 and RHEL 9; older wheels go there as well.
    old = [f"manylinux{name}_{machine}" for name in ("2014", "2010", "1")]
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(34, 4, -1)] + old
    return System(tags, _markers("posix", "linux", "Linux", machine))


def _markers(os_name: str, sys_platform: str, platform_system: str, machine: str) -> dict[str, str]:
    return {
        "os_name": os_name,
        "sys_platform": sys_platform,
        "platform_system": platform_system,
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }


SYSTEMS = {
    "linux": _linux("x86_64"),
    "linux-arm": _linux("aarch64"),
    "windows": System(["win_amd64"], _markers("nt", "win32", "Windows", "AMD64")),
    "macos": System(["macosx_14_0_arm64"], _markers("posix", "darwin", "Darwin", "arm64")),
}

# Every output of lesson 00, compared with the stored one.
LESSON = (
    "-p no:cacheprovider -p nbval --nbval --nbval-current-env --nbval-cell-timeout 600 "
    "--nbval-sanitize-with tests/nbval_sanitize.cfg notebooks/00_start_here.ipynb"
).split()

INSTALL = """Agent Lab, for a machine without a network
==========================================

For {system}, Python {python}. {count} packages, {size_mb} MB, all from the course's lock.

1. Install Python {python} if it is not there; it is not in this bundle. {hint}
2. Unpack this folder where it may stay: .venv holds its path. Keep {room_gb} GB free.
3. In this folder, once, for some minutes:

       {setup}

   Every package comes from wheels/ and is checked against requirements.lock. No index is asked.
4. Each time:

       {lab}

If something is wrong: docs/troubleshooting.md. What to do with it in a class: docs/teaching.md.
"""


def this_system() -> str:
    """The name of the machine that this runs on, among `SYSTEMS`.

    Raises:
        SystemExit: If no wheels are locked for it, as for Macs with Intel processors.
    """
    here = (platform.system(), platform.machine())
    for name, system in SYSTEMS.items():
        if (system.markers["platform_system"], system.markers["platform_machine"]) == here:
            return name
    raise SystemExit(
        f"no bundle for {' '.join(here)}; name one with --system: {', '.join(SYSTEMS)}"
    )


def wanted(lock: str, system: System, python: str) -> dict[str, dict[str, list[str]]]:
    """What the lock asks for on such a machine: full Python version -> pinned package -> hashes.

    A condition may turn on the last part of Python's version ("below 3.11.5"), which a bundle
    cannot know. So it is packed for both ends, the second with what only it needs.

    Example:
        >>> wanted("colorama==0.4.6 ; os_name == 'nt'", SYSTEMS["windows"], "3.12")
        {'3.12.99': {'colorama==0.4.6': []}, '3.12.0': {}}
    """
    versions: dict[str, dict[str, list[str]]] = {f"{python}.99": {}, f"{python}.0": {}}
    for entry in re.split(r"\n(?=\S)", lock.strip()):
        line, *hashes = (part.strip() for part in entry.split("\\\n"))
        requirement = Requirement(line)
        pinned = f"{requirement.name}{requirement.specifier}"
        for version, needed in versions.items():
            machine = system.markers | {"python_version": python, "python_full_version": version}
            applies = requirement.marker is None or requirement.marker.evaluate(machine)
            if applies and not any(pinned in others for others in versions.values()):
                needed[pinned] = [h.removeprefix("--hash=sha256:") for h in hashes]
    return versions


def fetch(lock: str, system: System, python: str, folder: Path) -> list[Path]:
    """The wheels of the lock, in `folder`; those that lie there already are not fetched again.

    Raises:
        SystemExit: If pip fails; it has said why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wheels: list[Path] = []
    for version, needed in wanted(lock, system, python).items():
        if missing := {p: h for p, h in needed.items() if not _wheel_of(h, folder)}:
            _download(missing, system, version, folder)
        for package, hashes in needed.items():
            wheel = _wheel_of(hashes, folder)
            if wheel is None:
                raise SystemExit(f"no bundle: there is no wheel of {package} in {folder}")
            wheels.append(wheel)
    return sorted(wheels)


def _wheel_of(hashes: Sequence[str], folder: Path) -> Path | None:
    there = {_digest(wheel): wheel for wheel in folder.glob("*.whl")}
    return next((there[one] for one in hashes if one in there), None)


@cache
def _digest(wheel: Path) -> str:
    return sha256(wheel.read_bytes()).hexdigest()


def _download(
    packages: Mapping[str, Sequence[str]], system: System, version: str, folder: Path
) -> None:
    # pip judges conditions by the machine it runs on, so it gets them judged: names and hashes.
    pinned = [[name, *(f"--hash=sha256:{h}" for h in some)] for name, some in packages.items()]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "requirements.txt"
        file.write_text("\n".join(" ".join(words) for words in pinned) + "\n")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command += ["--quiet", "--no-deps", "--require-hashes", "-r", str(file)]
        command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={version}"]
        command += [f"--platform={tag}" for tag in system.tags]
        if subprocess.call([*command, "--dest", str(folder)]) != 0:
            raise SystemExit("no bundle: pip could not get a wheel; see its message above")


def course(root: Path, file: Path) -> None:
    """Write the checkout as it is committed to a zip file.

    Raises:
        SystemExit: If `root` is no git checkout.
    """
    archive = ["git", "archive", "--format=zip", f"--prefix={FOLDER}/", f"--output={file}", "HEAD"]
    if subprocess.call(archive, cwd=root) != 0:
        raise SystemExit(f"no bundle: {root} is no git checkout, or git is not installed")


def instructions(name: str, python: str, wheels: Sequence[Path]) -> str:
    """INSTALL.txt for such a machine."""
    size_mb = sum(wheel.stat().st_size for wheel in wheels) / 1e6
    hint = "python.org has it."
    if name == "windows":
        setup = f"py -{python} tools\\setup.py"
        lab = r".venv\Scripts\jupyter lab --config=tools\jupyterlab\config.py"
    else:
        if name.startswith("linux"):
            hint = f"On Debian and Ubuntu:\n   python{python} and python{python}-venv."
        setup = f"python{python} tools/setup.py"
        lab = ".venv/bin/jupyter lab --config=tools/jupyterlab/config.py"
    return INSTALL.format(
        system=name,
        python=python,
        hint=hint,
        count=len(wheels),
        size_mb=round(size_mb),
        room_gb=1 + int(size_mb / 200),  # unpacked, packages are four times as large
        setup=setup,
        lab=lab,
    )


def bundle(name: str, python: str, *, root: Path = ROOT, build: Path = ROOT / "build") -> Path:
    """Make the bundle for a system and a Python; returns the zip file.

    Raises:
        SystemExit: With one line, if there is no checkout, or a wheel cannot be had.
    """
    lock = (root / "requirements.lock").read_text()
    wheels = fetch(lock, SYSTEMS[name], python, build / "wheels" / f"{name}-py{python}")
    file = build / f"agentlab-{name}-py{python}.zip"
    course(root, file)
    with zipfile.ZipFile(file, "a") as packed:
        text = instructions(name, python, wheels)
        packed.writestr(f"{FOLDER}/INSTALL.txt", text, zipfile.ZIP_DEFLATED)
        for wheel in wheels:
            packed.write(wheel, f"{FOLDER}/wheels/{wheel.name}", zipfile.ZIP_STORED)
    return file


def without_network() -> list[str]:
    """What runs a command where no network is but loopback; empty if this machine cannot do that.

    Example: subprocess.run([*without_network(), "curl", "https://example.org"]) fails
    """
    with_loopback = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    for namespace in (["unshare", "-n"], ["unshare", "-rn"]):
        if shutil.which("unshare") and _works([*namespace, *with_loopback, "true"]):
            return [*namespace, *with_loopback]
    return []


def _works(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def check(file: Path) -> None:
    """Unpack a bundle elsewhere, install it without a network, and run lesson 00 with it.

    Raises:
        subprocess.CalledProcessError: If one of the steps fails.
    """
    fence = without_network()
    print("network:", "none, in a namespace" if fence else "no index is asked; no namespaces here")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
    with tempfile.TemporaryDirectory() as scratch:
        shutil.unpack_archive(file, scratch)
        folder = Path(scratch) / FOLDER
        program = folder / ".venv" / ("Scripts" if os.name == "nt" else "bin")
        for command in (
            [getattr(sys, "_base_executable", sys.executable), "tools/setup.py"],
            [str(program / "agentlab"), "--help"],
            [
                str(program / "python"),
                "-c",
                "import agentlab.lab.crews, crewai, langgraph, distributed",
            ],
            [str(program / "python"), "-m", "pytest", *LESSON],
        ):
            subprocess.run([*fence, *command], cwd=folder, env=environment, check=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--system", choices=SYSTEMS, help="default: this machine's")
    here = "{}.{}".format(*sys.version_info)
    parser.add_argument("--python", choices=PYTHONS, default=here, help="default: this one")
    parser.add_argument("--check", metavar="ZIP", type=Path, help="install one for a trial")
    options = parser.parse_args(arguments)
    if options.check:
        check(options.check)
        return 0
    file = bundle(options.system or this_system(), options.python)
    print(f"{os.path.relpath(file)}: {file.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
