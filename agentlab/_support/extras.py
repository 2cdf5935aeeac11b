"""What to install where a package is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from agentlab.errors import ConfigError

_EXTRAS = {
    "langgraph": ("langchain_core", "langchain_openai", "langgraph", "openai"),
    "crewai": ("crewai",),
    "dask": ("distributed",),
    "course": ("filelock", "markdown_it", "matplotlib", "numpy", "sqlalchemy"),
}


@contextmanager
def extras() -> Iterator[None]:
    """Turn a missing package, in a block that imports, into a ConfigError: what brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        for extra, packages in _EXTRAS.items():
            if package in packages:
                raise ConfigError(
                    f"{package} is not installed; pip install 'agentlab-course[{extra}]'"
                ) from None
        raise
