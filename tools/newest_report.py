"""Decide what newer versions changed, and write it down: docs/newest.md.

`newest` runs lessons and tests; this compares what they showed with what is stored. An output has
changed where `make refresh` would store another one. A figure has moved where two lines are alike
but for their numbers, and one of those differs by more than a fifth.
"""

from __future__ import annotations

import base64
import copy
import difflib
import json
import re
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import refresh_notebooks
from lint_notebooks import WALL_CLOCK
from nbformat import NotebookNode
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "newest.md"
BELOW = "<!-- make newest writes what is below -->\n"
NEXT_PYTHON = "3.14"
FIRST, AGAIN = "executed", "executed-again"  # folders with the lessons that ran
ATTEMPTS = "attempts.txt"
MOVED = 0.2
LINES_SHOWN = 14
WIDTH = 110

TITLES = {
    "lock": "the lock",
    "course": "the newest of everything",
    "openai3": "openai 3, without CrewAI",
}
"""What the environments of `newest` are called on the page."""

CALLED = {"dask": "distributed", "langchain-core": "langchain-core"}
"""What statements name beside the packages that are asked for -> its package."""

WRITTEN_BY_OTHERS = {"newest.md", "conformance.md"}
"""Pages with versions that another command keeps."""

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?!\.?\d)")


class Package(NamedTuple):
    """An installed package: its version, what it asks for, and its range of Pythons."""

    version: str
    requires: list[str]
    python: str | None


class Figure(NamedTuple):
    """A number that moved: before, after, and the line in which it stands."""

    before: float
    after: float
    line: str


class Change(NamedTuple):
    """A code cell that shows something else; `number` counts all cells of a lesson, from 1."""

    lesson: str
    number: int
    cell: str
    diff: list[str]
    moved: list[Figure]
    wall_clock: bool = False


class Statement(NamedTuple):
    """A version that a lesson or a page names."""

    where: str
    package: str
    version: str


