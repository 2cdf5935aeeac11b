"""The Korean lessons: twins of the English ones, and what their code shows is Korean as well."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as some
from lessons import NOTEBOOKS
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from agentlab import settings
from agentlab._support.catalogue import _pattern, translated
from agentlab.errors import ConfigError, FileError
from agentlab.exercises import Check
from agentlab.settings import language, said

ROOT = NOTEBOOKS.parent
sys.path.insert(0, str(ROOT / "tools"))

import korean  # noqa: E402  tools/ is no package
import lint_notebooks  # noqa: E402
import progress  # noqa: E402

TWINS = sorted(korean.KOREAN.glob("*.ipynb"))


@pytest.fixture
def in_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLAB_LANGUAGE", "ko")


def english() -> NotebookNode:
    """A lesson of three cells."""
    cells = [
        new_markdown_cell("# Rivers\n\n[docs](../docs/a.md), [next](02.ipynb)", id="title"),
        new_code_cell("print(1)", id="one", metadata={"tags": ["nbval-ignore-output"]}),
        new_markdown_cell("The end.", id="end"),
    ]
    return new_notebook(cells=cells)


KOREAN = {"title": "# 강\n\n[문서](../docs/a.md), [다음](02.ipynb)", "end": "끝입니다."}


def twin(of: NotebookNode, translations: dict[str, str] = KOREAN) -> NotebookNode:
    return korean.twin(of, None, translations, set())


def changed(cell: int, source: str) -> NotebookNode:
    lesson = english()
    lesson.cells[cell].source = source
    return lesson


def test_the_korean_lessons_are_the_english_ones():
    """No cell changed in English alone, none is missing, no code differs, no hint lacks Korean."""
    assert TWINS
    assert korean.check() == []


@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_twins_have_the_same_cells_and_the_same_code(path: Path):
    """Seen without the tool: ids, kinds, code in cells and in solutions, prose with Hangul."""
    pairs = zip(korean.read(NOTEBOOKS / path.name).cells, korean.read(path).cells, strict=True)
    for one, other in pairs:
        assert (one.id, one.cell_type) == (other.id, other.cell_type)
        if one.cell_type == "code":
            assert (one.source, one.metadata) == (other.source, other.metadata)
        else:
            assert re.search("[가-힣]", other.source), one.id
            fenced = [re.findall("```.*?```", cell.source, re.DOTALL) for cell in (one, other)]
            assert fenced[0] == fenced[1]
            assert one.source.count("](") == other.source.count("]("), one.id


@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_twins_have_the_same_outputs_but_for_their_language(path: Path):
    """Each line that is printed is the English one, or its Korean; each picture is there."""
    pairs = zip(korean.read(NOTEBOOKS / path.name).cells, korean.read(path).cells, strict=True)
    for one, other in pairs:
        if "nbval-ignore-output" in one.metadata.get("tags", []):
            continue
        outputs = zip(one.get("outputs", []), other.get("outputs", []), strict=True)
        for of_lesson, of_twin in outputs:
            assert [*of_lesson.get("data", {})] == [*of_twin.get("data", {})]
            printed = [output.get("text", "").splitlines() for output in (of_lesson, of_twin)]
            for line, own in zip(*printed, strict=True):
                verdict, colon, hint = line.partition("Not yet: ")
                whole = verdict + colon + translated(hint, korean.TEXTS)
                assert own in (line, translated(whole, korean.TEXTS))


@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_twins_have_the_same_exercises(path: Path):
    """`agentlab progress` finds them under the Korean headings."""
    of = {folder: progress.lessons(folder)[path.name] for folder in (NOTEBOOKS, path.parent)}
    numbers = [[exercise.number for exercise in some] for some in of.values()]
    assert numbers[0] == numbers[1] != []
    assert all(re.search("[가-힣]", exercise.title) for exercise in of[path.parent])


def test_a_twin_has_the_lessons_code_and_its_own_words():
    """Ids, code and metadata as in English; links go one folder further up."""
    lesson = english()
    made = twin(lesson)
    assert [cell.id for cell in made.cells] == ["title", "one", "end"]
    assert made.cells[0].source == "# 강\n\n[문서](../../docs/a.md), [다음](../02.ipynb)"
    assert (made.cells[1].source, made.cells[1].metadata) == (
        lesson.cells[1].source,
        lesson.cells[1].metadata,
    )
    assert list(korean.differences(lesson, made)) == []


@pytest.mark.parametrize(
    ("link", "moved"),
    [
        ("[a](../docs/a.md#b)", "[a](../../docs/a.md#b)"),
        ("[a](01.ipynb)", "[a](01.ipynb)"),
        ("[a](02.ipynb#b)", "[a](../02.ipynb#b)"),
        ("[a](https://example.org/01.ipynb)", "[a](https://example.org/01.ipynb)"),
        ("[a](#b)", "[a](#b)"),
        ('<img src="../docs/a.png">', '<img src="../../docs/a.png">'),
        ("![a](../docs/a.png)", "![a](../../docs/a.png)"),
        ("`x = y[0](../z)`", "`x = y[0](../z)`"),
    ],
)
def test_links_are_moved(link: str, moved: str):
    """To files one folder up; to a twin where there is one, which here is 01; none elsewhere."""
    assert korean.linked(link, {"01.ipynb"}) == moved


def test_a_link_follows_a_twin_that_has_come_since():
    """A sync points Korean cells at the Korean lesson, and translates nothing again."""
    lesson = english()
    made = korean.twin(lesson, twin(lesson), {}, {"02.ipynb"})
    assert made.cells[0].source == "# 강\n\n[문서](../../docs/a.md), [다음](02.ipynb)"
    assert list(korean.differences(lesson, made)) == []


def without_the_end(lesson: NotebookNode) -> NotebookNode:
    del lesson.cells[2]
    return lesson


def reordered(lesson: NotebookNode) -> NotebookNode:
    lesson.cells.reverse()
    return lesson


@pytest.mark.parametrize(
    ("lesson", "found"),
    [
        (changed(2, "The very end."), "cell end (3.: The very end.) changed in English"),
        (changed(1, "print(2)"), "cell one (2.: print(2)): its code or its metadata differ"),
        (without_the_end(english()), "cell end is not in the English one"),
        (reordered(english()), "its cells are in another order"),
    ],
)
def test_a_change_in_english_alone_is_named(lesson: NotebookNode, found: str):
    """The cell, by its id, its number and its first line."""
    assert list(korean.differences(lesson, twin(english()))) == [found]


def test_a_sync_takes_code_and_new_prose_and_leaves_the_translator_a_list():
    """Code that changed loses its output; new prose stays English and is named; nothing is lost."""
    before = twin(english())
    before.cells[1].execution_count = 1
    lesson = changed(1, "print(2)")
    lesson.cells.insert(1, new_markdown_cell("New.", id="new"))
    made = korean.twin(lesson, before, {}, set())
    assert [cell.source for cell in made.cells[1:]] == ["New.", "print(2)", "끝입니다."]
    assert made.cells[2].execution_count is None
    assert list(korean.differences(lesson, made)) == ["cell new (2.: New.) is not translated"]


HINTS = """
%time 1
with Check() as check:
    check(n, "put a number.")
    check(n > 1, f"{n!r}: not {n + 1:.2f} {{}}.")
    check(n, "one " f"of {n}.")
    many = f"{n} are many."
    check(n < 9, many)
    check(n, f"{n}")
