"""A page on a result that others can cite: NAME.report.md and NAME.report.html."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt

from agentlab._support.system import write_whole
from agentlab.bench import proof, report, self_tuning
from agentlab.bench.experiment import counted
from agentlab.bench.results import Results
from agentlab.errors import ConfigError
from agentlab.settings import DATA

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=lambda name: name is not None and ".html" in name,
    undefined=StrictUndefined,
    trim_blocks=True,
)
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


def write(file: Path) -> list[Path]:
    """Write both pages beside a result, and return where; its picture is part of the HTML.

    Raises:
        ConfigError: If the result is not as its proof has it.
    """
    result, known = proof.stored(file), proof.read(file)
    text = report.markdown(result) if isinstance(result, Results) else self_tuning.markdown(result)
    citation = yaml.safe_load((DATA.parent / "CITATION.cff").read_text(encoding="utf-8"))
    values: dict[str, Any] = {"result": result, "proof": known, "file": file, "citation": citation}
    now = proof.digests(file, result)
    if known and known.sha256.get(file.name) != now[file.name]:
        cure = "measure again, or take the proof away"
        raise ConfigError(f"{file} is not as its proof has it (agentlab verify says more); {cure}")
    values |= {"digests": known.sha256 if known else now}
    values |= {"table": text, "counted": counted, "tuning": not isinstance(result, Results)}
    picture, page = file.with_suffix(".png"), _PAGES.get_template("cite.md.jinja")
    there = picture.exists()
    address = "data:image/png;base64," + b64encode(picture.read_bytes()).decode() if there else ""
    body = _MARKDOWN.render(page.render(values, picture=address))
    pages = {
        ".report.md": page.render(values, picture=picture.name if there else ""),
        ".report.html": _PAGES.get_template("cite.html.jinja").render(body=body, title=result.name),
    }
    for suffix, content in pages.items():
        write_whole(file.with_suffix(suffix), content.encode())
    return [file.with_suffix(suffix) for suffix in pages]
