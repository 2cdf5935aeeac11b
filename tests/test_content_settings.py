"""The content system's settings, from wherever they come."""

from __future__ import annotations

import pytest

from agentlab.content import Settings
from agentlab.errors import ConfigError, FileError


def test_the_nearest_wins(tmp_path, monkeypatch):
    """An argument over the environment over a file over the default."""
    file = tmp_path / "content.yaml"
    file.write_text("max_concurrent_agents: 7\nretry_attempts: 7\ntimeout_seconds: 7\n")
    monkeypatch.setenv("AGENTLAB_CONTENT_RETRY_ATTEMPTS", "8")
    monkeypatch.setenv("AGENTLAB_CONTENT_TIMEOUT_SECONDS", "8")
    read = Settings.load(file, timeout_seconds=9)
    assert (read.max_concurrent_agents, read.retry_attempts, read.timeout_seconds) == (7, 8, 9)
    assert read.max_memory_mb == 1024


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_concurrent_agents": 0}, "max_concurrent_agents: .*greater than 0; got 0"),
        ({"timeout_seconds": "soon"}, "timeout_seconds: .*number.*got 'soon'"),
        ({"engine": "autogen"}, "engine: .*'sequential', 'asyncio' or 'langgraph'"),
        ({"retries": 3}, "retries: there is no such field; choose from max_concurrent_agents"),
    ],
)
def test_a_wrong_one_is_named(given, words):
    """The setting, the value, and the way out."""
    with pytest.raises(ConfigError, match=words):
        Settings(**given)


def test_a_wrong_one_in_the_environment_names_its_variable(monkeypatch):
    """So that it can be found."""
    monkeypatch.setenv("AGENTLAB_CONTENT_MAX_MEMORY_MB", "-5")
    with pytest.raises(ConfigError, match="AGENTLAB_CONTENT_MAX_MEMORY_MB"):
        Settings()


@pytest.mark.parametrize("text", ["retries: 3\n", "a: [\n", "- 1\n"])
def test_a_wrong_file_is_named(tmp_path, text):
    """Its path stands in the error."""
    file = tmp_path / "content.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"content\.yaml"):
        Settings.load(file)


def test_a_wrong_value_in_a_file_is_found_where_it_stands(tmp_path):
    """With line and column, as in every other file."""
    file = tmp_path / "content.yaml"
    file.write_text("engine: asyncio\nretry_attempts: none\nprices: 3\n")
    with pytest.raises(FileError) as refused:
        Settings.load(file)
    assert [problem[:3] for problem in refused.value.problems] == [
        (2, 17, "retry_attempts"),
        (3, 1, "prices"),
    ]


def test_there_must_be_a_file(tmp_path):
    """A missing one is no empty one."""
    with pytest.raises(ConfigError, match="settings file"):
        Settings.load(tmp_path / "none.yaml")
