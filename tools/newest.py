"""Run lessons and tests with the newest version of everything: `make newest`.

    python tools/newest.py [--all-tests] [--workers N] [--skip-lessons] [--skip-tests]
    python tools/newest.py --report      write the page again from what ran before

Each environment is made in build/newest, by uv if there is one, else by venv and pip, under the
Python that runs this, so that what differs from the lock are the packages alone. What ran is kept
there as well, and `newest_report` writes docs/newest.md from it. A lesson or a test that differs
runs a second time, and with the lock, which says whether the newest versions are the reason.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import newest_report
from newest_report import AGAIN, FIRST

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "newest"
NOTEBOOKS = ROOT / "notebooks"
CELL_TIMEOUT_S = 600

INSTALL_THE_LOCK = ("setup", "wheel", "bundle")
"""Tests that make environments from the lock: they say nothing of newer versions."""

FRAMEWORKS = ("crewai", "distributed", "langchain_core", "langchain_openai", "langgraph", "openai")

INSTALLED = """
import json
from importlib.metadata import distributions
facts = lambda d: [d.version, d.requires or [], d.metadata["Requires-Python"]]
found = {d.name: facts(d) for d in distributions()}
print(json.dumps(found))
"""


class Environment(NamedTuple):
    """What is installed together, and where it ran."""

    name: str
    without: str = ""  # a package that keeps others old
    more: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return BUILD / self.name

    @property
    def python(self) -> Path:
        """Its Python; the one that runs this stands for the lock."""
        if self == LOCK:
            return Path(sys.executable)
        program = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
        return self.folder.joinpath("venv", *program)


LOCK = Environment("lock")
NEWEST = (Environment("course"), Environment("openai3", "crewai", ("openai>=3",)))


def uv() -> str | None:
    """The path of uv: CrewAI brings it along."""
    beside = Path(sys.executable).parent
    return shutil.which("uv", path=os.pathsep.join([str(beside), os.environ.get("PATH", "")]))


def prepare(environment: Environment) -> None:
    """Install the newest versions that fit together, from nothing, and note what came."""
    folder, python = environment.folder, str(environment.python)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wanted = folder / "requirements.txt"
    lines = newest_report.requirements(
        newest_report.project(), environment.without, environment.more
    )
    wanted.write_text("\n".join(lines), encoding="utf-8")
    base = runpy.run_path(str(ROOT / "tools" / "setup.py"), run_name="setup")["base_python"]()
    venv = str(folder / "venv")
    if program := uv():
        make = [program, "venv", "--quiet", "--python", base, venv]
        install = [program, "pip", "install", "--python", python]
    else:
        make = [base, "-m", "venv", venv]
        install = [python, "-m", "pip", "install"]
    for command in (
        make,
        [*install, "--quiet", "--upgrade", "-r", str(wanted)],
        [*install, "--quiet", "--no-deps", "--no-build-isolation", "-e", str(ROOT)],
    ):
        subprocess.run(command, check=True, cwd=ROOT)


def note_installed(environment: Environment) -> None:
    """Keep each package's version and what it asks for."""
    asked = [str(environment.python), "-I", "-c", INSTALLED]
    said = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    environment.folder.mkdir(parents=True, exist_ok=True)
    (environment.folder / "installed.json").write_text(said, encoding="utf-8")


def attempts(environment: Environment) -> Path:
    """Where the guard writes what a lesson tried to reach."""
    return environment.folder / newest_report.ATTEMPTS


def variables(environment: Environment) -> dict[str, str]:
    """Variables for whatever runs: this checkout, no key, no way out, no moving bar."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "AGENTLAB_"))}
    path = [str(ROOT / "tests" / "network_guard"), str(ROOT)]
    return kept | {
        "AGENTLAB_GUARD_LOG": str(attempts(environment)),
        "AGENTLAB_PROGRESS": "0",
        "PYTHONPATH": os.pathsep.join(path),
    }


def run_lesson(environment: Environment, lesson: Path, into: str = FIRST) -> None:
    """Execute every cell of a lesson, whatever fails on the way, and keep what it shows."""
    kept = environment.folder / into
    kept.mkdir(parents=True, exist_ok=True)
    command = [
        str(environment.python), "-m", "nbconvert", "--to", "notebook", "--execute",
        "--allow-errors", "--output-dir", str(kept), "--log-level=ERROR",
        f"--ExecutePreprocessor.timeout={CELL_TIMEOUT_S}",
        "--ExecutePreprocessor.interrupt_on_timeout=True", str(lesson),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=NOTEBOOKS, env=variables(environment), capture_output=True, text=True
    )
    broke = kept / f"{lesson.stem}.broke.txt"
    broke.unlink(missing_ok=True)
    if done.returncode:
        (*_, last) = done.stderr.strip().splitlines() or ["it says nothing"]
        broke.write_text(last, encoding="utf-8")
    print(f"{environment.name}: {lesson.stem} {'broke off' if done.returncode else 'ran'}")


def lessons(environment: Environment) -> list[Path]:
    """The lessons that can run there: one named after a package needs it."""
    found = sorted(NOTEBOOKS.glob("*.ipynb"))
    out = environment.without
    return [path for path in found if not out or out not in path.stem]


def test_files(everything: bool) -> list[str]:
    """Unit tests: those that import a framework or its client and take not long, or all."""
    frameworks = rf"^ *(?:from|import) (?:{'|'.join(FRAMEWORKS)})\b"
    sys.path.append(str(ROOT / "tests"))  # for what conftest.py imports
    slow = runpy.run_path(str(ROOT / "tests" / "conftest.py"))["LONGEST"]
    chosen = []
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        name = path.stem.removeprefix("test_")
        meets = re.search(frameworks, path.read_text(encoding="utf-8"), re.MULTILINE)
        if name not in INSTALL_THE_LOCK and (everything or (meets and name not in slow)):
            chosen.append(path.relative_to(ROOT).as_posix())
    return chosen


def run_tests(environment: Environment, files: Iterable[str], into: str, workers: int) -> None:
    """Run files of tests; what became of each test is kept as JUnit's XML."""
    environment.folder.mkdir(parents=True, exist_ok=True)
    command = [
        str(environment.python), "-m", "pytest", "-n", str(workers), "-o", "junit_family=xunit1",
        f"--junitxml={environment.folder / into}", "--tb=line", *files,
    ]  # fmt: skip
    own = variables(environment)
    del own["AGENTLAB_GUARD_LOG"]  # pytest's own process sets up the guard, as in `make test`
    own["PYTHONPATH"] = str(ROOT)
    with (environment.folder / into.replace(".xml", ".txt")).open("w", encoding="utf-8") as said:
        subprocess.run(command, cwd=ROOT, env=own, stdout=said, stderr=subprocess.STDOUT)
    print(f"{environment.name}: {into} is there")


