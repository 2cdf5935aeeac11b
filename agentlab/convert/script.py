"""Workflows as Python scripts that need no Agent Lab, and ask the same questions."""

from pprint import pformat
from string import Template

from agentlab.settings import DATA
from agentlab.workflow import Workflow


def langgraph(workflow: Workflow) -> str:
    """Write the workflow as a script that needs only LangGraph and `langchain-openai`.

    Example:
        >>> from agentlab.workflow import Step
        >>> print(langgraph(Workflow([Step("notes", "Name a river.")])).splitlines()[2])
        # Needs: pip install langgraph langchain-openai
    """
    edges = []
    for step in workflow.steps:
        needs = list(workflow.needs[step.name])
        start = "START" if not needs else repr(needs) if len(needs) > 1 else repr(needs[0])
        edges.append(f"    drawn.add_edge({start}, {step.name!r})")
    edges += [f"    drawn.add_edge({end!r}, END)" for end in workflow.ends]
    body = "\n".join(edges)
    return _script(workflow, "langgraph", needs="langgraph langchain-openai", edges=body)


def crewai(workflow: Workflow) -> str:
    """Write the workflow as a script that needs only CrewAI: a Flow."""
    # Python folds some letters of an identifier into others; a number has none.
    names = {
        step.name: f"ask_{step.name if step.name.isascii() else number}"
        for number, step in enumerate(workflow.steps, start=1)
    }
    methods = []
    for step in workflow.steps:
        needs = [repr(names[need]) for need in workflow.needs[step.name]]
        heard = f"and_({', '.join(needs)})" if len(needs) > 1 else "".join(needs)
        methods.append(
            f"\n    @{f'listen({heard})' if needs else 'start()'}\n"
            f"    async def {names[step.name]}(self):\n"
            f"        return await ask(self.state, {step.name!r})\n"
        )
    return _script(workflow, "flow", needs="crewai", methods="\n".join(methods))


def _script(workflow: Workflow, body: str, *, needs: str, **parts: str) -> str:
    """Fill in `data/scripts/BODY.py.txt`, which has places for the parts, and its head and end."""
    steps = []
    for step in workflow.steps:
        steps.append(f"    {step.name!r}: {{")
        for field in ("prompt", "system", "max_tokens", "temperature"):
            value = pformat(getattr(step, field), width=80)
            steps.append(f"        {field!r}: {value},".replace("\n", "\n" + 18 * " "))
        steps.append("    },")
    about = {
        "name": " ".join(workflow.name.split()),
        "about": " ".join(workflow.about.split()),
        "needs": needs,
        "words": " ".join(f"{name}=..." for name in workflow.inputs),
        "inputs": repr(list(workflow.inputs)),
        "steps": "\n".join(["{", *steps, "}"]),
    }
    files = (DATA / "scripts" / f"{name}.py.txt" for name in ("head", body, "main"))
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    return Template(text).substitute(about | parts)