"""
WORDS = """
plots.timelines({"All at once": one, "gather": other, "A herd": third})
plots.timeline(t, f"Two branches: {n:g} s")
axis.set(xlabel="per second", ylabel="seconds")
axis.legend(title="prompt, answer")
print("no picture at all")
"""


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (HINTS, ["put a number.", "{}: not {} {}.", "one of {}.", "{} are many."]),
        (WORDS, "All at once|A herd|Two branches: {}|per second|prompt, answer".split("|")),
    ],
)
def test_what_a_cell_shows_is_found_in_its_code(cell: str, expected: list[str]):
    """Hints, as strings, f-strings, in pieces or by name; of pictures all that is no name."""
    assert list(korean.shown_texts(cell)) == [e + " s" * e.startswith("Two") for e in expected]


@pytest.mark.parametrize("file", ["plots.py", "bench/plots.py"])
def test_the_courses_own_pictures_have_korean_words(file: str, in_korean: None):
    """Titles, labels and legends in their code, whatever a run puts in."""
    source = (ROOT / "agentlab" / file).read_text(encoding="utf-8")
    shown = [*korean.shown_texts(source)]
    for node in ast.walk(ast.parse(source)):  # the legend of a timeline
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "legend":
            rows = node.value.elts  # type: ignore[union-attr]
            shown += [row.elts[0].value for row in rows]  # type: ignore[attr-defined]
    assert len(shown) >= 8
    assert [text for text in shown if not re.search("[가-힣]", said(text.replace("{}", "s")))] == []


def test_words_of_pictures_in_yaml_have_korean(in_korean: None):
    """Those of data that a picture is made from: each of a curve's panels, and the bars."""
    look = yaml.safe_load((ROOT / "agentlab" / "bench" / "plots.yaml").read_text(encoding="utf-8"))
    panels = [panel for curve in look["curves"].values() for panel in curve["panels"]]
    shown = [curve["across"] for curve in look["curves"].values()]
    shown += [panel[key] for panel in panels for key in ("title", "y")]
    shown += [text for bar in look["bars"].values() for text in bar] + look["agreement"]
    shown += [prefix + "x" for panel in panels for prefix in panel["lines"].values() if prefix]
    for unit in ("s", "model s"):
        said_so = {text: said(text.format(unit=unit)) for text in shown}
        assert [text for text in said_so if not re.search("[가-힣]", said_so[text])] == []


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two lessons, with a catalogue, which the tool takes for the course."""
    folder, texts = tmp_path / "notebooks", tmp_path / "texts.yaml"
    (folder / "ko").mkdir(parents=True)
    (tmp_path / "given").mkdir()
    texts.write_text("# Top.\nchecks:\n  Solved.: 풀었습니다.\n", encoding="utf-8")
    (tmp_path / "docs" / "ko").mkdir(parents=True)
    places = {
        "ENGLISH": folder,
        "KOREAN": folder / "ko",
        "TEXTS": texts,
        "PAGES": tmp_path / "docs",
    }
    for name, value in places.items():
        monkeypatch.setattr(korean, name, value)
    for name in ("01", "02"):
        nbformat.write(english(), folder / f"{name}.ipynb")
    return tmp_path


def test_lessons_are_imported_whole_or_not_at_all(course: Path):
    """From JSON: one with an unknown cell is refused, the other's texts are in the catalogue."""
    given = course / "given"
    (given / "01.json").write_text('{"title": "# 강", "end": "끝입니다."}', encoding="utf-8")
    (given / "01.texts.json").write_text('{"not {}.": "{0}이(가) 아닙니다."}', encoding="utf-8")
    (given / "02.json").write_text('{"titel": "# 강"}', encoding="utf-8")
    (given / "glossary.json").write_text("{}", encoding="utf-8")
    found = korean.import_(given, [])
    assert found == ["02: no prose cell has the id titel", "02: has no Korean twin"]
    assert [path.name for path in korean.KOREAN.iterdir()] == ["01.ipynb"]
    assert korean.catalogue()["01"] == {"not {}.": "{0}이(가) 아닙니다."}
    assert korean.TEXTS.read_text(encoding="utf-8").startswith("# Top.\nchecks:\n")


