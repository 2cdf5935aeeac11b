"""`agentlab workflow`: is a file right, what does it say, and what is it in a framework's words?"""

from __future__ import annotations

import argparse

from agentlab._support.tables import markdown_table
from agentlab.convert import script
from agentlab.errors import ConfigError
from agentlab.workflow import Workflow, listed

DESCRIPTION = (
    "check: whatever is wrong is named by file, line and column, and the exit code is 1. show: "
    "steps, bounds, and the graph as Mermaid text. export: a Python script that needs no Agent Lab."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("verb", choices=("check", "show", "export"))
    parser.add_argument("files", nargs="+", metavar="FILE", help="a name, or a .yaml file")
    parser.add_argument(
        "--to",
        choices=("langgraph", "flow"),
        default="langgraph",
        help="what export writes: LangGraph (default), or a Flow of CrewAI",
    )


def run(options: argparse.Namespace) -> int:
    """Check, show or export; return 1 if a file is wrong."""
    if options.verb == "export":
        if len(options.files) > 1:
            raise ConfigError("export takes one file at a time")
        write = script.langgraph if options.to == "langgraph" else script.crewai
        print(write(Workflow.load(options.files[0])), end="")
        return 0
    wrong = 0
    for file in options.files:
        try:
            workflow = Workflow.load(file)
        except ConfigError as error:
            print(error)
            wrong = 1
            continue
        if options.verb == "show":
            print(show(workflow))
        else:
            inputs = listed(workflow.inputs)
            print(f"{file}: right; steps: {len(workflow.steps)}, inputs: {inputs}")
    return wrong


def show(workflow: Workflow) -> str:
    """Describe a workflow as Markdown: its steps, its bounds and its graph.

    The bounds count each step as taking one unit of time: what they are in seconds, a run tells.
    """
    plan = workflow.plan({step.name: 1 for step in workflow.steps})
    rows = [
        (step.name, ", ".join(step.mentions) or "nothing", step.max_tokens or "no limit")
        for step in workflow.steps
    ]
    steps = markdown_table(["Step", "Needs", "Most tokens"], rows)
    bounds = (
        f"Work {plan.work_s:g}, span {plan.span_s:g} ({' -> '.join(plan.critical_path)}), at most "
        f"{plan.peak} at the same time: {plan.work_s / plan.span_s:.2f} times as fast as one by "
        "one, if all steps take as long."
    )
    graph = f"```mermaid\n{mermaid(workflow)}\n```\n"
    return "\n\n".join([f"# {workflow.name}", workflow.about, steps, bounds, graph])


def mermaid(workflow: Workflow) -> str:
    """Draw the graph as Mermaid text, which JupyterLab, GitHub and editors draw.

    Example:
        >>> from agentlab.workflow import Step
        >>> steps = [Step("notes", "What is {topic}?"), Step("report", "Sum up {notes}.")]
        >>> print(mermaid(Workflow(steps, inputs=["topic"])))
        graph LR
            i0([topic])
            s0[notes]
            s1[report]
            i0 --> s0
            s0 --> s1
    """
    # Nodes are numbered, because Mermaid takes no step that is called "end".
    inputs = {name: f"i{number}" for number, name in enumerate(workflow.inputs)}
    steps = {step.name: f"s{number}" for number, step in enumerate(workflow.steps)}
    lines = [f"{number}([{name}])" for name, number in inputs.items()]
    lines += [f"{number}[{name}]" for name, number in steps.items()]
    numbers = inputs | steps
    for step in workflow.steps:
        lines += [f"{numbers[name]} --> {numbers[step.name]}" for name in step.mentions]
    return "\n    ".join(["graph LR", *lines])
