"""What to install where a package is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agentlab.errors import ConfigError

_EXTRAS = {
    "langchain_core": "langgraph",
    "langchain_openai": "langgraph",
    "langgraph": "langgraph",
    "openai": "langgraph",
    "crewai": "crewai",
    "distributed": "dask",
}


@contextmanager
def extras() -> Iterator[None]:
    """Turn a missing package, in a block that imports, into an error that says what brings it.

    Raises:
        ConfigError: If a package is missing that is not part of the base install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "agentlab"):
            raise
        extra = _EXTRAS.get(package, "course")
        raise ConfigError(
            f"{package} is not installed; pip install 'agentlab-course[{extra}]'"
        ) from None
