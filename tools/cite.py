"""`agentlab bench report`: a page on a result that others can cite; the wheel has this file."""

from __future__ import annotations

import argparse
from base64 import b64encode
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markdown_it import MarkdownIt

from agentlab._support.system import write_whole
from agentlab.bench import proof, report, results
from agentlab.bench.experiment import counted
from agentlab.errors import ConfigError

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("cite")),
    autoescape=select_autoescape(),
    trim_blocks=True,
    lstrip_blocks=True,
)
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


def write(file: Path) -> list[Path]:
    """Write both pages beside a result, and return where; its picture is part of the HTML.

    Raises:
        ConfigError: If the result is not as its proof has it, or its folder takes no file.
    """
    result, known = results.load(file), proof.read(file)
    digests = proof.digests(file, result)
    if known and known.sha256.get(file.name) != digests[file.name]:
        cure = "measure again, or take the proof away"
        raise ConfigError(f"{file} is not as its proof has it (agentlab verify says more); {cure}")
    values: dict[str, Any] = {
        "result": result,
        "proof": known,
        "file": file,
        "digests": known.sha256 if known else digests,
        "table": report.markdown(result),
        "counted": counted,
    }
    name, inside = file.with_suffix(".png"), ""
    if name.exists():
        inside = "data:image/png;base64," + b64encode(name.read_bytes()).decode()
    text, html = (_PAGES.get_template(f"page.{kind}") for kind in ("md.txt", "html"))
    body = _MARKDOWN.render(text.render(values, picture=inside))
    pages = {
        file.with_suffix(".report.md"): text.render(values, picture=inside and name.name),
        file.with_suffix(".report.html"): html.render(body=body, title=result.name),
    }
    try:
        for path, content in pages.items():
            write_whole(path, content.encode())
    except OSError as error:
        where = f"cannot write beside the result: {error}"
        raise ConfigError(f"{where}; copy {file.name} and its proof to a folder of yours") from None
    return list(pages)


def run(options: argparse.Namespace) -> int:
    """Write the pages of each file, and print where; return 0."""
    for file in map(Path, options.files):
        pages = write(file)
        if proof.read(file) is None:
            print(f"{file} has no proof, and its pages say so first; measure it again for one")
        print(*pages, sep="\n")
    return 0
