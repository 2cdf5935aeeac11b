"""Make the course's environment, .venv, from the lock: `python tools/setup.py`.

It runs on the standard library alone, on every system, and under any Python 3, if only to say
which one is needed. uv installs in seconds what takes pip minutes, so where there is no uv, pip
fetches it first, and where uv fails, because only pip knows the way to the registry, pip does it
all. A second run does nothing unless the lock, the project file or the Python changed.

`--venv DIR` makes it elsewhere, as `make versions` does for other Pythons.

Where the folder wheels/ lies beside the lock, as in the offline bundle, or `--wheels DIR` names
one, every package comes from there and no network is used.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 13)
ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
WHEELS = ROOT / "wheels"


def wrong_python(version):
    """One line that says which Python to install, or None if `version` will do."""
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return None
    return (
        "Agent Lab needs Python 3.11, 3.12 or 3.13, and this is {}.{}; install Python 3.12 from "
        "python.org or your system's packages, or name one: make PYTHON=python3.12".format(*version)
    )


def fingerprint(root, version):
    """What an environment depends on: the lock, the project file, this script, the Python."""
    digest = hashlib.sha256(repr(tuple(version[:3])).encode())
    for name in ("requirements.lock", "pyproject.toml", "tools/setup.py"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def base_python():
    """The Python outside any environment: one inside .venv would be deleted with it."""
    return getattr(sys, "_base_executable", None) or sys.executable


def program(name, venv=VENV):
    """The path of a program inside the environment."""
    return str(venv / ("Scripts" if os.name == "nt" else "bin") / name)


def steps(uv, wheels=None, venv=VENV):
    """The commands that make the environment, in order.

    The module comes in a step of its own, since pip refuses it beside a lock with hashes. Byte
    code is compiled now, so that the first notebook need not. With `wheels`, a folder, it is pip
    that installs, for uv would fetch pip; and pip heeds no setting that could name an index.
    """
    locked = ["--require-hashes", "-r", str(LOCK)]
    module = ["--no-deps", "--no-build-isolation", "-e", str(ROOT)]
    if uv and not wheels:
        python = ["--python", program("python", venv)]
        return [
            [uv, "venv", "--quiet", "--seed", "--python", base_python(), str(venv)],
            [uv, "pip", "install", "--compile-bytecode", *python, *locked],
            [uv, "pip", "install", *python, *module],
        ]
    pip = [
        program("python", venv),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
    ]
    if wheels:
        pip[3:3] = ["--isolated"]
        pip += ["--no-index", "--find-links", wheels]
    return [
        [base_python(), "-m", "venv", str(venv)],
        [*pip, *locked],
        [*pip, *module],
    ]


def fetched_uv(folder):
    """The path of uv in the lock's version, which pip puts into `folder`; None where it cannot."""
    lines = LOCK.read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("uv=="))
    last = next(n for n in range(first, len(lines)) if not lines[n].endswith("\\"))
    only = folder / "uv.txt"
    only.write_text("\n".join(lines[first : last + 1]))
    pip = [program("python", folder), "-m", "pip", "--disable-pip-version-check", "install"]
    commands = [
        [base_python(), "-m", "venv", str(folder)],
        [*pip, "--quiet", "--only-binary=:all:", "--require-hashes", "-r", str(only)],
    ]
    return None if failed(commands) else program("uv", folder)


def failed(commands):
    """The first of the commands that fails, or None."""
    for command in commands:
        if subprocess.call(command, cwd=str(ROOT), stdout=subprocess.DEVNULL) != 0:
            return command
    return None


def made(venv, wheels=None):
    """None if the environment is there now, else the command that failed."""
    with tempfile.TemporaryDirectory() as folder:
        uv = None if wheels else shutil.which("uv") or fetched_uv(Path(folder))
        if uv:
            if not failed(steps(uv, venv=venv)):
                return None
            print("uv could not; pip tries, which takes a few minutes.", flush=True)
            shutil.rmtree(str(venv), ignore_errors=True)
        return failed(steps(None, wheels, venv))


def trust_notebooks(venv=VENV):
    """Let JupyterLab show stored pictures and HTML: these notebooks are the course's own."""
    folders = (ROOT / "notebooks", ROOT / "notebooks" / "ko")
    notebooks = [str(path) for folder in folders for path in sorted(folder.glob("*.ipynb"))]
    trust = [program("jupyter", venv), "trust", *notebooks]
    return trust if notebooks else [program("python", venv), "-V"]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wheels", metavar="DIR", help="install from here, without a network")
    parser.add_argument("--venv", metavar="DIR", default=str(VENV), help="the environment's place")
    options = parser.parse_args(arguments)
    given, venv = options.wheels, Path(os.path.abspath(options.venv))
    stamp = venv / "agentlab-setup"
    wheels = os.path.abspath(given) if given else str(WHEELS) if WHEELS.is_dir() else None
    problem = wrong_python(sys.version_info)
    if problem is None and wheels and not os.path.isdir(wheels):
        problem = "there is no folder {}; name the one that holds the wheels".format(wheels)
    if problem:
        print(problem, file=sys.stderr)
        return 1
    wanted = fingerprint(ROOT, sys.version_info)
    if stamp.exists() and stamp.read_text() == wanted:
        return 0
    print("Setting up {}, once; this takes a minute or a few.".format(venv.name), flush=True)
    shutil.rmtree(str(venv), ignore_errors=True)  # half an environment is worse than none
    problem = made(venv, wheels) or failed([trust_notebooks(venv)])
    if problem:
        print(
            "Set-up stopped at: {}\nSee above; then try again. Nothing half-made will be "
            "used.".format(" ".join(problem)),
            file=sys.stderr,
        )
        return 1
    stamp.write_text(wanted)  # last of all, so that an interrupted set-up starts over
    print("Ready: {} holds the course's environment.".format(venv.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
