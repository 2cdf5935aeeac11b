"""What the exported scripts share: texts as Python reads them, and the main program."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

from agentlab.step import Step
from agentlab.workflow import Workflow

_HEAD = Template("""\
# $name: $about
#
# Needs: pip install $needs
# Run:   OPENAI_API_KEY=... python THIS_FILE $inputs
# OPENAI_BASE_URL and OPENAI_MODEL choose another endpoint and another model.

""")

_MAIN = Template("""\


def main():
    given = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    if set(given) != set(INPUTS) or len(sys.argv) - 1 != len(INPUTS):
        sys.exit(f"usage: python {sys.argv[0]} {' '.join(name + '=...' for name in INPUTS)}")
    results = asyncio.run(run(given))
    sys.stdout.reconfigure(encoding="utf-8")
    print(json.dumps({name: results[name] for name in $order}, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
""")


def script(workflow: Workflow, body: str, *, needs: str, order: str) -> str:
    """A whole script: it takes the inputs as words NAME=TEXT, and prints step -> answer as JSON.

    Args:
        body: Defines `INPUTS` and `async def run(given)`.
        needs: The packages to install.
        order: An expression for the names of the steps.
    """
    head = _HEAD.substitute(
        name=_line(workflow.name),
        about=_line(workflow.about),
        needs=needs,
        inputs=" ".join(f"{name}=..." for name in workflow.inputs),
    )
    return head + body + _MAIN.substitute(order=order)


def steps(workflow: Workflow) -> str:
    """The steps as the text of a dict of dicts."""
    lines = []
    for step in workflow.steps:
        lines.append(f"    {literal(step.name)}: {{")
        lines += [f"        {name!r}: {literal(value)}," for name, value in _asked(step).items()]
        lines.append("    },")
    return "\n".join(["{", *lines, "}"])


def literal(value: Any) -> str:
    """A value as Python reads it; text of many lines as it stands, where that is the same.

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


def _asked(step: Step) -> Mapping[str, Any]:
    return {
        "prompt": step.prompt,
        "system": step.system,
        "max_tokens": step.max_tokens,
        "temperature": step.temperature,
    }


def _line(text: str) -> str:
    """Text on one line, for a comment."""
    return " ".join(text.split())
