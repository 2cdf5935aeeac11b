"""The Korean lessons: notebooks/ko has a twin of each lesson, with the same cells and ids.

    python tools/korean.py import FOLDER [NAME ...]   build twins from translations
    python tools/korean.py sync [NAME ...]            let the twins' code follow the lessons'
    python tools/korean.py translated NAME [ID ...]   these cells say what the English ones say now
    python tools/korean.py translated PAGE            so does this page of docs/ko, such as teaching
    python tools/korean.py check                      is anything missing, old or different?

A twin's code cells are those of the English lesson; each of its prose cells names, by a digest, the
English text that it translates. What code shows to a learner is in data/ko/texts.yaml. A page of
docs/ko that has an English one of its name keeps a digest of all of it, in a comment at its end.

FOLDER holds, for the lesson NAME, `NAME.json` (cell id -> Korean), and `NAME.texts.json` (English
-> Korean) for the hints of its checks and the words of its plots. In the English, `{}` stands for
each expression of an f-string; the Korean names them `{0}`, `{1}` and so on.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
ENGLISH = ROOT / "notebooks"
KOREAN = ENGLISH / "ko"
PAGES = ROOT / "docs"
TEXTS = ROOT / "data" / "ko" / "texts.yaml"

# Lessons that nobody has translated yet; take a name off once its twin is there.
UNTRANSLATED: set[str] = set()

Translations = dict[str, str]


def digest(source: str) -> str:
    """What a Korean cell keeps of the English text that it translates."""
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def linked(source: str, there: set[str]) -> str:
    """A text of notebooks/ as it must stand in notebooks/ko: its links go one folder further up.

    A lesson of which there is a twin is linked there, and any other to the English one.

    Example:
        >>> linked("[a](../docs/a.md), [b](b.ipynb), [c](c.ipynb#1)", {"b.ipynb"})
        '[a](../../docs/a.md), [b](b.ipynb), [c](../c.ipynb#1)'
    """

    return _with_paths(source, lambda path: path if path in there else f"../{path}")


def twin(
    english: NotebookNode,
    korean: NotebookNode | None,
    translations: Translations,
    there: set[str],
) -> NotebookNode:
    """The Korean lesson: its code is the English one's, its prose is translated or as it was.

    Prose that has no translation yet stays English and names no text that it would translate.
    Outputs are kept where the code has not changed.
    """
    before = {cell.id: cell for cell in korean.cells} if korean else {}
    made = copy.deepcopy(english)
    for cell in made.cells:
        old = before.get(cell.id)
        if cell.cell_type == "code":
            same = old is not None and old.cell_type == "code" and old.source == cell.source
            cell.outputs = old.outputs if same else []
            cell.execution_count = old.execution_count if same else None
        elif cell.id in translations:
            cell.metadata["translates"] = digest(cell.source)
            cell.source = linked(translations[cell.id], there)
        elif old is not None and "translates" in old.metadata:
            cell.metadata["translates"] = old.metadata["translates"]
            cell.source = relinked(old.source, there)
        else:
            cell.source = linked(cell.source, there)
    return made


def relinked(source: str, there: set[str]) -> str:
    """A Korean text whose links follow twins that have come since."""

    def moved(path: str) -> str:
        name = path.removeprefix("../")
        return name if name in there else path

    return _with_paths(source, moved)


def _with_paths(source: str, moved: Callable[[str], str]) -> str:
    """The text with the path of each link within the project moved; code stays as it is."""
    code, link = r"```.*?```|`[^`\n]*`", r"""(\]\(|\b(?:href|src)=["'])([^)#"'\s:]+)(?=[)#"'])"""
    return re.sub(
        f"{code}|{link}",
        lambda found: found[1] + moved(found[2]) if found[1] else found[0],
        source,
        flags=re.DOTALL,
    )


def shown_texts(source: str) -> Iterator[str]:
    """What a code cell shows to a learner, as the catalogue has it.

    The hints of its checks, and the words of its pictures: titles, labels, and the keys under which
    runs are drawn. A single word of a picture is a name of the code's, such as `gather`.
    """
    tree = ast.parse(re.sub(r"^( *)[%!].*", r"\1pass", source, flags=re.MULTILINE))
    named = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "id", getattr(node.func, "attr", ""))
        words = [k.value for k in node.keywords if k.arg in LABELS]
        if called in PICTURES:
            words += [key for arg in node.args for key in getattr(arg, "keys", [arg])]
        for word in [*words, *(node.args[1:2] if called == "check" else [])]:
            given = named.get(word.id, word) if isinstance(word, ast.Name) else word
            text = as_text(given)
            if text and re.search(r"[^\W\d_]", text) and (called == "check" or " " in text):
                yield text


LABELS = {"title", "xlabel", "ylabel", "label"}
PICTURES = set(
    """timeline timelines scaling arrivals limits limiters
    annotate set_title set_xlabel supylabel""".split()
)


def as_text(node: ast.expr) -> str | None:
    """A string as it stands in the code, with `{}` for what an f-string puts in; else None."""
    if isinstance(node, ast.JoinedStr):
        return "".join(as_text(part) or "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def catalogue() -> dict[str, Translations]:
    loaded: dict[str, Translations] = yaml.safe_load(TEXTS.read_text(encoding="utf-8"))
    return loaded


def write_catalogue(rooms: dict[str, Translations]) -> None:
    """Keep the comment at its top and the order of the rooms: the module's, then the lessons'."""
    top = re.match(r"(#.*\n)*", TEXTS.read_text(encoding="utf-8"))
    assert top
    ordered = dict(sorted(rooms.items(), key=lambda room: (room[0][0].isdigit(), room[0])))
    text = yaml.safe_dump(ordered, allow_unicode=True, sort_keys=False, width=1000)
    TEXTS.write_text(top[0] + text, encoding="utf-8")


def add_texts(name: str, texts: Translations) -> Iterator[str]:
    """Put a lesson's texts into the catalogue; say which ones have another Korean already.

    A text that several lessons show stands once: there is one Korean for it.
    """
    rooms = catalogue()
    elsewhere: Translations = {}
    for room, known in rooms.items():
        elsewhere |= known if room != name else {}
    for english, korean in texts.items():
        if elsewhere.get(english, korean) != korean:
            yield f"{name}: {english!r} is {elsewhere[english]!r} already, not {korean!r}"
    rooms[name] = {e: k for e, k in texts.items() if e not in elsewhere}
    write_catalogue({room: known for room, known in rooms.items() if known})


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def write(path: Path, notebook: NotebookNode) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def import_(folder: Path, names: list[str]) -> list[str]:
    """Build twins; the result is what is wrong. A lesson with a wrong translation is left out."""
    lessons = {path.stem for path in ENGLISH.glob("*.ipynb")}
    found = {path.stem for path in folder.glob("*.json")} & lessons
    there = {path.name for path in KOREAN.glob("*.ipynb")}
    problems: list[str] = []
    chosen: dict[str, Translations] = {}
    for name in names or sorted(found):
        if name not in lessons:
            problems.append(f"{name}: there is no such lesson")
            continue
        given = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        prose = {c.id for c in read(ENGLISH / f"{name}.ipynb").cells if c.cell_type == "markdown"}
        unknown = sorted(given.keys() - prose)
        if unknown:
            problems.append(f"{name}: no prose cell has the id {', '.join(unknown)}")
        else:
            chosen[name] = given
    there |= {f"{name}.ipynb" for name in chosen}
    for name, given in chosen.items():
        path = KOREAN / f"{name}.ipynb"
        english, old = read(ENGLISH / path.name), read(path) if path.exists() else None
        write(path, twin(english, old, given, there))
        texts = folder / f"{name}.texts.json"
        if texts.exists():
            problems += add_texts(name, json.loads(texts.read_text(encoding="utf-8")))
        print(f"{name}: {len(given)} cells")
    return problems + sync([path.stem for path in KOREAN.glob("*.ipynb")])


def sync(names: list[str]) -> list[str]:
    """Let twins follow the English lessons; the result is what is left for a translator."""
    there = {path.name for path in KOREAN.glob("*.ipynb")}
    for name in names or sorted(Path(name).stem for name in there):
        path = KOREAN / f"{name}.ipynb"
        write(path, twin(read(ENGLISH / path.name), read(path), {}, there))
    return check()


def translated(name: str, ids: list[str]) -> None:
    """Note that cells, or all of a lesson's, say what the English ones say now."""
    path = KOREAN / f"{name}.ipynb"
    notebook, english = read(path), read(ENGLISH / path.name)
    sources = {cell.id: cell.source for cell in english.cells}
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.id in (ids or sources):
            cell.metadata["translates"] = digest(sources[cell.id])
    write(path, notebook)


