"""Agent Lab's companion module: a local model, a trace of what it saw, and virtual time.

Nothing is imported here, so that `import agentlab` is instant; take the rooms you need:
`from agentlab import lab, plots`, `from agentlab.trace import trace`.
"""

__all__ = [
    "bench",
    "classroom",
    "clock",
    "completions",
    "content",
    "crews",
    "doctor",
    "endpoint",
    "engines",
    "errors",
    "exchange",
    "exercises",
    "files",
    "graph",
    "lab",
    "located",
    "parallel",
    "plots",
    "progress",
    "progress_report",
    "resilience",
    "settings",
    "step",
    "trace",
    "transport",
    "tuning",
    "wire",
    "workflow",
    "workflow_command",
    "workflow_file",
]
