"""Settings: what the environment asks for, and what is refused."""

from __future__ import annotations

import pytest

from agentlab.errors import ConfigError
from agentlab.settings import OPENAI_URL, Settings, from_environment


def test_an_empty_environment_means_the_local_model():
    """No variable, no upstream: the course preset at ten times real speed."""
    assert from_environment({}) == Settings(preset="course", time_scale=10, seed=7, upstream=None)


def test_variables_are_read_as_numbers():
    """Text from the environment becomes the field's type."""
    chosen = from_environment({"AGENTLAB_TIME_SCALE": "2.5", "AGENTLAB_SEED": "11"})
    assert (chosen.time_scale, chosen.seed) == (2.5, 11)


def test_an_argument_wins_over_the_environment():
    """What the notebook says counts."""
    assert from_environment({"AGENTLAB_SEED": "11"}, seed=3).seed == 3


def test_a_key_alone_leads_to_openai():
    """As in OpenAI's own client."""
    assert from_environment({"OPENAI_API_KEY": "k"}).upstream == OPENAI_URL


def test_a_base_url_is_the_upstream():
    """With or without a key."""
    url = "http://127.0.0.1:11434/v1"
    assert from_environment({"OPENAI_BASE_URL": url}).upstream == url


def test_the_local_model_can_be_kept_although_a_key_is_set():
    """AGENTLAB_LOCAL=1, for a lesson that is to cost nothing."""
    assert from_environment({"OPENAI_API_KEY": "k", "AGENTLAB_LOCAL": "1"}).upstream is None


def test_the_key_is_no_setting():
    """It is not held, so it cannot be shown."""
    assert "secret-key" not in repr(from_environment({"OPENAI_API_KEY": "secret-key"}))


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"AGENTLAB_TIME_SCALE": "0"}, ["time_scale", "'0'", "AGENTLAB_TIME_SCALE"]),
        ({"AGENTLAB_TIME_SCALE": "nan"}, ["time_scale", "'nan'"]),
        ({"AGENTLAB_SEED": "seven"}, ["seed", "'seven'", "AGENTLAB_SEED"]),
        ({"OPENAI_BASE_URL": "127.0.0.1:8000"}, ["upstream", "OPENAI_BASE_URL"]),
    ],
)
def test_a_bad_value_is_named_with_its_way_out(environ: dict[str, str], words: list[str]):
    """What, the value, and the variable to set."""
    with pytest.raises(ConfigError) as error:
        from_environment(environ)
    assert all(word in str(error.value) for word in words)


def test_an_unknown_setting_is_refused():
    """A typing error does not pass in silence."""
    with pytest.raises(ConfigError, match="time_scal`; choose from preset, time_scale"):
        from_environment({}, time_scal=1)


def test_the_way_out_names_every_setting():
    """Those that no variable of the environment sets are among them."""
    with pytest.raises(ConfigError) as error:
        from_environment({}, slots=3)
    assert all(field in str(error.value) for field in Settings.__struct_fields__)


@pytest.mark.parametrize("said", ["temperature, max_tokens", ["temperature", "max_tokens"]])
def test_parameters_to_leave_out_are_a_list_or_a_line(said: object):
    """In the environment, or in the notebook."""
    expected = ["temperature", "max_tokens"]
    assert from_environment({}, leave_out=said).leave_out == expected
    if isinstance(said, str):
        assert from_environment({"AGENTLAB_LEAVE_OUT": said}).leave_out == expected


@pytest.mark.parametrize("said", ["messages", "temperature,,seed", ["model"], 7])
def test_what_cannot_be_left_out_is_refused(said: object):
    """The error names the value, and what can."""
    with pytest.raises(ConfigError, match="what can be left out is temperature, top_p"):
        from_environment({}, leave_out=said)
