"""The commands of `agentlab`, a file each, with a `run(options)` that returns the exit code."""
