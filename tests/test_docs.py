"""The pages beside the notebooks say what the notebooks say: minutes, lessons, terms, kinds."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import get_args

import nbformat
import pytest

from agentlab import lab
from agentlab.bench import experiment
from agentlab.commands import main as cli
from agentlab.endpoint.middleware import fault_plan

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LESSONS = {path.name.split("_")[0]: path for path in NOTEBOOKS}


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


TEACHING, GLOSSARY = page("docs/teaching.md"), page("docs/ko/glossary.md")
AGENDAS = re.findall(
    r"^### ([^:\n]+?)(?:: (\d+) minutes)?\n(.+?)(?=^###? )",
    TEACHING.split("## Agendas")[1].split("### The whole course")[0] + "## ",
    re.DOTALL | re.MULTILINE,
)
TERMS = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \| ([^|]+?) \| \[\w+\]\((.+?)\) \|$", GLOSSARY, re.M)


@cache
def source(path: Path) -> str:
    """What a notebook says, prose and code."""
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


@cache
def shown(path: Path) -> str:
    """What a notebook says and prints."""
    cells = nbformat.read(path, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    plain = [str(output.get("data", {}).get("text/plain", "")) for output in outputs]
    return "\n".join([source(path), *(output.get("text", "") for output in outputs), *plain])


def minutes(path: Path) -> tuple[int, int]:
    """To teach, and for the exercises, as the first cell of a notebook states it."""
    said = re.search(r"\*\*Time\.\*\* (\d+) minutes .*?(\d+) minutes", source(path))
    assert said, path
    return int(said[1]), int(said[2])


def rows(table: str) -> list[tuple[int, str]]:
    """Minutes and what is done in them, of an agenda's table."""
    return [(int(m), what) for m, what in re.findall(r"^\| (\d+) \| ([^|]+?) \|", table, re.M)]


def test_there_are_five_agendas():
    """For an evening, a workshop and a day, and one that measures; so the tests below see them."""
    expected = ["90 minutes", "Three hours", "Half a day", "A day", "A day of measuring"]
    assert [name for name, _, _ in AGENDAS] == expected
    assert all(len(rows(table)) >= 5 for _, _, table in AGENDAS)


@pytest.mark.parametrize(("name", "total", "table"), AGENDAS, ids=[a[0] for a in AGENDAS])
def test_an_agenda_sums_up(name: str, total: str, table: str):
    """The rows of its table take the minutes of its title."""
    assert sum(took for took, _ in rows(table)) == int(total or name.split()[0])


@pytest.mark.parametrize(("name", "total", "table"), AGENDAS, ids=[a[0] for a in AGENDAS])
def test_no_agenda_gives_a_lesson_more_time_than_it_takes(name: str, total: str, table: str):
    """Neither for teaching nor for exercises; and each row's lesson exists."""
    spent: dict[tuple[str, bool], int] = {}
    for took, what in rows(table):
        if lesson := re.match(r"(\d\d[bc]?), ", what):
            key = (lesson[1], "exercise" in what)
            spent[key] = spent.get(key, 0) + took
    assert spent
    for (lesson_name, exercises), took in spent.items():
        assert took <= minutes(LESSONS[lesson_name])[exercises]


@pytest.mark.parametrize(("name", "total", "table"), AGENDAS, ids=[a[0] for a in AGENDAS])
def test_sections_of_agendas_exist(name: str, total: str, table: str):
    """A row that names sections names none that the notebook has not."""
    for _, what in rows(table):
        if lesson := re.match(r"(\d\d[bc]?), (?:sections?|exercises?) ([\d, toand]+)", what):
            highest = max(map(int, re.findall(r"\d+", lesson[2])))
            kind = r"^### Exercise (\d+)" if "exercise" in what else r"^ ?## (\d+)\."
            there = re.findall(kind, source(LESSONS[lesson[1]]), re.MULTILINE)
            assert highest <= max(map(int, there)), what


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_guide_covers_each_notebook(path: Path):
    """Under its number, with its minutes: the point, wrong answers, stumbles, what to project."""
    number = path.name.split("_")[0]
    section = re.search(
        rf"^### {number} .+?: (\d+) \+ (\d+) minutes\n(.+?)(?=^##)", TEACHING, re.DOTALL | re.M
    )
    assert section, f"docs/teaching.md has no section on {number}"
    assert (int(section[1]), int(section[2])) == minutes(path)
    assert f"../notebooks/{path.name}" in section[3]
    parts = re.findall(r"^- \*\*(.+?)\.\*\* \S", section[3], re.MULTILINE)
    must = ["Point", "Project", "Expected wrong answers", "Where they stumble", "If time is short"]
    assert parts == must
    assert re.search(r"If time is short\.\*\* (Leave|Keep|Show) ", section[3])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_figures_of_the_guide_are_the_notebooks(path: Path):
    """Each number of two digits or more stands in the notebook; wrong answers are in italics."""
    number = path.name.split("_")[0]
    section = re.search(rf"^### {number} [^\n]+\n(.+?)(?=^##)", TEACHING, re.DOTALL | re.MULTILINE)
    assert section
    prose = re.sub(r"\(\S+\)|(?<!\*)\*[^*]+\*(?!\*)", "", section[1])
    figures = numbers(prose)
    assert {f for f in figures if len(f) > 1} - numbers(shown(path)) == set()


def numbers(text: str) -> set[str]:
    """All numbers in a text, whole: the 19 of `19.37` is none; `1,374` is 1374, and `.5` 0.5."""
    found = re.findall(r"(?<![\w.])\d*\.\d+|(?<![\w.])\d[\d,]*", text)
    return {f"{float(n.replace(',', '')):g}" for n in found if n.strip(",")}


