"""CrewAI, silent and offline from its first import, leaving nothing behind on this machine.

Import this before `crewai`, which by default reports to its makers and writes keys, settings and
databases into the user's home. Here they lie in a folder that is deleted with this process.
"""

import asyncio
import atexit
import logging
import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agentlab._support.asyncio_tools import running_loop
from agentlab.clock import is_virtual
from agentlab.errors import ConfigError

if "crewai" in sys.modules:
    _may = "crewai was imported before, and may have spoken to its makers or written into your home"
    warnings.warn(f"{_may}; import agentlab.lab.crews first", stacklevel=2)

_folder = Path(tempfile.mkdtemp(prefix="agentlab-crewai-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
os.environ |= {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "CREWAI_STORAGE_DIR": str(_folder),
}

# These two have no setting for where they write; importing CrewAI already makes one write.
import crewai_core.settings  # noqa: E402
from crewai_core.lock_store import set_lock_backend  # noqa: E402
from crewai_core.token_manager import TokenManager  # noqa: E402

crewai_core.settings.DEFAULT_CONFIG_PATH = _folder / "settings.json"
TokenManager._get_secure_storage_path = staticmethod(lambda: _folder)

# In memory, not by files that are polled every .25 s: no other process has the folder.
_locks: dict[str, Any] = {}
set_lock_backend(lambda name, timeout: _locks.setdefault(name, threading.RLock()))

_warn = warnings.warn
import crewai  # noqa: E402
from crewai import LLM, events  # noqa: E402
from crewai.events import event_context  # noqa: E402
from crewai.flow.flow import Flow, and_, listen, start  # noqa: E402
from openai._base_client import get_platform  # noqa: E402
from pydantic.warnings import PydanticDeprecationWarning  # noqa: E402

__all__ = ["LLM", "Flow", "and_", "guarded", "listen", "start"]

# CrewAI hides these in a `warn` of its own, which lacks what Python 3.12 added: matplotlib breaks.
warnings.warn = _warn
warnings.filterwarnings("ignore", category=PydanticDeprecationWarning)
# It logs at every start that it counts tokens by their letters; and a failed call, which is raised
# anyway, through the root logger, two others, and on the screen.
logging.getLogger("crewai.llms.base_llm").setLevel(logging.ERROR)
logging.getLogger("crewai.flow.runtime").setLevel(logging.CRITICAL)
_PACKAGES = tuple(f"{p.__path__[0]}{os.sep}" for p in (crewai, crewai_core))
logging.getLogger().addFilter(lambda record: not record.pathname.startswith(_PACKAGES))
event_context._default_config.mismatch_behavior = event_context.MismatchBehavior.SILENT
event_context._default_config.empty_pop_behavior = event_context.MismatchBehavior.SILENT

_emit = events.crewai_event_bus.emit


def _emit_in_real_time(source: Any, event: Any) -> Any:
    """Refuse virtual time to crews and Flows, each of which begins with such an event."""
    if isinstance(event, events.CrewKickoffStartedEvent | events.FlowStartedEvent) and is_virtual():
        raise ConfigError("CrewAI's threads keep real time; await it outside of lab.simulate()")
    return _emit(source, event)


events.crewai_event_bus.emit = _emit_in_real_time  # type: ignore[method-assign]


def guarded(llm: LLM, run: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]) -> LLM:
    """Let every call that a crew makes with this LLM go through `run`, such as `Guard.run`.

    An agent asks from a thread, in `akickoff` as well; its call is handed over to the event loop
    that is running now. None, or one that has ended or that `kickoff` blocks, is a ConfigError.

    Example:
        llm = guarded(lab.crew_llm(agent="writer"), Guard(max_concurrency=20).run)
        writer = Agent(role="Writer", goal="...", backstory="...", llm=llm, max_retry_limit=0)
        await Crew(agents=[writer], tasks=[task]).akickoff()
    """
    loop = running_loop()
    if loop is None:
        raise ConfigError("a guard lives in a running event loop; call guarded in a coroutine")
    asked, native = llm.acall, getattr(llm, "_async_client", None)
    if native is not None:  # it would ask a thread, and crews that wait here may hold all there are
        native._platform = get_platform()

    async def acall(*args: Any, **options: Any) -> Any:
        return await run(lambda: asked(*args, **options))

    def call(*args: Any, **options: Any) -> Any:
        if running_loop() is loop or not loop.is_running():
            raise ConfigError("the event loop of its guard stands still; await akickoff in it")
        return asyncio.run_coroutine_threadsafe(acall(*args, **options), loop).result()

    # Past the model's own checks, which know no attribute of such a name.
    object.__setattr__(llm, "acall", acall)
    object.__setattr__(llm, "call", call)
    return llm
