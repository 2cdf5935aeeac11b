"""Settings: what the environment asks for, and what is refused."""

from __future__ import annotations

import pytest

from agentlab.endpoint.server.app import answering
from agentlab.errors import ConfigError
from agentlab.settings import OPENAI_URL, Settings, from_environment, key_from


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


@pytest.mark.parametrize(
    ("variable", "value", "values"),
    [("AGENTLAB_LOCAL", "maybe", "0 or 1"), ("AGENTLAB_LANGUAGE", "fr", "en or ko")],
)
def test_a_variable_with_a_value_of_its_own_is_refused(variable, value, values):
    """Whatever reads the settings says so when it starts; blanks around a value are none."""
    with pytest.raises(ConfigError, match=rf"{variable} is '{value}'; set it to {values}"):
        from_environment({variable: value})
    assert from_environment({variable: f" {values[:2]} "}).upstream is None


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
    with pytest.raises(ConfigError, match=r"time_scal: .* no such field; did you mean `time_sc"):
        from_environment({}, time_scal=1)


def test_the_way_out_names_every_setting():
    """Those that no variable of the environment sets are among them."""
    with pytest.raises(ConfigError) as error:
        from_environment({}, slots=3)
    assert all(field in str(error.value) for field in Settings.__dataclass_fields__)


# The key

SECRET = "sk-Zq7vPm2Lr9Xt4Wy8"


@pytest.mark.parametrize(
    "typed",
    [SECRET, f"{SECRET}\n", f" {SECRET}\t", f"\r\n{SECRET}\r\n", f"\xa0{SECRET}\u3000"],
)
def test_what_is_around_a_key_is_no_part_of_it(typed: str):
    """White space of any kind."""
    assert key_from({"OPENAI_API_KEY": typed}) == SECRET


@pytest.mark.parametrize("typed", ["", " ", "\n", "\xa0 \n"])
def test_nothing_but_white_space_is_no_key(typed: str):
    """So the local model answers."""
    assert key_from({"OPENAI_API_KEY": typed}) is None
    assert from_environment({"OPENAI_API_KEY": typed}).upstream is None


NO_KEYS = [
    (f'"{SECRET}"', "quotes"),
    (f"'{SECRET}", "quotes"),
    (f"{SECRET[:6]}\n{SECRET[6:]}", "line break"),
    (f"{SECRET[:6]}\t{SECRET[6:]}", "control character"),
    (f"{SECRET}\x00", "control character"),
    (f"{SECRET}\udcff", "control character"),
    ("\u2022" * 12, "middle hidden"),
    ("*" * 12, "middle hidden"),
    (f"{SECRET[:6]}...{SECRET[-4:]}", "middle hidden"),
    (f"{SECRET[:6]}\u2026{SECRET[-4:]}", "middle hidden"),
    (f"Bearer {SECRET}", "Bearer"),
    (f"Authorization: Bearer {SECRET}", "Bearer"),
    (f"export OPENAI_API_KEY={SECRET}", "set it to the key alone"),
    (f'$env:OPENAI_API_KEY = "{SECRET}"', "set it to the key alone"),
    *[
        (placeholder, "placeholder")
        for placeholder in (
            "...", "sk-...", "your-key-here", "YOUR_API_KEY", "sk-your-key", "<your key>",
            "insert_your_api_key_here", "{{ key }}", "$OPENAI_API_KEY", "%OPENAI_API_KEY%",
            "sk-xxxxxxxx", "xxx", "sk-proj-xxxx-xxxx",
        )
    ],
]  # fmt: skip
NO_REAL_KEYS = [
    ("Zq7vPm 2Lr9Xt4Wy8", "a blank or a letter outside of ASCII"),
    ("김민준", "a blank or a letter outside of ASCII"),
    ("Zq7v\u200bPm2Lr9Xt4Wy8", "a blank or a letter outside of ASCII"),
]


def refusal(typed: str, **options: bool) -> str:
    with pytest.raises(ConfigError) as error:
        key_from({"OPENAI_API_KEY": typed}, **options)
    said = str(error.value)
    assert said.startswith("OPENAI_API_KEY ")
    assert "; " in said
    assert not any(SECRET[n : n + 4] in said for n in range(len(SECRET) - 3))
    return said


@pytest.mark.parametrize(("typed", "wrong"), NO_KEYS + NO_REAL_KEYS)
def test_what_can_be_no_key_is_refused(typed: str, wrong: str):
    """The variable, what is wrong and the way out are named, and no part of the key is."""
    assert wrong in refusal(typed)
    with pytest.raises(ConfigError, match=wrong):
        from_environment({"OPENAI_API_KEY": typed})


@pytest.mark.parametrize(("typed", "wrong"), NO_KEYS)
def test_what_can_be_no_key_is_no_learners_name_either(typed: str, wrong: str):
    """So an address other than OpenAI's changes nothing."""
    assert wrong in refusal(typed, learner=True)
    with pytest.raises(ConfigError, match=wrong):
        from_environment({"OPENAI_API_KEY": typed, "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"})