def test_a_text_has_one_korean(course: Path):
    """A second lesson that translates it otherwise is told; the first one's stays."""
    assert list(korean.add_texts("01", {"All at once": "한꺼번에"})) == []
    assert list(korean.add_texts("02", {"All at once": "한꺼번에"})) == []
    told = ["02: 'All at once' is '한꺼번에' already, not '동시에'"]
    assert list(korean.add_texts("02", {"All at once": "동시에"})) == told
    assert "02" not in korean.catalogue()


def test_a_translator_says_what_is_up_to_date(course: Path):
    """A cell that changed in English is named until its twin is said to be translated."""
    for name in ("01", "02"):
        korean.write(korean.KOREAN / f"{name}.ipynb", twin(english()))
    nbformat.write(changed(2, "The very end."), korean.ENGLISH / "01.ipynb")
    told = ["01: cell end (3.: The very end.) changed in English"]
    assert korean.sync([]) == told
    korean.translated("01", ["title"])
    assert korean.check() == told
    korean.translated("01", ["end"])
    assert korean.check() == []


def test_a_page_that_changed_in_english_is_named(course: Path, capsys: pytest.CaptureFixture[str]):
    """Until it is said to be translated, which changes nothing else; one without a twin is not."""
    for name in ("01", "02"):
        korean.write(korean.KOREAN / f"{name}.ipynb", twin(english()))
    docs = course / "docs"
    (docs / "ko" / "rivers.md").write_text("# 강\n", encoding="utf-8")
    (docs / "ko" / "glossary.md").write_text("# 용어집\n", encoding="utf-8")
    told = ["docs/ko/rivers.md: docs/rivers.md changed in English"]
    for content in ("# Rivers\n", "# Great rivers\n"):
        (docs / "rivers.md").write_text(content, encoding="utf-8")
        assert korean.check() == told
        assert korean.main(["translated", "rivers"]) == 0
        assert korean.check() == []
        text = (docs / "ko" / "rivers.md").read_text(encoding="utf-8")
        assert re.fullmatch(r"# 강\n\n<!-- translates \w{12} -->\n", text)


