"""Compare every lesson with its stored outputs on each other Python from 3.11 to 3.13.

    python tools/versions.py [PYTHON ...]

Pythons are those on the PATH that really run, those that pyenv has installed, and any that are
named. Each has an environment of its own in build/pythons. The Python that runs this is not
compared again: `make test` did that.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETUP = runpy.run_path(str(ROOT / "tools" / "setup.py"), run_name="setup")
VERSIONS = ("3.11", "3.12", "3.13")
VERSION = "import sys; print('{}.{}'.format(*sys.version_info))"


def found(named: list[str]) -> dict[str, str]:
    """Version -> program, of each usable Python that runs; one that is named comes first."""
    programs: dict[str, str] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    installed = sorted(map(str, pyenv.glob("3.*/bin/python3")))  # its `python3.12` may run none
    for name in [*named, *(f"python{version}" for version in VERSIONS), *installed]:
        program = shutil.which(name)
        if program is None:
            continue
        ran = subprocess.run([program, "-c", VERSION], capture_output=True, text=True)
        version = ran.stdout.strip()
        if (
            ran.returncode == 0
            and SETUP["wrong_python"](tuple(map(int, version.split(".")))) is None
        ):
            programs.setdefault(version, program)
    return programs


def compare(version: str, program: str) -> int:
    """Run nbval on every lesson in an environment of that Python."""
    venv = ROOT / "build" / "pythons" / version
    made = subprocess.call([program, "tools/setup.py", "--venv", str(venv)], cwd=ROOT)
    if made:
        return made
    nbval = [
        SETUP["program"]("python", venv), "-m", "pytest", "-p", "nbval", "-p", "nbval_refresh",
        "--nbval", "--nbval-current-env", "--nbval-cell-timeout", "600", "--nbval-sanitize-with",
        "tests/nbval_sanitize.cfg", "-n", "2", "--dist", "loadscope", "notebooks",
        "--ignore", "notebooks/ko",
    ]  # fmt: skip
    return subprocess.call(nbval, cwd=ROOT, env=os.environ | {"PYTHONPATH": "tools"})


def main() -> int:
    here = "{}.{}".format(*sys.version_info)
    programs = found(sys.argv[1:])
    failed = {v: code for v, p in programs.items() if v != here and (code := compare(v, p))}
    print(f"Lessons compared on Python {here}, by make test.")
    for version in sorted({*VERSIONS} - {here}):
        said = "is not found here" if version not in programs else "compared"
        print(f"Python {version}: {'FAILED' if version in failed else said}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