def pages() -> dict[Path, str]:
    """The pages of docs/ko that translate one of docs, each with the comment that it must hold."""
    return {
        page: f"<!-- translates {digest(english.read_text(encoding='utf-8'))} -->"
        for page in sorted((PAGES / "ko").glob("*.md"))
        if (english := PAGES / page.name).exists()
    }


def page_translated(page: Path) -> None:
    """Note that a page of docs/ko says what the English one says now."""
    text = re.sub(r"\s*(<!-- translates \w+ -->\s*)?\Z", "", page.read_text(encoding="utf-8"))
    page.write_text(f"{text}\n\n{pages()[page]}\n", encoding="utf-8")


def check() -> list[str]:
    """Everything in which a twin or a page is not the English one's any more, a line each."""
    lessons = {path.stem for path in ENGLISH.glob("*.ipynb")}
    twins = {path.stem for path in KOREAN.glob("*.ipynb")}
    known = {english for texts in catalogue().values() for english in texts}
    found = [f"{name}: has no Korean twin" for name in sorted(lessons - twins - UNTRANSLATED)]
    found += [f"{name}: has no English lesson" for name in sorted(twins - lessons)]
    stale = sorted(UNTRANSLATED & twins)
    found += [f"{name}: take it off UNTRANSLATED in tools/korean.py" for name in stale]
    for name in sorted(twins & lessons):
        english, korean = read(ENGLISH / f"{name}.ipynb"), read(KOREAN / f"{name}.ipynb")
        found += [f"{name}: {what}" for what in differences(english, korean)]
        code = [cell.source for cell in english.cells if cell.cell_type == "code"]
        shown = dict.fromkeys(text for source in code for text in shown_texts(source))
        found += [f"{name}: no Korean for {text!r}" for text in shown if text not in known]
    for page, comment in pages().items():
        if comment not in page.read_text(encoding="utf-8"):
            found.append(f"docs/ko/{page.name}: docs/{page.name} changed in English")
    return found