def project() -> dict[str, Any]:
    """What pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(said: dict[str, Any], without: str = "", more: Sequence[str] = ()) -> list[str]:
    """What a pyproject.toml asks for, all extras and the dev group, less one package; and more."""
    about = said["project"]
    listed = [
        *about["dependencies"],
        *(line for extra in about["optional-dependencies"].values() for line in extra),
        *said["dependency-groups"]["dev"],
    ]
    out = {about["name"], without}
    return [line for line in listed if Requirement(line).name not in out] + [*more]


def installed(folder: Path) -> dict[str, Package]:
    """What an environment of `newest` holds, by canonical name."""
    said = json.loads((folder / "installed.json").read_text(encoding="utf-8"))
    return {canonicalize_name(name): Package(*facts) for name, facts in said.items()}


def held_back(
    here: Mapping[str, Package], elsewhere: Mapping[str, Package]
) -> dict[str, list[str]]:
    """Packages that are newer elsewhere, and who refuses that version here, with its words.

    An environment marker that does not hold, or an extra, asks for nothing.
    """
    found: dict[str, list[str]] = {}
    for name, package in sorted(here.items()):
        newer = elsewhere.get(name)
        if newer is None or Version(newer.version) <= Version(package.version):
            continue
        found[f"{name} {package.version} ({newer.version} elsewhere)"] = sorted(
            f"{other} {asking.version} wants {name}{asked.specifier}"
            for other, asking in here.items()
            for asked in map(Requirement, asking.requires)
            if canonicalize_name(asked.name) == name
            and (asked.marker is None or asked.marker.evaluate({"extra": ""}))
            and not asked.specifier.contains(newer.version, prereleases=True)
        )
    return found


def refusing(packages: Mapping[str, Package], python: str) -> list[str]:
    """Packages whose own metadata exclude a Python, as `name version (range)`."""
    return [
        f"{name} {package.version} (`{package.python}`)"
        for name, package in sorted(packages.items())
        if package.python and not SpecifierSet(package.python).contains(f"{python}.0")
    ]


def neutral(text: str) -> str:
    """Text without colours, addresses of objects, or folders of the machine that ran it."""
    text = refresh_notebooks.sanitized(re.sub(r"\x1b\[[\d;]*m", "", text))
    lock = (ROOT / ".venv").resolve().parent
    folders = (ROOT, lock, sys.prefix, sys.base_prefix, Path.home(), tempfile.gettempdir())
    for folder in sorted({str(folder) for folder in folders}, key=len, reverse=True):
        text = text.replace(f"{folder}/", "")
    return text


def shown(outputs: Sequence[NotebookNode]) -> list[str]:
    """The lines that a cell shows; a picture is one line, with its size."""
    texts = []
    for output in outputs:
        data = output.get("data", {})
        if output.output_type == "error":
            texts.append(f"{output.ename}: {output.evalue}")
        elif picture := data.get("image/png"):
            texts.append(f"[a picture of {len(base64.b64decode(picture)):,} bytes]")
        else:
            texts.append(output.get("text") or data.get("text/plain") or " ".join(sorted(data)))
    return neutral("\n".join(text.rstrip("\n") for text in texts)).splitlines()


def moved(before: Sequence[str], after: Sequence[str]) -> list[Figure]:
    """Figures that differ by more than a fifth, in lines that are alike but for their numbers."""

    def words(line: str) -> str:
        return " ".join(NUMBER.sub("#", line).split())

    found = []
    matcher = difflib.SequenceMatcher(None, [*map(words, before)], [*map(words, after)], False)
    for match in matcher.get_matching_blocks():
        for offset in range(match.size):
            old, new = before[match.a + offset], after[match.b + offset]
            for one, other in zip(NUMBER.findall(old), NUMBER.findall(new), strict=True):
                a, b = (float(figure.replace(",", "")) for figure in (one, other))
                if abs(b - a) > MOVED * abs(a):
                    found.append(Figure(a, b, " ".join(new.split())))
    return found


def changed_cells(lesson: str, stored: NotebookNode, ran: NotebookNode) -> list[Change]:
    """Cells whose outputs a refresh would not keep, and wall-clock cells with a figure moved."""
    kept = nbformat.reads(refresh_notebooks.as_kept(copy.deepcopy(ran), stored), as_version=4)
    found = []
    cells = zip(stored.cells, kept.cells, ran.cells, strict=True)
    for number, (before, after, raw) in enumerate(cells, 1):
        if before.cell_type != "code":
            continue
        wall_clock = WALL_CLOCK in before.metadata.get("tags", [])
        differs = not refresh_notebooks.same(before.outputs, after.outputs)
        old, new = shown(before.outputs), shown(raw.outputs)
        figures = moved(old, new)
        if differs or (wall_clock and figures):
            diff = [*difflib.unified_diff(old, new, lineterm="", n=0)][2:] if differs else []
            lines = [line for line in diff if not line.startswith("@@")]
            said = lines or ["(a picture, or the kind of an output)"] * differs
            found.append(Change(lesson, number, before.id, said, figures, wall_clock))
    return found


def changes(folder: Path, notebooks: Path) -> list[Change]:
    """What each lesson in a folder shows otherwise; one that broke off says so."""
    found = []
    for path in sorted(folder.glob("*")):
        lesson = path.name.partition(".")[0]
        if path.name.endswith(".broke.txt"):
            said = [neutral(path.read_text(encoding="utf-8"))]
            found.append(Change(lesson, 0, "the lesson broke off", said, []))
        elif path.suffix == ".ipynb":
            stored = nbformat.read(notebooks / path.name, as_version=4)
            found += changed_cells(lesson, stored, nbformat.read(path, as_version=4))
    return found


def lasting(first: Sequence[Change], again: Sequence[Change]) -> list[Change]:
    """Changes of outputs that came again when the lesson did; and moved figures of the clock."""
    came_again = {(change.lesson, change.cell) for change in again}
    return [c for c in first if not c.diff or (c.lesson, c.cell) in came_again]


def attempts(folder: Path) -> list[str]:
    """Attempts to leave this machine, all refused by the guard: where to, and who tried."""
    log = folder / ATTEMPTS
    tried = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return sorted({neutral(re.sub(r" in process \d+", "", line)) for line in tried})


def statements(where: str, text: str, names: Sequence[str]) -> Iterator[Statement]:
    """Versions of these packages that a text names, as in "LangGraph 1.2.22"."""
    called = "|".join(sorted(map(re.escape, {*names, *CALLED}), key=len, reverse=True))
    pattern = rf"(?<![\w-])({called})[ =*`]{{1,4}}v?(\d+(?:\.\d+)+)"
    for name, version in re.findall(pattern, text, re.IGNORECASE):
        package = canonicalize_name(name)
        yield Statement(where, CALLED.get(package, package), version)


def all_statements(names: Sequence[str]) -> list[Statement]:
    """The statements of every page and of what every lesson says, prose and code."""
    tops = [ROOT / name for name in ("README.md", "DESIGN.md", "CONTRIBUTING.md")]
    found: list[Statement] = []
    for page in [*tops, *sorted((ROOT / "docs").rglob("*.md"))]:
        if page.name not in WRITTEN_BY_OTHERS:
            text = page.read_text(encoding="utf-8")
            found += statements(page.relative_to(ROOT).as_posix(), text, names)
    for lesson in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        for number, cell in enumerate(nbformat.read(lesson, as_version=4).cells, 1):
            where = f"{lesson.relative_to(ROOT / 'notebooks').with_suffix('')}, cell {number}"
            found += statements(where, cell.source, names)
    return found


def agrees(stated: str, version: str) -> bool:
    """True if a version is the stated one, as exactly as that is stated."""
    return f"{version}.".startswith(f"{stated}.")


def age(stated: str, lock: str, newest: Sequence[str]) -> str:
    """What has become of a statement: `current`, `old`, or `earlier` than the lock."""
    if any(agrees(stated, version) for version in newest):
        return "current"
    return "old" if agrees(stated, lock) else "earlier"


def failures(file: Path) -> dict[str, str]:
    """Tests that failed, each with what it says first; the name begins with its file."""
    found = {}
    for case in ET.parse(file).iter("testcase") if file.exists() else ():
        for bad in [*case.findall("failure"), *case.findall("error")]:
            name, said = case.get("name", ""), bad.get("message", "")
            if said == "collection failure":
                lines = [line for line in (bad.text or "").splitlines() if line.startswith("E ")]
                name, said = "cannot be imported", lines[-1].lstrip("E ") if lines else said
            path = case.get("file", "").removeprefix("tests/")
            found[f"{path}::{name}"] = " ".join(neutral(said).split())
    return found


def tests_run(file: Path) -> int:
    return sum(1 for _ in ET.parse(file).iter("testcase")) if file.exists() else 0


# From here on the page is written.


def write(build: Path, notebooks: Path) -> None:
    """Write what is below the page's mark; what is above it is a person's."""
    facts = json.loads((build / "facts.json").read_text(encoding="utf-8"))
    above = PAGE.read_text(encoding="utf-8").partition(BELOW)[0] if PAGE.exists() else ""
    packages = {name: installed(build / name) for name in TITLES}
    lines = [
        *("", f"## Run on {facts['date']}, Python {facts['python']}", ""),
        *version_lines(packages, facts),
        *lesson_lines(build, notebooks),
        *statement_lines(packages),
        *test_lines(build, facts["all_tests"]),
    ]
    PAGE.write_text(above + BELOW + "\n".join(lines).rstrip() + "\n", encoding="utf-8")


def asked_for() -> list[str]:
    """The packages that pyproject.toml names, by canonical name."""
    return sorted({canonicalize_name(Requirement(line).name) for line in requirements(project())})


def version_lines(packages: Mapping[str, Mapping[str, Package]], facts: Any) -> list[str]:
    """Versions that differ, what keeps some of them old, and the next Python."""
    lock, others = packages["lock"], [packages[name] for name in TITLES if name != "lock"]

    def versions(name: str) -> list[str]:
        return [package[name].version if name in package else "–" for package in [lock, *others]]

    def differs(name: str) -> bool:
        return len({*versions(name)} - {"–"}) > 1

    direct = [name for name in asked_for() if differs(name)]
    along = sorted(name for name in lock if differs(name) and name not in direct)
    lines = ["### Versions that differ from the lock", ""]
    lines += [f"| Package | {' | '.join(TITLES.values())} |", "|---" * (1 + len(TITLES)) + "|"]
    lines += [f"| {name} | {' | '.join(versions(name))} |" for name in direct]
    lines += ["", f"{len(along)} packages that come along differ, too: "]
    lines[-1] += ", ".join(f"{name} {' / '.join(dict.fromkeys(versions(name)))}" for name in along)
    lines[-1] += "."
    lines += ["", "### What keeps versions old", ""]
    for name, reasons in held_back(packages["course"], packages["openai3"]).items():
        lines.append(f"- {name}: {'; '.join(reasons) or 'held by what holds another'}")
    lines += ["", f"### Python {NEXT_PYTHON}", ""]
    for name, missing in facts["next_python"].items():
        theirs = {k: v for k, v in packages[name].items() if k != project()["project"]["name"]}
        refused = ", ".join(refusing(theirs, NEXT_PYTHON)) or "no package but our own"
        wheels = f"Wheels are missing: {missing}" if missing else "Each has a wheel for it."
        lines.append(f"- {TITLES[name]}: refused by {refused}. {wheels}")
    return [*lines, ""]


def lesson_lines(build: Path, notebooks: Path) -> list[str]:
    """Changed outputs and moved figures, by environment."""
    with_lock = {(c.lesson, c.cell) for c in changes(build / "lock" / FIRST, notebooks) if c.diff}
    lines = []
    for name in TITLES:
        if name == "lock":
            continue
        first, again = (changes(build / name / kept, notebooks) for kept in (FIRST, AGAIN))
        found = lasting(first, again)
        ran = len([*(build / name / FIRST).glob("*.ipynb")])
        lines += [f"### Lessons, {TITLES[name]}", ""]
        differing = [change for change in found if change.diff]
        lessons = {change.lesson for change in differing}
        lines += [
            f"{ran} lessons ran whole. Outputs that changed: {len(differing)}, in {len(lessons)}.",
            "",
        ]
        for change in differing:
            too = " (with the lock, too)" if (change.lesson, change.cell) in with_lock else ""
            lines += [f"{change.lesson}, cell {change.number} (`{change.cell}`){too}:", ""]
            lines += ["```text", *(line[:WIDTH] for line in change.diff[:LINES_SHOWN])]
            rest = len(change.diff) - LINES_SHOWN
            lines += [*([f"... {rest} more lines"] if rest > 0 else []), "```", ""]
        lines += figure_lines(found, with_lock)
        tried = attempts(build / name)
        lines.append(f"Attempts to leave the machine: {len(tried) or 'none'}.")
        lines += ["", *(f"- `{line[: 2 * WIDTH]}`" for line in tried), *[""] * bool(tried)]
    return lines


def figure_lines(found: Sequence[Change], with_lock: set[tuple[str, str]]) -> list[str]:
    """Figures that moved: first those that no machine's speed explains, then the others."""
    lines = []
    for wall_clock, title in (
        (False, "Figures that moved by more than 20%"),
        (True, "Cells of wall-clock time with such figures (the machine's speed is in them)"),
    ):
        moving = [c for c in found if c.moved and c.wall_clock == wall_clock]
        moving = [c for c in moving if (c.lesson, c.cell) not in with_lock]
        lines += [f"**{title}**: {'' if moving else 'none.'}", ""]
        for change in moving:
            most = max(change.moved, key=lambda f: abs(f.after - f.before) / (abs(f.before) or 1))
            count = len(change.moved)
            lines.append(
                f"- {change.lesson}, cell {change.number}: {count} figure{'s' * (count > 1)}, "
                f"most {most.before:g} → {most.after:g} in `{most.line[:80].replace('`', '')}`"
            )
        lines += [""] if moving else []
    return lines


