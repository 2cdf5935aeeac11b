"""Agent Lab's companion module: a local model, a trace of what it saw, and virtual time.

The module, which lessons 00 to 04c use: `lab`, `clock`, `explore`, `trace`, `plots`, `workflow`,
`engines`, `resilience`, `exercises`, `errors`, `settings`. The local model: `endpoint`,
`classroom`. Studies, each the matter of one lesson: `bench`, `learning`, `content`; `testing`.

No room is imported before it is used, so that `import agentlab` is instant; take those you need:
`from agentlab import lab, plots`, `from agentlab.trace import trace`.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

__all__ = [
    "bench", "classroom", "clock", "content", "endpoint", "engines", "errors",
    "exercises", "explore", "lab", "learning", "plots", "resilience", "settings", "testing",
    "trace", "workflow",
]  # fmt: skip

if not TYPE_CHECKING:  # which would else believe that any name is one

    def __getattr__(name: str) -> ModuleType:
        if name in __all__:
            from agentlab._support.system import extras

            with extras("course"):
                return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