def differences(english: NotebookNode, korean: NotebookNode) -> Iterator[str]:
    """The cells of a lesson that its twin lacks, has besides, or has otherwise."""
    twins = {cell.id: cell for cell in korean.cells}
    ids = [cell.id for cell in english.cells]
    yield from (f"cell {each} is missing" for each in ids if each not in twins)
    yield from (f"cell {each} is not in the English one" for each in twins if each not in ids)
    if [each for each in twins if each in ids] != [each for each in ids if each in twins]:
        yield "its cells are in another order"
    for number, cell in enumerate(english.cells, 1):
        other = twins.get(cell.id)
        where = f"cell {cell.id} ({number}.: {cell.source.strip().partition(chr(10))[0][:50]})"
        if other is None:
            continue
        if other.cell_type != cell.cell_type:
            yield f"{where} is {other.cell_type}"
        elif cell.cell_type == "code":
            if (other.source, other.metadata) != (cell.source, cell.metadata):
                yield f"{where}: its code or its metadata differ"
        elif "translates" not in other.metadata:
            yield f"{where} is not translated"
        elif other.metadata["translates"] != digest(cell.source):
            yield f"{where} changed in English"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser("import")
    importing.add_argument("folder", type=Path)
    importing.add_argument("names", nargs="*")
    commands.add_parser("sync").add_argument("names", nargs="*")
    marking = commands.add_parser("translated")
    marking.add_argument("name")
    marking.add_argument("ids", nargs="*")
    commands.add_parser("check")
    options = parser.parse_args(arguments)
    if options.command == "import":
        found = import_(options.folder, options.names)
    elif options.command == "sync":
        found = sync(options.names)
        print(*found, sep="\n")
        return 0
    else:
        page = PAGES / "ko" / f"{options.name}.md" if options.command == "translated" else None
        if page in pages():
            page_translated(page)
        elif page:
            translated(options.name, options.ids)
        found = check()
    print("\n".join(found) or "The Korean lessons say what the English ones say.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
