"""What docs/module.md shows as code, to be run by the tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "module.md"


def recipe(name: str) -> Any:
    """The class or function of that name, from the block of the page that defines it."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [each for each in blocks if re.search(rf"^(class|def) {name}\b", each, re.MULTILINE)]
    defined: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), defined)
    return defined[name]
