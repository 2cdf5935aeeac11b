"""A page on a result that others can cite: NAME.report.md and NAME.report.html."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt

from agentlab._support.system import write_whole
from agentlab.bench import proof, report, results
from agentlab.bench.experiment import counted
from agentlab.bench.report import PAGES
from agentlab.errors import ConfigError
from agentlab.settings import DATA

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


def write(file: Path) -> list[Path]:
    """Write both pages beside a result, and return where; its picture is part of the HTML.

    Raises:
        ConfigError: If the result is not as its proof has it.
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
        "citation": yaml.safe_load((DATA.parent / "CITATION.cff").read_text(encoding="utf-8")),
        "digests": known.sha256 if known else digests,
        "table": report.markdown(result),
        "counted": counted,
    }
    name, inside = file.with_suffix(".png"), ""
    if name.exists():
        inside = "data:image/png;base64," + b64encode(name.read_bytes()).decode()
    text, html = (PAGES.get_template(f"cite.{kind}") for kind in ("txt", "html"))
    body = _MARKDOWN.render(text.render(values, picture=inside))
    pages = {
        file.with_suffix(".report.md"): text.render(values, picture=inside and name.name),
        file.with_suffix(".report.html"): html.render(body=body, title=result.name),
    }
    for path, content in pages.items():
        write_whole(path, content.encode())
    return list(pages)