@pytest.mark.parametrize("name", ["김민준", "Ada Lovelace", "O'Brien", "José", "अदिति", "ada-2"])
def test_a_name_is_a_key_where_a_class_may_answer(name: str):
    """In any language."""
    assert key_from({"OPENAI_API_KEY": f"{name}\n"}, learner=True) == name
    from_environment({"OPENAI_API_KEY": name, "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"})


@pytest.mark.parametrize(
    "key",
    ["k", "sk-x", "EMPTY", "none", "ollama", "lm-studio", "not-needed", "token-abc123", "a" * 164,
     "sk-proj-A_b-9", "eyJhbGciOiJ.eyJzdWIi.c2ln", "0123456789abcdef0123456789abcdef", "a+b/c=="],
)  # fmt: skip
def test_whatever_may_be_a_key_is_one(key: str):
    """Providers differ, and local servers take any word."""
    assert key_from({"OPENAI_API_KEY": key}) == key


def test_a_key_that_is_not_used_is_not_looked_at():
    """The local model needs none."""
    assert from_environment({"OPENAI_API_KEY": "...", "AGENTLAB_LOCAL": "1"}).upstream is None
    assert from_environment({"OPENAI_API_KEY": "..."}, upstream=None).upstream is None


def test_the_endpoint_sends_the_key_without_what_is_around_it(monkeypatch):
    """Where it forwards, and where it would send what can be none."""
    monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET}\n")
    assert answering(Settings(upstream=OPENAI_URL), None)._key == SECRET
    monkeypatch.setenv("OPENAI_API_KEY", f"Bearer {SECRET}")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        answering(Settings(upstream=OPENAI_URL), None)


# The address and the model


@pytest.mark.parametrize(
    ("typed", "upstream"),
    [
        (" https://api.openai.com/v1\n", OPENAI_URL),
        ("https://api.openai.com/v1///", OPENAI_URL),
        ("HTTPS://api.openai.com/v1", OPENAI_URL),
        ("'https://api.openai.com/v1/'", OPENAI_URL),
        ("http://localhost:11434", "http://localhost:11434"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("https://api.deepseek.com", "https://api.deepseek.com"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
        ("https://x.googleapis.com/v1beta/openai/", "https://x.googleapis.com/v1beta/openai"),
        ("https://h/completions-proxy/v1", "https://h/completions-proxy/v1"),
        (" \n", None),
        ('""', None),
    ],
)
def test_what_is_around_an_address_is_no_part_of_it(typed: str, upstream: str | None):
    """White space, quotes, and slashes at its end."""
    assert from_environment({"OPENAI_BASE_URL": typed}).upstream == upstream


@pytest.mark.parametrize(
    ("typed", "wrong"),
    [
        ("localhost:11434/v1", "http://"),
        ("api.openai.com/v1", "https://"),
        ("http:/localhost:1/v1", "http://"),
        ("https://h/v1/chat/completions", "/chat/completions"),
        ("https://h/v1/completions/", "/completions"),
        ("https://h/v1/models", "/models"),
        ("https://h/openai/deployments/d/chat/completions?api-version=2024-10-21", "a query in it"),
        ("https://h/v1?hidden=hidden", "a query in it"),
        ("https://h/v1#hidden", "a query in it"),
        ("https://me:hidden@h:8443/v1", "a password"),
        ("https://me:hid/den?hidden@h/v1", "http://"),
    ],
)
def test_an_address_that_cannot_work_is_refused_with_the_way_out(typed: str, wrong: str):
    """What is wrong and how an address looks; nothing that may be secret is repeated."""
    with pytest.raises(ConfigError) as error:
        from_environment({"OPENAI_BASE_URL": typed})
    said = str(error.value)
    assert said.startswith("OPENAI_BASE_URL")
    assert wrong in said
    assert said.endswith("; set it to an address such as http://localhost:11434/v1")
    assert "hid" not in said


@pytest.mark.parametrize(
    "typed",
    ["sk-hidden", "sk-hidden.hidden", "eyJhidden.hidden.hidden", "hidden", "ftp://hidden.com",
     "htps://hidden/v1", "http://", "http:///hidden", "http://hidden:port/v1", "http://hidden:99999",
     "http://[hidden/v1", "http://<hidden>/v1", "http://$HIDDEN/hidden", "http://hid den/v1",
     "http://hidden/v1 OPENAI_API_KEY=hidden", "$HIDDEN"],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_repeating_it(typed: str):
    """It may be the key, set to the wrong variable."""
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL") as error:
        from_environment({"OPENAI_BASE_URL": typed})
    assert "hid" not in str(error.value).lower()


def test_an_address_that_is_passed_is_checked_like_one_that_is_set():
    """By `configure`, for example."""
    with pytest.raises(ConfigError, match="ends in /chat/completions"):
        from_environment({}, upstream="http://localhost:1/v1/chat/completions")


def test_what_is_around_a_models_name_is_no_part_of_it():
    """White space and quotes."""
    assert from_environment({"OPENAI_MODEL": ' "qwen3:8b"\n'}).model == "qwen3:8b"


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
    says = r"leave_out.*should be ('temperature', 'top_p'|a valid list)"
    with pytest.raises(ConfigError, match=says):
        from_environment({}, leave_out=said)
