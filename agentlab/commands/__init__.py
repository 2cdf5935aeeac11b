"""The commands of `agentlab`, a file each; `main` finds the one that is asked for.

What each takes is in commands.toml. Each has `run(options)`, which returns the exit code.
"""
