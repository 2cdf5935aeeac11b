"""Data files that are given by a name that comes with the course, or by a path of one's own."""

from __future__ import annotations

from pathlib import Path

from agentlab.errors import ConfigError


def names(folder: Path) -> list[str]:
    """Return the names of the YAML files in a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def found(name: str | Path, folder: Path, *, what: str) -> Path:
    """Return the file NAME.yaml of the folder, or `name` itself if it is a YAML file's path.

    Raises:
        ConfigError: If there is no such file, with the names that exist.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(names(folder))
        raise ConfigError(f"no {what} {str(name)!r}; choose one of {known}, or give a .yaml file")
    return path