FEW = some.text("ab,", max_size=6)


@given(
    pieces=some.lists(FEW, min_size=1, max_size=4), between=some.lists(FEW, min_size=3, max_size=3)
)
def test_places_are_found_where_a_search_that_goes_back_finds_them(
    pieces: list[str], between: list[str]
):
    """The pattern never goes back, so that no text takes long, and misses nothing by that."""
    slow = re.compile("(.*?)".join(map(re.escape, pieces)), re.DOTALL)
    for text in (
        "".join(a + b for a, b in zip(pieces, [*between, ""], strict=False)),
        "".join(between),
    ):
        found, expected = _pattern(*pieces).fullmatch(text), slow.fullmatch(text)
        assert (found and found.groups()) == (expected and expected.groups())


def test_the_catalogue_can_be_filled_in():
    """No Korean text names a place that the English one lacks, or leaves one out in silence."""
    wrong = [
        (english, other)
        for texts in korean.catalogue().values()
        for english, other in texts.items()
        if {*re.findall(r"\{(\d*)\}", other)} - {str(n) for n in range(english.count("{}"))}
    ]
    assert wrong == []


CATALOGUE = """
checks:
  'Not yet: {}': '아직입니다: {0}'
  '{}.': '{0}.'
  '{} of {}': '{1} 가운데 {0}'
  one of three: 셋 가운데 하나
  '{}': 무엇이든
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one of three", "셋 가운데 하나"),
        ("1 of 3", "3 가운데 1"),
        ("Not yet: one of three", "아직입니다: 셋 가운데 하나"),
        ("Not yet: Not yet: 1.", "아직입니다: 아직입니다: 1."),
        ("1 of \n3", "\n3 가운데 1"),
        ("{0} of {1}", "{1} 가운데 {0}"),
        ("Not yet: a river", "아직입니다: a river"),
        ("a river", "a river"),
        ("", ""),
    ],
)
def test_a_text_is_found_by_its_words_or_by_its_form(text: str, expected: str, tmp_path: Path):
    """The exact one first; what a run has put in is translated too; the unknown stays as it is."""
    file = tmp_path / "texts.yaml"
    file.write_text(CATALOGUE, encoding="utf-8")
    assert translated(text, file) == expected


@pytest.mark.parametrize("content", ["checks: [1]\n", "a: {b: 1\n", "a: {b: c}\na: {d: e}\n", ""])
def test_a_broken_catalogue_is_told_with_its_line(content: str, tmp_path: Path):
    """Not YAML, another form, the same room twice, nothing: the file is named."""
    file = tmp_path / "texts.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(FileError, match=r"texts\.yaml:\d+:\d+"):
        translated("one", file)


@pytest.mark.parametrize(
    ("named", "folder", "expected"),
    [
        ("", "notebooks/ko", "ko"),
        ("", "notebooks", "en"),
        ("", "ko", "en"),
        ("en", "notebooks/ko", "en"),
        (" KO ", "notebooks", "ko"),
    ],
)
def test_the_folder_says_which_language_it_is_unless_a_variable_does(
    named: str, folder: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """AGENTLAB_LANGUAGE wins, and nothing else decides."""
    (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / folder)
    assert language({"AGENTLAB_LANGUAGE": named, "LANG": "ko_KR.UTF-8"}) == expected


def test_a_language_that_there_is_not_is_refused():
    """By its name, with those that there are."""
    with pytest.raises(ConfigError, match="'fr'; set it to en or ko"):
        language({"AGENTLAB_LANGUAGE": "fr"})


def checked(capsys: pytest.CaptureFixture[str], claim: object, hint: str = "") -> str:
    with Check() as check:
        check(claim, hint)
    return capsys.readouterr().out.strip()


def test_a_check_speaks_korean(in_korean: None, capsys: pytest.CaptureFixture[str]):
    """Solved, a hint of a lesson with what a run put into it, and one that nobody translated."""
    assert checked(capsys, True) == "풀었습니다."
    hint = "the model was busy for 3 s, not 2; `n` counts tokens, not seconds."
    said_so = (
        "아직입니다: 모델이 일한 시간은 2초가 아니라 3초입니다. `n`은 초가 아니라 토큰을 셉니다."
    )
    assert checked(capsys, False, hint) == said_so
    assert checked(capsys, False, "a river.") == "아직입니다: a river."


async def forgets() -> None:
    return None


def fails() -> None:
    raise ValueError("no figure")


def loops() -> object:
    return forgets()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (fails, "아직입니다: ValueError: no figure 오류가 났습니다."),
        (loops, "아직입니다: 결과가 아니라 코루틴 'forgets'을(를) 돌려주었습니다."),
    ],
)
def test_what_a_check_itself_says_is_korean(
    answer: object, expected: str, in_korean: None, capsys: pytest.CaptureFixture[str]
):
    """Errors of the learner's code, and results that nobody awaited."""
    with Check() as check:
        check.call(answer)  # type: ignore[arg-type]
    assert capsys.readouterr().out.strip() == expected


