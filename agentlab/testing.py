"""For any pytest suite: `local_openai`, a keyless OpenAI, and `explore`, which looks for races.

pytest finds both fixtures wherever `agentlab-course` is installed; README has examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from agentlab.explore import Explored
    from agentlab.trace import Trace


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker that shapes the local model."""
    shape = "local_openai(**settings): shape the model behind the fixture, as lab.configure() does"
    config.addinivalue_line("markers", shape)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs one schedule again."""
    said = "run each `explore` under this seed's schedule alone, with the test's own error"
    parser.getgroup("agentlab").addoption("--explore-seed", type=int, help=said)


@pytest.fixture
def explore(request: pytest.FixtureRequest) -> Callable[..., Explored]:
    """Return `agentlab.explore.explore`, on the local model; `--explore-seed` gives it the seed."""
    from agentlab import lab, settings
    from agentlab.explore import explore

    if "local_openai" in request.fixturenames:
        request.getfixturevalue("local_openai")  # whose model is explored, too
    else:  # with a preset, nobody asks OPENAI_BASE_URL whose it is
        lab.configure(preset=settings.from_environment(upstream=None).preset, upstream=None)
    return partial(explore, seed=request.config.getoption("--explore-seed"))


@pytest.fixture
def local_openai(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Trace]:
    """Start the local model, point `OPENAI_BASE_URL` and `OPENAI_API_KEY` at it, and trace it.

    The trace is this test's own, and open. No request reaches a real model; the local one answers
    without delay (preset `instant`), and one serves all tests. `@pytest.mark.local_openai(...)`
    starts another for its test alone, shaped by any fields of `agentlab.settings.Settings`.
    """
    from agentlab import lab, settings
    from agentlab.errors import ConfigError
    from agentlab.trace import trace

    marker = request.node.get_closest_marker("local_openai")
    given = marker.kwargs if marker else {}
    shape: dict[str, Any] = {"preset": "instant", **given, "upstream": None}
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)
    if marker or lab.current() != settings.from_environment(**shape):
        lab.configure(**shape)
    monkeypatch.setenv("OPENAI_BASE_URL", lab.base_url())
    monkeypatch.setenv("OPENAI_API_KEY", lab.api_key())
    with suppress(ConfigError), trace() as seen:  # of several clocks, to a test that did not look
        yield seen
