"""What to install where a package is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from agentlab.errors import ConfigError


@contextmanager
def extras(extra: str) -> Iterator[None]:
    """Turn a missing package, in a block that imports, into a ConfigError: `extra` brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = f"{error.name} is not installed"
        raise ConfigError(f"{missing}; pip install 'agentlab-course[{extra}]'") from None
