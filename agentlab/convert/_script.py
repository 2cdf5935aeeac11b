"""What the exported scripts share: texts as Python reads them, and the main program."""

from __future__ import annotations

from string import Template
from typing import Any

from agentlab.settings import DATA
from agentlab.workflow import Workflow

_SCRIPTS = DATA / "scripts"


def script(workflow: Workflow, body: str, *, needs: str, **parts: str) -> str:
    """Write a whole script: it takes inputs as words NAME=TEXT, and prints step -> answer as JSON.

    Args:
        body: The file of `data/scripts` that defines `async def run(given)`; it has places for
            `$inputs`, `$steps` and the `parts`.
        needs: The packages to install.
    """
    steps = []
    for step in workflow.steps:
        steps.append(f"    {literal(step.name)}: {{")
        for field in ("prompt", "system", "max_tokens", "temperature"):
            steps.append(f"        {field!r}: {literal(getattr(step, field))},")
        steps.append("    },")
    about = {
        "name": " ".join(workflow.name.split()),
        "about": " ".join(workflow.about.split()),
        "needs": needs,
        "words": " ".join(f"{name}=..." for name in workflow.inputs),
        "inputs": repr(list(workflow.inputs)),
        "steps": "\n".join(["{", *steps, "}"]),
    }
    files = (_SCRIPTS / f"{name}.py.txt" for name in ("head", body, "main"))
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    return Template(text).substitute(about | parts)


def literal(value: Any) -> str:
    """Return a value as Python reads it; text of several lines as it stands, where that is equal.

    Example:
        >>> print(literal("one\\ntwo"))
        \"\"\"\\
        one
        two\"\"\"
    """
    if isinstance(value, str) and "\n" in value:
        plain = all(line.isprintable() for line in value.split("\n"))
        if plain and "\\" not in value and '"""' not in value and not value.endswith('"'):
            return f'"""\\\n{value}"""'
    return repr(value)
