"""How a learner joins: the lines that the terminal, the projector and the guide all show."""

from __future__ import annotations


def in_a_notebook(url: str, name: str = "your-name") -> list[str]:
    """The lines that let a notebook ask the class at `url`, the same on every system.

    They set the environment, and not `lab.configure(upstream=...)`, because every later
    `lab.configure` starts from the environment: with a key and no address there, it would lead to
    OpenAI.

    Example:
        >>> print(*in_a_notebook("http://192.168.1.20:8000/v1", "ada"), sep="\\n")
        import os
        from agentlab import lab
        os.environ["OPENAI_BASE_URL"] = "http://192.168.1.20:8000/v1"
        os.environ["OPENAI_API_KEY"] = "ada"
        lab.configure()
    """
    return [
        "import os",
        "from agentlab import lab",
        f'os.environ["OPENAI_BASE_URL"] = "{url}"',
        f'os.environ["OPENAI_API_KEY"] = "{name}"',
        "lab.configure()",
    ]


def in_a_shell(url: str, name: str = "your-name") -> list[str]:
    """The same before `make lab`, on macOS and Linux."""
    return [f"export OPENAI_BASE_URL={url}", f"export OPENAI_API_KEY={name}"]