def statement_lines(packages: Mapping[str, Mapping[str, Package]]) -> list[str]:
    """Statements whose version is no longer the newest."""
    rows: dict[str, list[str]] = {"old": [], "earlier": []}
    stated = all_statements(asked_for())
    for said in stated:
        versions = {n: p[said.package].version for n, p in packages.items() if said.package in p}
        lock = versions.pop("lock", "")
        became = age(said.version, lock, [*versions.values()])
        if became in rows:
            newest = " or ".join(dict.fromkeys(versions.values()))
            rows[became].append(f"| {said.where} | {said.package} {said.version} | {newest} |")
    lines = ["### Statements whose version is old", ""]
    lines += [f"{len(stated)} statements of lessons and pages name a version.", ""]
    for became, title in (
        ("old", "True of the lock, and measured before the newest"),
        ("earlier", "True of neither: told as of another version, or left behind"),
    ):
        lines += [f"**{title}**: {len(rows[became])}.", ""]
        if rows[became]:
            lines += ["| Where | Statement | Newest |", "|---|---|---|"]
            lines += [*dict.fromkeys(rows[became]), ""]
    return lines


def test_lines(build: Path, everything: bool) -> list[str]:
    """Tests that failed twice, and whether they do with the lock."""
    with_lock = failures(build / "lock" / "tests.xml")
    lines = []
    for name in TITLES:
        if name == "lock":
            continue
        first, again = (failures(build / name / f) for f in ("tests.xml", "tests-again.xml"))
        twice = {test: said for test, said in again.items() if test in first}
        needs = {
            t for t, said in twice.items() if name == "openai3" and "crewai" in (t + said).lower()
        }
        told = sorted(twice.items() - {(t, twice[t]) for t in needs})
        count = tests_run(build / name / "tests.xml")
        which = "" if everything else ", those that import a framework"
        lines += [f"### Tests, {TITLES[name]}", ""]
        lines.append(
            f"{count} unit tests ran{which}. {len(told)} fail, also when they are run again"
            f"{f'; {len(needs)} others need CrewAI' if needs else ''}."
        )
        lines.append("")
        for file, tests in groupby(told, key=lambda item: item[0].partition("::")[0]):
            lines += [f"{file}:", "", "```text"]
            for test, said in tests:
                too = " (with the lock, too)" if test in with_lock else ""
                lines.append(f"{test.partition('::')[2]}{too}: {said}"[: 2 * WIDTH])
            lines += ["```", ""]
    return lines