def run_all_lessons() -> None:
    """Run each lesson in each environment; what differs again, and with the lock."""
    for environment in (LOCK, *NEWEST):
        for kept in (FIRST, AGAIN):
            shutil.rmtree(environment.folder / kept, ignore_errors=True)
        attempts(environment).unlink(missing_ok=True)
    run_lessons([(env, lesson) for env in NEWEST for lesson in lessons(env)])
    doubtful = [(env, lesson) for env in NEWEST for lesson in differing(env)]
    run_lessons([(*job, AGAIN) for job in doubtful])
    run_lessons([(LOCK, lesson) for lesson in sorted({lesson for _, lesson in doubtful})])


def differing(environment: Environment) -> list[Path]:
    """The lessons that ran and show another output than the stored one."""
    found = newest_report.changes(environment.folder / FIRST, NOTEBOOKS)
    names = sorted({change.lesson for change in found if change.diff})
    return [NOTEBOOKS / f"{name}.ipynb" for name in names]


def run_lessons(jobs: Sequence[tuple[Any, ...]]) -> None:
    """Run lessons, two at a time; each job is what `run_lesson` takes."""
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda job: run_lesson(*job), jobs):
            pass


def run_all_tests(everything: bool, workers: int) -> None:
    """Run the tests in each environment; files with a failure again, and with the lock."""
    doubtful: set[str] = set()
    for environment in (LOCK, *NEWEST):
        for file in environment.folder.glob("tests*.xml"):
            file.unlink()
    for environment in NEWEST:
        run_tests(environment, test_files(everything), "tests.xml", workers)
        failed = newest_report.failures(environment.folder / "tests.xml")
        files = {f"tests/{test.partition('::')[0]}" for test in failed}
        if files:
            run_tests(environment, sorted(files), "tests-again.xml", workers)
        doubtful |= files
    if doubtful:
        run_tests(LOCK, sorted(doubtful), "tests.xml", workers)


def on_next_python(environment: Environment) -> str:
    """What uv objects to the same packages on the next Python, as wheels; "" if nothing."""
    if (program := uv()) is None:
        return "not asked, because that needs uv"
    wanted = str(environment.folder / "requirements.txt")
    command = [program, "pip", "compile", wanted, "--quiet", "--python-version"]
    command += [newest_report.NEXT_PYTHON, "--only-binary", ":all:"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    said = re.sub(r"https?://\S+", "…", newest_report.neutral(done.stderr))
    return " ".join(said.split())[:300] if done.returncode else ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--report", action="store_true", help="only write the page again")
    parser.add_argument("--all-tests", action="store_true", help="also those that take long")
    parser.add_argument("--skip-lessons", action="store_true", help="keep what they showed before")
    parser.add_argument("--skip-tests", action="store_true", help="keep what they said before")
    parser.add_argument("--workers", type=int, default=2, help="for the tests")
    options = parser.parse_args(arguments)
    if not options.report:
        if not (options.skip_lessons or options.skip_tests):
            for environment in NEWEST:
                prepare(environment)
        for environment in (LOCK, *NEWEST):
            note_installed(environment)
        facts = {
            "date": datetime.date.today().isoformat(),
            "python": "{}.{}".format(*sys.version_info),
            "next_python": {env.name: on_next_python(env) for env in NEWEST},
            "all_tests": options.all_tests,
        }
        (BUILD / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        if not options.skip_lessons:
            run_all_lessons()
        if not options.skip_tests:
            run_all_tests(options.all_tests, options.workers)
    newest_report.write(BUILD, NOTEBOOKS)
    print(f"{newest_report.PAGE.relative_to(ROOT)} says what changed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
