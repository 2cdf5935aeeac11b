"""The way to the model in virtual time: one for each run, and nothing of it left afterwards."""

from __future__ import annotations

import gc
import weakref
from types import ModuleType

from agentlab import trace as tracing
from agentlab.clock import VirtualTimeLoop
from agentlab.endpoint.server.app import App


def alive(kind: type) -> int:
    gc.collect()
    return sum(isinstance(thing, kind) for thing in gc.get_objects())


def test_nothing_of_a_virtual_run_is_left(fresh_lab: ModuleType):
    """Loop, model and record are gone after it, so that no later trace looks at them."""
    before = [alive(VirtualTimeLoop), alive(App), len(tracing._sources)]
    for _ in range(5):
        fresh_lab.simulate(fresh_lab.ask("Describe tides.", max_tokens=2))
    assert [alive(VirtualTimeLoop), alive(App), len(tracing._sources)] == before


def test_a_trace_outlives_its_virtual_run(fresh_lab: ModuleType):
    """Its spans are there inside the block after the run, and when all else is gone."""
    with tracing.trace() as t:
        fresh_lab.simulate(fresh_lab.ask("Describe tides.", agent="one", max_tokens=11))
        gc.collect()
        assert t.seconds == {"one": 2.0}
    gc.collect()
    assert t.seconds == {"one": 2.0}


def test_a_loop_ends_with_its_belongings():
    """Whatever is kept for a virtual loop is let go as the loop is closed."""

    class Thing:
        pass

    loop = VirtualTimeLoop()
    thing = loop.belongings["key"] = Thing()
    gone = weakref.ref(thing)
    del thing
    loop.close()
    assert gone() is None
