"""The examples in docstrings are true: each is run, and must show what it says."""

from __future__ import annotations

import doctest
from importlib import import_module
from pkgutil import walk_packages

import pytest

import agentlab

MODULES = [found.name for found in walk_packages(agentlab.__path__, "agentlab.")]


@pytest.mark.filterwarnings("ignore")  # CrewAI's and its libraries' own
@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples_are_true(name: str, fresh_lab: object):
    """Those of one module, in the order of its names; none leaves anything for the next."""
    tried = doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried.failed == 0


def test_there_are_examples():
    """Else the test above would be content with none."""
    finder = doctest.DocTestFinder()
    names = "endpoint.contract.record trace workflow._workflow workflow._graph bench.laws".split()
    modules = [import_module(f"agentlab.{name}") for name in names]
    found = [test for module in modules for test in finder.find(module) if test.examples]
    assert len(found) >= 10
