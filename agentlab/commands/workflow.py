"""`agentlab workflow`: is a file right, what does it say, and what is it in a framework's words?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from agentlab.errors import ConfigError
from agentlab.graph import listed
from agentlab.workflow import Workflow

DESCRIPTION = (
    "check: whatever is wrong is named by file, line and column, and the exit code is 1. show: "
    "steps, bounds, and the graph as Mermaid text. export: a Python script that needs no Agent Lab."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("verb", choices=("check", "show", "export"))
    parser.add_argument("files", nargs="+", metavar="FILE", help="a name, or a .yaml file")
    parser.add_argument(
        "--to",
        choices=("langgraph", "flow"),
        default="langgraph",
        help="what export writes: LangGraph (default), or a Flow of CrewAI",
    )


def run(options: argparse.Namespace) -> int:
    """Check, show or export; returns 1 if a file is wrong."""
    if options.verb == "show":
        print("\n\n".join(map(show, options.files)))
        return 0
    if options.verb == "export":
        if len(options.files) > 1:
            raise ConfigError("two scripts in one output are none; export one file at a time")
        print(export(options.files[0], options.to), end="")
        return 0
    lines, right = check(options.files)
    print("\n".join(lines))
    return 0 if right else 1


def check(files: Sequence[str]) -> tuple[list[str], bool]:
    """A line for each file that is right, the problems of each that is not, and whether all are.

    Args:
        files: Paths, or names of the course's own.

    Example:
        >>> check(["report"])
        (["report: right; steps: 3, inputs: 'topic', 'data'"], True)
    """
    lines, right = [], True
    for file in files:
        try:
            workflow = Workflow.load(file)
        except ConfigError as error:
            lines.append(str(error))
            right = False
        else:
            lines.append(
                f"{file}: right; steps: {len(workflow.steps)}, inputs: {listed(workflow.inputs)}"
            )
    return lines, right


def show(file: str) -> str:
    """What a workflow is, as Markdown: its steps, its bounds and its graph.

    The bounds count each step as taking one unit of time: what they are in seconds, a run tells.
    """
    workflow = Workflow.load(file)
    plan = workflow.plan({step.name: 1 for step in workflow.steps})
    rows = [
        (step.name, ", ".join(step.mentions) or "nothing", f"{step.max_tokens or 'no limit'}")
        for step in workflow.steps
    ]
    return "\n".join(
        [
            f"# {workflow.name}",
            "",
            workflow.about,
            "",
            "| Step | Needs | Most tokens |",
            "|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            f"Work {plan.work_s:g}, span {plan.span_s:g} ({' -> '.join(plan.critical_path)}), at "
            f"most {plan.peak} at once: {plan.work_s / plan.span_s:.2f} times as fast as one by "
            "one, if all steps take as long.",
            "",
            "```mermaid",
            mermaid(workflow),
            "```",
        ]
    )


def export(file: str, to: str) -> str:
    """A workflow as a Python script that needs no Agent Lab.

    Args:
        to: `langgraph`, or `flow` for CrewAI.
    """
    workflow = Workflow.load(file)
    if to == "langgraph":
        from agentlab.exchange import langgraph

        return langgraph.script(workflow)
    from agentlab.exchange import crewai  # takes some five seconds

    return crewai.flow_script(workflow)


def mermaid(workflow: Workflow) -> str:
    """The graph as Mermaid text, which JupyterLab, GitHub and editors draw.

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
    # Nodes are numbered, for a step may be called "end", which Mermaid does not bear.
    inputs = {name: f"i{number}" for number, name in enumerate(workflow.inputs)}
    steps = {step.name: f"s{number}" for number, step in enumerate(workflow.steps)}
    numbers = inputs | steps
    lines = [f"{number}([{name}])" for name, number in inputs.items()]
    lines += [f"{number}[{name}]" for name, number in steps.items()]
    lines += [
        f"{numbers[name]} --> {numbers[step.name]}"
        for step in workflow.steps
        for name in step.mentions
    ]
    return "\n    ".join(["graph LR", *lines])
