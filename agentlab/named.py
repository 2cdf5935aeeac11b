"""Data files that are given by a name that comes with the course, or by a path of one's own."""

from __future__ import annotations

from pathlib import Path

from agentlab.errors import ConfigError


def names(folder: Path) -> list[str]:
    """The names of the YAML files in a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def found(name: str | Path, folder: Path, *, what: str) -> Path:
    """The file NAME.yaml of the folder, or the file itself if `name` is the path of a YAML file.

    Raises:
        ConfigError: If there is none, with the names that there are.

    Example:
        >>> from agentlab.settings import DATA
        >>> found("report", DATA / "workflows", what="workflow").name
        'report.yaml'
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = folder / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"no {what} {str(name)!r}; choose one of {', '.join(names(folder))}, "
            "or give a .yaml file"
        )
    return path