def test_the_whole_course_is_summed_up():
    """The guide's sum is that of the notebooks."""
    said = re.search(r"(\w+) sessions, (\d+) minutes with all exercises", TEACHING)
    assert said
    assert int(said[2]) == sum(sum(minutes(path)) for path in NOTEBOOKS)
    words = {
        12: "Twelve",
        13: "Thirteen",
        14: "Fourteen",
        15: "Fifteen",
        16: "Sixteen",
        17: "Seventeen",
    }
    assert said[1] == words[len(NOTEBOOKS)]


@pytest.mark.parametrize("readme", ["README.md", "docs/ko/README.md"])
def test_tables_of_lessons_have_the_minutes(readme: str):
    """Each notebook has one row, with the sum of its minutes; the Korean page links to its twin."""
    table = re.findall(r"^\| \[.+?\]\(\S*?notebooks/(\S+?)\) \|.*\| (\d+) \|$", page(readme), re.M)
    folder = "ko/" if readme.startswith("docs/ko/") else ""
    assert {name: int(sum_) for name, sum_ in table} == {
        folder + path.name: sum(minutes(path)) for path in NOTEBOOKS
    }


def test_the_map_of_the_course_is_what_the_notebooks_need():
    """Each arrow into a lesson comes from one that its first cell says it needs."""
    (drawing,) = re.findall(r"```mermaid\n(.+?)```", page("README.md"), re.DOTALL)
    arrows: set[tuple[str, str]] = set()
    for line in drawing.splitlines():
        chain = re.findall(r"(?:^|> )\s*(\d\d[bc]?)", line)
        arrows |= set(pairwise(chain))
    needs: set[tuple[str, str]] = set()
    for number, path in LESSONS.items():
        asked = re.search(r"\*\*What you need\.\*\* (.+)", source(path))
        assert asked
        asked_first = asked[1].split(". ")[0]
        needs |= {(n, number) for n in re.findall(r"\((\d\d[bc]?)_", asked_first)}
    assert arrows == needs


def test_the_glossary_is_whole():
    """Sixty terms or more from all lessons, each once, with a Korean word and a Korean sentence."""
    assert len(TERMS) >= 60
    assert {Path(link).name for *_, link in TERMS} | {"03b_crewai_failures.ipynb"} == {
        path.name for path in NOTEBOOKS
    }
    assert len({english.lower() for english, _, _, _ in TERMS}) == len(TERMS)
    for english, korean, meaning, _ in TERMS:
        assert re.search("[가-힣]", korean), english
        assert re.search(r"[가-힣][^.]*니다\.$", meaning), english


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term[0])
def test_each_term_is_taught_where_the_glossary_says(term: tuple[str, str, str, str]):
    """The English word occurs in the English lesson whose twin the glossary links to."""
    english, _, _, link = term
    twin = (ROOT / "docs" / "ko" / link).resolve()
    assert twin.parent.name == "ko"
    assert english.lower() in shown(twin.parents[1] / twin.name).lower()


def test_both_readmes_name_the_same_commands():
    """What an English reader can start, a Korean reader can."""
    english, korean = (
        set(re.findall(r"(?:make|agentlab) (?:lab|test|bundle|doctor|bench|\w+ --)", page(readme)))
        for readme in ("README.md", "docs/ko/README.md")
    )
    assert english == korean


def test_the_korean_example_runs():
    """As it stands: three at once."""
    (example,) = re.findall(r"```python\n(.+?)```", page("docs/ko/README.md"), re.DOTALL)
    names: dict[str, object] = {}
    lab.configure()
    exec(example, names)
    assert names["t"].peak == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_article_page_names_each_lesson_after_the_first(path: Path):
    """What the course adds to the article is found from it."""
    assert path.name.startswith(("00_", "03b_")) or f"notebooks/{path.name}" in page(
        "docs/article.md"
    )


def test_figures_of_the_article_page_are_the_lessons():
    """Those it quotes stand in the outputs or the prose of the lesson it links to."""
    for lesson, figure in {
        "01": "59.5%",
        "02": "supersteps: 1.17",
        "03": "9 requests, peak 1",
        "04": "220 MB",
        "04b": "21 lost",
    }.items():
        assert figure in shown(LESSONS[lesson]), lesson


def test_every_kind_of_fault_is_explained():
    """In the table of the local model's page, and no other."""
    told = re.findall(r"^\| `(\w+)` \| \S", page("docs/local_model.md").split("## Limits")[1], re.M)
    assert sorted(told) == sorted(get_args(fault_plan.Kind))


def test_every_experiment_is_listed():
    """In the table of the benchmark's page, and no other."""
    told = re.findall(r"^\| `([\w-]+)` \| \S", page("docs/benchmark.md"), re.MULTILINE)
    assert sorted(told) == sorted(experiment.names())


def test_every_command_is_listed():
    """In the table of the module's page, and no other."""
    told = re.findall(r"^\| `agentlab ([\w ]+)` \|", page("docs/module.md"), re.MULTILINE)
    assert sorted(told) == sorted(cli.COMMANDS)


@pytest.mark.parametrize(
    "complaint",
    [
        "I have no key", "do not want to pay", "pins every package", "asyncio.run()",
        "mermaid.ink", "CREWAI_DISABLE_TELEMETRY=true", "An output differs", "Port 8888",
        "NO_PROXY", "CERTIFICATE_VERIFY_FAILED", "## Windows", "kernel died", "Intel processors",
    ],
)  # fmt: skip
def test_troubleshooting_has_what_people_complain_of(complaint: str):
    """Each of the usual complaints has its row."""
    assert complaint in page("docs/troubleshooting.md")
