"""LangChain's standard tests of a chat model: `langchain_suite.py`, whole."""

import os

import langchain_suite
import pytest
from cells import cell

PLUGINS = ["asyncio", "benchmark", "codspeed", "socket", "recording", "syrupy", "cacheprovider"]
OPTIONS = ["-q", "--noconftest", "-c", os.devnull, *(f"-pno:{plugin}" for plugin in PLUGINS)]


class Told:
    """The tests that failed, and how many passed."""

    def __init__(self):
        self.failed, self.passed = [], 0

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid.partition("::")[2])
        self.passed += report.when == "call" and report.passed


@cell("standard tests")
def _():
    told = Told()
    pytest.main([*OPTIONS, langchain_suite.__file__], plugins=[told])
    assert told.passed, "no test ran"
    assert not told.failed, f"{', '.join(told.failed)} fail; {told.passed} pass"
