"""`python -m agentlab` is the same as `agentlab`."""

from agentlab.commands.main import main

if __name__ == "__main__":
    raise SystemExit(main())
