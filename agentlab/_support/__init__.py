"""What several rooms need, and no user touches."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
DATA = _PACKAGE / "data" if (_PACKAGE / "data").is_dir() else _PACKAGE.parent / "data"
"""The course's data: inside the package where it is installed, beside it in a checkout."""