def test_a_forgotten_await_is_named_in_korean(in_korean: None, capsys: pytest.CaptureFixture[str]):
    """After the hint, as in English."""
    with Check() as check:
        forgets()
        check(False, "put a number into `n`.")
    expected = (
        "`n`에 숫자를 넣으세요. `await`가 빠졌습니다. 'forgets'을(를) 호출하고 기다리지 않았습니다."
    )
    assert capsys.readouterr().out.strip() == f"아직입니다: {expected}"


def test_every_sentence_of_a_check_has_its_korean(in_korean: None):
    """Each text that exercises.py prints, taken from its code, is in the catalogue."""
    source = (ROOT / "agentlab" / "exercises.py").read_text(encoding="utf-8")
    sentences = [
        "it raised E: no.",
        "it raised E: no, in the line `x`.",
        "it raised E: why?",
        "an `await` is missing: 'f' has no result yet (E: no), in the line `x`.",
        "an `await` is missing: 'f' has no result yet (E: no).",
        "the check cannot use your answer: E: no.",
        "it returned a task instead of its result; `await` the task first.",
        "`f` runs for 10 s already; does a loop never end?",
        "`f` gives 5, which cannot be awaited; write an `async def` that returns its results.",
        "`f` does not end (0 requests so far); what does it wait for, or repeat?",
        "`f` does not end, in the line `x` (0 requests so far); what does it wait for, or repeat?",
        "the answer",
    ]
    for sentence in sentences:
        beginning = re.split("[`'(,:] ?|E|[0-9]", sentence.removeprefix("`f`"))[0].strip()
        assert beginning in source, sentence
        assert re.search("[가-힣]", said(sentence)), sentence
        assert "{" not in said(sentence)


def test_progress_takes_the_twin_in_which_more_is_solved(tmp_path: Path):
    """What is solved in Korean is solved."""
    (tmp_path / "ko").mkdir()
    for folder, name, exercise, verdict in (
        (tmp_path, "a", "### Exercise 1: rivers", "Not yet: no."),
        (tmp_path / "ko", "a", "### 연습 문제 1: 강", "풀었습니다."),
        (tmp_path, "b", "### Exercise 1: lakes", "Solved."),
        (tmp_path / "ko", "b", "### 연습 문제 1: 호수", "아직입니다: 아닙니다."),
        (tmp_path, "c", "### Exercise 1: seas", "Not yet: no."),
    ):
        printed = nbformat.v4.new_output("stream", name="stdout", text=f"{verdict}\n")
        cells = [
            new_markdown_cell(exercise),
            new_code_cell("with Check() as check: ...", outputs=[printed]),
        ]
        nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")
    found = progress.lessons(tmp_path)
    titles = {name: [(e.title, e.solved) for e in some] for name, some in found.items()}
    assert titles == {
        "a.ipynb": [("강", True)],
        "b.ipynb": [("lakes", True)],
        "c.ipynb": [("seas", False)],
    }


def test_the_words_of_progress_are_those_of_the_checks():
    """What a Korean check prints is what `agentlab progress` looks for."""
    file = settings.DATA / "ko" / "texts.yaml"
    solved, not_yet = (translated(text, file) for text in ("Solved.", "Not yet: x"))
    assert progress._VERDICT.findall(f"{solved}\n{not_yet}") == [solved, ""]


