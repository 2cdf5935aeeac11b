"""The commands of `agentlab`, a file each: what it takes, and what it does.

Each has `DESCRIPTION`, `arguments(parser)` and `run(options)`, which returns the exit code. Only
the one that is asked for is imported.
"""
