"""Where the course's data lie."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
DATA = _PACKAGE / "data" if (_PACKAGE / "data").is_dir() else _PACKAGE.parent / "data"
"""Inside the package where it is installed, beside it in a checkout."""