def test_lint_asks_a_twin_for_its_form_and_not_for_english(tmp_path: Path):
    """It passes as it stands, and not without its outputs or its exercises' solutions."""
    path = tmp_path / "ko" / TWINS[0].name
    path.parent.mkdir()
    shutil.copy(TWINS[0], path)
    assert list(lint_notebooks.lint(path)) == []
    notebook = korean.read(path)
    for cell in notebook.cells:
        cell.source = cell.source.replace("<summary>풀이</summary>", "<summary>결과</summary>")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)
    found = "\n".join(lint_notebooks.lint(path))
    assert "ko/00_start_here.ipynb code cell 1: execution count None, not 1" in found
    assert "an exercise lacks its check, hint or solution" in found


def test_a_twin_is_not_taken_for_the_lesson_that_ran_in_the_browser(tmp_path: Path):
    """They have the same name; nbval executes the twin itself, unless it was run as well."""
    import nbval_refresh  # which imports nbval

    (tmp_path / TWINS[0].name).touch()
    config = SimpleNamespace(getoption=lambda name: str(tmp_path))
    assert nbval_refresh.executed(config, NOTEBOOKS / TWINS[0].name) == tmp_path / TWINS[0].name
    assert nbval_refresh.executed(config, TWINS[0]) is None


PICTURE = """
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
from agentlab import plots
from agentlab.trace import Span, Trace

span = Span(request_id="a", agent="강", arrived_s=0.0, started_s=0.0,
    first_token_s=1.0, end_s=4.0, status=200)
own, axis = plt.subplots()
axis.plot([-1, 1], label="answering")
axis.annotate("the bound: 3", (0, 0))
axis.set(title="reading the prompt", xlabel="my own words")
axis.legend(title="model time (s)")
for figure in (plots.timeline(Trace([span])), own):
    figure.draw_without_rendering()
    axis = figure.axes[0]
    legend = [*figure.legends, axis.get_legend()][0]
    print(axis.get_title(), axis.get_title(loc="left"), axis.get_xlabel(), sep="|")
    print(legend.get_title().get_text(), *[text.get_text() for text in legend.get_texts()], sep="|")
"""


def drawn(code: str, language: str) -> list[str]:
    """What a program prints that draws, in that language; a glyph that no font has is an error."""
    command = [sys.executable, "-W", "error", "-c", code]
    environment = os.environ | {"AGENTLAB_LANGUAGE": language}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


def test_every_picture_is_drawn_in_korean():
    """Those of agentlab and a cell's own: titles, labels, legends; unknown words stay English."""
    assert drawn(PICTURE, "ko") == [
        "|요청 1개에 4.0초, 총작업량 4.0초, 최대 동시 요청 수 1|모델 시간(초)",
        "|프롬프트 읽기|답 쓰기",
        "프롬프트 읽기||my own words",
        "모델 시간(초)|답 쓰기",
    ]


def test_an_english_picture_stays_english():
    """And its words are those of the code."""
    title, legend, *_ = drawn(PICTURE.replace('"강"', '"a"'), "en")
    assert title == "|1 request in 4.0 s, 4.0 s of work: at most 1 in flight|model time (s)"
    assert legend == "|reading the prompt|answering"


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize(
    ("locale", "option", "folder"),
    [
        ({"LANG": "ko_KR.UTF-8"}, [], "notebooks/ko"),
        ({"LANG": "en_GB.UTF-8"}, [], "notebooks"),
        ({}, [], "notebooks"),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C"}, [], "notebooks"),
        ({"LANG": "ko_KR.UTF-8", "LANGUAGE": "ko:en"}, [], "notebooks/ko"),
        ({"LANG": "ko_KR.UTF-8"}, ["LANGUAGE=en"], "notebooks"),
        ({"LANG": "en_GB.UTF-8"}, ["LANGUAGE=ko"], "notebooks/ko"),
    ],
)
def test_make_lab_opens_the_lessons_of_the_locale(
    locale: dict[str, str], option: list[str], folder: str
):
    """Or of the LANGUAGE that is named; and that lesson exists."""
    command = ["make", "--dry-run", "--no-print-directory", "lab", f"PYTHON={sys.executable}"]
    spoken = ("LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "MAKEFLAGS")
    environment = {k: v for k, v in os.environ.items() if k not in spoken} | locale
    asked = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    ran = subprocess.run([*command, *option], check=True, **asked)  # type: ignore[call-overload]
    (opened,) = re.findall(r"default_url=/lab/tree/(\S+)", ran.stdout)
    assert opened == f"{folder}/00_start_here.ipynb"
    assert (ROOT / opened).is_file()
